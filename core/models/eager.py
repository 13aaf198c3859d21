"""A PyTorch module behind the same one-method protocol as a runtime's graph: the reference of every parity check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..restore.restorer import Graph

__all__ = ["eager"]


def eager(module: nn.Module, inputs: Sequence[str], *outputs: str) -> Graph:
    """Run `module` on float32 arrays: `forward` takes `inputs` by name and gives a tensor, or a tuple of `outputs`.

    It runs where its parameters are.
    """
    place = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))

    def graph(**arrays: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(np.ascontiguousarray(arrays[name])).to(place) for name in inputs}
            result = module(**tensors)
        results = result if isinstance(result, tuple) else (result,)
        return {name: tensor.cpu().numpy() for name, tensor in zip(outputs, results, strict=True)}

    return graph
