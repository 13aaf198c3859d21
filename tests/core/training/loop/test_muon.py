"""Muon on its own: what it makes orthogonal, how far it moves, and what it leaves to AdamW."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pocketprior.core.training.loop.optimizers import Muon, is_hidden_kernel, optimizers, orthogonal
from support.toy_training import RECIPE, ToyStage, toy_data


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 144), (2, 64, 9), (1, 1, 27)])
def test_singular_values_end_near_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Jordan's coefficients trade exactness for speed: 0.68 to 1.14 for what is not nearly singular."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    spread = u @ torch.diag_embed(torch.linspace(1, 0.05, u.shape[-1]).expand(shape[0], -1)) @ v
    found = orthogonal(1000 * spread, dtype)
    values = torch.linalg.svdvals(found)
    assert found.shape == shape
    assert found.dtype == torch.float32
    assert 0.65 < float(values.min()) <= float(values.max()) < 1.2
    kept = u.mT @ found @ v.mT  # the singular vectors stay: what remains is diagonal
    assert float((kept - torch.diag_embed(kept.diagonal(dim1=-2, dim2=-1))).abs().max()) < 0.05


def test_step_is_the_scaled_direction_of_nesterov_momentum() -> None:
    kernels = [nn.Parameter(torch.randn(shape)) for shape in ((32, 4, 1, 1), (4, 8, 3, 3), (4, 8, 3, 3))]
    before = [kernel.detach().clone() for kernel in kernels]
    muon = Muon([{"params": kernels, "lr": 0.1}], 1.0, weight_decay=0.5, dtype=torch.float32)
    momenta = [torch.zeros_like(kernel) for kernel in kernels]
    for _ in range(2):
        for i, kernel in enumerate(kernels):
            kernel.grad = torch.randn(kernel.shape)
            momenta[i] = 0.95 * momenta[i] + 0.05 * kernel.grad
            nesterov = (0.05 * kernel.grad + 0.95 * momenta[i]).flatten(1)
            rows, columns = nesterov.shape
            step = 0.1 * max(1, rows / columns) ** 0.5 * orthogonal(nesterov[None], torch.float32)[0]
            before[i] = (1 - 0.1 * 0.5) * before[i] - step.view_as(kernel)
        muon.step()
    for kernel, expected in zip(kernels, before, strict=True):
        torch.testing.assert_close(kernel.detach(), expected, rtol=0, atol=1e-5)


def test_kernel_without_a_gradient_stays() -> None:
    kernel = nn.Parameter(torch.randn(4, 4, 3, 3))
    before = kernel.detach().clone()
    Muon([{"params": [kernel]}], 1.0, weight_decay=0.5, dtype=torch.float32).step()
    assert kernel.equal(before)


@pytest.mark.parametrize(
    ("name", "shape", "hidden"),
    [
        ("unet.encoder.0.weight", (16, 16, 3, 3), True),
        ("unet.intro.weight", (16, 12, 3, 3), False),
        ("end.weight", (12, 16, 3, 3), False),
        ("unet.introduction.weight", (16, 16, 1, 1), True),
        ("depthwise.weight", (16, 1, 3, 3), False),
        ("film.weight", (32, 8), False),
        ("bias", (16,), False),
    ],
)
def test_what_muon_trains(name: str, shape: tuple[int, ...], hidden: bool) -> None:
    assert is_hidden_kernel(name, torch.empty(shape)) is hidden


def test_each_optimiser_has_its_rate_and_each_part_its_share() -> None:
    stage = ToyStage(toy_data())
    adamw, muon = optimizers(stage, replace(RECIPE, optimizer="muon", rate=1e-3, muon_rate=0.02), bf16=False)
    assert isinstance(muon, Muon)
    assert [group["lr"] for group in adamw.param_groups] == [1e-3, 5e-4]
    assert [group["lr"] for group in muon.param_groups] == [0.02, 0.01]
    of = {id(p): name for name, p in stage.model.named_parameters()}
    assert [of[id(p)] for g in muon.param_groups for p in g["params"]] == ["first.0.weight", "second.weight"]
    assert [of[id(p)] for g in adamw.param_groups for p in g["params"]] == ["first.0.bias", "second.bias"]
    assert [name for name, p in stage.model.named_parameters() if not p.requires_grad] == ["fixed.weight", "fixed.bias"]
    assert [type(o).__name__ for o in optimizers(stage, RECIPE, bf16=False)] == ["AdamW"]
