"""A training run, with `pocketprior train`: whether a stage trains on this device, and how fast."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial

from pocketprior.core.cli import main as pocketprior

from .results import Item, Row, Setup

__all__ = ["items"]

# Of a dry run. Otherwise the stage trains by its own recipe.
TRIAL = ("steps=2", "save_every=2", "batch=2", "crop=32", "precision=fp32", "model.widths=8,8", "model.attention=")


def items(setup: Setup) -> Iterator[Item]:
    """List the one run."""
    yield Item(setup.stage, partial(_train, setup))


def _train(setup: Setup) -> Iterator[Row]:
    system, _, stage = setup.stage.partition(":")
    run = setup.out / "run"
    trial = [option for setting in TRIAL for option in ("--set", setting)] if setup.dry_run else []
    where = ["--data", setup.photos, "--val", setup.photos, "--out", run, "--minutes", setup.minutes]
    status = pocketprior(["train", system, stage, *map(str, where), *trial])
    if status:
        raise RuntimeError(f"training {setup.stage} ended with exit status {status}; see above")
    if not (run / "log.csv").exists():
        raise RuntimeError(f"{setup.minutes:g} minutes end before the first save; give more with --minutes")
    with (run / "log.csv").open() as file:
        *_, last = ({name: float(value) for name, value in row.items()} for row in csv.DictReader(file))
    yield {"stage": setup.stage, **last, "mpx/s": last["mpx"] / (3600 * last["hours"])}
