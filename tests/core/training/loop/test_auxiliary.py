from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pocketprior.core.training.loop.stage import AuxiliaryNetworks, fixed


def aside() -> AuxiliaryNetworks:
    torch.manual_seed(0)
    nets = [nn.Linear(3, 2), nn.Linear(3, 1)]
    return AuxiliaryNetworks(nets, [(net.parameters(), rate) for net, rate in zip(nets, (0.1, 0.01), strict=True)])


def losses(of: AuxiliaryNetworks, step: int) -> list[Tensor]:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    return [(net(x) - 1).square().mean() for net in of.networks]


def test_gradients_go_through_a_fixed_network_and_not_into_it() -> None:
    network = nn.Linear(3, 2)
    x = torch.rand(4, 3, requires_grad=True)
    with fixed(network):
        network(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_network_is_free_again_after_an_error() -> None:
    network = nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="stop"), fixed(network):
        raise RuntimeError("stop")
    assert all(p.requires_grad for p in network.parameters())


def test_each_network_learns_at_its_rate() -> None:
    """One step of Adam moves every weight by its learning rate."""
    first = aside()
    before = [net.weight.detach().clone() for net in first.networks]
    first.descend(losses(first, 0), lambda gradient: gradient)
    moved = [float((net.weight.detach() - old).abs().max()) for net, old in zip(first.networks, before, strict=True)]
    assert moved == pytest.approx([0.1, 0.01], rel=1e-3)


def test_gradients_are_those_of_all_processes() -> None:
    first = aside()
    before = first.networks[0].weight.detach().clone()
    first.descend(losses(first, 0), torch.zeros_like)
    assert torch.equal(first.networks[0].weight, before)


def test_restored_state_walks_the_same_path() -> None:
    whole, stopped, resumed = aside(), aside(), aside()
    for step in range(4):
        whole.descend(losses(whole, step), lambda gradient: gradient)
    for step in range(2):
        stopped.descend(losses(stopped, step), lambda gradient: gradient)
    resumed.restore({name: tensor.clone() for name, tensor in stopped.state().items()})
    for step in range(2, 4):
        resumed.descend(losses(resumed, step), lambda gradient: gradient)
    assert all(torch.equal(tensor, resumed.state()[name]) for name, tensor in whole.state().items())
