"""The stages on a small pool of real photos: what learns, what does not, and exact resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pocketprior.core.errors import TrainingError
from pocketprior.core.models.dtpm import MOBILE, Denoiser, Predictor
from pocketprior.core.models.semantic import SemanticEncoder
from pocketprior.core.training import adapters, photos, predictor, prior, semantic
from pocketprior.core.training.loop import Stage, Step, train
from pocketprior.core.training.recipe import Recipe

EXAMPLES = Path(__file__).parents[3] / "examples"
RECIPE = Recipe(steps=6, batch=2, crop=32, rate=1e-3, warmup=2, save_every=2, precision="fp32", ema=0.9)


@pytest.fixture(scope="module")
def pool() -> photos.Pool:
    return photos.load(sorted(EXAMPLES.glob("*.jpg")), minimum=256, side=MOBILE.semantic.size, structures=True)


@pytest.fixture(scope="module")
def encoder() -> SemanticEncoder:
    torch.manual_seed(5)
    return SemanticEncoder(MOBILE.semantic).eval().requires_grad_(False)


@pytest.fixture
def build(pool: photos.Pool, encoder: SemanticEncoder) -> Callable[[str], Stage]:
    """Stages by name, freshly and equally initialised each time."""

    def build(name: str) -> Stage:
        torch.manual_seed(0)
        if name == "semantic":
            return semantic.SemanticStage(MOBILE.semantic, pool, pool)
        if name == "predictor":
            return predictor.PredictorStage(MOBILE, "cleanup", pool, pool)
        if name == "prior":
            return prior.PriorStage(MOBILE, encoder, pool, pool)
        weights = Denoiser(MOBILE.denoiser, MOBILE.semantic.code).state_dict(), Predictor(MOBILE.predictor).state_dict()
        return adapters.AdapterStage(MOBILE, "cleanup", encoder, *weights, pool, pool)

    return build


STAGES = ("semantic", "predictor", "prior", "adapters")
LEARNS = {"semantic": ("",), "predictor": ("",), "prior": ("",), "adapters": ("adapters", "predictor")}


def snapshot(stage: Stage) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}


def steps(stage: Stage, run: Path, recipe: Recipe = RECIPE) -> list[Step]:
    return list(train(stage, recipe, run, workers=0))


@pytest.mark.parametrize("name", STAGES)
def test_stage_trains_its_own_parameters_and_no_others(
    name: str, build: Callable[[str], Stage], tmp_path: Path
) -> None:
    stage = build(name)
    before = snapshot(stage)
    steps(stage, tmp_path)
    learnt = {n for n, p in stage.model.named_parameters() if not torch.equal(p, before[n])}
    expected = {n for n, _ in stage.model.named_parameters() if n.startswith(LEARNS[name])}
    # A ReLU can be dead and a zero-initialised partner can hold a gradient back in so few steps: every part moves,
    # nothing outside moves.
    assert learnt <= expected
    assert len(learnt) > 0.7 * len(expected)
    frozen = set(before) - expected
    assert all(torch.equal(stage.model.state_dict()[n], before[n]) for n in frozen)


def test_prior_is_bit_equal_before_and_after_stage_two(build: Callable[[str], Stage], tmp_path: Path) -> None:
    stage = build("adapters")
    before = snapshot(stage)
    steps(stage, tmp_path)
    after = stage.model.state_dict()
    prior_names = [n for n in before if n.startswith("denoiser.")]
    assert prior_names
    assert all(torch.equal(before[n], after[n]) for n in prior_names)
    assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith("adapters."))


@pytest.mark.parametrize("name", STAGES)
def test_killed_run_resumes_on_the_same_path(name: str, build: Callable[[str], Stage], tmp_path: Path) -> None:
    whole = steps(build(name), tmp_path / "whole")
    killed = train(build(name), RECIPE, tmp_path / "killed", workers=0)
    next(killed)
    killed.close()
    assert steps(build(name), tmp_path / "killed") == whole[1:]
    files = ("model.safetensors", "resume.safetensors", "log.csv")
    assert all((tmp_path / "killed" / f).read_bytes() == (tmp_path / "whole" / f).read_bytes() for f in files)


def test_log_line_after_the_last_state_is_dropped_on_resume(build: Callable[[str], Stage], tmp_path: Path) -> None:
    steps(build("predictor"), tmp_path)
    log = tmp_path / "log.csv"
    expected = log.read_text()
    log.write_text(expected + "8,0,0,0,0,0\n")
    assert steps(build("predictor"), tmp_path) == []
    assert log.read_text() == expected


def test_other_recipe_is_refused(build: Callable[[str], Stage], tmp_path: Path) -> None:
    steps(build("predictor"), tmp_path)
    with pytest.raises(TrainingError, match="another recipe"):
        steps(build("predictor"), tmp_path, Recipe(steps=7))


def test_loss_that_is_not_finite_stops_and_keeps_the_last_state(build: Callable[[str], Stage], tmp_path: Path) -> None:
    run = train(build("predictor"), RECIPE, tmp_path, workers=0)
    next(run)
    saved = (tmp_path / "model.safetensors").read_bytes()
    run.close()
    stage = build("predictor")
    original = stage.loss
    stage.loss = lambda batch, random: {"loss": original(batch, random)["loss"] * torch.nan}  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="lower rate"):
        steps(stage, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == saved


def test_residual_of_stage_one_has_unit_variance(build: Callable[[str], Stage]) -> None:
    """On the photos that the scale was measured on it is 1 by construction; crops must sample them fairly."""
    import numpy as np

    stage = build("prior")
    rng = np.random.default_rng(0)
    crops = [stage.train.crop(64, rng) for _ in range(400)]  # type: ignore[attr-defined]
    variance = np.mean([np.square((c.clean - c.smooth) / stage.facts()["residual_scale"]).mean() for c in crops])
    assert 0.8 <= variance <= 1.25


def test_psnr_loss_counts_photos_alike() -> None:
    clean = torch.zeros(2, 3, 4, 4)
    restored = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert float(predictor.psnr_loss(restored, clean)) == pytest.approx(-30, abs=0.05)


def test_diffuse_mixes_as_the_schedule_says() -> None:
    clean = torch.full((4000, 1), 2.0)
    bars = torch.tensor([0.75])
    x, v, t = prior.diffuse(clean, bars, torch.Generator().manual_seed(0))
    assert float(x.mean()) == pytest.approx(2 * 0.75**0.5, abs=0.03)
    assert float(x.std()) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(0.75**0.5 * x - 0.25**0.5 * v, clean)
    assert t.unique().tolist() == [1.0]


def test_equal_views_cost_nothing_but_variance() -> None:
    codes = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) * 3
    assert float(semantic.vicreg(codes, codes)["invariance"]) == 0
    collapsed = torch.ones(64, 8)
    assert float(semantic.vicreg(collapsed, collapsed)["loss"]) > float(semantic.vicreg(codes, codes)["loss"])
