"""Code that reads numbers out of data: what was recorded for some is not what the network does with others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, InputError, build_graph
from prunegraph.masked.program import MaskedNetwork


class Reader(nn.Module):
    """Reads something out of its features or the lengths, and goes on from there."""

    def __init__(self, go_on: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.go_on = go_on
        self.first, self.last = nn.Conv1d(1, 8, 3, padding=1), nn.Conv1d(8, 1, 1)
        self.double().eval()

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.last(self.go_on(self.first(x), lengths))


def cut(y: Tensor, lengths: Tensor) -> Tensor:
    return torch.cat([torch.tanh(y[..., : lengths.tolist()[0]]), y[..., lengths.tolist()[0] :]], -1)


READERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "branch": lambda y, lengths: y.relu() if y.mean() > 0 else y.tanh(),
    "number": lambda y, lengths: y / y.abs().max().item(),
    "lengths": cut,
    "whole tensor": lambda y, lengths: y * torch.from_numpy(lengths.numpy() / 2.0),
    "equal": lambda y, lengths: y if torch.equal(lengths, lengths.clamp(max=6)) else -y,
}


def inputs(seed: int, length: int) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, 12, dtype=torch.float64, generator=noise), torch.tensor([length])


@pytest.mark.parametrize("name", READERS)
def test_the_masked_program_goes_where_the_data_lead_the_network(name: str) -> None:
    model = Reader(READERS[name])
    masked = MaskedNetwork(model, build_graph(model, inputs(0, 4)))
    for seed, length in [(0, 4), (1, 9), (2, 4), (3, 9), (1, 9)]:
        given = inputs(seed, length)
        torch.testing.assert_close(masked({}, *given), model(*given), rtol=1e-12, atol=1e-12)


def test_looking_at_what_is_read_draws_no_numbers() -> None:
    model = Reader(lambda y, lengths: (y + torch.rand_like(y)) * (1.0 if y.mean().item() > 0 else 2.0))
    masked = MaskedNetwork(model, build_graph(model, inputs(0, 4)))
    for seed in range(4):
        torch.manual_seed(seed)
        expected = model(*inputs(seed, 4))
        torch.manual_seed(seed)
        torch.testing.assert_close(masked({}, *inputs(seed, 4)), expected)


def test_what_was_recorded_serves_data_that_are_read_alike() -> None:
    model = Reader(cut)
    masked = MaskedNetwork(model, build_graph(model, inputs(0, 4)))
    graphs = [masked.graph_of(*inputs(seed, length)) for seed, length in [(0, 4), (1, 9), (2, 9), (3, 4)]]
    assert graphs[0] is graphs[3]
    assert graphs[1] is graphs[2] is not graphs[0]


def test_a_record_without_reads_serves_all_data() -> None:
    model = Reader(lambda y, lengths: y * lengths)
    graph = build_graph(model, inputs(0, 4))
    assert MaskedNetwork(model, graph).graph_of(*inputs(1, 9)) is graph


class Experts(nn.Module):
    """Which layer runs is read out of the data."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.experts[int(x.mean() > 0)](self.first(x)))


@pytest.mark.parametrize("criterion", ["taylor", "reconstruction"])
def test_data_that_lead_to_other_channels_are_refused(criterion: str) -> None:
    model, x = Experts(), torch.randn(2, 5, 4).abs()
    options: dict[str, Any] = {"criterion": criterion, "loss": lambda y, _: y.square().mean()}
    with pytest.raises(InputError, match="whose values lead the code elsewhere; give an example like the data"):
        prunegraph.prune(model, x, budget=Budget(ratio=0.4), data=[((-x,), torch.zeros(()))], **options)
    assert prunegraph.prune(model, x, budget=Budget(ratio=0.4), data=[((x + 1,), torch.zeros(()))], **options)
