from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import pixel_unshuffle
from torch.utils.flop_counter import FlopCounterMode

from pocketprior.core.errors import UsageError
from pocketprior.core.models.checkpoints import from_dict
from pocketprior.core.models.diffir import (
    CONFIGS,
    CpenConfig,
    CpenS1,
    Diffir,
    DiffirConfig,
    Teacher,
    composed,
    cost_parts,
)
from pocketprior.core.models.dirformer import DirformerConfig
from pocketprior.core.sampling.samplers import posterior_mean

BODY = DirformerConfig(width=8, blocks=(1, 1), heads=(1, 2), refinement=0)
TINY = DiffirConfig(ipr=8, cpen=CpenConfig(width=4, blocks=1), dirformer=BODY)
LAST_WEIGHTS = ((1.000, 0.0), (0.765, 0.230), (0.636, 0.315), (0.506, 0.074))  # of x0 and of Z_t, for t = 0..3


def model(config: DiffirConfig) -> Diffir:
    torch.manual_seed(0)
    return Diffir(config).eval().requires_grad_(False)


def macs(module: torch.nn.Module, *inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(("name", "millions"), [("deblur", 26.91), ("sr", 24.97), ("inpainting", 26.4)])
def test_stage_two_is_as_large_as_published(name: str, millions: float) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in Diffir(CONFIGS[name]).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_super_resolution_costs_what_is_published() -> None:
    with torch.device("meta"):
        assert macs(Diffir(CONFIGS["sr"]), torch.empty(1, 3, 64, 64), torch.empty(1, 256)) == pytest.approx(
            45.2e9, 0.01
        )


@pytest.mark.parametrize(("name", "scale"), [("sr2", 2), ("sr1", 1)])
def test_body_of_super_resolution_runs_at_a_quarter_of_the_output(name: str, scale: int) -> None:
    """So that its cost per pixel of the output hardly depends on the scale."""
    with torch.device("meta"):
        cost = macs(Diffir(CONFIGS[name]), torch.empty(1, 3, 256 // scale, 256 // scale), torch.empty(1, 256))
    assert cost == pytest.approx(45.2e9, 0.01)


def test_mobile_size_fits_its_budget() -> None:
    with torch.device("meta"):
        parts = cost_parts(CONFIGS["mobile"])
        total = sum(macs(*parts[name][:1], *parts[name][1]) for name in ("cpen_s2", "dirformer"))
        total += CONFIGS["mobile"].steps * macs(parts["denoiser"][0], *parts["denoiser"][1])
    assert 30e3 <= total / 256**2 <= 50e3


@pytest.mark.parametrize(("inputs", "scale"), [(3, 1), (4, 1), (3, 2), (3, 4)])
def test_shapes(inputs: int, scale: int) -> None:
    config = replace(TINY, inputs=inputs, scale=scale, dirformer=replace(BODY, unshuffle=1 if scale == 4 else 2))
    net = model(config)
    height, width = 3 * net.multiple_of, 5 * net.multiple_of
    image, clean = torch.rand(2, inputs, height, width), torch.rand(2, 3, scale * height, scale * width)
    assert net.condition(image).shape == (2, 8)
    assert net(image, torch.randn(2, 8)).shape == clean.shape
    assert CpenS1(config)(image, clean).shape == (2, 8)
    assert Teacher(config)(image, clean).shape == clean.shape


@pytest.mark.parametrize(
    ("changes", "words"), [({"inputs": 5}, "3 .* or 4"), ({"scale": 3}, "1, 2 or 4"), ({"steps": -1}, "0 .* or more")]
)
def test_impossible_configurations_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(TINY, **changes)


def test_reverse_chain_has_the_published_weights() -> None:
    levels = model(TINY).levels
    for t, expected in enumerate(LAST_WEIGHTS):
        step = levels[3 - t : 5 - t]  # abar_{t+1}, abar_t
        clean = posterior_mean(lambda x, i: 1.0, 0.0, step)  # noqa: ARG005 (same signature for all)
        state = posterior_mean(lambda x, i: 0.0, 1.0, step)  # noqa: ARG005
        np.testing.assert_allclose((clean, state), expected, atol=6e-4)


def test_denoiser_sees_condition_times_and_states() -> None:
    net, calls = model(TINY), []

    net.denoiser.register_forward_hook(lambda _module, given, result: calls.append((given, result)))
    condition, noise = torch.rand(2, 2, 8)
    prior = net.prior(condition, noise)
    assert [float(time[0, 0]) for (_, time, _), _ in calls] == pytest.approx([3 / 40, 2 / 40, 1 / 40, 0])
    assert all(given[0] is condition for given, _ in calls)
    assert calls[0][0][2] is noise
    torch.testing.assert_close(prior, calls[-1][1], rtol=1e-6, atol=1e-7)  # weights 1 and 0 at the end


def test_nothing_is_drawn_inside() -> None:
    net, image, noise = model(TINY), torch.rand(1, 3, 16, 16), torch.randn(1, 8)
    first = net(image, noise)
    torch.manual_seed(123)
    assert torch.equal(net(image, noise), first)


def test_output_varies_little_with_the_noise() -> None:
    """Only the first state is random, and its share of the last is small: other conditions matter far more."""
    net = model(TINY)
    noises = torch.randn(64, 8)
    conditions = net.condition(torch.rand(64, 3, 16, 16) * torch.rand(64, 3, 1, 1))
    by_noise = net.prior(conditions[:1].expand(64, -1), noises).std(0).norm()
    by_condition = net.prior(conditions / conditions.std(0), noises[:1].expand(64, -1)).std(0).norm()
    assert 0 < by_noise < 0.1 * by_condition


def test_without_diffusion_the_condition_is_the_prior() -> None:
    net = model(replace(TINY, steps=0))
    image = torch.rand(1, 3, 16, 16)
    assert net.denoiser is None
    assert "denoiser" not in cost_parts(net.config)
    expected = net.restore(image, net.condition(image)).clamp(0, 1)
    assert torch.equal(net(image, torch.randn(1, 8)), expected)


def test_tiles_share_the_prior_of_the_whole_image() -> None:
    """Features averaged by area are those of the whole, but for the borders that convolutions see."""
    net = model(TINY)
    for parameter in net.cpen.convs.parameters():
        parameter.mul_(2)
    random = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 256, 512, generator=random)
    image[..., 384:] *= 0.2
    tiles = image[..., :384], image[..., 384:]
    features = [net.cpen.features(tile) for tile in tiles]
    whole, averaged, careless = net.cpen.features(image), 0.75 * features[0] + 0.25 * features[1], sum(features) / 2
    assert (averaged - whole).norm() < 0.02 * whole.norm()
    assert (averaged - whole).norm() < 0.1 * (careless - whole).norm()
    torch.testing.assert_close(net.cpen.head(whole), net.condition(image))
    # Under one prior a tile is restored alike wherever its vector was computed; under its own it is not.
    noise = torch.randn(1, 8, generator=random)
    shared, own = net.prior(net.cpen.head(averaged), noise), net.prior(net.cpen.head(features[1]), noise)
    truth = net.restore(tiles[1], net.prior(net.condition(image), noise))
    off_shared, off_own = ((net.restore(tiles[1], prior) - truth).norm() for prior in (shared, own))
    assert off_shared < 0.2 * off_own


def test_known_pixels_stay_where_there_is_a_mask() -> None:
    image, restored = torch.rand(1, 4, 4, 4), torch.full((1, 3, 4, 4), 2.0)
    image[:, 3] = 0
    image[:, 3, :2] = 1
    result = composed(image, restored)
    assert torch.equal(result[:, :, 2:], image[:, :3, 2:])
    assert (result[:, :, :2] == 1).all()


NORMED = replace(TINY, prior_norm=True)


def photos(count: int) -> torch.Tensor:
    """Noise of various strength and brightness, (count, 3, 32, 32)."""
    random = torch.Generator().manual_seed(2)
    scale, shift = torch.rand(2, count, 1, 1, 1, generator=random)
    return torch.rand(count, 3, 32, 32, generator=random) * scale + shift / 2


def test_normed_prior_has_unit_rms() -> None:
    torch.manual_seed(0)
    image, clean = photos(8), photos(8) / 2
    estimator = CpenS1(NORMED)
    torch.testing.assert_close(estimator(image, clean).square().mean(dim=1), torch.ones(8), rtol=1e-3, atol=0)
    before = estimator.head[:-1](estimator.pooled(torch.cat([pixel_unshuffle(x, 4) for x in (image, clean)], dim=1)))
    torch.testing.assert_close(F.cosine_similarity(estimator(image, clean), before), torch.ones(8))


def test_estimates_of_a_normed_prior_may_have_any_sign() -> None:
    net = model(NORMED)
    condition = net.condition(photos(32))
    prior = net.prior(condition, torch.zeros(32, 8))
    for vectors in (condition, prior):  # a LeakyReLU at the end would leave a tenth
        assert float(vectors.amin()) < -0.3 * float(vectors.amax())


def test_gradient_of_the_picture_reaches_the_normed_prior() -> None:
    torch.manual_seed(0)
    teacher, clean = Teacher(replace(CONFIGS["mobile"], ipr=8)), photos(2)
    teacher(clean, clean).square().mean().backward()
    norms = {name: float(p.grad.norm()) for name, p in teacher.cpen.named_parameters() if p.grad is not None}
    assert set(norms) == {name for name, _ in teacher.cpen.named_parameters()}
    assert min(norms.values()) > 0


def test_checkpoints_from_before_the_norm_give_what_they_gave() -> None:
    old = asdict(TINY)
    del old["prior_norm"]
    config = from_dict(DiffirConfig, old)
    net, image, noise = model(config), photos(2), torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    assert config == TINY
    first, _, second, _ = net.cpen.head

    def leaky(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.1 * x)

    condition = leaky(second(leaky(first(net.cpen.features(image)))))
    torch.testing.assert_close(net.condition(image), condition)
    expected = noise
    for t in range(3, -1, -1):
        given = torch.cat([condition, torch.full((2, 1), t / 40), expected], dim=1)
        clean = leaky(net.denoiser.layers[2](leaky(net.denoiser.layers[0](given))))
        x0, state = LAST_WEIGHTS[t]
        expected = x0 * clean + state * expected
    torch.testing.assert_close(net.prior(condition, noise), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["deblur", "sr", "inpainting"])
def test_published_sizes_keep_the_published_prior(name: str) -> None:
    assert not CONFIGS[name].prior_norm
    assert CONFIGS["mobile"].prior_norm
