from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from pocketprior.core.errors import UnknownNameError, UsageError
from pocketprior.core.models.checkpoints import from_dict
from pocketprior.core.models.dtpm import (
    CONFIGS,
    FIRST_MOBILE,
    MOBILE,
    DenoiserConfig,
    Dtpm,
    DtpmConfig,
    PredictorConfig,
)
from pocketprior.core.models.semantic_code import SemanticConfig, SemanticEncoder
from pocketprior.core.models.texture_prior import GuidanceAdapter, SharedAdapter
from pocketprior.core.sampling.schedule import SCHEDULES, cosine, trailing

NAF = DtpmConfig(
    PredictorConfig("naf", (4, 8, 16), (1, 1, 1), (2, 1)),
    DenoiserConfig("naf", (8, 16, 32), (1, 2, 1), (1, 1), 1.0, frequencies=8, embedding=16, adapter_minimum=4),
    SemanticConfig(size=16, code=64, widths=(8, 8)),
)
LEVELS, TIMES = trailing(4, cosine())


def shaken(config: DtpmConfig) -> Dtpm:
    """Random weights that do something everywhere; the adapters are as they start."""
    torch.manual_seed(0)
    model = Dtpm(config)
    with torch.no_grad():
        for part in (model.denoiser, model.predictor):
            for parameter in part.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


@pytest.fixture(params=[FIRST_MOBILE, NAF, MOBILE], ids=["rep", "naf", "conv"])
def model(request: pytest.FixtureRequest) -> Dtpm:
    return shaken(request.param)


@pytest.fixture(params=[FIRST_MOBILE, NAF], ids=["rep", "naf"])
def coded(request: pytest.FixtureRequest) -> Dtpm:
    """A model with a semantic code, a plain predictor and the paper's adapters."""
    return shaken(request.param)


def wake(model: Dtpm) -> None:
    """Let the adapters do something."""
    for adapter in model.adapters:
        assert isinstance(adapter, GuidanceAdapter | SharedAdapter)
        adapter.leave.weight.fill_(0.1)


def inputs(height: int = 16, width: int = 24) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(1)
    x, base = torch.randn(2, 2, 3, height, width, generator=random)
    return x, base.sigmoid(), torch.randn(2, 64, generator=random), torch.tensor([0.25, 1.0])


def test_fresh_stage_two_equals_stage_one_exactly(model: Dtpm) -> None:
    """Zero-initialised adapters change no bit, at any time."""
    x, base, code, t = inputs()
    assert torch.equal(model.denoiser(x, base, code, t), model.denoise(x, base * 0, base, code, t))


def test_adapters_do_change_it_once_trained(model: Dtpm) -> None:
    x, base, code, t = inputs()
    before = model.denoiser(x, base, code, t)
    wake(model)
    assert not torch.equal(before, model.denoise(x, base * 0, base, code, t))


def test_code_and_time_enter(coded: Dtpm) -> None:
    x, base, code, t = inputs()
    out = coded.denoiser(x, base, code, t)
    assert not torch.equal(out, coded.denoiser(x, base, code * 0, t))
    assert not torch.equal(out, coded.denoiser(x, base, code, t * 0.5))


def test_code_does_not_enter_the_encoder(coded: Dtpm) -> None:
    """The code conditions the middle and the decoder half only (as drawn in the paper)."""
    x, base, code, t = inputs()
    seen = []
    handle = coded.denoiser.unet.encoder[0][0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    coded.denoiser(x, base, code, t)
    coded.denoiser(x, base, -code, t)
    handle.remove()
    assert torch.equal(*seen)


def test_strength_is_the_gain_of_the_texture_and_the_result_is_clipped(coded: Dtpm) -> None:
    x, image, code, _ = inputs()
    image = image * 0.2 + 0.4
    base = coded.predictor(image)
    texture = coded.residual_scale * coded.residual(image, base, code, x, LEVELS, TIMES)
    strength = torch.tensor([0.0, 0.5])
    restored = coded(image, code, x, strength, LEVELS, TIMES)
    torch.testing.assert_close(restored, (base + strength.reshape(2, 1, 1, 1) * texture).clamp(0, 1))
    assert torch.equal(restored[0], base[0].clamp(0, 1))
    extreme = coded(image, code, x, torch.full((2,), 1e5), LEVELS, TIMES)
    assert (float(extreme.min()), float(extreme.max())) == (0, 1)


@pytest.mark.parametrize("steps", [1, 4, 50])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_v_and_x0_sample_the_same(schedule: str, steps: int) -> None:
    """One function, told once as v and once as the x0 that this v means."""
    bars = SCHEDULES[schedule]()
    levels, times = trailing(steps, bars)
    x, image, code, _ = inputs()
    velocity = shaken(replace(NAF, schedule=schedule))
    clean = shaken(replace(NAF, schedule=schedule, prediction="x0"))
    tell_v = velocity.denoiser.forward

    def tell_clean(x: Tensor, *rest: Tensor) -> Tensor:
        bar = torch.tensor([bars[round(float(t) * len(bars)) - 1] for t in rest[2]]).reshape(-1, 1, 1, 1)
        return bar.sqrt() * x - (1 - bar).sqrt() * tell_v(x, *rest)

    clean.denoiser.forward = tell_clean
    sampled = [m.residual(image, image, code, x, levels, times) for m in (velocity, clean)]
    torch.testing.assert_close(*sampled, rtol=1e-4, atol=1e-4)


def test_structure_slot_takes_the_photo_and_the_adapters_keep_the_estimate(coded: Dtpm) -> None:
    x, image, code, t = inputs()
    base = image.flip(3)
    literal = shaken(replace(coded.config, structure_slot="y_d"))
    assert torch.equal(literal.denoise(x, image, base, code, t), coded.denoiser(x, image, code, t))
    wake(literal)
    wake(coded)
    assert not torch.equal(literal.denoise(x, image, base, code, t), literal.denoise(x, image, image, code, t))
    assert torch.equal(coded.denoise(x, image, base, code, t), coded.denoise(x, image * 0, base, code, t))


def test_code_is_of_the_photo_or_of_the_estimate(coded: Dtpm) -> None:
    torch.manual_seed(0)
    encoder, thumbnail = SemanticEncoder(NAF.semantic), torch.rand(2, 3, 16, 16)
    assert torch.equal(coded.encode(encoder, thumbnail), encoder(thumbnail))
    estimated = shaken(replace(coded.config, code_of="y_E")).encode(encoder, thumbnail)
    assert torch.equal(estimated, encoder(coded.predictor(thumbnail).clamp(0, 1)))
    assert not torch.equal(estimated, encoder(thumbnail))


@pytest.mark.parametrize("name", ["schedule", "prediction", "structure_slot", "code_of"])
def test_unknown_option_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {name} 'odd'; choose one of: "):
        DtpmConfig(**{name: "odd"})
    with pytest.raises(UnknownNameError, match="unknown body 'odd'; choose one of: conv, rep, naf"):
        PredictorConfig("odd")


def test_removed_body_says_why_and_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"'naf-edge' was removed: it was slower than 'rep'.* one of: conv, rep, naf"):
        from_dict(DtpmConfig, asdict(FIRST_MOBILE) | {"predictor": {"body": "naf-edge"}})


