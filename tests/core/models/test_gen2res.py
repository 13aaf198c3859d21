from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketprior.core.errors import CheckpointError, UnknownNameError, UsageError
from pocketprior.core.models import checkpoints, gen2res
from pocketprior.core.models.gen2res import CONFIGS, Denoiser, Gen2ResConfig, NormSilu, build, merged, restore
from pocketprior.core.models.lora import Factors
from pocketprior.core.sampling.schedule import ddpm, quadratic, strided

BARS = ddpm()
ADM = Gen2ResConfig(widths=(8, 16, 16), blocks=1, attention=(4,), embedding=16, groups=4, dropout=0.0)
COMPACT = replace(CONFIGS["mobile"], widths=(8, 16, 16), embedding=16, groups=4)


def awakened(config: Gen2ResConfig) -> Denoiser:
    """A small denoiser whose convolutions that start at zero do not."""
    torch.manual_seed(0)
    denoiser = Denoiser(config)
    for parameter in denoiser.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.05)
    return denoiser.eval().requires_grad_(False)


def fields(count: int, shape: tuple[int, ...] = (2, 3, 16, 24)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def test_paper_configuration_has_the_paper_s_parameters() -> None:
    """131.7 M; the multiply-adds are held beside those of the other systems."""
    with torch.device("meta"):
        (denoiser, inputs) = gen2res.cost_parts(CONFIGS["paper"])["denoiser"]
        assert denoiser(*inputs).shape == (1, 6, 256, 256)
    assert sum(p.numel() for p in denoiser.parameters()) == pytest.approx(131.7e6, rel=0.01)


def test_paper_s_levels_are_those_of_the_sheet() -> None:
    """G4: the published defaults were wrong for a long time. Channels x resolution at 256, attention at 16 alone."""
    sizes, attended = [], set()
    with torch.device("meta"):
        (denoiser, inputs) = gen2res.cost_parts(CONFIGS["paper"])["denoiser"]
        for layer in denoiser.get_submodule("encoder").children():
            layer.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:3])))
        for module in denoiser.modules():
            if isinstance(module, gen2res.Attention):
                module.register_forward_hook(lambda _m, _i, out: attended.add(out.shape[2]))
        denoiser(*inputs)
    levels = [(128, 256), (128, 128), (256, 64), (256, 32), (512, 16), (512, 8)]
    assert sorted(set(sizes) & set(levels), reverse=True) == sorted(levels, reverse=True)
    assert attended == {16, 8}, "the levels with attention are 16x16 and, as ever in ADM, the middle"


@pytest.mark.parametrize("size", CONFIGS)
def test_every_size_can_be_built(size: str) -> None:
    with torch.device("meta"):
        denoiser = Denoiser(CONFIGS[size])
        side = 2 * denoiser.multiple_of
        assert denoiser(torch.zeros(2, 3, side, 3 * side), torch.ones(2)).shape == (2, 6, side, 3 * side)


def test_mobile_is_small() -> None:
    with torch.device("meta"):
        assert 1.0e6 < sum(p.numel() for p in Denoiser(CONFIGS["mobile"]).parameters()) < 1.4e6


