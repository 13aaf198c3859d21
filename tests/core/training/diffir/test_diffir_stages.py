"""The three stages: what learns, from what, and what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.core.errors import UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.diffir import Diffir, Teacher
from pocketprior.core.sampling.schedule import diffir
from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.core.training.diffir.diffir_stage import Student, restored_psnr
from pocketprior.core.training.loop.loop import train
from pocketprior.core.training.loop.stage import TrainingStage
from support.small_checkpoints import batch_of, randomize

from .conftest import MODEL, STAGES, earlier

Build = Callable[..., TrainingStage]
LEARNS = {
    "pretrain": ("cpen", "dirformer"),
    "warmup": ("cpen", "denoiser"),
    "joint": ("cpen", "denoiser", "dirformer"),
    "adversarial": ("cpen", "denoiser", "dirformer"),
}


def reached(stage: TrainingStage, pool: Pool) -> set[str]:
    """Parameters with a gradient that is not zero, all else frozen as the loop freezes it."""
    randomize(stage.model)
    stage.model.requires_grad_(False)
    for name in stage.trained:
        stage.model.get_submodule(name).requires_grad_(True)
    stage.loss(batch_of(stage, pool))["loss"].backward()
    assert all(p.grad is None for p in stage.frozen.parameters())
    return {n for n, p in stage.model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("steps", [4, 0])
def test_gradients_reach_what_is_trained_and_nothing_else(name: str, steps: int, build: Build, pool: Pool) -> None:
    stage = build(name, model=replace(MODEL, steps=steps))
    parts = LEARNS[name] if steps else tuple(part for part in LEARNS[name] if part != "denoiser")
    expected = {n for n, _ in stage.model.named_parameters() if n.startswith(parts)}
    assert reached(stage, pool) == expected


@pytest.mark.parametrize("name", STAGES)
def test_draws_come_from_the_generator_alone_and_losses_draw_nothing(name: str, build: Build, pool: Pool) -> None:
    stage = build(name)
    first, again, other = (stage.draw(pool, 16, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not any(np.array_equal(first[k], other[k]) for k in first)
    batch, state = batch_of(stage, pool), torch.get_rng_state()
    losses = [float(stage.loss(batch)["loss"].detach()) for _ in range(2)]
    assert losses[0] == losses[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_warm_up_starts_from_stage_one(build: Build) -> None:
    stage, given = build("warmup"), earlier(MODEL)["diffir-pretrain"]
    assert isinstance(stage, Student)
    for module, prefix in ((stage.diffir.dirformer, "dirformer"), (stage.target, "cpen")):
        tensors = given.part(prefix)
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())


def test_joint_phase_goes_on_from_the_warm_up(build: Build) -> None:
    stage, given = build("joint"), earlier(MODEL)
    assert isinstance(stage, Student)
    tensors = given["diffir-warmup"].tensors
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in stage.model.state_dict().items())
    target = given["diffir-pretrain"].part("cpen")
    assert all(torch.equal(tensor, target[name]) for name, tensor in stage.target.state_dict().items())


def test_chain_starts_from_the_noised_target(build: Build, pool: Pool) -> None:
    stage = build("joint")
    assert isinstance(stage, Student)
    batch = batch_of(stage, pool)
    seen = []
    stage.diffir.denoiser.register_forward_hook(lambda _module, given, _result: seen.append(given[2]))
    with torch.no_grad():
        target, _ = stage.priors(batch["image"], batch)
    last = diffir()[-1]
    torch.testing.assert_close(seen[0], last**0.5 * target + (1 - last) ** 0.5 * batch["noise"])
    assert len(seen) == 4


def test_joint_loss_adds_picture_and_prior(build: Build, pool: Pool) -> None:
    stage = build("joint", prior_weight=0.25)
    assert isinstance(stage, Student)
    batch = batch_of(stage, pool)
    with torch.no_grad():
        figures = stage.loss(batch)
        target, estimate = stage.priors(batch["image"], batch)
        restored = stage.diffir.restore(batch["image"], estimate)
    torch.testing.assert_close(figures["prior"], F.l1_loss(estimate, target))
    torch.testing.assert_close(figures["content"], F.l1_loss(restored, batch["clean"]))
    torch.testing.assert_close(figures["loss"], figures["content"] + 0.25 * figures["prior"])


def test_validation_of_a_network_that_does_nothing_is_that_of_its_input(build: Build) -> None:
    """All figures agree then, and the strip shows input, the same again, and the ground truth."""
    found = {}
    for name in STAGES:
        stage = build(name)
        for parameter in stage.model.get_submodule("dirformer.tail").parameters():
            torch.nn.init.zeros_(parameter)
        with torch.no_grad():
            figures, pictures = stage.validate(stage.model)
        damaged, restored, clean = pictures["restored"].chunk(3, dim=2)
        assert torch.equal(damaged, restored)
        assert not torch.equal(damaged, clean)
        found |= {f"{name} {key}": value for key, value in figures.items() if "psnr" in key}
    assert len(found) == 3 * len(STAGES)
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("name", ["pretrain", "joint"])
def test_validation_says_what_the_prior_is_worth(name: str, build: Build) -> None:
    """Each photo under its own prior, the next one's and the mean, against the network called by hand."""
    stage = build(name, model=replace(MODEL, prior_norm=True))
    with torch.no_grad():
        for parameter in stage.model.parameters():
            parameter.mul_(2)
        figures = stage.validate(stage.model).figures
        assert figures == stage.validate(stage.model).figures
        random = torch.Generator().manual_seed(0)
        priors = []
        for image, clean in stage.pairs:
            noise = torch.randn(1, MODEL.ipr, generator=random)
            own = stage.model.cpen(image, clean) if name == "pretrain" else None
            priors.append(stage.model.prior(stage.model.condition(image), noise) if own is None else own)
        mean = (priors[0] + priors[1]) / 2
        for key, given in {"psnr": priors, "psnr_other": priors[::-1], "psnr_mean": [mean, mean]}.items():
            values = [
                restored_psnr(image, stage.model.dirformer(image, prior), clean)
                for (image, clean), prior in zip(stage.pairs, given, strict=True)
            ]
            assert figures[f"val_{key}"] == pytest.approx(sum(values) / 2)
    assert len({figures[f"val_{key}"] for key in ("psnr", "psnr_other", "psnr_mean")}) == 3


