from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from small_stages import randomize
from torch import nn

from pocketprior.core.models.deploy.rewrite import rewritten
from pocketprior.core.models.dtpm import FIRST_MOBILE, NAF_EDGE, Predictor, PredictorConfig
from pocketprior.core.models.naf_edge import BatchNorm, NafEdgeBlock, NafEdgeUnet
from pocketprior.core.training.loop.optimizers import TrainedWeights


def live(module: nn.Module) -> nn.Module:
    """TrainedWeights that do something everywhere, and statistics as training leaves them."""
    randomize(module)
    random = torch.Generator().manual_seed(2)
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.mean.copy_(torch.randn(part.mean.shape, generator=random))
            part.variance.copy_(0.5 + torch.rand(part.variance.shape, generator=random))
    return module


@pytest.mark.parametrize("embedding", [None, 6])
def test_fresh_block_is_the_identity(embedding: int | None) -> None:
    x = torch.randn(2, 8, 5, 3)
    vector = None if embedding is None else torch.randn(2, embedding)
    assert torch.equal(NafEdgeBlock(8, 4, embedding)(x, vector), x)


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 4, 5, 7)])
@pytest.mark.parametrize("embedding", [None, 3])
def test_gradients_reach_every_weight(embedding: int | None, shape: tuple[int, ...]) -> None:
    block = live(NafEdgeBlock(4, 6, embedding))
    vector = None if embedding is None else torch.rand(shape[0], embedding)
    block.eval()(torch.randn(shape), vector).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in block.parameters())


def test_film_conditions_the_block() -> None:
    block = live(NafEdgeBlock(4, 4, 3)).eval()
    x, vector = torch.randn(1, 4, 5, 5), torch.ones(1, 3)
    assert not torch.equal(block(x, vector), block(x, -vector))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 20)])
def test_unet_keeps_the_size(height: int, width: int) -> None:
    net = live(NafEdgeUnet(6, 3, (8, 16), (1, 2), 1.0, embedding=4, decoder=(2,))).eval()
    assert net.multiple_of == 4
    vector = torch.randn(2, 4)
    assert net(torch.randn(2, 6, height, width), vector, vector).shape == (2, 3, height, width)
    assert net.levels() == [(8, 2), (16, 4), (16, 4), (8, 2), (8, 2)]


@pytest.mark.parametrize("embedding", [None, 5])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (3, 1)])
def test_rewritten_block_is_the_same_at_the_border_too(size: tuple[int, int], embedding: int | None) -> None:
    net = nn.ModuleList([live(NafEdgeBlock(6, 10, embedding))]).eval().requires_grad_(False)
    x, vector = torch.randn(2, 6, *size), None if embedding is None else torch.randn(2, embedding)
    expected = net[0](x, vector)
    folded = rewritten(net)[0](x, vector)
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_rewritten_predictor_has_no_normalisation_and_is_the_same() -> None:
    net = live(Predictor(PredictorConfig("naf-edge", (8, 16), (2, 1), (1,)))).eval().requires_grad_(False)
    deployed, image = rewritten(net), torch.rand(2, 3, 12, 20)
    assert not any(isinstance(part, BatchNorm) for part in deployed.modules())
    expected = net(image)
    torch.testing.assert_close(deployed(image), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_norm_follows_the_batches_only_while_it_is_trained() -> None:
    norm, x = BatchNorm(2), 3 + torch.randn(4, 2, 8, 8)
    norm.requires_grad_(False)(x)
    assert torch.equal(norm.mean, torch.zeros(2))
    trained = norm.requires_grad_(True)(x)
    assert float(trained.detach().mean().abs()) < 1e-6
    assert bool((norm.mean > 0).all())
    kept = norm.mean.clone()
    norm.eval()(x)
    assert torch.equal(norm.mean, kept)


def test_state_and_average_carry_the_statistics() -> None:
    """A run goes on from the statistics it had, and the checkpoint of the average has them."""

    def started() -> tuple[nn.Module, torch.optim.Optimizer, TrainedWeights]:
        torch.manual_seed(0)
        model = NafEdgeUnet(3, 3, (8,), (2,), 1.0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return model, optimizer, TrainedWeights(model, [optimizer])

    def walk(
        model: nn.Module, optimizer: torch.optim.Optimizer, weights: TrainedWeights, batches: Iterator[int]
    ) -> None:
        for batch in batches:
            x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(batch))
            optimizer.zero_grad()
            (model(x) - x.flip(1)).square().mean().backward()
            optimizer.step()
            weights.follow(0.5)

    whole, stopped = started(), started()
    walk(*whole, iter(range(6)))
    walk(*stopped, iter(range(3)))
    resumed = started()
    resumed[2].restore(dict(stopped[2].state()))
    walk(*resumed, iter(range(3, 6)))
    states = whole[0].state_dict(), resumed[0].state_dict()
    assert any(name.endswith("variance") for name in states[0])
    assert all(torch.equal(states[1][name], tensor) for name, tensor in states[0].items())
    copy = NafEdgeUnet(3, 3, (8,), (2,), 1.0)
    whole[2].averaged(copy)
    assert all(torch.equal(dict(whole[0].named_buffers())[name], b) for name, b in copy.named_buffers())


def test_predictor_is_within_the_budget_of_mobile() -> None:
    """Multiply-adds per pixel, as for the one it stands beside: at most 25 000."""
    from torch.utils.flop_counter import FlopCounterMode

    for config in (NAF_EDGE, FIRST_MOBILE.predictor):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            rewritten(Predictor(config))(torch.empty(1, 3, 64, 64))
        assert counter.get_total_flops() / 2 / 64**2 <= 25_000
