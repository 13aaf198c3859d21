from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketprior.core.sampling.samplers import from_v
from pocketprior.core.sampling.schedule import cosine
from pocketprior.core.training.losses import detail_loss, diffusion_loss, draw_level, mix, psnr_loss, v_target


def test_level_is_that_of_its_time() -> None:
    alpha_bars = cosine(10)
    rng = np.random.default_rng(0)
    drawn = [draw_level(alpha_bars, (2, 3), rng) for _ in range(400)]
    assert {round(float(d["t"]) * 10) for d in drawn} == set(range(1, 11))
    for level in drawn:
        assert level["alpha_bar"] == np.float32(alpha_bars[round(float(level["t"]) * 10) - 1])
        assert [level[name].dtype for name in ("t", "alpha_bar", "noise")] == [np.float32] * 3
        assert (level["t"].shape, level["noise"].shape) == ((), (2, 3))
    noise = np.stack([d["noise"] for d in drawn])
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_level_is_seeded() -> None:
    first, second = (draw_level(cosine(10), (4,), np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 5, 4)])
def test_v_leads_back_to_the_clean_state(shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(shape, generator=random) for _ in range(2))
    alpha_bar = torch.tensor([0.0, 0.3, 1.0])
    x, v = mix(clean, noise, alpha_bar), v_target(clean, noise, alpha_bar)
    for i, level in enumerate(alpha_bar.tolist()):
        torch.testing.assert_close(from_v(x[i], v[i], level)[0], clean[i])
    torch.testing.assert_close(x[0], noise[0])
    torch.testing.assert_close(x[2], clean[2])


def test_diffusion_loss_counts_in_float32() -> None:
    clean, noise, alpha_bar = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.ones(1)
    predicted = torch.full((1, 1, 2, 2), 0.0078125, dtype=torch.bfloat16)
    assert diffusion_loss(predicted + 1, clean + 1, noise, alpha_bar, "x0") == 0.0078125**2


def test_psnr_loss_counts_photos_alike() -> None:
    clean = torch.zeros(2, 3, 4, 4)
    restored = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert float(psnr_loss(restored, clean)) == pytest.approx(-30, abs=0.05)


def errors(alpha_bar: float, snr_cap: float) -> tuple[float, float]:
    """Losses of the same wrong answer, as v and as x0."""
    random = torch.Generator().manual_seed(0)
    clean, noise, wrong = torch.randn(3, 2, 3, 4, 4, generator=random)
    level = torch.tensor([alpha_bar, alpha_bar])
    x, v = mix(clean, noise, level), v_target(clean, noise, level)
    as_x0 = alpha_bar**0.5 * x - (1 - alpha_bar) ** 0.5 * (v + wrong)
    return (
        float(diffusion_loss(v + wrong, clean, noise, level, "v", snr_cap)),
        float(diffusion_loss(as_x0, clean, noise, level, "x0", snr_cap)),
    )


@pytest.mark.parametrize("alpha_bar", [0.1, 0.5, 0.9])
def test_v_error_is_the_x0_error_times_snr_plus_1(alpha_bar: float) -> None:
    velocity, clean = errors(alpha_bar, 0)
    assert velocity == pytest.approx(clean * (alpha_bar / (1 - alpha_bar) + 1), rel=1e-4)


@pytest.mark.parametrize("alpha_bar", [0.1, 0.5, 0.9, 0.999])
def test_min_snr_weighs_both_alike(alpha_bar: float) -> None:
    velocity, clean = errors(alpha_bar, 5)
    assert velocity == pytest.approx(clean, rel=1e-3)
    assert clean == pytest.approx(errors(alpha_bar, 0)[1] * min(alpha_bar / (1 - alpha_bar), 5), rel=1e-4)


def test_detail_is_how_much_texture_there_is_and_not_where() -> None:
    grain = 0.1 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    clean, moved, flat = 0.5 + grain, 0.5 + grain.flip(2), torch.full_like(grain, 0.5)
    assert float(detail_loss(clean, clean).max()) == 0
    assert float(detail_loss(moved, clean).mean()) < 0.4 * float(detail_loss(flat, clean).mean())


def test_detail_of_a_flat_image_has_a_gradient() -> None:
    flat = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    detail_loss(flat + 0 * flat, torch.rand(1, 3, 32, 32)).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
