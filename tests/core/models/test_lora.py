from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pocketprior.core.models.blocks import RepBlock, merge_branches
from pocketprior.core.models.deploy.rewrite import rewritten
from pocketprior.core.models.lora import Factors, LowRank, add_lora, factor_names, is_factor, merge_lora


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 6, 2, stride=2, bias=False),
        nn.GroupNorm(2, 6),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


def picture() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def trained(network: nn.Module) -> nn.Module:
    """With factors that are no longer zero."""
    add_lora(network, rank=4)
    for module in network.modules():
        if isinstance(module, Factors):
            nn.init.normal_(module.up, std=0.1)
    return network


def test_fresh_factors_change_nothing(network: nn.Module) -> None:
    before = network(picture())
    names = set(network.state_dict())
    add_lora(network, rank=4)
    torch.testing.assert_close(network(picture()), before, rtol=0, atol=0)
    assert names < set(network.state_dict())
    assert factor_names(network) == ["0.factors", "1.factors", "4.factors"]


def test_merging_gives_the_same_function_in_plain_layers(network: nn.Module) -> None:
    before = network(picture())
    adapted = trained(network)
    merged = merge_lora(adapted)
    torch.testing.assert_close(merged(picture()), adapted(picture()), rtol=0, atol=1e-5)
    assert not torch.allclose(merged(picture()), before, atol=1e-2)
    assert [type(layer) for layer in merged.children()][:2] == [nn.Conv2d, nn.Conv2d]
    assert type(merged[4]) is nn.Linear
    assert set(merged.state_dict()) == {n for n in adapted.state_dict() if "factors" not in n}
    assert factor_names(adapted) == ["0.factors", "1.factors", "4.factors"], "the original keeps its factors"


def test_the_change_of_a_weight_has_the_rank_of_its_factors(network: nn.Module) -> None:
    plain = network[0].weight.detach().clone()
    change = merge_lora(trained(network))[0].weight - plain
    assert torch.linalg.matrix_rank(change.flatten(1)) == 4


def test_a_thin_layer_gets_no_more_than_its_rank() -> None:
    network = nn.Sequential(nn.Linear(2, 7))
    add_lora(network, rank=16)
    assert network[0].factors.down.shape == (2, 2)
    assert network[0].factors.up.shape == (7, 2)


def test_gradients_reach_the_factors(network: nn.Module) -> None:
    trained(network).requires_grad_(False)
    for name in factor_names(network):
        network.get_submodule(name).requires_grad_(True)
    network(picture()).square().sum().backward()
    for name, parameter in network.named_parameters():
        learns = ".factors." in name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == learns, name


@pytest.fixture
def branched() -> nn.Module:
    """Re-parameterised convolutions whose branches all do something."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), RepBlock(8, 6))
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    return block


def test_branches_get_one_pair_of_factors_together(branched: nn.Module) -> None:
    plain = merge_branches(branched)(picture())
    adapted = trained(branched)
    assert factor_names(adapted) == ["0.factors", "1.first.factors", "1.second.factors"]
    assert not torch.allclose(adapted(picture()), plain, atol=1e-2)
    merged = merge_lora(adapted)
    torch.testing.assert_close(merged(picture()), adapted(picture()), rtol=0, atol=1e-5)
    assert set(merged.state_dict()) == {name for name in adapted.state_dict() if not is_factor(name)}


def test_side_by_side_it_is_the_same_function_around_the_same_weights(branched: nn.Module) -> None:
    """What tasks share is bit by bit what it is without factors."""
    alone = merge_branches(branched)
    adapted = trained(branched)
    apart = rewritten(adapted)
    torch.testing.assert_close(apart(picture()), adapted(picture()), rtol=0, atol=1e-5)
    layers = [module for module in apart.modules() if isinstance(module, LowRank)]
    convolutions = [module for module in alone.modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == len(convolutions) == 3
    for layer, conv in zip(layers, convolutions, strict=True):
        assert torch.equal(layer.conv.weight, conv.weight)
        assert layer.down.weight.shape[0] == layer.up.weight.shape[1] == 4
