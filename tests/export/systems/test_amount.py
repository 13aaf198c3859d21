"""Packs of a calibrated DTPM: the amount in every form and runtime, and the amplitude of the texture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pocketprior.core.arrays import to_batch
from pocketprior.core.errors import UsageError
from pocketprior.core.models.semantic_code import NoEncoder
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.restore.pipeline import prepare, restore_tile, tiled_graphs
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import read_golden, verify
from pocketprior.core.restore.tiles import Box
from pocketprior.core.sampling.samplers import ddim
from pocketprior.core.sampling.steps import GAIN
from pocketprior.export.parity_reference import _AMOUNTS, _STRENGTHS, shots
from pocketprior.export.systems.dtpm import DtpmSource, dtpm_graphs
from pocketprior.export.systems.source import ModelGraph
from pocketprior.export.targets.calibration import calls, damaged_photos
from pocketprior.export.writer.pack import PackOptions, write_pack
from pocketprior.runtimes import open_graphs
from support import packs
from support.small_models import (
    CALIBRATED,
    CONFIG,
    PHOTOS,
    SAMPLING,
    save_calibrated,
    save_small,
    small_encoder,
    small_model,
)

TARGETS = ("onnx", "openvino", "coreml")
RUNTIMES = ("onnxruntime", "openvino", "coreml")
FORMS = ("fused", "split")
SIZE = (32, 48)


@pytest.fixture(scope="module")
def graphs() -> dict[str, ModelGraph]:
    return dtpm_graphs(small_model(CALIBRATED), NoEncoder(), SAMPLING)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_calibrated(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def pack(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all targets, in float32 and in 8 bits; not to be changed."""
    folder = tmp_path_factory.mktemp("packs") / "calibrated"
    source = DtpmSource(checkpoint, steps=2)
    write_pack(source, folder, PHOTOS[:1], PackOptions(name="calibrated", targets=TARGETS, precisions=("fp32", "int8")))
    return folder


