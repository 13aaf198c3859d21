from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pocketprior.core.errors import UnknownNameError
from pocketprior.core.models.dtpm import (
    CONFIGS,
    MOBILE,
    DenoiserConfig,
    Dtpm,
    DtpmConfig,
    GuidanceAdapter,
    PredictorConfig,
)
from pocketprior.core.models.semantic import SemanticConfig, SemanticEncoder
from pocketprior.core.schedule import SCHEDULES, cosine, trailing

NAF = DtpmConfig(
    PredictorConfig("naf", (4, 8, 16), (1, 1, 1), (2, 1)),
    DenoiserConfig("naf", (8, 16, 32), (1, 2, 1), (1, 1), 1.0, frequencies=8, embedding=16, adapter_minimum=4),
    SemanticConfig(size=16, code=64, widths=(8, 8)),
)
EDGE = DtpmConfig(
    PredictorConfig("naf-edge", (4, 8), (1, 1)),
    DenoiserConfig("naf-edge", (8, 16), (1, 2), frequencies=8, embedding=16, adapter_minimum=4),
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


@pytest.fixture(params=[MOBILE, NAF, EDGE], ids=["rep", "naf", "naf-edge"])
def model(request: pytest.FixtureRequest) -> Dtpm:
    return shaken(request.param)


def wake(model: Dtpm) -> None:
    """Let the adapters do something."""
    for adapter in model.adapters:
        assert isinstance(adapter, GuidanceAdapter)
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


def test_code_and_time_enter(model: Dtpm) -> None:
    x, base, code, t = inputs()
    out = model.denoiser(x, base, code, t)
    assert not torch.equal(out, model.denoiser(x, base, code * 0, t))
    assert not torch.equal(out, model.denoiser(x, base, code, t * 0.5))


def test_code_does_not_enter_the_encoder(model: Dtpm) -> None:
    """The code conditions the middle and the decoder half only (as drawn in the paper)."""
    x, base, code, t = inputs()
    seen = []
    handle = model.denoiser.unet.encoder[0][0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    model.denoiser(x, base, code, t)
    model.denoiser(x, base, -code, t)
    handle.remove()
    assert torch.equal(*seen)


def test_strength_is_the_gain_of_the_texture_and_the_result_is_clipped(model: Dtpm) -> None:
    x, image, code, _ = inputs()
    image = image * 0.2 + 0.4
    base = model.predictor(image)
    texture = model.residual_scale * model.residual(image, base, code, x, LEVELS, TIMES)
    strength = torch.tensor([0.0, 0.5])
    restored = model(image, code, x, strength, LEVELS, TIMES)
    torch.testing.assert_close(restored, (base + strength.reshape(2, 1, 1, 1) * texture).clamp(0, 1))
    assert torch.equal(restored[0], base[0].clamp(0, 1))
    extreme = model(image, code, x, torch.full((2,), 1e5), LEVELS, TIMES)
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


def test_structure_slot_takes_the_photo_and_the_adapters_keep_the_estimate(model: Dtpm) -> None:
    x, image, code, t = inputs()
    base = image.flip(3)
    literal = shaken(replace(model.config, structure_slot="y_d"))
    assert torch.equal(literal.denoise(x, image, base, code, t), model.denoiser(x, image, code, t))
    wake(literal)
    wake(model)
    assert not torch.equal(literal.denoise(x, image, base, code, t), literal.denoise(x, image, image, code, t))
    assert torch.equal(model.denoise(x, image, base, code, t), model.denoise(x, image * 0, base, code, t))


def test_code_is_of_the_photo_or_of_the_estimate(model: Dtpm) -> None:
    torch.manual_seed(0)
    encoder, thumbnail = SemanticEncoder(NAF.semantic), torch.rand(2, 3, 16, 16)
    assert torch.equal(model.encode(encoder, thumbnail), encoder(thumbnail))
    estimated = shaken(replace(model.config, code_of="y_E")).encode(encoder, thumbnail)
    assert torch.equal(estimated, encoder(model.predictor(thumbnail).clamp(0, 1)))
    assert not torch.equal(estimated, encoder(thumbnail))


def test_mean_of_seeds_is_the_mean(model: Dtpm) -> None:
    noises, (_, image, code, _) = torch.randn(3, 2, 3, 16, 24), inputs()
    restored = model.restore(image, code, noises, torch.ones(2), LEVELS, TIMES)
    each = [model(image, code, noise, torch.ones(2), LEVELS, TIMES) for noise in noises]
    torch.testing.assert_close(restored, sum(each) / 3)
    assert not torch.equal(each[0], each[1])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 50), (17, 31), (16, 24)])
def test_photos_of_any_size_are_restored(model: Dtpm, height: int, width: int) -> None:
    noise, image, code, _ = inputs(height, width)
    restored = model.restore(image, code, noise[None], torch.zeros(2), LEVELS, TIMES)
    assert restored.shape == image.shape
    rows, columns = (-(-n // model.multiple_of) * model.multiple_of for n in (height, width))
    whole = model.restore(image, code, noise[None], torch.ones(2), LEVELS, TIMES)
    assert whole.isfinite().all()
    if (rows, columns) == (height, width):
        assert torch.equal(restored, model.predictor(image).clamp(0, 1))


@pytest.mark.parametrize("name", ["schedule", "prediction", "structure_slot", "code_of"])
def test_unknown_option_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {name} 'odd'; choose one of: "):
        DtpmConfig(**{name: "odd"})
    with pytest.raises(UnknownNameError, match="unknown body 'odd'; choose one of: rep, naf"):
        PredictorConfig("odd")


def test_sizes_differ_in_width_alone() -> None:
    base, paper = CONFIGS["base"].denoiser, CONFIGS["paper"].denoiser
    assert (base.blocks, base.decoder, base.body) == (paper.blocks, paper.decoder, paper.body)
    assert tuple(2 * w for w in base.widths) == paper.widths
    with torch.device("meta"):
        assert len(Dtpm(CONFIGS["paper"]).adapters) == 26
