"""`scripts/gpu --pack`: lays out the folder of `carried`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from safetensors import safe_open

from ...core.errors import UsageError
from ...core.photo.listing import released_photos
from ...core.training.loop.resume import STATE_NAME
from ...core.training.stages import find_stage
from . import crops
from .carried import FORMAT, NAME, RUN, TRAIN, VAL, Packed, hashes

__all__ = ["LIMIT", "pack"]

LIMIT = 34 * 2**20  # bytes of the folder: beside the clone, what may be carried to a lent machine
VAL_SHARE = 0.2  # of the room for squares, at most, that held-back ones take


def pack(
    folder: Path,
    *,
    run: Path,
    stage: tuple[str, str],
    data: Path,
    settings: Sequence[str] = (),
    earlier: Mapping[str, Path],
    limit: int = LIMIT,
) -> Packed:
    """Fill `folder`, replacing what an earlier call left there.

    run: folder of a run of `stage`, (system, stage), whose recipe `settings` (name=value) change. data: photos, as
    training takes them. earlier: the checkpoints that the stage starts from, by kind. limit: bytes in all. Raises
    UsageError for a run that has nothing left to do, or that does not fit.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / NAME).exists():
        raise UsageError(f"{folder} holds something that was not packed; give an empty folder with --carry")
    kinds = find_stage(*stage).earlier
    if set(earlier) != set(kinds):
        wanted = ", ".join(kinds) or "no earlier checkpoint"
        raise UsageError(f"the stage {':'.join(stage)} starts from {wanted}; give each with --earlier KIND=FILE")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        for kind, path in earlier.items():
            shutil.copyfile(path, draft / f"{kind}.safetensors")
        _write_run(draft / RUN, run, stage, settings)
        squares = _write_squares(draft, data, limit)
        _write_inputs(draft, kinds)
        files = {kind: f"{kind}.safetensors" for kind in kinds}
        packed = Packed(FORMAT, run.name, *stage, files, squares, hashes(draft))
        (draft / NAME).write_text(json.dumps(asdict(packed), indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        shutil.move(draft, folder)
    return packed


def _write_run(folder: Path, run: Path, stage: tuple[str, str], settings: Sequence[str]) -> None:
    folder.mkdir()
    recipe = type(find_stage(*stage).load().recipe).load(run / "recipe.toml").with_settings(settings)
    recipe.save(folder / "recipe.toml")
    if not (run / STATE_NAME).exists():
        return
    with safe_open(run / STATE_NAME, "pt") as file:
        done = int(file.get_tensor("done"))
    if done >= recipe.steps:
        raise UsageError(f"{run} has done its {done} steps; give it more with --set steps=NUMBER")
    for name in (STATE_NAME, "log.csv"):
        shutil.copyfile(run / name, folder / name)


def _write_squares(draft: Path, data: Path, limit: int) -> dict[str, int]:
    room = limit - sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    if room <= 0:
        raise UsageError(f"the run alone takes more than the {limit / 2**20:.0f} MiB that may be carried")
    held_back = crops.write(draft / VAL, crops.centres(released_photos(data, split="val")), int(VAL_SHARE * room))
    room -= (draft / VAL).stat().st_size
    count = crops.write(draft / TRAIN, crops.squares(released_photos(data, split="train")), room)
    if not (count and held_back):
        raise UsageError(f"no photo of {data} has {crops.SIDE} x {crops.SIDE} pixels; give larger ones")
    return {TRAIN: count, VAL: held_back}


def _write_inputs(draft: Path, kinds: Sequence[str]) -> None:
    """As `core/training/loop/resume.py` keeps them: the run goes on from other data, and says so."""
    paths = {"data": draft / TRAIN, "val": draft / VAL} | {kind: draft / f"{kind}.safetensors" for kind in kinds}
    inputs = {name: sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
    (draft / RUN / "inputs.json").write_text(json.dumps(inputs, indent=2, sort_keys=True) + "\n", encoding="utf-8")
