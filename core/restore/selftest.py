"""The self-test of a pack: the hashes of its files, then its golden restorations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arrays import Image
from ..errors import PackError, PackTamperedError
from ..pack.manifest import Golden, Manifest, PackedFile
from ..pack.store import check_file, packed_file, read_arrays, write_arrays
from .restorer import GoldenSettings, Restorer

__all__ = ["FileCheck", "GoldenCheck", "VerifyReport", "file_check", "read_golden", "verify", "write_golden"]


@dataclass(frozen=True)
class FileCheck:
    """One file of the pack."""

    file: str
    problem: str  # "" for a file that is intact


@dataclass(frozen=True)
class GoldenCheck:
    """One golden restoration in one form."""

    name: str  # TASK/NAME in a pack whose tasks have graphs of their own
    form: str  # "fused" or "split"
    difference: int  # the largest, in grey levels of the photo
    tolerance: int


@dataclass(frozen=True)
class VerifyReport:
    """The result of `verify`. Without intact files nothing is restored."""

    runtime: str
    files: tuple[FileCheck, ...]
    goldens: tuple[GoldenCheck, ...]

    @property
    def ok(self) -> bool:
        """Every file is intact, and at least one restoration was compared, each within its tolerance."""
        intact = all(not check.problem for check in self.files)
        return intact and len(self.goldens) > 0 and all(c.difference <= c.tolerance for c in self.goldens)


def verify(folder: Path, runtime: str = "onnxruntime") -> VerifyReport:
    """Check the pack in `folder`; run each golden restoration of each task in every form that the pack has.

    Raises PackError where the manifest itself is wrong, GraphError where a graph fails.
    """
    manifest = Manifest.load(folder)
    files = tuple(file_check(folder, packed) for packed in manifest.files())
    if any(check.problem for check in files):
        return VerifyReport(runtime, files, ())
    goldens: list[GoldenCheck] = []
    for task in manifest.per_task():
        goldens += _goldens(folder, runtime, task, prefix=f"{task.tasks[0]}/" if manifest.further else "")
    return VerifyReport(runtime, files, tuple(goldens))


def _goldens(folder: Path, runtime: str, task: Manifest, prefix: str) -> Iterator[GoldenCheck]:
    forms = [form for form, graph in (("fused", "fused"), ("split", "denoise")) if graph in task.graphs]
    restorers = {form: Restorer.from_pack(folder, runtime, form, task=task.tasks[0]) for form in forms}
    for name, golden in task.golden.items():
        photo, expected, settings = read_golden(folder, golden)
        for form, restorer in restorers.items():
            difference = np.abs(restorer(photo, **settings).astype(np.int64) - expected.astype(np.int64)).max()
            yield GoldenCheck(f"{prefix}{name}", form, int(difference), golden.tolerance)


def write_golden(
    folder: Path, file: str, *, photo: Image, seed: int, strength: float, restored: Image, amount: float = 1.0
) -> PackedFile:
    """Write a golden restoration into the pack in `folder` and return its entry.

    photo, restored: (H, W, 3) uint8 or uint16; `restored` is the checkpoint's result for `photo`.
    """
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"photo": photo, "restored": restored, "seed": np.uint64(seed), "strength": np.float64(strength)}
    arrays |= {} if amount == 1 else {"amount": np.float64(amount)}
    write_arrays(path, {name: np.asarray(array) for name, array in arrays.items()})
    return packed_file(folder, file)


def read_golden(folder: Path, golden: Golden) -> tuple[Image, Image, GoldenSettings]:
    """The photo of a golden restoration, its result and its settings. PackError for another file.

    A file without an amount means 1.
    """
    arrays = read_arrays(folder / golden.file.file)
    expected = {"photo", "restored", "seed", "strength"}
    if set(arrays) - {"amount"} != expected:
        raise PackError(
            f"{golden.file.file} holds {sorted(arrays)}, expected {sorted(expected)} and optionally 'amount'; "
            "export the pack again"
        )
    photo, restored = arrays["photo"], arrays["restored"]
    if photo.shape != restored.shape or photo.dtype != restored.dtype:
        raise PackError(f"{golden.file.file}: photo and result differ in size or depth; export the pack again")
    amount = float(arrays.get("amount", 1.0))
    return photo, restored, GoldenSettings(seed=int(arrays["seed"]), strength=float(arrays["strength"]), amount=amount)


def file_check(folder: Path, packed: PackedFile) -> FileCheck:
    """Whether a file of the pack in `folder` is the one that was packed."""
    try:
        check_file(folder, packed)
    except PackTamperedError as error:
        return FileCheck(packed.file, str(error))
    return FileCheck(packed.file, "")
