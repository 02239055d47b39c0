"""Networks whose data decide: which tokens an expert gets, how many, and where the code branches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget


class Routed(nn.Module):
    """A mixture of experts, each of which gets the tokens that a router gives it."""

    def __init__(self, route: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.route = route
        self.first, self.router = nn.Linear(6, 16), nn.Linear(16, 2)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(16, n), nn.ReLU(), nn.Linear(n, 16)) for n in (20, 12)])
        self.last = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        chosen = self.router(x).argmax(-1)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            tokens = self.route(chosen == number)
            y[tokens] = expert(x[tokens])
        return self.last(x + y)


EXAMPLE = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "route", [lambda mask: mask, lambda mask: mask.nonzero()[:, 0], lambda mask: torch.where(mask)[0]]
)
def test_sizes_may_depend_on_data(route: Callable[[Tensor], Any]) -> None:
    result = prunegraph.prune(Routed(route), EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    assert len(result.plan.kept["first.weight[0]"]) == 8
    assert "data decide" in {c.name: c.detail for c in result.report.verification.checks}["cost"]


def test_what_the_code_reads_out_of_data_stays() -> None:
    """The record holds the tokens of the example's run; those of the pruned network would be others."""
    result = prunegraph.prune(
        Routed(lambda mask: mask.nonzero()[:, 0].tolist()), EXAMPLE, criterion="l1", budget=Budget(ratio=0.5)
    )
    assert set(result.report.unproved) == {"first.weight[0]"}
    assert "reads numbers out of data" in result.report.unproved["first.weight[0]"]
    assert {name: after for name, (_, after) in result.report.widths.items()} == {
        "first.weight[0]": 16,
        "experts.0.0.weight[0]": 10,
        "experts.1.0.weight[0]": 6,
    }


class Spoken(nn.Module):
    """Runs over what there is to hear, and not at all where there is nothing; the weakest channel decides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.activity = nn.Linear(6, 16), nn.Linear(16, 1)
        self.rest, self.last = nn.Linear(16, 20), nn.Linear(20, 6)
        self.heard = nn.GRU(16, 20)
        with torch.no_grad():
            for weight in (self.first.weight.T, self.rest.weight, self.heard.weight_ih_l0):
                weight[:, 0] /= 100
            self.activity.weight.zero_()[0, 0] = 1e-3
            self.activity.bias.fill_(-1e-9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        active = (self.activity(x)[:, 0] > 0).nonzero()[:, 0]
        y = self.rest(x)
        if active.numel() > 0:
            y = y.index_add(0, active, self.heard(x[active])[0])
        return self.last(y)


def test_a_branch_that_data_decide_on_keeps_what_it_depends_on() -> None:
    result = prunegraph.prune(Spoken(), EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    assert set(result.report.unproved) == {"first.weight[0]"}
    assert result.report.widths["rest.weight[0]"] == (20, 10)


class Normalised(nn.Module):
    """Divides by a number that is read out of features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.relu(self.middle(x / x.abs().mean().item())))


def test_a_number_read_out_of_features_keeps_them() -> None:
    result = prunegraph.prune(Normalised(), EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    assert set(result.report.unproved) == {"first.weight[0]"}
    assert result.report.widths["middle.weight[0]"] == (12, 6)


class Asked(Normalised):
    """Reads numbers that do not depend on channels."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x / x.abs().max().item())
        return self.last(torch.relu(self.middle(x))) if bool(x.isfinite().all()) else x


def test_numbers_that_stay_the_same_keep_nothing() -> None:
    result = prunegraph.prune(Asked(), EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    assert set(result.report.widths.values()) == {(16, 8), (12, 6)}
