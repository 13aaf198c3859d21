"""Packs of DiffIR and Gen2Res, written from checkpoints: the runtime restores what PyTorch restores, end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pocketprior.core.arrays import to_batch, to_image
from pocketprior.core.cli import main
from pocketprior.core.errors import CheckpointError, GraphError, UnknownNameError, UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.deploy.rewrite import eager
from pocketprior.core.models.dtpm import DenoiserConfig, PredictorConfig
from pocketprior.core.models.gen2res import restore
from pocketprior.core.pack.manifest import GraphSpec, Manifest, PackedFile, TileWindow
from pocketprior.core.photo.io import read
from pocketprior.core.restore.noise_sigma import noise_sigma
from pocketprior.core.restore.reference import load
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.core.sampling.noise import normal, normal_vector
from pocketprior.core.sampling.schedule import ddpm
from pocketprior.export.parity_reference import Shot, record_shots
from pocketprior.export.systems.diffir import DiffirSource
from pocketprior.export.systems.dtpm import DtpmSource
from pocketprior.export.systems.gen2res import Gen2ResSource
from pocketprior.export.systems.source import Opened
from pocketprior.export.writer import golden_restoration
from pocketprior.export.writer.pack import PackOptions, write_pack
from support import packs
from support.padding import crop, pad_to_multiple
from support.small_models import (
    CONFIG,
    DIFFIR,
    PHOTOS,
    START,
    STEPS,
    SYSTEMS,
    WINDOW,
    save_diffir,
    save_gen2res,
    save_small,
    small_diffir,
    small_gen2res,
    small_model,
    source_of,
)


@pytest.fixture(params=SYSTEMS)
def pack(request: pytest.FixtureRequest, written: Callable[[str], Path]) -> Path:
    return written(request.param)


def by_torch(manifest: Manifest, photo: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The models' own methods on the whole padded photo."""
    image = pad_to_multiple(to_batch(photo), manifest.size.multiple_of)
    box = (0, image.shape[2]), (0, image.shape[3])
    with torch.inference_mode():
        tensor = torch.from_numpy(image)
        if manifest.model == "diffir":
            restored = small_diffir()(tensor, torch.from_numpy(normal_vector(seed, 0, DIFFIR.ipr)))
        else:
            restored = restore(
                small_gen2res(),
                tensor,
                lambda step: torch.from_numpy(normal(seed, step, *box)),
                manifest.levels,
                manifest.times,
                manifest.sampler,
                start_level=manifest.start_level,
                sigma=noise_sigma(photo) / 255,
            )
    return to_image(crop(restored.numpy(), *photo.shape[:2]), np.uint8)  # type: ignore[return-value]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 64), width=st.integers(1, 64), seed=st.integers(0, 2**64 - 1))
def test_restores_what_torch_does(pack: Path, height: int, width: int, seed: int) -> None:
    photo = np.ascontiguousarray(read(PHOTOS[0]).pixels[40 : 40 + height, 60 : 60 + width])
    restorer = Restorer.from_pack(pack, threads=1)
    restored, expected = restorer(photo, seed=seed), by_torch(restorer.manifest, photo, seed)
    assert np.abs(restored.astype(int) - expected.astype(int)).max() <= 1


def test_something_is_restored_in_windows(pack: Path) -> None:
    photo = np.ascontiguousarray(read(PHOTOS[0]).pixels[:101, :150])
    restored = Restorer.from_pack(pack, threads=1)(photo)
    assert restored.shape == photo.shape
    assert np.abs(restored.astype(int) - photo.astype(int)).max() > 3


def test_pack_verifies_here(pack: Path) -> None:
    report = verify(pack)
    assert report.ok
    assert [check.form for check in report.goldens] == (["fused"] * (pack.name == "diffir")) + ["split"]


