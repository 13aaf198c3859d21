from __future__ import annotations

import pytest
import torch

from pocketprior.core.models.blocks import merge_branches
from pocketprior.core.models.dtpm import MOBILE, Dtpm, GuidanceAdapter
from pocketprior.core.schedule import cosine, trailing


@pytest.fixture
def model() -> Dtpm:
    torch.manual_seed(0)
    model = Dtpm(MOBILE)
    with torch.no_grad():
        for part in (model.denoiser, model.predictor):
            for parameter in part.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def inputs(side: int = 16) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(1)
    x, base = torch.randn(2, 2, 3, side, side, generator=random)
    return x, base.sigmoid(), torch.randn(2, 64, generator=random), torch.tensor([0.25, 1.0])


def test_fresh_stage_two_equals_stage_one_exactly(model: Dtpm) -> None:
    """Zero-initialised adapters change no bit, at any time."""
    x, base, code, t = inputs()
    with torch.no_grad():
        one = model.denoiser(x, base, code, t)
        two = model.denoiser(x, base, code, t, model.adapters)
    assert torch.equal(one, two)


def test_adapters_do_change_it_once_trained(model: Dtpm) -> None:
    x, base, code, t = inputs()
    with torch.no_grad():
        before = model.denoiser(x, base, code, t)
        for adapter in model.adapters:
            assert isinstance(adapter, GuidanceAdapter)
            adapter.leave.weight.fill_(0.1)
        assert not torch.equal(before, model.denoiser(x, base, code, t, model.adapters))


def test_code_and_time_enter(model: Dtpm) -> None:
    x, base, code, t = inputs()
    with torch.no_grad():
        out = model.denoiser(x, base, code, t)
        assert not torch.equal(out, model.denoiser(x, base, code * 0, t))
        assert not torch.equal(out, model.denoiser(x, base, code, t * 0.5))


def test_code_does_not_enter_the_encoder(model: Dtpm) -> None:
    """The code conditions the middle and the decoder half only (as drawn in the paper)."""
    x, base, code, t = inputs()
    seen = []
    handle = model.denoiser.unet.encoder[0][0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        model.denoiser(x, base, code, t)
        model.denoiser(x, base, -code, t)
    handle.remove()
    assert torch.equal(*seen)


def test_strength_zero_is_the_predictor_and_restoration_is_clipped(model: Dtpm) -> None:
    levels, times = trailing(4, cosine())
    x, base, code, _ = inputs()
    with torch.no_grad():
        plain = model(base, code, x, torch.zeros(2), levels, times)
        full = model(base, code, x * 100, torch.ones(2), levels, times)
        assert torch.equal(plain, model.predictor(base).clamp(0, 1))
    assert full.min() >= 0
    assert full.max() <= 1


def test_compute_fits_the_mobile_budget(model: Dtpm) -> None:
    """At most 25 kMAC per pixel in the predictor and 60 in all, at 4 steps."""
    from torch.utils.flop_counter import FlopCounterMode

    model = merge_branches(model)
    image, code, t = torch.rand(1, 3, 64, 64), torch.zeros(1, 64), torch.ones(1)

    def kmac(run) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops() / 2 / 64**2 / 1000

    predictor = kmac(lambda: model.predictor(image))
    step = kmac(lambda: model.denoiser(image, image, code, t, model.adapters))
    assert predictor <= 25
    assert predictor + 4 * step <= 60
