"""A training run, with `pocketprior train`: whether a stage trains on this device, and how fast."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from pocketprior.core.cli import main as pocketprior

from .command import Row, Setup

# Changes to the stage's recipe: minutes must suffice for the first save, and a dry run takes a moment.
CHANGES = ("save_every=200",)
TRIAL = ("steps=2", "save_every=2", "batch=2", "crop=32", "precision=fp32", "model.widths=8,8", "model.attention=")


def items(setup: Setup) -> Iterator[tuple[str, Iterator[Row]]]:
    """List the one run."""
    yield setup.stage, _train(setup)


def _train(setup: Setup) -> Iterator[Row]:
    run = setup.out / "run"
    system, _, stage = setup.stage.partition(":")
    changes = [f"--set={change}" for change in (TRIAL if setup.dry_run else CHANGES)]
    where = ["--data", setup.photos, "--val", setup.photos, "--out", run, "--minutes", setup.minutes]
    status = pocketprior(["train", system, stage, *map(str, where), *changes])
    if status:
        raise RuntimeError(f"training {setup.stage} ended with exit status {status}; see above")
    if not (run / "log.csv").exists():
        raise RuntimeError(f"{setup.minutes:g} minutes end before the first save; give more with --minutes")
    with (run / "log.csv").open() as file:
        *_, last = ({name: float(value) for name, value in row.items()} for row in csv.DictReader(file))
    yield {"stage": setup.stage, **last, "mpx/s": last["mpx"] / (3600 * last["hours"])}
