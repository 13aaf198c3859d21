"""Eight bits while training are those of the exporter, and learning in them comes nearer to the float model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_stages import Build, batch_of
from torch import Tensor, nn

from pocketprior.core.models.blocks import RepBlock
from pocketprior.core.training.photos import Pool
from pocketprior.distill.quantized import fake_arrays, fake_weights, loss, plain, quantized
from pocketprior.export.quantization.levels import coded, decoded
from pocketprior.export.quantization.ranges import Range, unit


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    block = RepBlock(8, 16)
    nn.init.normal_(block.second.direct.weight, 0, 0.1)
    nn.init.normal_(block.second.expand, 0, 0.1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), block, nn.Conv2d(8, 3, 1)).eval()


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (5, 1, 7, 7), (3, 1, 1, 1)])
def test_weights_are_those_of_the_exporter(shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    expected = decoded(coded(weights, "int8"), shape)
    np.testing.assert_allclose(fake_weights(torch.from_numpy(weights)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("least", "largest"), [(-1.0, 2.0), (0.0, 0.7), (-3.0, 0.0), (0.0, 0.0)])
def test_arrays_are_those_of_the_exporter(least: float, largest: float) -> None:
    x = np.random.default_rng(0).normal(0, 1, (4, 9)).astype(np.float32)
    scale, zero = unit(Range(least, largest, 1, ()))
    expected = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
    found = fake_arrays(torch.from_numpy(x), torch.tensor(least), torch.tensor(largest))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6 + (scale if largest > least else 0) * 1e-3)


def test_the_gradient_goes_straight_through_where_nothing_is_cut_off() -> None:
    x = torch.tensor([-2.0, -0.3, 0.0, 0.4, 3.0], requires_grad=True)
    fake_arrays(x, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    weights = torch.randn(4, 3, 3, 3, requires_grad=True)
    fake_weights(weights).sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.ones_like(weights))


def test_it_differs_from_the_float_model_by_rounding_alone(model: nn.Module, picture: Tensor) -> None:
    student = quantized(model, lambda m: m(picture))
    expected, found = model(picture), student(picture)
    assert 0 < F.mse_loss(found, expected) < 1e-3 * expected.var()
    torch.testing.assert_close(plain(copy.deepcopy(student))(picture), expected, atol=1e-5, rtol=1e-5)


def test_learning_comes_nearer_to_the_float_model(model: nn.Module, picture: Tensor) -> None:
    first = model[0]
    assert isinstance(first, nn.Conv2d)
    first.weight.data[0, 0, 0, 0] *= 5  # one weight that makes its channel's scale coarse
    student = quantized(model, lambda m: m(picture))
    aim = model(picture).detach()
    optimizer = torch.optim.Adam(student.parameters(), 1e-4)
    losses = []
    for _ in range(100):
        loss = F.mse_loss(student(picture), aim)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < 0.8 * losses[0]


@pytest.mark.parametrize("system", ["dtpm", "gen2res", "diffir"])
def test_the_loss_of_every_system_reaches_its_weights(build: Build, pool: Pool, system: str) -> None:
    stage = build("unrolled", system, sampling_steps=2)
    batch = batch_of(stage, pool)
    problem = stage.system.problem(batch)
    steps = stage.steps

    def restore(model: nn.Module) -> None:
        problem.compose(model, problem.sample(model, problem.start, steps))

    student = quantized(stage.model, restore)
    figures = loss(stage.model, student, problem, batch, steps=steps)
    assert set(figures) == {"loss", "end", "picture"}
    assert all(torch.isfinite(value) for value in figures.values())
    figures["loss"].backward()
    gradients = [p.grad for name, p in student.named_parameters() if "original" in name]
    assert any(g is not None and g.abs().max() > 0 for g in gradients)
    assert loss(stage.model, stage.model, problem, batch, steps=steps)["loss"].item() == 0
