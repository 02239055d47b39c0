"""A control that has learned nothing."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from prunegraph.leaderboard.scratch import from_scratch
from tests.leaderboard.networks import Separator


class Normalised(nn.Module):
    """Weight norm, a gain of its own, and a method of torch's name that takes an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(2, 8, 3))
        self.gain = nn.Parameter(1 + 0.1 * torch.randn(4000))

    def reset_parameters(self, scale: float) -> None:
        self.gain.data.fill_(scale)


def test_layers_start_as_new_ones_do() -> None:
    network = Separator()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(100)
    fresh = from_scratch(network, seed=0)
    bound = 1 / (1 * 32) ** 0.5
    assert fresh.encoder.weight.abs().max() <= bound
    assert fresh.masker[1].weight.item() == 0.25


def test_nothing_learned_is_left() -> None:
    network = Normalised()
    fresh = from_scratch(network, seed=0)
    for (name, new), old in zip(fresh.named_parameters(), network.parameters(), strict=True):
        assert torch.isclose(new, old, rtol=1e-4).float().mean() < 0.01, name
    assert abs(fresh.gain.mean() - 1) < 0.01
    assert 0.09 < fresh.gain.std() < 0.11


def test_the_seed_decides_and_the_network_stays() -> None:
    network = Normalised()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    once, again, other = (from_scratch(network, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["gain"], other["gain"])
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