def test_facts_are_those_of_the_model(pack: Path) -> None:
    manifest = Manifest.load(pack)
    if manifest.model == "diffir":
        assert manifest.tasks == ("cleanup",)
        assert manifest.state == (1, DIFFIR.ipr)
        assert manifest.receptive_field == {"encode": TileWindow(512, 0), "compose": WINDOW, "fused": WINDOW}
        assert set(manifest.macs_per_pixel) == {"encode", "compose", "fused"}
    else:
        assert manifest.tasks == ("blind",)
        assert manifest.times[-STEPS] == START / 1000
        assert manifest.times[0] == 0.3  # a photo that is noisier than START enters above it
        assert manifest.start_level == manifest.levels[-STEPS - 1] == pytest.approx(0.659, abs=1e-3)  # of the sheet
        assert set(manifest.graphs["denoise"].outputs) == {"eps", "variance"}
    assert set(manifest.parameters) == set(manifest.graphs)


def test_card_tells_the_system(pack: Path) -> None:
    text = (pack / "CARD.md").read_text(encoding="utf-8")
    assert text.startswith(f"# small-{pack.name}\n")
    assert {"diffir": "DiffIR", "gen2res": "Gen2Res"}[pack.name] in text
    assert max(map(len, text.splitlines())) <= 120


def same_files(first: Path, second: Path) -> bool:
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    return all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_two_exports_are_equal(written: Callable[[str], Path], tmp_path: Path) -> None:
    write_pack(source_of("diffir", tmp_path), tmp_path / "pack", PHOTOS, PackOptions(name="small-diffir"))
    assert same_files(written("diffir"), tmp_path / "pack")


def test_info_tells_windows(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(pack)]) == 0
    assert "its whole tile of 64 pixels" in capsys.readouterr().out
    assert main(["info", str(pack), "--json"]) == 0
    reach = json.loads(capsys.readouterr().out)["receptive_field"]
    assert list(WINDOW) in reach.values()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": 200, "steps": 300}, "300 steps from level 200 were given; choose a level from 1 to 1000"),
        ({"steps": 301}, "301 steps from level 300"),
        ({"steps": -1}, "-1 steps from level 300"),
        ({"start": 1001}, "from level 1001"),
        ({"start": -1}, "from level -1"),
    ],
)
def test_sampling_that_cannot_be(tmp_path: Path, change: dict[str, int], words: str) -> None:
    source = replace(Gen2ResSource(save_gen2res(tmp_path)), **change)
    with pytest.raises(UsageError, match=words):
        write_pack(source, tmp_path / "pack", PHOTOS, PackOptions(name="x"))
    assert not (tmp_path / "pack").exists()


def test_ddim_takes_all_levels_where_steps_are_zero(tmp_path: Path) -> None:
    opened = Gen2ResSource(save_gen2res(tmp_path), start=50, steps=0).open()
    assert opened.facts["times"][-50:] == tuple(count / 1000 for count in range(50, 0, -1))
    assert set(opened.graphs["denoise"].outputs) == {"eps"}
    assert set(opened.graphs) == {"denoise"}  # too many steps for one graph


def test_few_steps_of_ddim_are_one_graph(tmp_path: Path) -> None:
    checkpoint = save_gen2res(tmp_path)
    for steps, graphs in ((8, {"denoise", "fused"}), (9, {"denoise"})):
        assert set(Gen2ResSource(checkpoint, start=200, steps=steps).open().graphs) == graphs
    assert set(Gen2ResSource(checkpoint, "ancestral", start=200, steps=8).open().graphs) == {"denoise"}
    assert set(Gen2ResSource(checkpoint, steps=8).open().graphs) == {"denoise"}  # where it starts depends on the photo