def called(graph: ModelGraph, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        outputs = graph.module(**{name: inputs[name] for name in graph.inputs})
    return outputs if isinstance(outputs, tuple) else (outputs,)


def inputs(amount: float, strength: float = 1.0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(1, 3, *SIZE, generator=random),
        "noise": torch.randn(1, 3, *SIZE, generator=random),
        "amount": torch.tensor([amount]),
        "strength": torch.tensor([strength]),
    }


class TestGraphs:
    def test_there_is_no_encoder_and_the_prior_sees_the_damage(self, graphs: dict[str, ModelGraph]) -> None:
        assert set(graphs) == {"predict", "denoise", "fused"}
        assert set(graphs["denoise"].inputs) == {"x", "image", "base", "t"}

    @pytest.mark.parametrize("amount", [0.0, 0.5, 1.0, 1.5])
    def test_fused_is_base_and_residual_times_amplitude(self, graphs: dict[str, ModelGraph], amount: float) -> None:
        given = inputs(amount, strength=0.7)
        base, amplitude = called(graphs["predict"], **given)

        def denoise(x: torch.Tensor, step: int) -> torch.Tensor:
            t = torch.full((1,), SAMPLING.times[step])
            return called(graphs["denoise"], x=x, image=given["image"], base=base, t=t)[0]

        residual = ddim(denoise, given["noise"], SAMPLING.levels)
        expected = (base + given["strength"] * amplitude * residual).clamp(0, 1)
        torch.testing.assert_close(called(graphs["fused"], **given)[0], expected, rtol=0, atol=1e-6)

    def test_amount_one_is_the_model_itself(self, graphs: dict[str, ModelGraph]) -> None:
        model, given = small_model(CALIBRATED), inputs(1.0)
        base, sigma = model.predict(given["image"])
        found = called(graphs["predict"], **given)
        torch.testing.assert_close(found[0], base, rtol=0, atol=1e-6)
        torch.testing.assert_close(found[1], SAMPLING.gain * model.amplitude(sigma), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_amount_zero_is_the_image_bit_by_bit(self, graphs: dict[str, ModelGraph], strength: float) -> None:
        given = inputs(0.0, strength)
        assert torch.equal(called(graphs["fused"], **given)[0], given["image"])
        base, amplitude = called(graphs["predict"], **given)
        assert torch.equal(base, given["image"])
        assert not amplitude.any()

    def test_settings_to_record_have_other_amounts_where_they_are_taken(self, checkpoint: Path, tmp_path: Path) -> None:
        model, semantic = save_small(tmp_path)
        for source, settings in ((DtpmSource(checkpoint), _AMOUNTS), (DtpmSource(model, str(semantic)), _STRENGTHS)):
            chosen = shots(PHOTOS[:1], source.open(), 32)
            assert [(shot.strength, shot.amount) for shot in chosen] == list(settings)


class TestSource:
    def test_gain_is_in_the_amplitude(self, checkpoint: Path) -> None:
        for gain, expected in ((None, GAIN), (0.25, 0.25)):
            graphs = DtpmSource(checkpoint, steps=1, gain=gain).open().graphs
            sigma = small_model(CALIBRATED).predict(inputs(1.0)["image"])[1]
            amplitude = small_model(CALIBRATED).amplitude(sigma)
            torch.testing.assert_close(called(graphs["predict"], **inputs(1.0))[1], expected * amplitude)

    def test_an_encoder_that_it_does_not_have(self, checkpoint: Path) -> None:
        with pytest.raises(UsageError, match="has no semantic code: leave the option out"):
            DtpmSource(checkpoint, "semantic.safetensors").open()

    def test_an_encoder_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="needs its semantic encoder; add --semantic FILE"):
            DtpmSource(save_small(tmp_path)[0]).open()


@pytest.mark.slow
class TestPack:
    def test_manifest(self, pack: Path) -> None:
        manifest = Manifest.load(pack)
        assert manifest.takes_amount
        assert manifest.conditions is None
        assert (manifest.residual_scale, manifest.gain) == (1.0, 1.0)
        assert manifest.radius(["fused"]) == manifest.radius(["predict", "denoise"])

    def test_golden_restorations_have_other_amounts(self, pack: Path) -> None:
        goldens = {name: read_golden(pack, golden) for name, golden in Manifest.load(pack).golden.items()}
        assert {name: settings["amount"] for name, (_, _, settings) in goldens.items()} == {
            "photo": 1.0,
            "less": 0.5,
            "more": 1.5,
        }
        small = goldens["photo"][1][:8, :8]
        assert all(not np.array_equal(restored[:8, :8], small) for restored in (goldens["less"][1], goldens["more"][1]))

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_verifies(self, pack: Path, runtime: str) -> None:
        assert verify(pack, runtime).ok

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_amount_zero_is_the_photo(
        self, pack: Path, runtime: str, form: str, dtype: type[np.uint8] | type[np.uint16]
    ) -> None:
        photo = packs.photo(43, 70, dtype)
        np.testing.assert_array_equal(Restorer.from_pack(pack, runtime, form)(photo, amount=0), photo)

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_amount_zero_is_the_image_in_the_graph_too(self, pack: Path, runtime: str) -> None:
        restorer = Restorer.from_pack(pack, runtime, "fused")
        given = {name: tensor.numpy() for name, tensor in inputs(0.0).items()}
        np.testing.assert_array_equal(restorer.graphs["fused"](**given)["restored"], given["image"])

    @pytest.mark.parametrize(("runtime", "target"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
    def test_amount_zero_is_the_image_in_eight_bits_too(self, pack: Path, runtime: str, target: str) -> None:
        """What is passed on is never rounded, whatever the convolutions compute in."""
        manifest = Manifest.load(pack)
        coded = replace(manifest, precision={**manifest.precision, target: dict.fromkeys(manifest.graphs, "int8")})
        (graph,) = open_graphs(coded, pack, runtime, names=["fused"]).values()
        given = {name: tensor.numpy() for name, tensor in inputs(0.0).items()}
        np.testing.assert_array_equal(graph(**given)["restored"], given["image"])

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("amount", [0.5, 1.0, 1.5])
    def test_every_form_in_every_runtime_gives_the_same(self, pack: Path, runtime: str, amount: float) -> None:
        photo = packs.photo(*SIZE, np.uint16)
        tiles = [whole(Restorer.from_pack(pack, runtime, form), photo, amount) for form in FORMS]
        # The weights were never trained: they make ten times as much of rounding as those of a real model do.
        np.testing.assert_allclose(*tiles, rtol=0, atol=1e-4)
        first = whole(Restorer.from_pack(pack, "onnxruntime", "split"), photo, amount)
        np.testing.assert_allclose(tiles[1], first, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("form", FORMS)
    def test_tiles_do_not_show(self, pack: Path, form: str) -> None:
        restorer = Restorer.from_pack(pack, graphs=form)
        photo = packs.photo(90, 700)
        tiled, one = (restorer(photo, amount=1.5, tile=tile) for tile in (416, 704))
        assert np.abs(tiled.astype(int) - one.astype(int)).max() <= 1

    def test_calibration_has_larger_amounts_too(self, pack: Path) -> None:
        feeds = calls(Manifest.load(pack), pack, damaged_photos([PHOTOS[0]] * 4, "cleanup", 32))
        for name in ("predict", "fused"):
            assert [float(feed["amount"][0]) for feed in feeds[name]] == [1.0, 1.0, 1.0, 2.0]


def whole(restorer: Restorer, photo: NDArray[np.uint16], amount: float) -> NDArray[np.float32]:
    """One tile, before it is rounded to grey levels."""
    stages = tiled_graphs(restorer.manifest, restorer.graphs, 1.0, amount)
    job = prepare(restorer.manifest, restorer.graphs, stages, photo, 7, 1.0, amount)
    tile = restore_tile(job, Box(0, SIZE[0], 0, SIZE[1]))
    assert np.abs(tile - to_batch(photo)).max() > 0.01
    return tile


def test_a_code_and_an_amount_together() -> None:
    """The interfaces are independent: a model may have both, or neither."""
    config = replace(CALIBRATED, semantic=CONFIG.semantic, damage_input="none")
    found = dtpm_graphs(small_model(config), small_encoder(), SAMPLING)
    assert set(found["fused"].inputs) == {"image", "noise", "amount", "code", "strength"}
    assert set(found["denoise"].inputs) == {"x", "base", "code", "t"}
