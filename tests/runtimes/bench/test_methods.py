from __future__ import annotations

import sys

import numpy as np
import pytest

from pocketprior.core.degradations.fixed import DAMAGES, FixedDamage
from pocketprior.core.errors import MissingExtraError
from pocketprior.core.metrics import psnr
from pocketprior.core.metrics.baselines import bm3d_version
from pocketprior.runtimes.bench import methods
from pocketprior.runtimes.bench.methods import Nlm, ResultCache
from pocketprior.runtimes.bench.trials import BenchPair, BenchPhoto, Trial, trials
from support import packs

PHOTO = packs.photo(64, 72)
NOISE, JPEG = DAMAGES[1], DAMAGES[4]


def offset(picture, **_):
    return picture + np.float32(40 / 255)


@pytest.fixture
def cache(tmp_path):
    return ResultCache(tmp_path)


def test_fast_nl_means_denoises_and_keeps_the_order_of_the_channels():
    smooth = np.full((64, 64, 3), (200, 120, 40), np.uint8)
    restored = methods.fast_nl_means(NOISE(smooth), Nlm(20, 3, 11))
    assert psnr(restored, smooth) > psnr(NOISE(smooth), smooth) + 5
    assert restored.flags["C_CONTIGUOUS"]


def test_bm3d_denoises():
    smooth = np.full((32, 32, 3), (200, 120, 40), np.uint8)
    restored = methods.bm3d(NOISE(smooth), 25)
    assert (restored.shape, restored.dtype) == (smooth.shape, np.uint8)
    assert psnr(restored, smooth) > psnr(NOISE(smooth), smooth) + 10


def trial(damage, count, sigma=None):
    photos = [packs.photo(150, 200, seed=i) for i in range(count)]
    return Trial(damage.name, sigma, [], [BenchPair(str(i), photo, damage(photo)) for i, photo in enumerate(photos)])


def test_fast_nl_means_is_tuned_over_strengths_and_windows(monkeypatch, cache):
    """Right at strength 4 with the windows of 11 pixels, else worse the further away."""
    dark = np.full((64, 64, 3), 100, np.uint8)

    def denoise(_, settings):
        return dark + np.uint8(1 + abs(settings.strength - 4) + (settings.search != 11))

    monkeypatch.setattr(methods, "fast_nl_means", denoise)
    best = methods.nl_means_method(Trial("any", None, [], [BenchPair("a", dark, dark)]), cache)
    assert (best.settings[:15], best.settings[-11:]) == ("h = hColor = 4,", ", search 11")


def test_bm3d_gets_the_true_sigma_and_is_tuned_for_the_rest(monkeypatch, cache):
    assert methods.bm3d_method(Trial("noise 25", 25, [], []), cache, ()).settings == "sigma 25"
    seen = []

    def denoise(image, sigma):
        seen.append(image.shape)
        return np.clip(image.astype(int) + int(abs(sigma - 7)), 0, 255).astype(np.uint8)

    monkeypatch.setattr(methods, "bm3d", denoise)
    assert methods.bm3d_method(trial(JPEG, 7), cache, ()).settings == "sigma 7"
    assert set(seen) == {(128, 128, 3)}
    assert len(seen) % 5 == 0


def test_settings_are_not_shared_between_damages(monkeypatch, cache):
    monkeypatch.setattr(methods, "NLM_WINDOWS", ((3, 7),))
    monkeypatch.setattr(methods, "NLM_STRENGTHS", (1, 30))
    photos = [BenchPhoto("a", PHOTO)]
    brighter, noisy = trials(photos, photos, [FixedDamage("brighter", offset), NOISE])
    assert methods.nl_means_method(brighter, cache).settings.startswith("h = hColor = 1,")
    assert methods.nl_means_method(noisy, cache).settings.startswith("h = hColor = 30,")


@pytest.mark.parametrize(("package", "call"), [("cv2", methods.opencv_version), ("bm3d", bm3d_version)])
def test_a_missing_package_names_the_extra(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pocketprior\[bench\]"):
        call()
