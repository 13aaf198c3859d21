"""A stage small enough to train in a moment, and a program that trains it: for tests that need processes.

    python tests/support/toy_training.py RUN [name=value ...] [stop=STEP] [pause=SECONDS]

`stop`: the last process gets a Ctrl-C while it computes that step. `pause`: each step takes that long, at least.
"""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketprior.core.training.data.photos import Pool, TrainingData, gather, planar
from pocketprior.core.training.loop.loop import SavedStep, train
from pocketprior.core.training.loop.recipe import Recipe
from pocketprior.core.training.loop.stage import Arrays, Validation

RECIPE = Recipe(steps=12, batch=8, crop=16, rate=1e-3, warmup=3, save_every=4, precision="fp32", ema=0.9)


@dataclass(frozen=True)
class ToyConfig:
    """Of a `Toy`."""

    width: int = 6


class Toy(nn.Module):
    """Two learnt parts, one frozen part, one buffer."""

    scale: Tensor

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, config.width, 3, padding=1), nn.ReLU())
        self.second = nn.Conv2d(config.width, 3, 3, padding=1)
        self.fixed = nn.Conv2d(3, 3, 1)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.second(self.first(self.fixed(x)))


class ToyStage:
    """Learns to take noise away."""

    kind = "toy"

    def __init__(self, data: TrainingData, stop: int | None = None, pause: float = 0.0) -> None:
        torch.manual_seed(3)
        self.config = ToyConfig()
        self.toy = Toy(self.config)
        self.model: nn.Module = self.toy
        self.trained = {"first": 1.0, "second": 0.5}
        self.frozen = nn.ModuleList([nn.Dropout(0.5)])
        self.val = torch.from_numpy(np.stack([planar(p[:16, :16] / np.float32(255)) for p in data.val.photos]))
        self.stop, self.pause = stop, pause
        self.losses = 0

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """clean and noise, (3, crop, crop)."""
        clean = planar(pool.crop(crop, rng).clean)
        return {"clean": clean, "noise": rng.standard_normal(clean.shape, dtype=np.float32)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """MSE and its root."""
        if self.losses == self.stop:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(self.pause)
        self.losses += 1
        restored = self.model(self.frozen[0](batch["clean"] + 0.2 * batch["noise"]))
        error = F.mse_loss(restored.float(), batch["clean"])
        return {"loss": error, "content": F.l1_loss(restored.float(), batch["clean"])}

    def validate(self, model: nn.Module) -> Validation:
        """MSE of clean pictures, which should stay as they are."""
        restored = model(self.val)
        return Validation({"val_error": float(F.mse_loss(restored, self.val))}, {"restored": restored[0]})

    def facts(self) -> dict[str, Any]:
        """One."""
        return {"colour": "red"}


def toy_data() -> TrainingData:
    """Two smooth pictures."""
    y, x = np.mgrid[:24, :30, :1][:2]
    photos = [np.broadcast_to(levels, (24, 30, 3)).astype(np.uint8) for levels in (8 * x, 240 - 4 * (x + y))]
    pool = gather(photos, minimum=16, side=0, structures=False)
    return TrainingData(pool, pool)


def train_toy(run: Path, recipe: Recipe = RECIPE, **options: Any) -> list[SavedStep]:
    """Train until the end, in this process; options are those of `ToyStage`."""
    data = toy_data()
    return list(train(ToyStage(data, **options), data, recipe, run, workers=0))


def record(run: Path) -> dict[str, Any]:
    """All that two runs over the same path must share bit for bit: what `run` holds, without the hours."""
    files = {name: (run / name).read_bytes() for name in ("model.safetensors", "recipe.toml", "inputs.json")}
    state = safetensors.torch.load_file(run / "resume.safetensors")
    state["seconds"].zero_()
    with (run / "log.csv").open(newline="") as file:
        log = [{**row, "hours": ""} for row in csv.DictReader(file)]
    return {**files, "state": safetensors.torch.save(state), "log": log}


def main(arguments: list[str]) -> None:
    """Train with workers, as the command does."""
    own = {
        name: float(text) for name, _, text in (a.partition("=") for a in arguments[1:]) if name in ("stop", "pause")
    }
    recipe = RECIPE.with_settings([a for a in arguments[1:] if a.partition("=")[0] not in own])
    last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
    stop = int(own["stop"]) if "stop" in own and last else None
    data = toy_data()
    stage = ToyStage(data, stop, own.get("pause", 0.0))
    for _ in train(stage, data, recipe, Path(arguments[0])):
        print(type(next(stage.toy.parameters())).__name__, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
