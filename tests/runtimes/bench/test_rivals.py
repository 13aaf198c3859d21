from __future__ import annotations

import sys

import numpy as np
import packs
import pytest

from pocketprior.core.errors import MissingExtraError
from pocketprior.core.metrics import psnr
from pocketprior.runtimes.bench import rivals
from pocketprior.runtimes.bench.cache import Cache
from pocketprior.runtimes.bench.photos import DAMAGES, BenchPhoto, Damage
from pocketprior.runtimes.bench.rivals import Nlm

PHOTO = packs.photo(64, 72)
NOISE, JPEG = DAMAGES[1], DAMAGES[3]


def offset(picture, _):
    return picture + np.float32(40 / 255)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path)


def test_fast_nl_means_denoises_and_keeps_the_order_of_the_channels():
    smooth = np.full((64, 64, 3), (200, 120, 40), np.uint8)
    restored = rivals.fast_nl_means(NOISE(smooth), Nlm(20, 3, 11))
    assert psnr(restored, smooth) > psnr(NOISE(smooth), smooth) + 5
    assert restored.flags["C_CONTIGUOUS"]


def test_bm3d_denoises():
    smooth = np.full((32, 32, 3), (200, 120, 40), np.uint8)
    restored = rivals.bm3d(NOISE(smooth), 25)
    assert (restored.shape, restored.dtype) == (smooth.shape, np.uint8)
    assert psnr(restored, smooth) > psnr(NOISE(smooth), smooth) + 10


def test_the_best_settings_are_chosen_and_kept(monkeypatch, cache):
    """A rival that is right at strength 4 with the second windows, else worse the further away."""
    calls = []

    def rival(_, settings):
        calls.append(settings)
        distance = abs(settings.strength - 4) + (settings.search != 11)
        return PHOTO + np.uint8(1 + distance)

    monkeypatch.setattr(rivals, "fast_nl_means", rival)
    dark = [BenchPhoto("a", np.minimum(PHOTO, 200))]
    monkeypatch.setattr(rivals, "validation_crops", lambda photos, *_: [(PHOTO, PHOTO)] * len(photos))
    best = rivals.tuned_nl_means(NOISE, dark, cache)
    assert best.strength == 4
    assert best.search == 11
    assert max(settings.strength for settings in calls) == 6, "the search goes on after the best was passed"
    calls.clear()
    assert rivals.tuned_nl_means(NOISE, dark, cache) == best
    assert calls == []


def test_bm3d_is_told_the_true_sigma_and_tuned_for_the_rest(monkeypatch, cache):
    assert rivals.tuned_bm3d_sigma(NOISE, [], cache) == 25
    seen = []

    def rival(image, sigma):
        seen.append(image.shape)
        return np.clip(image.astype(int) + int(abs(sigma - 7)), 0, 255).astype(np.uint8)

    monkeypatch.setattr(rivals, "bm3d", rival)
    photos = [BenchPhoto(str(i), packs.photo(150, 200, seed=i)) for i in range(7)]
    assert rivals.tuned_bm3d_sigma(JPEG, photos, cache) == 7
    assert set(seen) == {(128, 128, 3)}
    assert len(seen) % 5 == 0


def test_settings_are_not_shared_between_damages(monkeypatch, cache):
    monkeypatch.setattr(rivals, "NLM_WINDOWS", ((3, 7),))
    monkeypatch.setattr(rivals, "NLM_STRENGTHS", (1, 30))
    photos = [BenchPhoto("a", PHOTO)]
    clean = Damage("offset", offset)
    assert rivals.tuned_nl_means(clean, photos, cache).strength == 1
    assert rivals.tuned_nl_means(NOISE, photos, cache).strength == 30


@pytest.mark.parametrize(("package", "call"), [("cv2", rivals.opencv_version), ("bm3d", rivals.bm3d_version)])
def test_a_missing_package_names_the_extra(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pocketprior\[bench\]"):
        call()