@pytest.mark.parametrize("config", [ADM, COMPACT], ids=["adm", "compact"])
class TestDenoiser:
    def test_a_fresh_one_predicts_zero(self, config: Gen2ResConfig) -> None:
        x = fields(1)[0]
        assert not Denoiser(config)(x, torch.ones(2)).any()

    def test_samples_of_a_batch_do_not_see_each_other(self, config: Gen2ResConfig) -> None:
        denoiser, (x,), t = awakened(config), fields(1), torch.tensor([0.1, 0.9])
        alone = torch.cat([denoiser(x[i : i + 1], t[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(denoiser(x, t), alone, rtol=1e-4, atol=1e-5)

    def test_time_and_every_part_of_the_network_matter(self, config: Gen2ResConfig) -> None:
        denoiser, (x,) = awakened(config), fields(1)
        out = denoiser(x, torch.full((2,), 0.2))
        assert not torch.allclose(out, denoiser(x, torch.full((2,), 0.8)), atol=1e-4)
        denoiser.requires_grad_(True)
        denoiser(x, torch.full((2,), 0.2)).square().sum().backward()
        silent = [name for name, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == []

    def test_odd_multiples_fit(self, config: Gen2ResConfig) -> None:
        denoiser = awakened(config)
        side = denoiser.multiple_of
        assert denoiser(torch.zeros(1, 3, side, 3 * side), torch.ones(1)).shape == (1, 6, side, 3 * side)

    def test_lora_keeps_names_and_merges_exactly(self, config: Gen2ResConfig) -> None:
        plain = awakened(config)
        adapted = Denoiser(replace(config, lora=3))
        adapted.load_state_dict({**adapted.state_dict(), **plain.state_dict()})
        (x,), t = fields(1), torch.full((2,), 0.3)
        torch.testing.assert_close(adapted(x, t), plain(x, t))
        for module in adapted.modules():
            if isinstance(module, Factors):
                torch.nn.init.normal_(module.up, std=0.05)
        whole = merged(adapted)
        assert whole.config == config
        assert set(whole.state_dict()) == set(plain.state_dict())
        assert not torch.allclose(whole(x, t), plain(x, t), atol=1e-3)
        torch.testing.assert_close(whole(x, t), adapted(x, t), rtol=0, atol=1e-5)


def test_norm_silu_is_what_it_says() -> None:
    module = NormSilu(2, 4)
    torch.nn.init.normal_(module.norm.weight)
    x, film = torch.randn(3, 4, 5, 5), torch.randn(3, 8)
    groups = x.reshape(3, 2, -1).double()
    normal = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    normal = normal.reshape(x.shape) * module.norm.weight.double()[None, :, None, None]
    y = normal * (1 + film[:, :4, None, None]) + film[:, 4:, None, None]
    torch.testing.assert_close(module(x, film).double(), y * y.sigmoid(), rtol=1e-4, atol=1e-5)


class TestRestore:
    levels, times = strided(5, BARS, 200)

    def run(self, sampler: str, noise: list[Tensor], image: Tensor) -> Tensor:
        with torch.no_grad():
            return restore(awakened(COMPACT), image, noise.__getitem__, self.levels, self.times, sampler)

    def test_times_are_those_of_the_levels(self) -> None:
        assert self.times == pytest.approx([0.2, 0.16, 0.12, 0.08, 0.04])
        assert self.levels[0] == pytest.approx(0.659, abs=1e-3)

    @pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
    def test_it_is_a_function_of_its_noise(self, sampler: str) -> None:
        image, noise = torch.rand(2, 3, 16, 24), fields(6)
        first = self.run(sampler, noise, image)
        assert first.shape == image.shape
        assert float(first.min()) >= 0
        assert float(first.max()) <= 1
        torch.testing.assert_close(self.run(sampler, noise, image), first, rtol=0, atol=0)
        assert not torch.allclose(self.run(sampler, noise[1:] + noise[:1], image), first, atol=1e-3)

    def test_unknown_sampler_lists_those_there_are(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown sampler 'ancestrel'; choose one of: ddim, ancestral"):
            self.run("ancestrel", fields(6), torch.rand(2, 3, 16, 24))

    def test_ddim_needs_the_noise_of_the_start_alone(self) -> None:
        self.run("ddim", fields(1), torch.rand(2, 3, 16, 24))

    def test_a_perfect_denoiser_returns_the_photo(self) -> None:
        """The start is the noised photo: what knows the noise gives the photo back."""
        image, noise = torch.rand(2, 3, 16, 24), fields(1)

        class Oracle(torch.nn.Module):
            def forward(self, x: Tensor, t: Tensor) -> Tensor:
                bar = BARS[round(float(t[0]) * 1000) - 1]
                eps = (x - bar**0.5 * (image * 2 - 1)) / (1 - bar) ** 0.5
                return torch.cat([eps, torch.zeros_like(eps)], dim=1)

        restored = restore(Oracle(), image, noise.__getitem__, self.levels, self.times, "ddim")
        torch.testing.assert_close(restored, image, rtol=0, atol=1e-5)


class TestOwnNoise:
    """A photo that is entered at the level of its own noise."""

    levels, times = quadratic(6, BARS, 300)

    def run(self, image: Tensor, sigma: float, start_level: float, clean: Tensor) -> tuple[Tensor, list[float]]:
        """With a denoiser that knows the clean photo; the times that it is asked for."""
        asked: list[float] = []

        class Oracle(torch.nn.Module):
            def forward(self, x: Tensor, t: Tensor) -> Tensor:
                time = float(t[0])
                asked.append(time)
                level = float(np.interp(time * 1000, range(1001), [1.0, *BARS]))
                eps = (x - level**0.5 * (clean * 2 - 1)) / (1 - level) ** 0.5
                return torch.cat([eps, torch.zeros_like(eps)], dim=1)

        def noise(number: int) -> Tensor:
            raise AssertionError(f"noise {number} was drawn")

        found = restore(Oracle(), image, noise, self.levels, self.times, "ddim", start_level=start_level, sigma=sigma)
        return found, asked

    def test_it_is_restored_without_added_noise(self) -> None:
        clean = 0.2 + 0.6 * torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
        noisy = clean + 0.1 * fields(1, (1, 3, 16, 24))[0]
        found, asked = self.run(noisy, 0.1, 1.0, clean)
        torch.testing.assert_close(found, clean, rtol=0, atol=0.01)
        level = 1 / (1 + 0.2**2)
        assert float(np.interp(asked[0] * 1000, range(1001), [1.0, *BARS])) == pytest.approx(level, rel=2e-3)
        assert asked[0] == asked[1], "what was clipped is looked for in a first pass"

    def test_one_without_noise_is_returned(self) -> None:
        image = torch.rand(2, 3, 16, 24)
        found, asked = self.run(image, 0.0, 1.0, image)
        torch.testing.assert_close(found, image, rtol=0, atol=1e-6)
        assert asked == []


def test_checkpoint_is_built_with_its_factors_multiplied_in(tmp_path: Path) -> None:
    adapted = awakened(replace(COMPACT, lora=2))
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, "gen2res", adapted.config, adapted.state_dict(), {})
    denoiser = build(checkpoints.load(path, "gen2res"))
    (x,), t = fields(1), torch.full((2,), 0.3)
    assert denoiser.config == COMPACT
    torch.testing.assert_close(denoiser(x, t), adapted(x, t), rtol=0, atol=1e-5)


def test_missing_base_says_how_to_train_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gen2res, "SHIPPED_BASE", tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="train gen2res base"):
        gen2res.load_base(None)


def test_tensors_of_another_network_are_refused() -> None:
    with pytest.raises(CheckpointError, match="of its Denoiser"):
        build(checkpoints.Checkpoint("gen2res", asdict(COMPACT), awakened(ADM).state_dict()))


@pytest.mark.parametrize("groups", [0, 3])
def test_widths_must_divide_into_groups(groups: int) -> None:
    with pytest.raises(UsageError, match=r"multiples of groups, got \(8, 16, 16\)"):
        Denoiser(replace(ADM, groups=groups))
