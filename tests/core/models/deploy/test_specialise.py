"""Folded at its own times a student is the same function, and the time path is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pocketprior.core.errors import UsageError
from pocketprior.core.models.deploy.specialise import fixed_diffir, fixed_dtpm, fixed_gen2res
from pocketprior.core.models.diffir import CONFIGS as DIFFIR
from pocketprior.core.models.diffir import Diffir
from pocketprior.core.models.dtpm import CONFIGS as DTPM
from pocketprior.core.models.dtpm import FIRST_MOBILE, Dtpm, DtpmConfig
from pocketprior.core.models.gen2res import CONFIGS as GEN2RES
from pocketprior.core.models.gen2res import Denoiser
from pocketprior.core.sampling.schedule import cosine, ddpm, strided, trailing
from pocketprior.core.sampling.steps import Steps
from support.small_checkpoints import MODELS, randomize

EXACT = 1e-6  # of the largest value
SAME = 1e-9  # in float64, where rounding hides nothing
SIDE = 64


def pictures(count: int, side: int = SIDE) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, side, side, generator=random) for _ in range(count)]


def living(model: nn.Module) -> nn.Module:
    """Every part that starts at zero does something; nothing explodes."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=random))
    return model.eval().requires_grad_(False)


def assert_exact(ours: Tensor, theirs: Tensor) -> None:
    assert float(theirs.std()) > 0
    tolerance = SAME if theirs.dtype == torch.float64 else EXACT
    assert float((ours - theirs).abs().max()) <= tolerance * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    "config",
    [
        DTPM["mobile"],
        FIRST_MOBILE,
        DTPM["base"],
        *MODELS.values(),
        replace(DTPM["mobile"], damage_input="slot"),
        replace(FIRST_MOBILE, structure_slot="y_d"),
    ],
    ids=["mobile", "first", "base", *(f"small {body}" for body in MODELS), "damage in the slot", "y_d in the slot"],
)
def test_dtpm(config: DtpmConfig, count: int) -> None:
    torch.manual_seed(0)
    model = living(Dtpm(config))
    assert isinstance(model, Dtpm)
    steps = Steps.of(*trailing(count, cosine()))
    fixed = fixed_dtpm(model, steps)
    (image, noise), code = pictures(2), torch.randn(2, config.semantic.code)
    x, base = 2 * noise - 1, image.flip(3)
    for i, time in enumerate(steps.times):
        theirs = model.denoise(x, image, base, code, torch.full((2,), time))
        assert_exact(fixed.denoise(x, image, base, code, i), theirs)
    strength = torch.tensor([0.5, 1.0])
    torch.testing.assert_close(
        fixed(image, code, x, strength), model(image, code, x, strength, *steps), rtol=1e-5, atol=1e-5
    )


def test_time_changes_what_is_folded() -> None:
    """Each step has its own folds; what the time does not touch is the same tensor in every step."""
    model = living(Dtpm(FIRST_MOBILE))
    assert isinstance(model, Dtpm)
    first, last = fixed_dtpm(model, Steps.of(*trailing(2, cosine()))).denoisers
    ours, theirs = dict(first.named_parameters()), dict(last.named_parameters())
    assert all(ours[name] is theirs[name] for name in ours)
    names = [name for name, buffer in first.named_buffers() if not buffer.equal(dict(last.named_buffers())[name])]
    assert any(name.endswith("scale") for name in names)
    assert not any(".time." in name or "film" in name for name in ours if ".encoder." in name)
    assert sum(buffer.numel() for buffer in first.buffers()) < 0.05 * sum(p.numel() for p in first.parameters())


@pytest.mark.parametrize("size", ["mobile", "base"])
def test_gen2res(size: str) -> None:
    torch.manual_seed(0)
    denoiser = living(Denoiser(replace(GEN2RES[size], dropout=0.0))).double()
    assert isinstance(denoiser, Denoiser)
    _, times = strided(2, ddpm(), 200)
    (x,) = (picture.double() for picture in pictures(1))
    for fixed, time in zip(fixed_gen2res(denoiser, times), times, strict=True):
        assert_exact(fixed(x), denoiser(x, torch.full((2,), time, dtype=torch.float64)))
        assert not [name for name, _ in fixed.named_modules() if name.endswith(("time", "film"))]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_diffir(steps: int) -> None:
    torch.manual_seed(0)
    model = Diffir(replace(DIFFIR["mobile"], steps=steps))
    randomize(model)
    model.eval().requires_grad_(False)
    fixed = fixed_diffir(model)
    x, condition = torch.randn(2, 64), torch.rand(2, 64)
    assert model.denoiser is not None
    for i in range(steps):
        time = torch.full((2, 1), (steps - 1 - i) / (10 * steps))
        assert_exact(fixed.denoise(x, condition, i), model.denoiser(condition, time, x))
    (image,) = pictures(1, 32)
    assert_exact(fixed_diffir(model.double())(image.double(), x.double()), model(image.double(), x.double()))


def test_diffir_without_diffusion_has_no_time() -> None:
    with pytest.raises(UsageError, match="no time to fold"):
        fixed_diffir(Diffir(replace(DIFFIR["mobile"], steps=0)))