def test_validation_compares_the_error_of_the_prior_with_that_of_a_constant(build: Build) -> None:
    stage = build("warmup")
    assert isinstance(stage, Student)
    with torch.no_grad():
        figures = stage.validate(stage.model).figures
        targets = torch.cat([stage.target(*pair) for pair in stage.pairs])
    assert figures["val_prior_mean"] == pytest.approx(float((targets[0] - targets[1]).abs().mean() / 2), rel=1e-4)
    assert figures["val_prior"] > 0


@pytest.mark.parametrize("name", ["warmup", "joint", "adversarial"])
def test_another_model_than_before_is_refused(name: str, build: Build) -> None:
    with pytest.raises(UsageError, match="the recipe says"):
        build(name, before=replace(MODEL, ipr=4))


def test_the_number_of_steps_is_free_after_stage_one(build: Build) -> None:
    build("warmup", before=MODEL, model=replace(MODEL, steps=0))
    with pytest.raises(UsageError, match="'diffir-warmup' checkpoint"):
        build("joint", before=MODEL, model=replace(MODEL, steps=0))


def test_all_three_train_one_after_the_other(pool: Pool, tmp_path: Path) -> None:
    """Through the loop; each loads what the one before wrote, and all improve."""
    found, losses = {}, {}
    for name in ("pretrain", "warmup", "joint"):
        small = {"model": MODEL, "crop": 16, "batch": 4, "steps": 24, "save_every": 12, "warmup": 2, "rate": 3e-3}
        definition = STAGES[name].load()
        recipe = replace(definition.recipe, **small, ema=0.0)
        torch.manual_seed(0)
        stage = definition.build(recipe, found, TrainingData(pool, pool))
        losses[name] = [
            step.figures["loss"] for step in train(stage, TrainingData(pool, pool), recipe, tmp_path / name, workers=0)
        ]
        found[stage.kind] = checkpoints.load(tmp_path / name / "model.safetensors", stage.kind)
    assert found["diffir"].facts["task"] == "motionblur"
    assert all(last < first for first, last in losses.values())
    model = Diffir(MODEL)
    model.load_state_dict(found["diffir"].tensors)
    before, after = found["diffir-pretrain"].part("dirformer"), found["diffir-warmup"].part("dirformer")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert Teacher(MODEL).state_dict().keys() == found["diffir-pretrain"].tensors.keys()
