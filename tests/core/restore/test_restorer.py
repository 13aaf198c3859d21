"""The pipeline: fused and split agree with a plain loop, tiles with the whole, memory with its limit."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pocketprior.core.arrays import to_batch, to_image
from pocketprior.core.errors import GraphError, PackError, UnknownNameError, UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.photo.photo import Photo
from pocketprior.core.photo.resize import thumbnail
from pocketprior.core.restore import restorer as restore_module
from pocketprior.core.restore.restorer import Restorer, graph_names
from pocketprior.core.sampling.noise import normal
from support import packs
from support.padding import crop, pad_to_multiple

Array = NDArray[np.float32]
AWKWARD = [(1, 1), (1, 97), (89, 1), (2, 3), (7, 8), (61, 67), (128, 127)]
SMALLEST = 2 * 27 + 16 + 4 + 2  # tiles.smallest_tile for the tiny pack


def levels_apart(a: NDArray[np.unsignedinteger], b: NDArray[np.unsignedinteger]) -> int:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


def plain(restorer: Restorer, photo: NDArray[np.uint8], seed: int, strength: float) -> NDArray[np.uint8]:
    """The restoration as the papers write it, in one piece: DDIM with eta 0 in eps form, float64."""
    m, graphs = restorer.manifest, restorer.graphs
    image = pad_to_multiple(to_batch(photo), 4, 8)
    code = graphs["encode"](thumbnail=thumbnail(photo, packs.SIDE))["code"]
    base = graphs["predict"](image=image)["base"]
    x = normal(seed, 0, (0, image.shape[2]), (0, image.shape[3])).astype(np.float64)
    for t, level, following in zip(m.times, m.levels[:-1], m.levels[1:], strict=True):
        v = graphs["denoise"](x=x.astype(np.float32), base=base, code=code, t=np.array([t], np.float32))["v"]
        x0 = math.sqrt(level) * x - math.sqrt(1 - level) * v
        eps = math.sqrt(1 - level) * x + math.sqrt(level) * v
        x = math.sqrt(following) * x0 + math.sqrt(1 - following) * eps
    restored = base + strength * m.gain * m.residual_scale * x
    return to_image(crop(restored.astype(np.float32), *photo.shape[:2]), np.uint8)  # type: ignore[return-value]


@pytest.mark.parametrize("size", AWKWARD)
@pytest.mark.parametrize(("seed", "strength"), [(0, 1.0), (2**64 - 1, 0.3)])
def test_split_and_fused_equal_the_plain_loop(
    fused: Restorer, split: Restorer, size: tuple[int, int], seed: int, strength: float
) -> None:
    photo = packs.photo(*size)
    expected = plain(split, photo, seed, strength)
    assert levels_apart(split(photo, seed=seed, strength=strength), expected) <= 1
    assert levels_apart(fused(photo, seed=seed, strength=strength), expected) <= 1


def test_something_is_restored_and_texture_is_added(split: Restorer) -> None:
    photo = packs.photo(64, 64)
    assert levels_apart(split(photo), photo) > 5
    assert levels_apart(split(photo), split(photo, strength=0.0)) > 5
    assert levels_apart(split(photo, seed=1), split(photo, seed=2)) > 5


@pytest.mark.parametrize("form", ["fused", "split"])
@pytest.mark.parametrize("size", [(1, 1), (1, 331), (257, 1), (211, 199), (101, 303)])
@pytest.mark.parametrize("tile", [SMALLEST, 97, 128])
def test_tiled_equals_whole(request: pytest.FixtureRequest, form: str, size: tuple[int, int], tile: int) -> None:
    restorer: Restorer = request.getfixturevalue(form)
    photo = packs.photo(*size)
    assert levels_apart(restorer(photo, tile=tile), restorer(photo)) <= 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 260),
    width=st.integers(1, 260),
    tile=st.integers(SMALLEST, 200),
    seed=st.integers(0, 2**64 - 1),
)
def test_tiled_equals_whole_for_any_size(fused: Restorer, height: int, width: int, tile: int, seed: int) -> None:
    photo = packs.photo(height, width)
    assert levels_apart(fused(photo, seed=seed, tile=tile), fused(photo, seed=seed, tile=400)) <= 1


def test_tiles_equal_to_sixteen_bits(split: Restorer) -> None:
    photo = packs.photo(150, 170, np.uint16)
    tiled, whole = split(photo, tile=96), split(photo)
    assert tiled.dtype == np.uint16
    assert levels_apart(tiled, whole) <= 2
    assert levels_apart((whole >> 8).astype(np.uint8), split((photo >> 8).astype(np.uint8))) <= 4


def test_the_same_call_gives_the_same_bytes(fused: Restorer) -> None:
    photo = packs.photo(90, 110)
    assert fused(photo, seed=5).tobytes() == fused(photo, seed=5).tobytes()


def test_the_photo_is_left_alone_and_may_be_a_view(fused: Restorer) -> None:
    photo = packs.photo(60, 80)
    kept = photo.copy()
    flipped = photo[::-1, ::2]
    np.testing.assert_array_equal(fused(flipped), fused(flipped.copy()))
    np.testing.assert_array_equal(photo, kept)


def test_the_tiny_pack_reaches_as_far_as_it_says(split: Restorer) -> None:
    """The facts of the test pack are tested too: one pixel of noise in `x`, and how far the output changes."""
    size, middle = 64, 30
    x = np.zeros((1, 3, size, size), np.float32)
    code, t = np.zeros((1, packs.CODE), np.float32), np.ones(1, np.float32)
    reach = 0
    for offset in range(4):
        changed = x.copy()
        changed[:, :, middle + offset, middle + offset] = 1
        outputs = [split.graphs["denoise"](x=x, base=x, code=code, t=t)["v"] for x in (x, changed)]
        rows, columns = np.nonzero((outputs[0] != outputs[1]).any(axis=(0, 1)))
        reach = max(reach, np.abs(rows - middle - offset).max(), np.abs(columns - middle - offset).max())
    assert reach == packs.RADIUS


class Calls:
    """Counts the calls of each graph, and can put something else in the place of their answers."""

    def __init__(self, restorer: Restorer, answers: Mapping[str, float] | None = None) -> None:
        self.counts: dict[str, int] = {}
        self.answers = answers or {}
        self.restorer = replace(restorer, graphs={n: self._wrap(n, g) for n, g in restorer.graphs.items()})

    def _wrap(self, name: str, graph: restore_module.Graph) -> restore_module.Graph:
        def call(**inputs: Array) -> dict[str, Array]:
            self.counts[name] = self.counts.get(name, 0) + 1
            outputs = graph(**inputs)
            if name in self.answers:
                for array in outputs.values():
                    array.flat[-1] = self.answers[name]
            return outputs

        return call


def test_conditions_are_computed_once_for_the_whole_photo(split: Restorer) -> None:
    calls = Calls(split)
    calls.restorer(packs.photo(150, 150), tile=96)
    tiles = calls.counts["predict"]
    assert tiles > 4
    assert calls.counts == {"encode": 1, "predict": tiles, "denoise": 2 * tiles}


@pytest.mark.parametrize("form", ["fused", "split"])
def test_strength_zero_runs_the_predictor_alone(request: pytest.FixtureRequest, form: str) -> None:
    calls = Calls(request.getfixturevalue(form))
    photo = packs.photo(64, 48)
    restored = calls.restorer(photo, strength=0)
    assert set(calls.counts) == {"encode", "predict"}
    base = calls.restorer.graphs["predict"](image=to_batch(photo))["base"]
    np.testing.assert_array_equal(restored, to_image(base, np.uint8))


def test_a_pack_with_the_fused_graph_alone_has_strength_zero_too(tmp_path: Path, fused: Restorer) -> None:
    packs.build(tmp_path, graphs=("encode", "fused"))
    photo = packs.photo(40, 40)
    assert levels_apart(Restorer.from_pack(tmp_path)(photo, strength=0), fused(photo, strength=0)) <= 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("form", "graph", "words"),
    [
        ("split", "encode", "graph 'encode': its output 'code'"),
        ("split", "predict", "graph 'predict', tile at row 0, column 0: its output 'base'"),
        ("split", "denoise", "graph 'denoise', step 1 of 2, tile at row 0, column 0: its output 'v'"),
        ("fused", "fused", "graph 'fused', tile at row 0, column 0: its output 'restored'"),
    ],
)
def test_a_value_that_is_not_finite_is_located(
    request: pytest.FixtureRequest, form: str, graph: str, words: str, value: float
) -> None:
    calls = Calls(request.getfixturevalue(form), {graph: value})
    with pytest.raises(GraphError, match=words):
        calls.restorer(packs.photo(20, 20))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "colourise"}, "unknown task 'colourise'; choose one of: cleanup"),
        ({"strength": 1.1}, "strength .*got 1.1"),
        ({"strength": -0.1}, "strength .*got -0.1"),
        ({"strength": math.nan}, "strength .*got nan"),
        ({"seed": -1}, "seed .*got -1"),
        ({"seed": 2**64}, "seed .*got 18446744073709551616"),
        ({"tile": SMALLEST - 4}, "expected a tile .*got 72"),
        ({"tile": 128, "max_memory": 2**30}, "give one of them"),
        ({"max_memory": 2**20}, "needs at least 16[0-9] MiB of memory, got a limit of 1 MiB"),
    ],
)
def test_options_out_of_range(fused: Restorer, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fused(packs.photo(9, 9), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.int8),
    ],
)
def test_arrays_that_are_no_image(fused: Restorer, image: NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match=r"expected an image uint8 or uint16 \(height, width, 3\)"):
        fused(image)


def test_the_task_may_be_named(fused: Restorer) -> None:
    photo = packs.photo(16, 16)
    np.testing.assert_array_equal(fused(photo, task="cleanup"), fused(photo))


def test_progress_counts_the_tiles(fused: Restorer) -> None:
    seen: list[tuple[int, int]] = []
    fused(packs.photo(150, 100), tile=96, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, len(seen) - 1) for i in range(len(seen))]
    assert len(seen) > 3


def test_a_small_limit_gives_small_tiles_and_the_same_photo(fused: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_module, "PROCESS_BYTES", 0)
    photo = packs.photo(300, 300)
    seen: list[int] = []
    limit = 2 * photo.nbytes + 150 * 150 * (400 + restore_module.HOST_BYTES_PER_PIXEL)
    tiled = fused(photo, max_memory=limit, progress=lambda _, total: seen.append(total))
    assert seen[0] > 1
    assert levels_apart(tiled, fused(photo)) <= 1


def test_without_a_limit_a_large_photo_gets_working_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_module, "MAX_MEMORY_BYTES", 0)
    image = np.broadcast_to(np.uint8(0), (20000, 20000, 3))
    edge = restore_module.tile_edge(image, None, bytes_per_pixel=1000, overlap=100, multiple=4)
    assert 0.98 < edge * edge * 1000 / restore_module.WORKING_BYTES <= 1


def test_what_fits_is_one_tile_up_to_the_largest() -> None:
    """Core ML packages take no longer ones."""
    for width, edge in ((4001, 4004), (60001, 4096)):
        image = np.broadcast_to(np.uint8(0), (5, width, 3))
        assert restore_module.tile_edge(image, None, bytes_per_pixel=500, overlap=100, multiple=4) == edge


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("auto", ["encode", "predict", "fused"]),
        ("fused", ["encode", "predict", "fused"]),
        ("split", ["encode", "predict", "denoise"]),
    ],
)
def test_graphs_of_a_form(manifest: Manifest, form: str, names: list[str]) -> None:
    assert graph_names(manifest, form) == names


def test_forms_that_a_pack_has_not(tmp_path: Path, manifest: Manifest) -> None:
    only_split = packs.build(tmp_path / "split", graphs=("encode", "predict", "denoise"))
    only_fused = packs.build(tmp_path / "fused", graphs=("encode", "fused"))
    assert graph_names(only_split, "auto") == ["encode", "predict", "denoise"]
    assert graph_names(only_fused, "auto") == ["encode", "fused"]
    with pytest.raises(PackError, match="has no fused graphs; it has: encode, predict, denoise"):
        graph_names(only_split, "fused")
    with pytest.raises(PackError, match="has no split graphs"):
        graph_names(only_fused, "split")
    with pytest.raises(UnknownNameError, match="choose one of: auto, fused, split"):
        graph_names(manifest, "whole")


def test_from_pack_says_what_is_wrong(tmp_path: Path, built_pack: Path) -> None:
    with pytest.raises(PackError, match="expected the folder of a pack"):
        Restorer.from_pack(tmp_path)
    with pytest.raises(UnknownNameError, match="unknown runtime 'tpu'; choose one of: onnxruntime, openvino, replay"):
        Restorer.from_pack(built_pack, runtime="tpu")


class TestPhoto:
    def test_everything_but_the_pixels_is_kept(self, fused: Restorer) -> None:
        alpha = np.full((20, 30), 7, np.uint8)
        photo = Photo(packs.photo(20, 30), alpha=alpha, icc=b"icc", exif=b"exif", notices=("careful",))
        restored = fused.photo(photo, seed=3)
        np.testing.assert_array_equal(restored.pixels, fused(photo.pixels, seed=3))
        assert restored.alpha is alpha
        assert (restored.icc, restored.exif, restored.notices) == (b"icc", b"exif", ("careful",))

    def test_grey_stays_grey(self, fused: Restorer) -> None:
        grey = np.repeat(packs.photo(33, 21)[..., :1], 3, axis=2)
        restored = fused.photo(Photo(grey, grey=True)).pixels
        colours = fused(grey).astype(np.float64)
        assert np.ptp(colours, axis=2).max() > 0
        assert np.ptp(restored, axis=2).max() == 0
        np.testing.assert_array_equal(restored[..., 0], np.floor(colours.mean(axis=2) + 0.5))


MEASURE = """
import sys
import numpy as np
from pocketprior import Restorer

height, width, limit = (int(text) for text in sys.argv[2:])
photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
tiles = []
Restorer.from_pack(sys.argv[1])(photo, max_memory=limit, progress=lambda done, total: tiles.append(total))
# Not ru_maxrss: a child starts with the peak of the process that it was forked from.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(tiles[-1], peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory that Linux reports")
def test_the_whole_process_stays_below_the_limit(built_pack: Path) -> None:
    limit = 240 * 2**20  # the photo in one piece would take 1.6 GB
    command = [sys.executable, "-c", MEASURE, str(built_pack), "1500", "2001", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    tiles, kilobytes = (int(text) for text in done.stdout.split())
    assert tiles > 20
    assert kilobytes * 1024 <= limit
