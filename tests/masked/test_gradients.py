"""Where a network says itself how gradients flow, those of its masked program flow so."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

import prunegraph
from prunegraph.importance.gradients import BatchGradients

EXAMPLE = torch.randn(2, 1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Rounded(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int) -> Tensor:
        return torch.round(x * steps) / steps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class Scanned(Function):
    """``h[t] = a[t] h[t - 1] + x[t]``, in place by doubling; gives the sum of its results, too."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        rates, states, step = a.clone(), x.clone(), 1
        while step < a.shape[-1]:
            states[..., step:].add_(rates[..., step:] * states[..., :-step].clone())
            rates[..., step:].mul_(rates[..., :-step].clone())
            step *= 2
        ctx.save_for_backward(a, states)
        return states, states.sum(-1, keepdim=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, states = ctx.saved_tensors
        to_x, carried = torch.zeros_like(a), torch.zeros_like(a[..., 0])
        for t in reversed(range(a.shape[-1])):
            carried = gradients[0][..., t] + gradients[1][..., 0] + carried
            to_x[..., t] = carried
            carried = a[..., t] * carried
        to_a = torch.zeros_like(a)
        to_a[..., 1:] = to_x[..., 1:] * states[..., :-1]
        return to_a, to_x


class Through(Function):
    """Runs a function, and differentiates it as it is."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(x)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            ctx.run(x).backward(gradients[0])
        return None, x.grad


class Estimating(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.first, self.rates = nn.Conv1d(1, 8, 8, 4), nn.Conv1d(8, 8, 1)
        self.values, self.last = nn.Conv1d(8, 8, 1), nn.ConvTranspose1d(8, 1, 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(WAYS[self.way](self, self.first(x).relu()))


def without_gradient(network: Estimating, x: Tensor) -> Tensor:
    x = network.values(x)
    with torch.no_grad():
        error = torch.round(8 * x) / 8 - x
    return x + error


def with_gradient_again(network: Estimating, x: Tensor) -> Tensor:
    x = network.values(x)
    with torch.no_grad(), torch.inference_mode(False):
        with torch.enable_grad():
            doubled = 2 * x
        error = torch.round(8 * x) / 8 - x
    return doubled + error


def scanned(network: Estimating, x: Tensor) -> Tensor:
    states, total = Scanned.apply(network.rates(x).sigmoid(), network.values(x))
    return states * total.tanh()


WAYS: dict[str, Callable[[Estimating, Tensor], Tensor]] = {
    "no_grad": without_gradient,
    "enable_grad within": with_gradient_again,
    "function": lambda network, x: Rounded.apply(network.values(x), 8 * len(x) // 2),
    "function in place": scanned,
    "function of a function": lambda network, x: Through.apply(network.values, x),
    "checkpoint": lambda network, x: checkpoint(network.values, x, use_reentrant=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_the_network(way: str) -> None:
    network = Estimating(way).double().eval()
    loss = network(EXAMPLE).square().sum()
    loss.backward()
    weight, bias = network.first.weight, network.first.bias
    expected = (weight.grad * weight).sum((1, 2)) + bias.grad * bias  # of a factor of each channel
    graph = prunegraph.build_graph(network, EXAMPLE)
    masks = {group.name: torch.ones(group.width, requires_grad=True, dtype=torch.float64) for group in graph.groups}
    masked = prunegraph.MaskedProgram(graph)(masks, EXAMPLE)
    torch.testing.assert_close(masked, network(EXAMPLE))
    masked.square().sum().backward()
    torch.testing.assert_close(masks["first.weight[0]"].grad, expected.detach())


@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_parameters_are_those_of_the_network(way: str) -> None:
    network = Estimating(way).double().eval()
    network(EXAMPLE).square().sum().backward()
    graph = prunegraph.build_graph(network, EXAMPLE)
    (found,) = BatchGradients(graph=graph, data=[(EXAMPLE, 0)], loss=lambda output, _: output.square().sum())
    for name, parameter in network.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected)


class Frozen(nn.Module):
    """Its encoder is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 8, 8, 4), nn.ConvTranspose1d(8, 1, 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            coded = self.first(x).relu()
        return self.last(coded)


def test_channels_of_a_frozen_encoder_matter_all_the_same() -> None:
    network = Frozen().double().eval()
    graph = prunegraph.build_graph(network, EXAMPLE)
    mask = torch.ones(8, dtype=torch.float64, requires_grad=True)
    prunegraph.MaskedProgram(graph)({"first.weight[0]": mask}, EXAMPLE).square().sum().backward()
    assert mask.grad is not None
    assert (mask.grad != 0).all()
