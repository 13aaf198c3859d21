"""Gen2Res through the pipeline, entered at the level of the photo's own noise."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketprior.core.arrays import to_batch, to_image
from pocketprior.core.cli import main
from pocketprior.core.errors import PackError, UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo
from pocketprior.core.restore import pipeline
from pocketprior.core.restore.noise_sigma import noise_sigma
from pocketprior.core.restore.restorer import Graph, Restorer
from pocketprior.core.sampling.noise import normal
from pocketprior.core.sampling.steps import unclipped
from support import packs, system_packs

Array = NDArray[np.float32]
SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that enters photos at their own noise."""
    folder = tmp_path_factory.mktemp("own") / "pack"
    tiny = system_packs.GEN2RES
    packs.build(folder, tiny._replace(fields={**tiny.fields, "start_level": 1.0}))
    return folder


@pytest.fixture(scope="module")
def own(folder: Path) -> Restorer:
    return Restorer.from_pack(folder, threads=1)


def from_level(restorer: Restorer, start_level: float | None) -> Restorer:
    return replace(restorer, manifest=replace(restorer.manifest, start_level=start_level))


def noting(restorer: Restorer) -> tuple[Restorer, list[dict[str, Array]]]:
    """A restorer that notes the inputs of `denoise`."""
    seen: list[dict[str, Array]] = []
    graph = restorer.graphs["denoise"]

    def call(**inputs: Array) -> dict[str, Array]:
        seen.append({name: array.copy() for name, array in inputs.items()})
        return graph(**inputs)

    return replace(restorer, graphs={"denoise": call}), seen


def sampled(denoise: Graph, x: NDArray[np.float64], levels: list[float], times: list[float]) -> NDArray[np.float64]:
    """DDIM in float64."""
    for t, level, following in zip(times, levels[:-1], levels[1:], strict=True):
        eps = denoise(x=x.astype(np.float32), t=np.array([t], np.float32))["eps"]
        clean = np.clip((x - math.sqrt(1 - level) * eps) / math.sqrt(level), -1, 1)
        eps = (x - math.sqrt(level) * clean) / math.sqrt(1 - level)
        x = math.sqrt(following) * clean + math.sqrt(1 - following) * eps
    return x


def plain(restorer: Restorer, photo: NDArray[np.uint8], noise: float) -> NDArray[np.uint8]:
    """The photo at its own level, without added noise; what was clipped is replaced after a first look."""
    m, sigma = restorer.manifest, 2 * noise / 255
    level = 1 / (1 + sigma**2)
    time = float(np.interp(-math.sqrt(-math.log(level)), -np.sqrt(-np.log(m.levels)), [*m.times, 0.0]))
    later = [i for i, further in enumerate(m.levels[:-1]) if further > level]
    levels, times = [level, *(m.levels[i] for i in later), 1.0], [time, *(m.times[i] for i in later)]
    state = 2 * to_batch(photo).astype(np.float64) - 1
    first = sampled(restorer.graphs["denoise"], math.sqrt(level) * state, [level, 1.0], [time])
    state = unclipped(state, first, sigma)
    x = sampled(restorer.graphs["denoise"], math.sqrt(level) * state, levels, times)
    return to_image(((x + 1) / 2).clip(0, 1).astype(np.float32), np.uint8)  # type: ignore[return-value]


@pytest.mark.parametrize("bright", [0, 90], ids=["inside the range", "clipped"])
@pytest.mark.parametrize("given", [None, 4.0, 40.0])
def test_it_is_the_plain_loop_from_its_own_level(own: Restorer, bright: int, given: float | None) -> None:
    photo = np.minimum(packs.photo(SIDE, SIDE).astype(int) + bright, 255).astype(np.uint8)
    noise = noise_sigma(photo) if given is None else given
    restored = own(photo, noise=given)
    assert np.abs(restored.astype(int) - plain(own, photo, noise)).max() <= 1
    assert not np.array_equal(restored, photo)


