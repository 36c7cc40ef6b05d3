"""The optimizer for convolutions."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from fststyle.networks.transform import TransformNet
from fststyle.training.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(3, 8, 40), (2, 40, 8)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = 1e-4 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_a_step_has_the_size_of_adams_and_does_not_depend_on_the_scale_of_the_loss() -> None:
    moved = []
    for scale in (1.0, 1e-3):
        torch.manual_seed(0)
        network = nn.Conv2d(16, 16, 3, bias=False)
        before = network.weight.detach().clone()
        optimizer = Muon(network.parameters(), lr=1e-2)
        (scale * network(torch.randn(2, 16, 8, 8)).square().mean()).backward()
        optimizer.step()
        moved.append(network.weight.detach() - before)
    torch.testing.assert_close(*moved, rtol=1e-3, atol=1e-6)
    assert moved[0].square().mean().sqrt().item() == pytest.approx(0.2 * 1e-2, rel=0.3)


def test_what_is_no_matrix_moves_as_adam_moves_it() -> None:
    networks = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [Muon(networks[0].parameters(), lr=1e-2), torch.optim.Adam(networks[1].parameters(), lr=1e-2)]
    for step in range(5):
        picture = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            network(picture).square().mean().backward()
            optimizer.step()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_only_convolutions_between_features_take_muons_step() -> None:
    optimizer = Muon(TransformNet(width=4).parameters())
    matrices = next(group for group in optimizer.param_groups if group["matrices"])["params"]
    assert len(matrices) == 14  # two that reduce, ten of the residual blocks, two that enlarge
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        list(TransformNet(width=4).parameters())
    )


def test_a_step_that_is_left_out_changes_nothing() -> None:
    network = TransformNet(width=4)
    optimizer = Muon(network.parameters(), lr=1e-2)
    network(torch.rand(1, 3, 32, 32)).mean().backward()
    optimizer.step()
    before = [value.clone() for value in network.parameters()]
    state = [{key: value.clone() for key, value in kept.items()} for kept in optimizer.state.values()]
    for weight in network.parameters():
        weight.grad = torch.full_like(weight, float("nan"))
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)
    for old_state, kept in zip(state, optimizer.state.values(), strict=True):
        for key, value in kept.items():
            assert torch.equal(old_state[key], value), key


def test_it_goes_on_from_its_state() -> None:
    def advance(network: TransformNet, optimizer: Muon, step: int) -> None:
        optimizer.zero_grad()
        network(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()

    networks = [TransformNet(width=4) for _ in range(2)]
    optimizer = Muon(networks[0].parameters(), lr=1e-2)
    advance(networks[0], optimizer, 1)
    networks[1].load_state_dict(networks[0].state_dict())
    again = Muon(networks[1].parameters(), lr=1e-2)
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    advance(networks[0], optimizer, 2)
    advance(networks[1], again, 2)
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)
