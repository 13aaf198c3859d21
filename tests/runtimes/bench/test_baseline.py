from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from pocketprior.core.arguments import NamedPath
from pocketprior.core.degradations.fixed import damages_named
from pocketprior.core.errors import UsageError
from pocketprior.runtimes.bench.baseline import estimated_sigma, method_for, opened, restored
from pocketprior.runtimes.bench.methods import ResultCache
from pocketprior.runtimes.bench.trials import BenchPair, Trial
from support import baseline_networks as networks
from support import packs

PHOTO = packs.photo(40, 54)


@pytest.fixture
def cache(tmp_path):
    return ResultCache(tmp_path / "cache")


def given(path: Path, value: str = "") -> NamedPath:
    return NamedPath("net", path, value)


def test_an_image_network_sees_rgb_of_8_bits(tmp_path):
    network = opened(given(networks.brighter(tmp_path / "n.onnx")))
    assert (network.inputs, network.sigma, network.precision) == (("image",), "", "fp32")
    expected = np.clip(PHOTO + 25.5, 0, 255)
    assert np.abs(restored(network, PHOTO) - expected).max() <= 0.51


def test_a_luma_network_leaves_the_colour_alone(tmp_path):
    grey = np.clip(PHOTO, 40, 200)
    result = restored(opened(given(networks.brighter(tmp_path / "n.onnx", "luma"))), grey)
    assert np.abs(result - (grey + 25.5)).max() <= 0.51


def test_sizes_are_padded_by_mirroring(tmp_path):
    """The mean of 2 x 2 pixels, the last row of 41 with its mirror image, which is itself."""
    network = opened(given(networks.halved(tmp_path / "n.onnx")))
    odd = packs.photo(41, 55)
    result = restored(network, odd)
    assert result.shape == odd.shape
    pairs = odd[40, :54].reshape(27, 2, 3).mean(axis=1)
    assert np.abs(result[40, :54:2] - pairs).max() <= 0.51


@pytest.mark.parametrize(
    ("value", "sigma", "settings"),
    [("true", 30.0, "sigma 30"), ("12.5", 12.5, "sigma 12.5"), ("tuned", 25.0, "sigma 25")],
)
def test_sigma_is_known_fixed_or_tuned(tmp_path, cache, value, sigma, settings):
    """The network adds sigma: on photos that are 25 grey levels too dark the best one is 25."""
    network = opened(given(networks.brighter_by_sigma(tmp_path / "n.onnx"), value))
    bright = np.clip(PHOTO, 40, 200)
    trial = Trial("noise 30", 30.0, [], [BenchPair("a", bright, bright - np.uint8(25))])
    method = method_for(network, trial, cache)
    assert method.settings == settings
    assert np.abs(method.restore(bright) - (bright + sigma)).max() <= 0.51


def test_sigma_is_estimated_by_default(tmp_path, cache):
    network = opened(given(networks.brighter_by_sigma(tmp_path / "n.onnx")))
    method = method_for(network, Trial("any", None, [], []), cache)
    assert method.settings == "sigma estimated per photo"
    noisy = damages_named(["noise 25"])[0](np.full((64, 64, 3), 100, np.uint8))
    expected = np.clip(noisy + estimated_sigma(noisy), 0, 255)
    assert np.abs(method.restore(noisy) - expected).max() <= 0.51


def test_without_a_true_sigma_there_is_no_method(tmp_path, cache):
    network = opened(given(networks.brighter_by_sigma(tmp_path / "n.onnx"), "true"))
    assert method_for(network, Trial("JPEG 10", None, [], []), cache) is None


@pytest.mark.parametrize("name", ["noise 15", "noise 25"])
def test_estimated_sigma_is_that_of_white_noise(name):
    (damage,) = damages_named([name])
    ramp = np.broadcast_to(np.linspace(80, 170, 301)[None, :, None], (255, 301, 3)).round().astype(np.uint8)
    assert estimated_sigma(damage(ramp)) == pytest.approx(damage.sigma, rel=0.02)
    assert estimated_sigma(ramp) == 0


def test_versions_are_those_of_the_file(tmp_path):
    first, same = (opened(given(networks.brighter(tmp_path / name))).version for name in ("a.onnx", "b.onnx"))
    assert first == same
    assert opened(given(networks.halved(tmp_path / "c.onnx"))).version != first


def test_the_precision_is_read_from_the_file(tmp_path):
    network = opened(given(networks.quantized(tmp_path / "n.onnx")))
    assert network.precision == "int8"
    assert np.array_equal(restored(network, PHOTO), PHOTO)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed")
def test_openvino_runs_the_same_files(tmp_path):
    for build in (networks.halved, networks.quantized, networks.brighter):
        path = build(tmp_path / "n.onnx")
        ours, other = (restored(opened(given(path), runtime), PHOTO) for runtime in ("onnxruntime", "openvino"))
        assert np.abs(ours.astype(int) - other).max() <= 1


@pytest.mark.parametrize("value", ["louder", "-1", "nan"])
def test_unknown_sigma(tmp_path, value):
    with pytest.raises(UsageError, match=f"expected sigma=true, .*, got '{value}'"):
        opened(given(networks.brighter_by_sigma(tmp_path / "n.onnx"), value))


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match="takes no sigma; leave out sigma=25"):
        opened(given(networks.brighter(tmp_path / "n.onnx"), "25"))
    with pytest.raises(UsageError, match=r"there is no file '.*none\.onnx'"):
        opened(given(tmp_path / "none.onnx"))
    (tmp_path / "torn.onnx").write_bytes(b"no graph")
    with pytest.raises(UsageError, match=r"ONNX Runtime cannot open '.*torn\.onnx'"):
        opened(given(tmp_path / "torn.onnx"))
    other = networks.network(tmp_path / "o.onnx", ("audio",), helper.make_node("Add", ["audio", "half"], ["restored"]))
    with pytest.raises(UsageError, match="has the inputs audio and the outputs restored; expected the inputs image or"):
        opened(given(other))
