"""Recordings of models: exact, repeatable, and told where from; a pack of the same checkpoint holds against them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core.cli import main
from pocketprior.core.errors import UsageError
from pocketprior.core.restore.reference import ParityReference, load
from pocketprior.core.restore.restorer import Restorer
from pocketprior.export import parity_reference as recording_of
from pocketprior.export.parity_reference import Shot, device_of, environment, exact, record_shots, shots
from pocketprior.export.systems.diffir import DiffirSource
from pocketprior.export.systems.dtpm import DtpmSource
from pocketprior.export.systems.gen2res import Gen2ResSource
from pocketprior.export.systems.source import CheckpointSource
from support.small_models import PHOTOS, START, save_diffir, save_gen2res, save_small, small_diffir

SIDE = 40


def sources(folder: Path) -> dict[str, CheckpointSource]:
    model, semantic = save_small(folder)
    return {
        "dtpm": DtpmSource(model, str(semantic), steps=2),
        "diffir": DiffirSource(save_diffir(folder)),
        "gen2res": Gen2ResSource(save_gen2res(folder), "ancestral", START, 2),
    }


def recorded(source: CheckpointSource, path: Path, **options: object) -> ParityReference:
    opened = source.open()
    record_shots(opened, source.digest(), shots(PHOTOS[:1], opened, SIDE), path, device="cpu", **options)
    return load(path)


@pytest.mark.parametrize("system", ["dtpm", "diffir", "gen2res"])
def test_every_system_is_recorded(system: str, tmp_path: Path) -> None:
    source = sources(tmp_path)[system]
    found = recorded(source, tmp_path / "a.npz")
    graphs = set(source.open().graphs)
    calls = [call for case in found.about.cases for calls in case.calls.values() for call in calls]
    assert {call.graph for call in calls} == graphs
    assert json.loads(found.about.facts)["model"] == system
    assert found.about.checkpoint == source.digest()
    assert [case.strength for case in found.about.cases] == [1.0, 0.5]
    assert all(found.arrays[case.clean].shape == (SIDE, SIDE, 3) for case in found.about.cases)
    assert found.origin.startswith("recorded on CPU (")
    assert all(not call.kernels for call in calls)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    source = sources(tmp_path)["dtpm"]
    for name in ("a", "b"):
        recorded(source, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_rounding_is_that_of_float32(tmp_path: Path) -> None:
    """Of the estimator's means, against the model itself in float64."""
    found = recorded(sources(tmp_path)["diffir"], tmp_path / "a.npz")
    call = found.about.cases[0].calls["split"][0]
    image = torch.from_numpy(found.named(call.inputs)["image"]).double()
    truth = small_diffir().double().cpen.features(image).detach().numpy()
    rounding = np.sqrt(np.mean(np.square(found.named(call.outputs)["features"] - truth)))
    assert 0 < rounding < 1e-6 * np.abs(truth).max()  # of float32, after a few layers
    assert call.rounding["features"] == pytest.approx(rounding, rel=1e-3)


def test_a_teacher(tmp_path: Path) -> None:
    model, semantic = save_small(tmp_path)
    teacher = DtpmSource(model, str(semantic), steps=5)
    found = recorded(sources(tmp_path)["dtpm"], tmp_path / "a.npz", teacher=teacher.open())
    for case in found.about.cases:
        assert found.arrays[case.teacher].shape == found.arrays[case.photo].shape
        assert case.teacher not in case.pictures.values()


def test_photos_that_are_cut_into_tiles(tmp_path: Path) -> None:
    photo = np.full((40, 180, 3), 20000, np.uint16)
    source = sources(tmp_path)["dtpm"]
    about = record_shots(source.open(), "", [Shot("wide", photo, 1, 1.0)], tmp_path / "a.npz", device="cpu")
    (case,) = about.cases
    assert case.tile == 164  # half way from the smallest, 148 (2 x 63 pixels of reach, 16 of seam, a cell), to 180
    assert sum(call.graph == "fused" for call in case.calls["fused"]) == 2


