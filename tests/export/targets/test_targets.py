"""One checkpoint for every target: each graph does what PyTorch does, and the same checkpoint gives the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketprior.core.errors import PocketPriorError, UnknownNameError, UsageError
from pocketprior.core.models.deploy.rewrite import eager
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.photo.io import read
from pocketprior.core.restore.pipeline import prepare, restore_tile, tiled_graphs
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.core.restore.tiles import Box
from pocketprior.export.systems.gen2res import Gen2ResSource
from pocketprior.export.systems.source import CheckpointSource
from pocketprior.export.targets import TARGETS, target_of
from pocketprior.export.writer.pack import PackOptions, write_pack
from pocketprior.runtimes import open_graphs
from support.small_models import PHOTOS, START, STEPS, WINDOW, save_gen2res, source_of

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "coreml": "coreml"}
MADE = ("fp32", "fp16", "int8")
LEAST = {"fp32": 110, "fp16": 55}  # dB; what int8 computes is compared exactly in the tests of each target
ROUNDING = 1e-5
SIZES = ((16, 24), (40, 8))

Packs = Callable[[str], tuple[CheckpointSource, Path]]


def write(system: str, folder: Path) -> tuple[CheckpointSource, Path]:
    source = source_of(system, folder)
    write_pack(source, folder / "pack", PHOTOS[:2], PackOptions(name="x", targets=TARGETS, precisions=MADE))
    return source, folder / "pack"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    known: dict[str, tuple[CheckpointSource, Path]] = {}

    def pack(system: str) -> tuple[CheckpointSource, Path]:
        if system not in known:
            known[system] = write(system, tmp_path_factory.mktemp(system))
        return known[system]

    return pack


def with_precision(folder: Path, target: str, precision: str) -> Manifest:
    manifest = Manifest.load(folder)
    run = {name: precision if precision in spec.files[target] else "fp32" for name, spec in manifest.graphs.items()}
    return dataclasses.replace(manifest, precision={**manifest.precision, target: run})


def decibels(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """PSNR over the range of b."""
    error = np.mean(np.square(a.astype(np.float64) - b))
    return float(10 * np.log10(np.ptp(b.astype(np.float64)) ** 2 / max(error, 1e-20)))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("system", ["dtpm", "diffir", "gen2res"])
def test_graphs_do_what_torch_does(made: Packs, system: str, target: str) -> None:
    source, folder = made(system)
    opened = source.open().graphs
    for precision in LEAST:
        graphs = open_graphs(with_precision(folder, target, precision), folder, RUNTIMES[target], threads=1)
        assert set(graphs) == set(opened)
        for name, graph in opened.items():
            reference = eager(graph.module, list(graph.inputs), *graph.outputs)
            for seed, (height, width) in enumerate(SIZES):
                inputs = {key: value.numpy() for key, value in graph.example(height, width, seed).items()}
                expected, given = reference(**inputs), graphs[name](**inputs)
                for output in graph.outputs:
                    found = decibels(given[output], expected[output])
                    assert found >= LEAST[precision], f"{target} {precision} {name} {output}: {found:.1f} dB"


@pytest.fixture(scope="module")
def deterministic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gen2Res of few steps that adds no noise on the way."""
    folder = tmp_path_factory.mktemp("ddim")
    source = Gen2ResSource(save_gen2res(folder), "ddim", START, STEPS, window=WINDOW)
    write_pack(source, folder / "pack", PHOTOS[:1], PackOptions(name="x", targets=TARGETS))
    return folder / "pack"


def first_tile(folder: Path, runtime: str, form: str, strength: float) -> NDArray[np.float32]:
    restorer = Restorer.from_pack(folder, runtime=runtime, graphs=form, threads=1)
    stages = tiled_graphs(restorer.manifest, restorer.graphs, strength, 1.0)
    photo = np.ascontiguousarray(read(PHOTOS[0]).pixels[40:80, 60:84])
    job = prepare(restorer.manifest, restorer.graphs, stages, photo, 7, strength, 1.0)
    return restore_tile(job, Box(0, *photo.shape[:1], 0, *photo.shape[1:2]))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("system", ["dtpm", "diffir", "gen2res"])