def test_sizes_differ_in_width_alone() -> None:
    base, paper = CONFIGS["base"].denoiser, CONFIGS["paper"].denoiser
    assert (base.blocks, base.decoder, base.body) == (paper.blocks, paper.decoder, paper.body)
    assert tuple(2 * w for w in base.widths) == paper.widths
    with torch.device("meta"):
        assert len(Dtpm(CONFIGS["paper"]).adapters) == 26


def calibrated() -> Dtpm:
    model = shaken(MOBILE)
    model.predictor.unet.end.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
    return model


def test_amount_zero_is_the_image_bit_for_bit() -> None:
    model, (noise, image, _, _) = calibrated(), inputs(32, 48)
    none = torch.zeros(2)
    assert torch.equal(model(image, None, noise, torch.ones(2), LEVELS, TIMES, none), image)
    base, sigma = model.predict(image, none)
    assert torch.equal(base, image)
    assert not model.amplitude(sigma, none).any()


def test_amount_one_is_the_estimate_and_more_restores_a_worse_image() -> None:
    model, (_, image, _, _) = calibrated().predictor, inputs(32, 48)
    estimate = model.estimate(image)
    one, half, double = (model.estimate(image, torch.full((2,), amount)) for amount in (1.0, 0.5, 2.0))
    torch.testing.assert_close(one.base, estimate.base, rtol=0, atol=1e-6)
    torch.testing.assert_close(half.base, (image + estimate.base) / 2)
    assert torch.equal(half.sigma, estimate.sigma)
    torch.testing.assert_close(double.base, model.restore(image, 2 * estimate.damage)[0])
    assert not torch.allclose(double.base, one.base)
    assert torch.equal(model(image), estimate.base)


def test_texture_is_divided_and_multiplied_by_sigma() -> None:
    """sigma^3 / (sigma^2 + knee^2): half of sigma at the knee, hardly any on good photos."""
    model, (noise, image, _, _) = calibrated(), inputs(32, 48)
    knee = MOBILE.knee
    for sigma, share in ((knee, 0.5), (knee / 10, 1 / 101), (knee * 10, 100 / 101)):
        assert float(model.amplitude(torch.tensor(sigma))) == pytest.approx(sigma * share, rel=1e-5)
    share = torch.tensor([0.25, 2.0])
    expected = model.amplitude(torch.full((2, 1, 1, 1), 0.1)).flatten() * torch.tensor([0.25, 1.0])
    torch.testing.assert_close(model.amplitude(torch.full((2, 1, 1, 1), 0.1), share).flatten(), expected)
    base, sigma = model.predict(image)
    texture = model.amplitude(sigma) * model.residual(image, base, None, noise, LEVELS, TIMES)
    strength = torch.tensor([0.0, 0.5])
    restored = model(image, None, noise, strength, LEVELS, TIMES)
    torch.testing.assert_close(restored, (base + strength.reshape(2, 1, 1, 1) * texture).clamp(0, 1))


@pytest.mark.parametrize("where", ["adapters", "slot"])
def test_damage_enters_through_weights_that_start_at_zero(where: str) -> None:
    x, image, _, t = inputs(32, 48)
    model = shaken(replace(MOBILE, damage_input=where))
    wake(model)
    blind = model.denoise(x, image, image, None, t)
    assert torch.equal(model.denoise(x, image.flip(3), image, None, t), blind)
    model.adapters.damage.weight.fill_(0.01)
    assert not torch.allclose(model.denoise(x, image.flip(3), image, None, t), blind)
    assert torch.equal(model.denoise(x, image, image, None, t), blind)  # no damage, no difference


def test_damage_where_the_adapters_cannot_see_it_is_refused() -> None:
    with pytest.raises(UsageError, match="choose adapters=shared or damage_input=none"):
        DtpmConfig(damage_input="slot")
    with pytest.raises(UsageError, match=r"knee is 0\.03, but a predictor that is not calibrated gives no sigma"):
        DtpmConfig(knee=0.03)
