"""What a run says of a pack that holds, and of what it could not measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.arrays import Array
from pocketprior.core.pack.manifest import LimitOverride, Manifest
from pocketprior.core.restore.reference import ParityReference, ReferenceCase, ReferenceWriter, load
from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from pocketprior.runtimes.parity.findings import ORDER, ParityReport
from pocketprior.runtimes.parity.images import ImageSet, budget, task_source
from support.references import accused

Known = tuple[Path, Path]


def run(known: Known, **options: object) -> ParityReport:
    return compare(known[0], CompareOptions(against=known[1], threads=1, **options))  # type: ignore[arg-type]


def test_every_stage_is_told_of(kept: Known) -> None:
    report = run(kept)
    assert tuple(source.name for source in report.sources) == ORDER
    assert all(bool(source.checks) != bool(source.reason) for source in report.sources)
    assert [s.name for s in report.sources if s.checks] == [
        *("files", "facts", "conversion", "tiling", "pipeline", "forms", "picture", "golden")
    ]
    assert report.ok
    assert report.first is None


def test_every_recorded_array_is_compared(kept: Known) -> None:
    report, recording = run(kept), load(kept[1])
    calls = [call for case in recording.about.cases for calls in case.calls.values() for call in calls]
    held = {source.name: source for source in report.sources}
    different = {(call.graph, *sorted(call.inputs.items())) for call in calls}
    assert len(held["conversion"].checks) == len(different)
    inputs = sum(len(call.inputs) for call in calls)
    pictures = sum(len(case.pictures) for case in recording.about.cases)
    assert len(held["pipeline"].checks) == inputs + pictures
    assert len(held["picture"].checks) == pictures


def test_another_runtime(kept: Known) -> None:
    report = run(kept, runtime="openvino")
    assert report.ok, accused(report)
    assert [source.name for source in report.sources if source.name == "runtime" and source.checks]
    assert report.budget is not None
    assert list(report.budget.sources) == ["pipeline", "conversion", "runtime"]
    squares = sum(levels**2 for levels in report.budget.sources.values())
    assert squares + math.copysign(report.budget.rest**2, report.budget.rest) == pytest.approx(report.budget.total**2)


def test_without_a_recording_the_pack_is_its_own(kept: Known) -> None:
    report = compare(kept[0], CompareOptions(threads=1))
    assert report.ok
    assert report.reference == "the golden photos in fp32 onnx in onnxruntime, fp32, here (no reference was given)"
    reasons = {source.name: source.reason for source in report.sources}
    assert reasons["conversion"] == reasons["pipeline"] == "no reference was given (--against)"
    assert reasons["golden"] == ""


def test_without_a_recording_runtimes_are_compared(kept: Known) -> None:
    report = compare(kept[0], CompareOptions("openvino", threads=1))
    held = {source.name: source for source in report.sources}
    assert report.ok, accused(report)
    assert held["runtime"].checks
    assert held["picture"].checks


def test_comparing_nothing_is_a_failure(kept: Known) -> None:
    report = replace(run(kept), sources=())
    assert not report.ok
    assert report.first is None


def _change(known: Known, change: Callable[[ReferenceWriter, ParityReference, ReferenceCase], ReferenceCase]) -> None:
    """Record something more."""
    recording, writer = load(known[1]), ReferenceWriter()
    writer.arrays |= recording.arrays
    cases = tuple(change(writer, recording, case) for case in recording.about.cases)
    writer.save(known[1], replace(recording.about, cases=cases))


def _added(arrays: dict[str, Array], change: float) -> dict[str, Array]:
    return {name: array + np.float32(change) for name, array in arrays.items()}


@pytest.mark.parametrize(("added", "ok"), [(0.0, True), (1e-6, True), (1e-2, False)])
def test_fused_kernels_are_held_against_plain_pytorch(added: float, ok: bool, known: Known) -> None:
    def with_kernels(writer: ReferenceWriter, recording: ParityReference, case: ReferenceCase) -> ReferenceCase:
        calls = tuple(
            replace(call, kernels=writer.keys(_added(recording.named(call.outputs), added)))
            for call in case.calls["split"]
        )
        return replace(case, calls={**case.calls, "split": calls})

    _change(known, with_kernels)
    report = run(known)
    assert report.ok == ok
    if not ok:
        assert accused(report).startswith("kernel: encode, call 0, code")


def test_a_teacher_is_compared_and_nothing_is_asked(known: Known) -> None:
    def taught(writer: ReferenceWriter, recording: ParityReference, case: ReferenceCase) -> ReferenceCase:
        return replace(case, teacher=writer.key(recording.arrays[case.photo] // 2))

    _change(known, taught)
    report = run(known)
    (steps,) = (source for source in report.sources if source.name == "steps")
    assert report.ok
    assert [check.found.psnr_db < 30 for check in steps.checks if check.found] == [True, True]


@pytest.mark.parametrize(("levels", "ok"), [(0, True), (700, False)])
def test_the_distance_to_clean_photos(levels: int, ok: bool, known: Known) -> None:
    """A recorded picture that is nearer to the clean photo than what is restored here."""

    def with_clean(writer: ReferenceWriter, recording: ParityReference, case: ReferenceCase) -> ReferenceCase:
        clean = recording.arrays[case.pictures["split"]].astype(np.int64) - levels
        clean[:, ::2] += 2 * levels
        return replace(case, clean=writer.key(np.clip(clean, 0, 65535).astype(np.uint16)))

    _change(known, with_clean)
    (task,) = (source for source in run(known).sources if source.name == "task")
    assert all(abs(check.change_db) < 0.01 for check in task.checks)
    recording = load(known[1])
    worse = {
        ("split", case.name): np.clip(recording.arrays[case.pictures["split"]].astype(int) + 3 * levels, 0, 65535)
        for case in recording.about.cases
    }
    spoilt = task_source(ImageSet({p: w.astype(np.uint16) for p, w in worse.items()}, {}), recording, 0.1)
    assert (not spoilt.broken) == ok


def test_a_budget_adds_up() -> None:
    """Two errors that cancel leave a rest that is negative."""
    pictures = [ImageSet({("split", "a"): np.full((2, 2, 3), level, np.uint16)}, {}) for level in (0, 257, 0)]
    found = budget([("", pictures[0]), ("one", pictures[1]), ("two", pictures[2])])
    assert found is not None
    assert found.sources == {"one": pytest.approx(1), "two": pytest.approx(1)}
    assert found.total == 0
    assert found.rest == pytest.approx(-math.sqrt(2))
    assert budget([("", pictures[0]), ("one", ImageSet({}, {("split", "a"): "failed"}))]) is None


def test_limits_of_the_pack(known: Known) -> None:
    manifest = Manifest.load(known[0])
    replace(manifest, limits={"fp32": LimitOverride("it cannot be", psnr_db=400.0)}).save(known[0])
    assert run(known, runtime="openvino").first[0].limit.reason == "it cannot be"
