from __future__ import annotations

import pytest
import torch

from pocketprior.core.training.diffusion import mix, v_target
from pocketprior.core.training.dtpm.losses import detail_loss, diffusion_loss, psnr_loss


def test_psnr_loss_counts_photos_alike() -> None:
    clean = torch.zeros(2, 3, 4, 4)
    restored = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert float(psnr_loss(restored, clean)) == pytest.approx(-30, abs=0.05)


def errors(bar: float, snr_cap: float) -> tuple[float, float]:
    """Losses of one and the same wrong answer, told as v and as x0."""
    random = torch.Generator().manual_seed(0)
    clean, noise, wrong = torch.randn(3, 2, 3, 4, 4, generator=random)
    level = torch.tensor([bar, bar])
    x, v = mix(clean, noise, level), v_target(clean, noise, level)
    told_x0 = bar**0.5 * x - (1 - bar) ** 0.5 * (v + wrong)
    return (
        float(diffusion_loss(v + wrong, clean, noise, level, "v", snr_cap)),
        float(diffusion_loss(told_x0, clean, noise, level, "x0", snr_cap)),
    )


@pytest.mark.parametrize("bar", [0.1, 0.5, 0.9])
def test_v_error_is_the_x0_error_times_snr_plus_1(bar: float) -> None:
    velocity, clean = errors(bar, 0)
    assert velocity == pytest.approx(clean * (bar / (1 - bar) + 1), rel=1e-4)


@pytest.mark.parametrize("bar", [0.1, 0.5, 0.9, 0.999])
def test_min_snr_weighs_both_alike(bar: float) -> None:
    velocity, clean = errors(bar, 5)
    assert velocity == pytest.approx(clean, rel=1e-3)
    assert clean == pytest.approx(errors(bar, 0)[1] * min(bar / (1 - bar), 5), rel=1e-4)


def test_detail_is_how_much_texture_there_is_and_not_where() -> None:
    grain = 0.1 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    clean, moved, flat = 0.5 + grain, 0.5 + grain.flip(2), torch.full_like(grain, 0.5)
    assert float(detail_loss(clean, clean).max()) == 0
    assert float(detail_loss(moved, clean).mean()) < 0.4 * float(detail_loss(flat, clean).mean())


def test_detail_of_a_flat_picture_has_a_gradient() -> None:
    flat = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    detail_loss(flat + 0 * flat, torch.rand(1, 3, 32, 32)).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
