"""What cannot be proved stays, with the reason, and the rest is pruned."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, BudgetError, VerificationError, build_graph, score, verify
from prunegraph.proving import cut_and_prove


class Hidden(nn.Module):
    """Cuts features into halves of a width, once in a way that hides where it comes from, and once not."""

    def __init__(self, way: Callable[[int], Any]) -> None:
        super().__init__()
        self.way, self.width = way, 8
        self.into, self.wide, self.back = nn.Conv1d(1, 8, 3), nn.Conv1d(8, 16, 1), nn.Conv1d(8, 16, 1)
        self.out = nn.Sequential(nn.Conv1d(8, 12, 1), nn.ReLU(), nn.Conv1d(12, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        both, width = self.wide(x), self.way(self.width)
        back = self.back(torch.tanh(both[:, :width]) * torch.sigmoid(both[:, width:]))
        out: Tensor = self.out(x + back[:, : self.width] + back[:, self.width :])
        return out


HIDDEN: dict[str, Callable[[int], Any]] = {
    "text": lambda width: int(f"{width}"),
    "length of a range": lambda width: len(range(width)),
    "a stride": lambda width: torch.zeros(2, width).stride(0),
}


@pytest.mark.parametrize("way", HIDDEN)
def test_the_rest_is_pruned(way: str) -> None:
    torch.manual_seed(0)
    model, x = Hidden(HIDDEN[way]), torch.randn(2, 1, 20)
    result = prunegraph.prune(model, x, budget=Budget(ratio=0.5))
    assert (result.model.into.out_channels, result.model.out[0].out_channels) == (8, 6)
    assert result.model(x).shape == model(x).shape
    ((group, failure),) = result.report.unproved.items()
    assert group == "into.weight[0]"
    assert "the pruned network does not run" in failure
    assert "stays: into.weight[0]; its removal could not be proved: the pruned network" in str(result.report)


def test_a_budget_that_needs_them_cannot_be_met() -> None:
    model, x = Hidden(HIDDEN["text"]), torch.randn(2, 1, 20)
    with pytest.raises(BudgetError, match=r"stay since their removal could not be proved: into\.weight\[0\]"):
        prunegraph.prune(model, x, budget=Budget(macs=0.4))


def test_a_failure_that_no_group_explains_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise VerificationError("something else is wrong")

    model, x = Hidden(lambda width: width), torch.randn(2, 1, 20)
    graph = build_graph(model, x)
    monkeypatch.setattr("prunegraph.proving.verify", fail)
    with pytest.raises(VerificationError, match="something else is wrong"):
        cut_and_prove(model, graph, score(graph), Budget(ratio=0.5), x)


@pytest.mark.parametrize(("pruned", "named"), [({"into.weight[0]"}, "('into.weight[0]',)"), (set(), "(...)")])
def test_the_advice_names_the_groups_or_leaves_their_place_open(
    pruned: set[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = Hidden(HIDDEN["text"]), torch.randn(2, 1, 20)
    graph = build_graph(model, x)
    plan = graph.plan({"into.weight[0]": range(4)})
    monkeypatch.setattr(type(graph), "groups_at", lambda *_: tuple(pruned))
    monkeypatch.setattr(type(graph), "groups_in", lambda *_: tuple(pruned))
    with pytest.raises(VerificationError, match=re.escape(f"Budget(exclude={named})")):
        prunegraph.verify(model, prunegraph.apply(model, plan), plan, x, graph=graph)


def test_what_was_pinned_is_not_kept_against_the_users_will() -> None:
    model, x = Hidden(HIDDEN["text"]), torch.randn(2, 1, 20)
    with pytest.raises(VerificationError, match="the pruned network does not run"):
        prunegraph.prune(model, x, budget=Budget(ratio=0.5, pin={"into.weight[0]": 4}))


class Cached(nn.Module):
    """Rotations that the first run leaves in a buffer, and that a longer input computes anew; the width is fixed."""

    def __init__(self, *, hidden: bool = False) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(1, 8, (1, 4), (1, 4)), nn.Conv2d(8, 1, 1)
        self.mixed = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.rates = nn.Parameter(torch.rand(8))
        self.register_buffer("turns", torch.zeros(64, 8), persistent=False)
        self.hidden, self.length, self.lengths = hidden, 0, [0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        if x.shape[2] > (self.lengths[-1] if self.hidden else self.length):
            self.length = x.shape[2]
            self.lengths.append(x.shape[2])
            self.turns[: x.shape[2]] = torch.arange(x.shape[2])[:, None] * self.rates.detach()
        turned = x * self.turns[: x.shape[2]].mT[None, :, :, None].cos()
        out: Tensor = self.out(turned + self.mixed(turned))
        return out


@pytest.mark.parametrize(("has_run", "hidden"), [(False, False), (False, True), (True, False), (True, True)])
def test_what_an_earlier_run_left_does_not_matter(has_run: bool, hidden: bool, tmp_path) -> None:
    """Where a number tells how much is left, it can be set back; else the channels stay."""
    torch.manual_seed(0)
    model, x, longer = Cached(hidden=hidden).eval(), torch.randn(1, 1, 20, 4), torch.randn(1, 1, 40, 4)
    if has_run:
        model(x)
    result = prunegraph.prune(model, x, budget=Budget(ratio=0.5))
    assert result.model.mixed[0].out_channels == 4
    assert result.model.into.out_channels == (8 if has_run and hidden else 4)
    assert ("may be left over from an earlier run" in str(result.report)) == (has_run and hidden)
    fresh = prunegraph.load(Cached(hidden=hidden).eval(), prunegraph.save(result, tmp_path / "saved"))
    for inputs in (x, longer):
        torch.testing.assert_close(fresh(inputs), result.model(inputs), rtol=0, atol=0)


def test_a_longer_input_along_another_dimension_is_tried() -> None:
    model, x = Cached().eval(), torch.randn(1, 1, 20, 4)
    model.rates.requires_grad_(False)
    found = prunegraph.prune(model, x, budget=Budget(ratio=0.5)).report.verification.checks
    assert "on input that is longer along dimension -2" in found[-1].detail


class Remembering(nn.Module):
    """Keeps a loss of its last run, which no later run reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Conv1d(7, 32, 3), nn.BatchNorm1d(32), nn.Conv1d(32, 7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.norm(self.first(x)))
        self.loss = y.square().mean()
        return y


@pytest.mark.parametrize("used", [("original",), ("pruned",), ("original", "pruned")], ids="+".join)
@pytest.mark.parametrize("anew", [False, True], ids=["graph of before", "graph anew"])
def test_networks_may_have_run_before_they_are_verified(used: tuple[str, ...], anew: bool) -> None:
    model, x = Remembering().eval(), torch.randn(1, 7, 30)
    graph = build_graph(model, x)
    result = prunegraph.prune(model, x, criterion="random", budget=Budget(ratio=0.5))
    networks = {"original": model, "pruned": result.model}
    with torch.no_grad():
        for name in used:
            networks[name](torch.randn(1, 7, 30))
    assert verify(model, result.model, result.plan, x, graph=None if anew else graph).difference < 1e-5
    with torch.no_grad():
        result.model.norm.weight[3] += 1
    with pytest.raises(VerificationError, match=r"norm\.weight of the pruned network is not the kept slice"):
        verify(model, result.model, result.plan, x, graph=None if anew else graph)