def test_fused_kernels_are_kept_where_they_give_other_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the second time a graph is run, it runs with kernels."""
    found = recorded(sources(tmp_path)["diffir"], tmp_path / "a.npz")
    writer = recording_of.ReferenceWriter()
    writer.arrays |= found.arrays
    real = recording_of.eager

    def with_kernels(module: torch.nn.Module, inputs: list[str], *outputs: str) -> object:
        graph = real(module, inputs, *outputs)
        if outputs != ("restored",):
            return graph
        return lambda **arrays: {name: array + np.float32(1e-6) for name, array in graph(**arrays).items()}

    monkeypatch.setattr(recording_of, "eager", with_kernels)
    model = recording_of._Model.on(torch.device("cpu"), sources(tmp_path)["diffir"].open())
    cases = recording_of._with_kernels(model, found.about.cases, writer)
    with_some = {call.graph for case in cases for call in case.calls["split"] if call.kernels}
    assert with_some == {"compose"}


def test_nothing_to_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no photo was given"):
        record_shots(sources(tmp_path)["diffir"].open(), "", [], tmp_path / "a.npz")


def test_float32_is_exact_within_and_as_before_after() -> None:
    torch.backends.cudnn.allow_tf32, before = True, torch.backends.cudnn.allow_tf32
    try:
        with exact():
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_the_environment_has_no_date() -> None:
    found = environment(torch.device("cpu"))
    assert {"device", "arithmetic", "torch", "numpy", "pocketprior", "python"} == set(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there() -> None:
    assert device_of("auto").type == "cpu"
    with pytest.raises(UsageError, match="PyTorch finds no CUDA device"):
        device_of("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_records_what_a_cpu_does(tmp_path: Path) -> None:
    source = sources(tmp_path)["diffir"]
    chosen = shots(PHOTOS[:1], source.open(), SIDE)
    about = record_shots(source.open(), source.digest(), chosen, tmp_path / "gpu.npz", device="cuda")
    here, there = recorded(source, tmp_path / "cpu.npz"), load(tmp_path / "gpu.npz")
    assert about.environment["device"] == torch.cuda.get_device_name()
    for a, b in zip(here.about.cases, there.about.cases, strict=True):
        for x, y in zip(a.calls["split"], b.calls["split"], strict=True):
            for name, array in here.named(x.outputs).items():
                np.testing.assert_allclose(there.named(y.outputs)[name], array, atol=1e-4)


class TestCommand:
    def test_writes_and_says_so(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        checkpoint, out = save_diffir(tmp_path), tmp_path / "known.npz"
        words = ["--photos", str(PHOTOS[0]), "--side", str(SIDE), "--window", "64", "8", "--device", "cpu"]
        assert main(["parity", "record", str(checkpoint), *words, "-o", str(out)]) == 0
        assert "of 2 restorations, CPU (" in capsys.readouterr().out
        assert json.loads(load(out).about.facts)["receptive_field"]["compose"] == [64, 8]

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--steps", "2"], "--steps was given for a diffir checkpoint"),
            (["--photos", "nowhere"], "nowhere"),
            (["-o", "no/where.npz"], "is in a folder that does not exist"),
        ],
    )
    def test_refuses(self, words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        fixed = ["--photos", str(PHOTOS[0]), "-o", str(tmp_path / "known.npz")]
        assert main(["parity", "record", str(save_diffir(tmp_path)), *fixed, *words]) != 0
        assert told in capsys.readouterr().err


def test_strength_is_that_of_the_restorer(tmp_path: Path) -> None:
    """The recorded picture is what the models restore, with the recorded seed, strength and tile."""
    source = sources(tmp_path)["dtpm"]
    found = recorded(source, tmp_path / "a.npz")
    model = recording_of._Model.on(torch.device("cpu"), source.open())
    for case in found.about.cases:
        restorer: Restorer = model.restorer("fused")
        again = restorer(found.arrays[case.photo], seed=case.seed, strength=case.strength, tile=case.tile)
        np.testing.assert_array_equal(again, found.arrays[case.pictures["fused"]])
