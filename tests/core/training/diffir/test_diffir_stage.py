from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pocketprior.core.errors import UnknownNameError, UsageError
from pocketprior.core.training.data.photos import Pool, val_pairs
from pocketprior.core.training.diffir.diffir_stage import draw_pair, held_back, restored_psnr, strip
from pocketprior.core.training.diffir.phases import PRETRAIN_STAGE
from pocketprior.core.training.loop.stage import TrainingStage

from .conftest import MODEL

SMALL = replace(PRETRAIN_STAGE.recipe, model=MODEL, crop=32)
MASKED = replace(SMALL, model=replace(MODEL, inputs=4), mask="thick")


@pytest.mark.parametrize(("scale", "task"), [(2, "sr2"), (4, "sr4"), (4, "realsr4")])
def test_super_resolution_shrinks_the_crop(scale: int, task: str, pool: Pool) -> None:
    recipe = replace(SMALL, model=replace(MODEL, scale=scale), task=task)
    sample = draw_pair(pool, 32, recipe, np.random.default_rng(0))
    assert sample["image"].shape == (3, 32 // scale, 32 // scale)
    assert sample["clean"].shape == (3, 32, 32)


def test_masked_pixels_are_gone_and_the_others_as_they_were(pool: Pool) -> None:
    sample = draw_pair(pool, 64, MASKED, np.random.default_rng(0))
    colours, mask = sample["image"][:3], sample["image"][3]
    assert set(np.unique(mask)) == {0, 1}
    assert (colours[:, mask == 1] == 0).all()
    np.testing.assert_array_equal(colours[:, mask == 0], sample["clean"][:, mask == 0])


def test_paired_photos_are_not_damaged_again(pool: Pool) -> None:
    darker = [photo // 2 for photo in pool.photos]
    paired = Pool(pool.photos, pool.structures, pool.contexts, darker)
    sample = draw_pair(paired, 16, SMALL, np.random.default_rng(0))
    np.testing.assert_allclose(sample["image"], sample["clean"] / 2, atol=1 / 255)


def test_held_back_pairs_are_those_of_every_system(pool: Pool) -> None:
    damaged, clean = val_pairs(pool, SMALL.task)
    pairs = held_back(pool, SMALL)
    assert torch.equal(torch.cat([image for image, _ in pairs]), damaged)
    assert torch.equal(torch.cat([truth for _, truth in pairs]), clean)


@pytest.mark.parametrize("recipe", [MASKED, replace(SMALL, model=replace(MODEL, scale=4), task="sr4")])
def test_other_held_back_pairs_never_change(recipe, pool: Pool) -> None:
    first, again = held_back(pool, recipe), held_back(pool, recipe)
    assert len(first) == len(pool.photos)
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))


def test_psnr_and_strip() -> None:
    clean = torch.full((1, 3, 8, 8), 0.5)
    assert restored_psnr(clean, clean + 0.1, clean) == pytest.approx(20, abs=1e-3)
    assert restored_psnr(clean, clean + 2, clean) == pytest.approx(-20 * np.log10(0.5), abs=1e-3)  # clipped to 1
    picture = strip(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 8, 8) * 2, clean)
    assert picture.shape == (3, 8, 24)
    assert picture[0, 0].tolist() == [0.0] * 8 + [1.0] * 8 + [0.5] * 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "sunburn"}, "unknown task for a model of scale 1 'sunburn'"),
        ({"task": "motionblur", "model": replace(MODEL, scale=2)}, "choose one of: sr2, realsr2"),
        ({"mask": "huge"}, "unknown mask 'huge'"),
        ({"crop": 30}, "multiple of 4"),
        ({"grown": (64, 48)}, "sizes that rise"),
        ({"grown": (32,)}, "sizes that rise"),
        ({"grown": (66,)}, "crop is 66, this model needs a multiple of 4"),
        ({"grow_every": 0}, "'grow_every' must be at least 1"),
    ],
)
def test_recipes_that_do_not_suit_the_model_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(SMALL, **changes)


def test_wrong_names_are_named() -> None:
    with pytest.raises(UnknownNameError):
        replace(SMALL, task="sunburn")


@pytest.mark.parametrize(
    "changes", [{"model": replace(MODEL, inputs=4)}, {"model": replace(MODEL, scale=4), "task": "sr4"}]
)
def test_stages_run_on_every_kind_of_image(changes: dict, build: Callable[..., TrainingStage], pool: Pool) -> None:
    for name in ("pretrain", "joint"):
        stage = build(name, **changes)
        sample = stage.draw(pool, 16, np.random.default_rng(0))
        batch = {key: torch.from_numpy(value)[None] for key, value in sample.items()}
        assert stage.loss(batch)["loss"].isfinite()
        with torch.no_grad():
            assert "val_psnr" in stage.validate(stage.model).figures


def test_crops_grow_by_the_number_of_the_step() -> None:
    recipe = SMALL.with_settings(["grown=48,64", "grow_every=3"])
    assert [recipe.crop_at(step) for step in range(8)] == [32, 32, 32, 48, 48, 48, 64, 64]
    assert recipe.largest_crop == 64
    assert [recipe.megapixels(step) for step in (0, 2, 4, 7)] == [
        sum(recipe.batch * recipe.crop_at(i) ** 2 for i in range(step)) / 1e6 for step in (0, 2, 4, 7)
    ]
    assert [SMALL.crop_at(step) for step in (0, 10**6)] == [32, 32]
    assert SMALL.largest_crop == 32
