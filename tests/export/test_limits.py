"""Each threshold of this layer with a planted breach of it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pocketprior.core.errors import GraphError, UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.pack.store import packed_file, read_arrays, write_arrays
from pocketprior.core.restore.selftest import verify
from pocketprior.core.sampling.schedule import cosine, trailing
from pocketprior.export import limits
from pocketprior.export.bench.candidates import overlap_needed
from pocketprior.export.quantization import api
from pocketprior.export.quantization import search as searching
from pocketprior.export.quantization.pack_quality import FloatResults, PackQuality, mean_square
from pocketprior.export.quantization.search import Measurements, search
from pocketprior.export.systems.dtpm import Sampling, dtpm_graphs
from pocketprior.export.targets.calibration import FloatPack
from pocketprior.export.writer.golden_restoration import _check_close, settle
from support.small_models import small_encoder, small_model


@pytest.mark.parametrize(("labels", "slack"), [({"fp32"}, limits.FLOAT_SLACK), ({"w4"}, limits.COARSE_SLACK)])
def test_restorations_that_differ_by_more_than_their_precision_explains(labels: set[str], slack: int) -> None:
    _check_close("onnx", labels, slack)
    with pytest.raises(GraphError, match=f"{slack + 1} grey levels from PyTorch, at most {slack} are allowed"):
        _check_close("onnx", labels, slack + 1)


def test_a_pack_whose_quantized_weights_are_lost_is_refused(built_pack: Path, tmp_path: Path) -> None:
    """The golden restoration is inverted: what a graph that has lost its weights cannot come near."""
    folder = Path(shutil.copytree(built_pack, tmp_path / "pack"))
    manifest = _inverted(folder)
    runs = dict.fromkeys(manifest.precision["onnx"], "w4")
    graphs = {
        name: dataclasses.replace(spec, files={"onnx": {"w4": spec.files["onnx"]["fp32"]}})
        for name, spec in manifest.graphs.items()
    }
    with pytest.raises(GraphError, match="choose finer precisions"):
        settle(folder, dataclasses.replace(manifest, graphs=graphs, precision={"onnx": runs}), {})


@pytest.mark.parametrize(("beyond", "ok"), [(0, True), (1, False)])
def test_another_processor_may_round_differently_by_so_much(
    built_pack: Path, tmp_path: Path, beyond: int, ok: bool
) -> None:
    folder = Path(shutil.copytree(built_pack, tmp_path / "pack"))
    settle(folder, Manifest.load(folder), {})
    report = verify(folder)
    found = max(check.difference for check in report.goldens)
    moved = found + limits.ROUNDING_SLACK + beyond
    checks = tuple(dataclasses.replace(check, difference=moved) for check in report.goldens)
    assert dataclasses.replace(report, goldens=checks).ok is ok


def _inverted(folder: Path) -> Manifest:
    """The manifest in `folder`, whose golden results are inverted."""
    manifest, golden = Manifest.load(folder), {}
    for name, entry in manifest.golden.items():
        arrays = read_arrays(folder / entry.file.file)
        write_arrays(folder / entry.file.file, {**arrays, "restored": 255 - arrays["restored"]})
        golden[name] = dataclasses.replace(entry, file=packed_file(folder, entry.file.file))
    manifest = dataclasses.replace(manifest, golden=golden)
    manifest.save(folder)
    return manifest


@pytest.mark.parametrize(("steps", "fused"), [(limits.FUSED_STEPS, True), (limits.FUSED_STEPS + 1, False)])
def test_more_steps_are_not_fused(steps: int, fused: bool) -> None:
    levels, times = trailing(steps, cosine())
    graphs = dtpm_graphs(small_model(), small_encoder(), Sampling(tuple(levels), tuple(times), 0.5))
    assert ("fused" in graphs) is fused


@pytest.mark.parametrize(("below", "problem"), [(0.0, False), (0.01, True)])
def test_a_pack_below_the_budget_is_not_written(below: float, problem: bool) -> None:
    options = api.QuantizeOptions()
    row = PackQuality("w4", "onnxruntime", 1, limits.QUANTIZED_DB - below, 50, 30, 0.9, None)
    assert options.budget_db == limits.QUANTIZED_DB
    assert bool(api._problem(options, [row])) is problem


@pytest.mark.parametrize(("over", "kept"), [(0.01, True), (-0.01, False)])
def test_a_plan_keeps_the_margin_and_is_looked_for_so_many_times(
    opened: FloatPack,
    truth: FloatResults,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    over: float,
    kept: bool,
) -> None:
    """Whatever the plan, the worst photo has the same PSNR, just over or under what the search asks for."""
    rounds: list[float] = []

    def together(*_: object) -> list[float]:
        rounds.append(0)
        return [mean_square(40 + limits.MARGIN_DB + over)] * len(truth.photos)

    def solve(*_: object) -> dict[str, str]:
        layers = [layer.name for layer in opened.layers]
        return {**dict.fromkeys(layers, "w8"), layers[0]: ("w8", "fp16")[len(rounds) % 2]}  # never the same twice

    monkeypatch.setattr(searching, "together", together)
    monkeypatch.setattr(searching, "solve", solve)
    plan, _ = search(opened, truth, truth, 40, "size", Measurements(tmp_path / "m", "x"))
    assert (plan is not None) is kept
    assert len(rounds) == limits.SEARCH_ROUNDS


@pytest.mark.parametrize("count", [limits.LEAST_PHOTOS - 1, limits.LEAST_PHOTOS])
def test_each_group_needs_a_photo(tmp_path: Path, count: int) -> None:
    for number in range(count):
        Image.effect_noise((32, 32), 40).convert("RGB").save(tmp_path / f"{number}.png")
    if count < limits.LEAST_PHOTOS:
        with pytest.raises(UsageError, match="expected at least 3"):
            api._groups(tmp_path, "cleanup", api.QuantizeOptions())
    else:
        assert all(len(group) == 1 for group in api._groups(tmp_path, "cleanup", api.QuantizeOptions()))


@pytest.mark.parametrize(("share", "overlap"), [(0.5, 8), (2.0, limits.LARGEST_OVERLAP)])
def test_the_overlap_grows_until_tiles_do_not_show(share: float, overlap: int) -> None:
    """A network whose result on a tile is off by a share of what is allowed, however large the overlap."""

    def run(feed: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        off = 0.0 if feed[0].shape[2] == 320 else share * limits.GREY_LEVEL / 255
        return np.full_like(feed[0], off)

    found, error = overlap_needed(run, [np.zeros((320, 320, 3), np.uint8)], 1)
    assert found == overlap
    assert error == pytest.approx(share * limits.GREY_LEVEL)