def test_no_noise_is_drawn(own: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the seed makes no difference either."""

    def drawn(*_: object) -> None:
        raise AssertionError("noise was added")

    monkeypatch.setattr(pipeline, "normal", drawn)
    photo = packs.photo(SIDE, SIDE)
    assert np.array_equal(own(photo, seed=1), own(photo, seed=2))


def test_a_photo_without_noise_comes_back_as_it_is(own: Restorer) -> None:
    restorer, seen = noting(own)
    photo = np.full((40, 50, 3), 0, np.uint8) + np.arange(50, dtype=np.uint8)[:, np.newaxis]
    assert np.array_equal(restorer(photo), photo)
    assert np.array_equal(restorer(packs.photo(40, 50), noise=0), packs.photo(40, 50))
    assert seen == []


def test_hardly_any_noise_hardly_changes_it(own: Restorer) -> None:
    """At most three standard deviations, whatever the network: the state has no room for more."""
    photo = packs.photo(SIDE, SIDE)
    assert np.abs(own(photo, noise=0.5).astype(int) - photo).max() <= 3


def test_clipped_values_cost_one_pass(own: Restorer) -> None:
    photo = packs.photo(SIDE, SIDE)
    inside, seen = noting(own)
    inside(photo, noise=20)
    steps = len(seen)
    clipped, seen = noting(own)
    photo[3, 4] = 0
    clipped(photo, noise=20)
    assert len(seen) == steps + 1


def test_only_missing_noise_is_added_to_reach_a_level(own: Restorer) -> None:
    level = own.manifest.levels[1]
    restorer, seen = noting(from_level(own, level))
    photo, noise = packs.photo(SIDE, SIDE), 12.0
    restorer(photo, noise=noise, seed=3)
    added = math.sqrt(1 - level - level * (2 * noise / 255) ** 2)
    field = normal(3, 0, (0, SIDE), (0, SIDE))
    np.testing.assert_allclose(
        seen[0]["x"], math.sqrt(level) * (2 * to_batch(photo) - 1) + added * field, rtol=0, atol=1e-5
    )
    assert seen[0]["t"] == np.float32(own.manifest.times[1])
    assert len(seen) == len(own.manifest.times) - 1


def test_a_pack_that_does_not_say_where_it_starts_adds_all_noise(own: Restorer) -> None:
    """As packs did before they could say it."""
    restorer, seen = noting(from_level(own, None))
    photo, level = packs.photo(SIDE, SIDE), own.manifest.levels[0]
    restorer(photo, seed=3)
    field = normal(3, 0, (0, SIDE), (0, SIDE))
    expected = math.sqrt(level) * (2 * to_batch(photo) - 1) + math.sqrt(1 - level) * field
    np.testing.assert_allclose(seen[0]["x"], expected, rtol=0, atol=1e-5)


def test_more_noise_than_the_model_counts_is_noticed(own: Restorer) -> None:
    photo = Photo(packs.photo(SIDE, SIDE))
    assert own.photo(photo, noise=80).notices == ()
    (notice,) = own.photo(photo, noise=100).notices
    assert notice == "it has noise of about 100 grey levels, of which the model removes at most 92"


@pytest.mark.parametrize("noise", [-1.0, 256.0, math.nan, math.inf])
def test_noise_that_cannot_be_is_refused(own: Restorer, noise: float) -> None:
    with pytest.raises(UsageError, match="expected noise of a standard deviation from 0 to 255 grey levels"):
        own(packs.photo(8, 8), noise=noise)


def test_noise_is_refused_by_a_model_that_does_not_count_it(own: Restorer) -> None:
    with pytest.raises(UsageError, match="'tiny-cleanup' does not use the noise of a photo; leave the option out"):
        from_level(own, None)(packs.photo(8, 8), noise=5.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: replace(m, start_level=0.5), r"start_level: given 0.5, expected one of the levels"),
        (lambda m: replace(m, start_level=m.levels[0]), ""),
    ],
)
def test_a_start_level_is_one_of_the_levels(own: Restorer, change: Callable[[Manifest], Manifest], words: str) -> None:
    if not words:
        assert change(own.manifest).start_level == own.manifest.levels[0]
        return
    with pytest.raises(PackError, match=words):
        change(own.manifest)


def test_a_model_that_starts_from_noise_has_no_start_level(tmp_path: Path) -> None:
    manifest = packs.build(tmp_path, golden=False)
    with pytest.raises(PackError, match='expected null where the start is not "image"'):
        replace(manifest, start_level=1.0)


class TestCommand:
    def restore(self, folder: Path, photo: Path, *options: str) -> int:
        return main(["restore", str(photo), "--pack", str(folder), "-o", str(photo.with_name("out.png")), *options])

    @pytest.fixture
    def photo(self, tmp_path: Path) -> Path:
        write(Photo(packs.photo(SIDE, SIDE)), tmp_path / "photo.png")
        return tmp_path / "photo.png"

    def test_noise_is_given(self, folder: Path, own: Restorer, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.restore(folder, photo, "--noise", "30", "--json") == 0
        assert json.loads(capsys.readouterr().out)["noise"] == 30
        expected = own(read(photo).pixels, noise=30)
        assert np.abs(read(photo.with_name("out.png")).pixels.astype(int) - expected).max() <= 1

    def test_noise_of_a_grey_photo_counts_along_grey(self, folder: Path, own: Restorer, tmp_path: Path) -> None:
        grey = np.repeat(packs.photo(SIDE, SIDE)[..., :1], 3, axis=2)
        write(Photo(grey), tmp_path / "grey.png")
        assert self.restore(folder, tmp_path / "grey.png", "--noise", "20") == 0
        expected = own(grey, noise=3**0.5 * 20)
        assert np.abs(read(tmp_path / "out.png").pixels.astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("options", [("--noise", "-3"), ("--noise", "300"), ("--noise", "nan")])
    def test_noise_out_of_range(
        self, folder: Path, photo: Path, options: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.restore(folder, photo, *options) == 2
        assert "from 0 to 255 grey levels" in capsys.readouterr().err

    def test_the_embedded_pack_takes_none(self, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["restore", str(photo), "--noise", "10"]) == 2
        assert "does not use the noise of a photo" in capsys.readouterr().err
