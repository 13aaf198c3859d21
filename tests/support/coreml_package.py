"""A small graph as a Core ML package: convolutions, a linear layer, angles, a sum over the picture."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pocketprior.core.pack.systems import ArraySpec
from pocketprior.export.systems.source import ModelGraph, traced
from pocketprior.export.targets import GraphToWrite
from pocketprior.export.targets.coreml.convert import convert_coreml
from pocketprior.export.targets.coreml.coreml_package import CoremlPackage

MULTIPLE = 4
PICTURE = ArraySpec("float32", (1, 3, "h", "w"))


class Network(nn.Module):
    """x (1, 3, h, w), t (1) -> restored (1, 3, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.film = nn.Linear(16, 16)
        self.last = nn.Conv2d(16, 3, 1)
        self.angles = nn.Buffer(torch.arange(1, 9) * 111.0)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * self.angles
        told = self.film(torch.cat([angles.sin(), angles.cos()], dim=1))[..., None, None]
        features = self.second(torch.relu(self.first(x)) + told)
        features = features + self.depth(features)
        length = torch.linalg.vector_norm(features, dim=(2, 3), keepdim=True)
        return self.last(features / length.clamp_min(1e-12) * 16)


class Made(NamedTuple):
    graph: ModelGraph
    folder: Path

    @property
    def package(self) -> CoremlPackage:
        return CoremlPackage.read(self.folder)

    def inputs(self, height: int = 24, width: int = 20, seed: int = 0) -> dict[str, NDArray[np.float32]]:
        return {name: array.numpy() for name, array in self.graph.example(height, width, seed).items()}

    def truth(self, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        module = self.graph.module.double()
        with torch.no_grad():
            answer = module(*(torch.from_numpy(array).double() for array in inputs.values())).numpy()
        module.float()
        return answer


def make(folder: Path) -> Made:
    """The package in `folder`; always the same weights."""
    torch.manual_seed(0)
    graph = ModelGraph(Network().eval(), {"x": PICTURE, "t": ArraySpec("float32", (1,))}, {"restored": PICTURE})
    job = GraphToWrite("small", graph, traced(graph, MULTIPLE), MULTIPLE, None, {"answer": "42"}, "iOS17")
    convert_coreml(job, folder)
    return Made(graph, folder)
