"""Networks that keep tables from run to run are proved whatever ran before."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, build_graph, verify


class Rotary(nn.Module):
    """A table of rotations that grows with the longest input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 1.0 / 10000.0 ** (torch.arange(0, width, 2) / width))
        self.rotation: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.rotation is None or len(self.rotation) < x.shape[1]:
            angles = torch.outer(torch.arange(x.shape[1]).float(), self.frequencies)
            self.rotation = torch.polar(torch.ones_like(angles), angles)
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.rotation[: x.shape[1], None]).flatten(-2)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 4, 6
        self.into, self.rotary, self.out = nn.Linear(7, 24), Rotary(6), nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.rotary(self.into(x).view(*x.shape[:2], self.heads, self.width))
        out: Tensor = self.out(heads.flatten(2))
        return out


@pytest.mark.parametrize("example", [torch.randn(1, 20, 7), torch.randn(2, 30, 7)], ids=["same", "longer"])
@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("ran", ["neither", "original", "pruned", "both"])
def test_runs_in_between_do_not_matter(ran: str, at_hand: bool, example: Tensor) -> None:
    model: Any = Heads().eval()
    graph = build_graph(model, torch.randn(1, 20, 7))
    result = prunegraph.prune(model, torch.randn(1, 20, 7), budget=Budget(ratio=0.5), criterion="random")
    for network, names in ((model, ("original", "both")), (result.model, ("pruned", "both"))):
        if ran in names:
            network(torch.randn(2, 30, 7))
    report = verify(model, result.model, result.plan, example, graph=graph if at_hand else None)
    assert report.difference <= report.tolerance
    assert len(result.plan.kept["into.weight[0]"]) < 6