def test_fused_is_split(made: Packs, deterministic: Path, system: str, target: str) -> None:
    folder = deterministic if system == "gen2res" else made(system)[1]
    for strength in (0.3, 1.0):
        fused, split = (first_tile(folder, RUNTIMES[target], form, strength) for form in ("fused", "split"))
        assert np.abs(fused - split).max() <= ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("system", ["dtpm", "diffir", "gen2res"])
def test_packs_verify_for_every_target(made: Packs, system: str) -> None:
    _, folder = made(system)
    manifest = Manifest.load(folder)
    assert set(manifest.precision) == set(manifest.parity) == set(TARGETS)
    assert {label for run in manifest.precision.values() for label in run.values()} == {"fp32"}
    for runtime in RUNTIMES.values():
        assert verify(folder, runtime).ok


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_two_exports_are_equal_for_every_target(made: Packs, tmp_path: Path) -> None:
    assert digests(made("gen2res")[1]) == digests(write("gen2res", tmp_path)[1])


@pytest.mark.slow
def test_no_file_tells_of_the_machine(made: Packs) -> None:
    words = {str(Path.home()), str(Path(__file__).parents[3]), "site-packages", "conversion_date"} - {"/"}
    for system in ("dtpm", "diffir", "gen2res"):
        _, folder = made(system)
        for path in folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert not [word for word in (*words, str(folder.parent)) if word.encode() in content], path


@pytest.mark.slow
def test_weights_are_fewer_bytes(made: Packs) -> None:
    _, folder = made("dtpm")
    sizes = {
        precision: sum(path.stat().st_size for path in folder.glob(f"*.{precision}.mlpackage/Data/*/weights/*"))
        for precision in MADE
    }
    assert sizes["fp16"] < 0.75 * sizes["fp32"]  # what is small is padded to 64 bytes
    assert sizes["int8"] < 0.8 * sizes["fp32"]


@pytest.mark.parametrize(
    ("targets", "precisions", "error", "words"),
    [
        (["coreml", "tflite"], ["fp32"], UnknownNameError, "target 'tflite'.* onnx, openvino, coreml"),
        (["onnx"], ["fp32", "w8+fp16"], UnknownNameError, r"precision of onnx 'w8\+fp16'.* fp32, fp16, w8, w4, int8"),
        (["onnx", "onnx"], ["fp32"], UsageError, "each once"),
        (["onnx"], [], UsageError, "name one or more"),
    ],
)
def test_what_a_target_cannot_have(
    tmp_path: Path, targets: list[str], precisions: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        write_pack(
            source_of("gen2res", tmp_path),
            tmp_path / "p",
            PHOTOS,
            PackOptions(name="x", targets=targets, precisions=precisions),
        )
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("system", "targets", "precision", "words"),
    [
        ("iOS16", ["coreml"], "int8", "--system iOS16 does not have int8; .*: iOS17, iOS18"),
        ("iOS17", ["coreml"], "w4+fp16", r"--system iOS17 does not have w4\+fp16; .*: iOS18"),
        ("iOS15", ["coreml"], "fp32", "system 'iOS15'.* iOS16, iOS17, iOS18"),
        ("iOS17", ["onnx"], "fp32", "only coreml files ask for a system"),
    ],
)
def test_what_a_system_cannot_have(tmp_path: Path, system: str, targets: list[str], precision: str, words: str) -> None:
    source = source_of("gen2res", tmp_path)
    with pytest.raises(PocketPriorError, match=words):
        write_pack(
            source,
            tmp_path / "p",
            PHOTOS,
            PackOptions(name="x", targets=targets, precisions=[precision], deployment_target=system),
        )


def test_arithmetic_in_half_is_offered_for_coreml_alone() -> None:
    halves = {target: [p for p in target_of(target).precisions if p.endswith("+fp16")] for target in TARGETS}
    assert halves["onnx"] == halves["openvino"] == []
    assert halves["coreml"]
