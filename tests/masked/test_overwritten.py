"""Networks that overwrite their values, against their twins that do not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunegraph import MaskedProgram, build_graph
from prunegraph.importance.gradients import BatchGradients

Middle = Callable[[Tensor], Tensor]


def centred(x: Tensor) -> Tensor:
    x -= x.mean(1, keepdim=True)
    return x


def scaled(x: Tensor) -> Tensor:
    x /= x.norm(dim=1, keepdim=True) + 1
    return x


def raised(x: Tensor) -> Tensor:
    x = torch.relu(x)
    x += 1
    return x


def cut_off(x: Tensor) -> Tensor:
    x = torch.softmax(x, 1)
    x.masked_fill_(torch.arange(x.shape[-1]) < 3, 0)
    return x


def to_a_power_of_the_width(x: Tensor) -> Tensor:
    """Under masks the exponent is a tensor."""
    x = (x.abs() + 1) ** (1 / x.shape[1])
    x += 1
    return x


def attended(x: Tensor) -> Tensor:
    x += x @ torch.softmax(x.mT @ x, -1)
    return x


def late(x: Tensor) -> Tensor:
    x[:, :, 1:] -= x.mean(1, keepdim=True)[:, :, 1:]
    return x


def late_aside(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, :1], x[:, :, 1:] - x.mean(1, keepdim=True)[:, :, 1:]], 2)


def by_halves(x: Tensor) -> Tensor:
    halves = x.view(x.shape[0], 2, -1, x.shape[-1])
    halves -= halves.mean(2, keepdim=True)
    return x


def by_halves_aside(x: Tensor) -> Tensor:
    halves = x.view(x.shape[0], 2, -1, x.shape[-1])
    return (halves - halves.mean(2, keepdim=True)).view(x.shape)


def twice(x: Tensor) -> Tensor:
    before = x.mean(1, keepdim=True)
    x -= before
    after = x.square().mean(1, keepdim=True)
    x *= after
    return x + before


def twice_aside(x: Tensor) -> Tensor:
    before = x.mean(1, keepdim=True)
    centred = x - before
    return centred * centred.square().mean(1, keepdim=True) + before


def through_a_view(x: Tensor) -> Tensor:
    """What is read after the view was written to is what was written."""
    view = x.transpose(1, 2)
    mean = x.mean(1, keepdim=True)
    view *= 2
    return x + mean


def read_between(x: Tensor) -> Tensor:
    x = torch.tanh(x)
    read = x.square()
    x *= 2
    return x + read


PAIRS: dict[str, tuple[Middle, Middle]] = {
    "mean": (centred, lambda x: x - x.mean(1, keepdim=True)),
    "norm": (scaled, lambda x: x / (x.norm(dim=1, keepdim=True) + 1)),
    "relu": (raised, lambda x: torch.relu(x) + 1),
    "power": (to_a_power_of_the_width, lambda x: (x.abs() + 1) ** (1 / x.shape[1]) + 1),
    "softmax": (cut_off, lambda x: torch.softmax(x, 1).masked_fill(torch.arange(x.shape[-1]) < 3, 0)),
    "attention": (attended, lambda x: x + x @ torch.softmax(x.mT @ x, -1)),
    "slice": (late, late_aside),
    "view": (by_halves, by_halves_aside),
    "tanh, read": (read_between, lambda x: 2 * torch.tanh(x) + torch.tanh(x).square()),
    "twice": (twice, twice_aside),
    "view of what is read": (through_a_view, lambda x: 2 * x + x.mean(1, keepdim=True)),
}


class Network(nn.Module):
    """Something between two convolutions."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.out, self.middle = nn.Conv1d(2, 8, 3), nn.Conv1d(8, 2, 1), middle
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.middle(self.into(x)))
        return out


@pytest.mark.parametrize("pair", PAIRS)
def test_gradients_by_masks_are_those_of_the_twin(pair: str) -> None:
    x, found = torch.randn(2, 2, 12, dtype=torch.float64), []
    for middle in PAIRS[pair]:
        graph = build_graph(Network(middle), x)
        masks = {g.name: torch.linspace(0.3, 1, g.width).double().requires_grad_() for g in graph.groups}
        output = MaskedProgram(graph)(masks, x)
        output.square().sum().backward()
        found.append((output.detach(), {name: mask.grad for name, mask in masks.items()}))
    torch.testing.assert_close(found[0], found[1])
    assert all(bool(gradient.any()) for gradient in found[0][1].values())


@pytest.mark.parametrize("pair", PAIRS)
def test_gradients_by_weights_are_those_of_the_twin(pair: str) -> None:
    x = torch.randn(2, 2, 12, dtype=torch.float64)
    found = [
        next(
            iter(BatchGradients(graph=build_graph(Network(m), x), data=[(x, None)], loss=lambda y, _: y.square().sum()))
        )
        for m in PAIRS[pair]
    ]
    torch.testing.assert_close(dict(found[0]), dict(found[1]))


def test_nothing_is_copied_where_nothing_read_is_overwritten() -> None:
    network = nn.Sequential(nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Conv1d(8, 2, 1))
    program = MaskedProgram(build_graph(network, torch.randn(2, 2, 12))).program
    assert torch.ops.aten.clone.default not in [node.target for node in program.graph.nodes]
