"""The base stage and what constraining shares with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core.errors import UnknownNameError, UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.gen2res import build as build_denoiser
from pocketprior.core.training.data import photos
from pocketprior.core.training.gen2res import base as base_stage
from pocketprior.core.training.gen2res.base import BASE_STAGE, CONSTRAIN_STAGE
from pocketprior.core.training.loop.loop import train
from pocketprior.core.training.loop.stage import TrainingStage

TINY_STEPS = {
    "steps": 3, "batch": 2, "crop": 32, "rate": 1e-3, "warmup": 0, "save_every": 3, "precision": "fp32", "ema": 0.0
}  # fmt: skip


@pytest.fixture(autouse=True)
def _few_held_back_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_stage, "VAL_CROPS", 4)


def make(name: str, pool: photos.Pool, path: Path, crop: int = 64, **changes: object) -> TrainingStage:
    data = photos.TrainingData(pool, pool)
    torch.manual_seed(0)
    earlier = checkpoints.load(path, "gen2res")
    if name == "base":
        model = build_denoiser(earlier).config
        return BASE_STAGE.build(replace(BASE_STAGE.recipe, crop=crop, model=replace(model, **changes)), {}, data)
    recipe = replace(CONSTRAIN_STAGE.recipe, crop=crop, method=name, rank=2, **changes)
    return CONSTRAIN_STAGE.build(recipe, {"gen2res": earlier}, data)


def batch_of(stage: TrainingStage, pool: photos.Pool, count: int = 4) -> dict[str, torch.Tensor]:
    samples = [stage.draw(pool, 32, np.random.default_rng(i)) for i in range(count)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


@pytest.mark.parametrize("name", ["base", "full", "lora"])
def test_stage_trains_its_own_parameters_and_no_others(
    name: str, pool: photos.Pool, base: Path, tmp_path: Path
) -> None:
    stage = make(name, pool, base)
    before = {n: t.clone() for n, t in stage.model.state_dict().items()}
    for _ in train(
        stage, photos.TrainingData(pool, pool), replace(BASE_STAGE.recipe, **TINY_STEPS), tmp_path, workers=0
    ):
        pass
    learnt = {n for n, p in stage.model.named_parameters() if not torch.equal(p, before[n])}
    assert learnt == {n for n in before if name != "lora" or ".factors." in n}


def test_constrained_model_is_what_its_checkpoint_builds(pool: photos.Pool, base: Path, tmp_path: Path) -> None:
    stage = make("lora", pool, base)
    for _ in train(
        stage, photos.TrainingData(pool, pool), replace(BASE_STAGE.recipe, **TINY_STEPS), tmp_path, workers=0
    ):
        pass
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([0.2])
    constrained = build_denoiser(checkpoints.load(tmp_path / "model.safetensors", "gen2res"))
    with torch.no_grad():
        torch.testing.assert_close(constrained(x, t), stage.model.eval()(x, t), rtol=0, atol=1e-5)
        assert not torch.allclose(constrained(x, t), build_denoiser(checkpoints.load(base, "gen2res"))(x, t))


@pytest.mark.parametrize("name", ["full", "lora"])
def test_constraining_starts_at_the_base(name: str, pool: photos.Pool, base: Path) -> None:
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([0.2])
    with torch.no_grad():
        found = make(name, pool, base).model(x, t)
        torch.testing.assert_close(found, build_denoiser(checkpoints.load(base, "gen2res"))(x, t))


def test_constraining_learns_the_album(pool: photos.Pool, base: Path) -> None:
    """The loss on a few crops falls, with factors alone."""
    stage = make("lora", pool, base)
    model = stage.model.requires_grad_(False)
    for name in stage.trained:
        model.get_submodule(name).requires_grad_(True)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    batch, losses = batch_of(stage, pool), []
    for _ in range(30):
        losses.append(stage.loss(batch)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert float(losses[-1].detach()) < 0.9 * float(losses[0].detach())


def test_draw_is_a_function_of_its_generator(pool: photos.Pool, base: Path) -> None:
    stage = make("base", pool, base)
    first, again, other = (stage.draw(pool, 32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["clean"], other["clean"])
    assert first["clean"].shape == first["noise"].shape == (3, 32, 32)


def test_levels_of_a_sample_belong_together(pool: photos.Pool, base: Path) -> None:
    stage = make("full", pool, base, noisiest=4)
    seen = set()
    for seed in range(60):
        sample = stage.draw(pool, 32, np.random.default_rng(seed))
        step = round(float(sample["t"]) * 1000)
        seen.add(step)
        assert sample["alpha_bar"] == pytest.approx(base_stage.ALPHA_BARS[step - 1])
        assert sample["before"] == pytest.approx(base_stage.ALPHA_BARS[step - 2] if step > 1 else 1.0)
    assert seen == {1, 2, 3, 4}


def test_only_generated_albums_are_mirrored(base: Path) -> None:
    """G6: a photo that is dark on its left stays so in a personal album."""
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 64, 3)).copy()
    pool = photos.gather([ramp], minimum=64, side=0, structures=False)

    def mirrored(stage: TrainingStage) -> set[bool]:
        squares = [stage.draw(pool, 32, np.random.default_rng(seed))["clean"] for seed in range(20)]
        return {bool(square[0, 0, 0] > square[0, 0, -1]) for square in squares}

    assert CONSTRAIN_STAGE.recipe.mirror is False
    assert mirrored(make("lora", pool, base)) == {False}
    assert mirrored(make("lora", pool, base, mirror=True)) == {False, True}
    assert mirrored(make("base", pool, base)) == {False, True}


def test_squares_are_averaged_from_larger_ones() -> None:
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (40, 40))[:, :, None].repeat(3, axis=2)
    pool = photos.gather([fine], minimum=16, side=0, structures=False)
    found = {
        round(float(base_stage.draw_square(pool, 20, 2, False, np.random.default_rng(seed)).std()), 3)
        for seed in range(20)
    }
    assert found == {0.5, 0.0}


def test_small_photos_are_not_shrunk_below_the_crop() -> None:
    photo = np.zeros((50, 90, 3), np.uint8)
    pool = photos.gather([photo], minimum=32, side=0, structures=False)
    for seed in range(10):
        assert base_stage.draw_square(pool, 32, 3, True, np.random.default_rng(seed)).shape == (32, 32, 3)


def test_dropout_is_the_same_when_a_batch_comes_again(pool: photos.Pool, base: Path) -> None:
    stage = make("base", pool, base, dropout=0.5)
    for parameter in stage.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    batch = batch_of(stage, pool)
    first = stage.loss(batch)["loss"]
    torch.rand(7)
    torch.testing.assert_close(stage.loss(batch)["loss"], first, rtol=0, atol=0)
    batch["seed"] += 1
    assert stage.loss(batch)["loss"] != first


def test_validation_judges_and_pictures(pool: photos.Pool, base: Path) -> None:
    stage = make("base", pool, base)
    with torch.no_grad():
        found = stage.validate(stage.model.eval())
        again = stage.validate(stage.model)
    assert set(found.figures) == {"val_loss", "val_mse", "val_bound"}
    assert found.figures == again.figures
    picture = found.images["restored"]
    assert picture.shape == (3, 3 * 64, 4 * 64)
    assert 0 <= float(picture.min()) <= float(picture.max()) <= 1


def test_rate_of_constraining_falls_in_a_line_to_nothing() -> None:
    recipe = CONSTRAIN_STAGE.recipe
    assert [recipe.share_of_rate(step) for step in (0, 250, 500, 999)] == pytest.approx([1, 0.75, 0.5, 0.001])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="lora, full"):
        CONSTRAIN_STAGE.recipe.with_settings(["method=half"])
    with pytest.raises(UsageError, match=r"1\.\.1000"):
        CONSTRAIN_STAGE.recipe.with_settings(["noisiest=1001"])
    with pytest.raises(UsageError, match="rank"):
        CONSTRAIN_STAGE.recipe.with_settings(["rank=0"])
    for recipe in (BASE_STAGE.recipe, CONSTRAIN_STAGE.recipe):
        with pytest.raises(UsageError, match="shrink"):
            recipe.with_settings(["shrink=0"])


@pytest.mark.parametrize("name", ["base", "lora"])
def test_crop_that_does_not_suit_the_model_is_refused(name: str, pool: photos.Pool, base: Path) -> None:
    with pytest.raises(UsageError, match="crop is 36, this model needs a multiple of 8"):
        make(name, pool, base, crop=36)