@pytest.mark.parametrize(
    ("options", "start_level", "first"),
    [
        ({}, 1.0, 0.3),  # a photo's own level, whatever it is
        ({"start": 200, "steps": 9}, ddpm()[199], 0.3),
        ({"start": 200, "steps": 8}, ddpm()[199], 0.2),  # the levels of its fused graph
        ({"start": 400, "steps": 9}, ddpm()[399], 0.4),
    ],
)
def test_where_photos_enter(tmp_path: Path, options: dict[str, int], start_level: float, first: float) -> None:
    facts = Gen2ResSource(save_gen2res(tmp_path), **options).open().facts
    assert facts["start_level"] == start_level
    assert facts["times"][0] == first
    assert len(facts["levels"]) == len(facts["times"]) + 1


def test_a_student_enters_at_its_first_level(tmp_path: Path) -> None:
    own = {"levels": [0.7, 0.9, 1.0], "times": [0.18, 0.09]}
    opened = Gen2ResSource(save_gen2res(tmp_path, own)).open()
    assert (opened.facts["start_level"], opened.facts["levels"]) == (0.7, (0.7, 0.9, 1.0))
    assert "fused" in opened.graphs


def test_fused_graphs_are_given_only_the_missing_noise(tmp_path: Path) -> None:
    """Fused and step by step a noisy photo comes out the same: both start at K with as much noise as is missing."""
    opened = Gen2ResSource(save_gen2res(tmp_path), start=START, steps=2).open()
    clean = read(PHOTOS[0]).pixels[100:164, 100:164].astype(np.float64)
    noise = 30 * np.random.default_rng(0).standard_normal(clean.shape)
    photo = np.clip(np.round((clean + noise) * 257), 0, 65535).astype(np.uint16)
    record_shots(opened, "none", [Shot("photo", photo, 5, 1.0, None)], tmp_path / "record.npz", device="cpu")
    recording = load(tmp_path / "record.npz")
    (case,) = recording.about.cases
    fused, split = (recording.arrays[case.pictures[form]].astype(int) for form in ("fused", "split"))
    assert np.abs(fused - split).max() <= 8
    level, sigma = ddpm()[START - 1], 2 * noise_sigma(photo) / 255
    share = ((1 - level - level * sigma**2) / (1 - level)) ** 0.5
    assert 0.8 < share < 0.98
    given = recording.arrays[case.calls["fused"][0].inputs["noise"]]
    np.testing.assert_allclose(given, share * normal(5, 0, (0, 64), (0, 64)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("facts", [{}, {"constrained": True}])
def test_card_of_a_constrained_model_says_that_it_is_private(tmp_path: Path, facts: dict[str, bool]) -> None:
    about = Gen2ResSource(save_gen2res(tmp_path, facts)).open().about
    assert ("treat the pack like those photos" in about.limits) == bool(facts)


def test_unknown_sampler_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="ddim, ancestral"):
        Gen2ResSource(save_gen2res(tmp_path), sampler="euler").open()


@pytest.mark.parametrize("system", SYSTEMS)
def test_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(golden_restoration, "COARSE_SLACK", 254)  # the weights were never trained
    out = tmp_path / "pack"
    manifest = write_pack(source_of(system, tmp_path), out, PHOTOS[:1], PackOptions(name="x", precisions=["int8"]))
    assert "int8" in manifest.precision["onnx"].values()
    assert verify(out).ok


class Halved(torch.nn.Module):
    """Does something else when it is exported."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * t * (0.1 if torch.compiler.is_exporting() else 0.9)


def test_graphs_that_do_not_do_what_torch_does_are_not_packed(tmp_path: Path) -> None:
    opened = Gen2ResSource(save_gen2res(tmp_path), start=START, steps=9).open()
    graph = opened.graphs["denoise"]._replace(module=Halved())

    class Changed(Gen2ResSource):
        def open(self) -> Opened:
            return replace(opened, graphs={"denoise": graph})

    with pytest.raises(GraphError, match=r"the onnx graphs \(fp32\) are \d+ grey levels from PyTorch, at most 2"):
        write_pack(Changed(tmp_path / "gen2res.safetensors"), tmp_path / "pack", PHOTOS, PackOptions(name="x"))
    assert not (tmp_path / "pack").exists()


class TestCommand:
    def export(self, checkpoint: Path, *options: str) -> int:
        photos = checkpoint.with_name("photos")
        photos.mkdir()
        shutil.copy(PHOTOS[0], photos)
        out = checkpoint.with_name("pack")
        return main(["export", str(checkpoint), "--data", str(photos), "-o", str(out), *options])

    def test_system_is_read_from_the_checkpoint(
        self, written: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = f"--sampler ancestral --start {START} --steps {STEPS} --window 64 8 --gain 1 --name small-gen2res"
        assert self.export(save_gen2res(tmp_path), *options.split()) == 0
        assert "MB" in capsys.readouterr().out
        assert same_files(written("gen2res"), tmp_path / "pack")

    @pytest.mark.parametrize(
        ("save", "options", "words"),
        [
            (save_diffir, ["--steps", "2"], "--steps was given for a diffir checkpoint; its options are: --gain, --w"),
            (save_gen2res, ["--gain", "-1"], "expected a gain above 0, got -1"),
            (save_gen2res, ["--gain", "nan"], "expected a gain above 0, got nan"),
            (save_gen2res, ["--trained-on", "nowhere.md"], "--trained-on nowhere.md cannot be read"),
            (save_gen2res, ["--semantic", "x"], "--semantic was given for a gen2res checkpoint"),
            (lambda folder: save_small(folder)[0], [], "add --semantic FILE"),
            (
                lambda folder: save_small(folder)[1],
                [],
                "'semantic' checkpoint, expected 'dtpm' or 'diffir' or 'gen2res'",
            ),
        ],
    )
    def test_options_of_another_system(
        self,
        tmp_path: Path,
        save: Callable[[Path], Path],
        options: list[str],
        words: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert self.export(save(tmp_path), *options) != 0
        assert words in capsys.readouterr().err
        assert not (tmp_path / "pack").exists()


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'gen2res' checkpoint, expected 'diffir'"):
        DiffirSource(save_gen2res(tmp_path)).open()


def test_a_dtpm_that_sees_all_of_its_tile_is_run_in_windows(tmp_path: Path) -> None:
    """NAFNet blocks average over the tile; the pipeline takes the same tiles whatever the memory."""
    config = replace(
        CONFIG,
        predictor=PredictorConfig("naf", widths=(8, 8), blocks=(1, 1)),
        denoiser=DenoiserConfig("naf", widths=(8, 8), blocks=(1, 1), embedding=8, adapter_minimum=4),
    )
    model, semantic = save_small(tmp_path)
    checkpoints.save(model, "dtpm", config, small_model(config).state_dict(), {"task": "cleanup"})
    opened = DtpmSource(model, str(semantic), steps=1, window=WINDOW).open()
    assert opened.facts["receptive_field"] == dict.fromkeys(("predict", "denoise", "fused"), WINDOW)
    facts = {**opened.facts, "bytes_per_pixel": {"predict": 100, "denoise": 100, "fused": 100}}
    manifest = replace(packs.build(tmp_path / "pack", golden=False), **facts, graphs=_specs(opened))
    reference = Restorer(manifest, {n: eager(g.module, list(g.inputs), *g.outputs) for n, g in opened.graphs.items()})
    photo = np.ascontiguousarray(read(PHOTOS[0]).pixels[:90, :70])
    seen: list[int] = []
    tight = reference(photo, max_memory=2**28, progress=lambda _, total: seen.append(total))
    assert seen[0] == 4
    np.testing.assert_array_equal(tight, reference(photo))


def _specs(opened: Opened) -> dict[str, GraphSpec]:
    files = {"onnx": {"fp32": PackedFile("none", "0" * 64, 0)}}
    return {name: GraphSpec(graph.inputs, graph.outputs, files) for name, graph in opened.graphs.items()}
