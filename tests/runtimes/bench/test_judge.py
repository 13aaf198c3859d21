from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core import metrics
from pocketprior.core.degradations.fixed import DAMAGES
from pocketprior.runtimes.bench.methods import ResultCache
from pocketprior.runtimes.bench.quality import BETTER, CAP, QUICK, Judge
from support import packs

TRUE = packs.photo(96, 192)
RESTORED = DAMAGES[0](TRUE)


@pytest.fixture
def judge(tmp_path):
    return Judge.open(ResultCache(tmp_path))


def test_judge_measures_what_the_table_shows(judge):
    values = judge(RESTORED, TRUE)
    assert list(values) == ["PSNR", "SSIM", "HaarPSI", "NIQE", "SWD"]
    assert values["PSNR"] == metrics.psnr(RESTORED, TRUE)
    assert values["NIQE"] == metrics.niqe(RESTORED)
    assert values["SWD"] == metrics.swd(RESTORED, TRUE)
    assert all(type(value) is float for value in values.values())
    assert set(values) <= set(BETTER)


def test_identical_images_have_the_highest_psnr_of_the_tables(judge):
    values = judge(TRUE, TRUE)
    assert (values["PSNR"], values["SSIM"], values["HaarPSI"], values["SWD"]) == (CAP, 1, pytest.approx(1), 0)


def test_quick_leaves_the_slow_metrics_out(judge):
    quick = Judge.open(judge.cache, quick=True)
    assert tuple(quick(RESTORED, TRUE)) == QUICK
    assert len(judge(RESTORED, TRUE)) == 5


def test_judge_measures_a_pair_once(judge, monkeypatch):
    first = judge(RESTORED, TRUE)
    monkeypatch.setattr(metrics, "niqe", lambda _: pytest.fail("measured again"))
    assert Judge.open(judge.cache)(RESTORED, TRUE) == first


def test_judge_with_lpips(judge, tmp_path):
    rng = np.random.default_rng(0)
    layers = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    arrays = {}
    for i, (layer, shape) in enumerate(layers.items()):
        arrays[f"features.{layer}.weight"] = rng.normal(size=shape).astype(np.float32) / 50
        arrays[f"features.{layer}.bias"] = np.zeros(shape[0], np.float32)
        arrays[f"lin{i}.model.1.weight"] = np.ones((1, shape[0], 1, 1), np.float32)
    np.savez(tmp_path / "weights.npz", **arrays)
    values = Judge.open(judge.cache, tmp_path / "weights.npz")(RESTORED, TRUE)
    assert list(values)[-1] == "LPIPS"
    assert values["LPIPS"] > 0
