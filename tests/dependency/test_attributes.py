"""Attributes that the code compares, and sizes of which two are the same number."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunegraph import Budget, build_graph, prune

EXAMPLE = torch.randn(2, 1, 30)


class Residual(nn.Module):
    """Another layer would run if its widths differed."""

    def __init__(self, other: Callable[["Residual"], bool]) -> None:
        super().__init__()
        self.inner = self.outer = 16
        self.other, self.layer = other, None
        self.a, self.b, self.c = nn.Conv1d(1, 16, 3), nn.Conv1d(16, 16, 3), nn.Conv1d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).view(x.shape[0], self.inner, -1)
        z = self.b(y.relu()).view(x.shape[0], self.outer, -1)
        return self.c(self.layer(z) if self.other(self) else z)  # type: ignore[misc]


@pytest.mark.parametrize(
    "other",
    [
        lambda network: network.inner != network.outer,
        lambda network: False if network.inner == network.outer else True,  # noqa: SIM211
        lambda network: network.b.in_channels != network.b.out_channels,
    ],
    ids=["differ", "not equal", "of a layer"],
)
def test_widths_that_are_found_equal_stay_equal(other: Callable[[Residual], bool]) -> None:
    graph = build_graph(Residual(other).eval(), EXAMPLE)
    assert [(group.name, group.width) for group in graph.groups] == [("a.weight[0]", 16)]
    result = prune(Residual(other).eval(), EXAMPLE, criterion="random", budget=Budget(macs=0.4))
    assert not result.report.unproved


def test_widths_that_nobody_compares_are_free() -> None:
    assert len(build_graph(Residual(lambda network: False).eval(), EXAMPLE).groups) == 2


class Bands(nn.Module):
    """Bands of unequal widths side by side; what they are together is an attribute, too."""

    def __init__(self) -> None:
        super().__init__()
        self.widths = (12, 18, 26)
        self.total, self.first = sum(self.widths), self.widths[0]
        self.into = nn.ModuleList(nn.Conv1d(1, width, 8, 4) for width in self.widths)
        self.mix = nn.Conv1d(self.total, self.total, 3, padding=1)
        self.out = nn.ModuleList(nn.Conv1d(width, 1, 1) for width in self.widths)

    def forward(self, x: Tensor) -> Tensor:
        assert self.widths[0] == self.first
        mixed = self.mix(torch.cat([layer(x) for layer in self.into], 1).relu())
        start, result = 0, torch.zeros(())
        for width, layer in zip(self.widths, self.out, strict=True):
            result = result + layer(mixed[:, start : start + width])
            start += width
        if start != self.total:
            raise ValueError(f"{start} of {self.total} channels were read")
        return result


def test_what_is_equal_to_others_follows_them() -> None:
    result = prune(Bands().eval(), EXAMPLE, criterion="random", budget=Budget(macs=0.5))
    pruned = result.model
    assert not result.report.unproved
    assert pruned.total == sum(pruned.widths) < 56
    assert pruned.first == pruned.widths[0]


class Preset(nn.Module):
    """Its class says how wide it is."""

    widths = (12, 18)

    def __init__(self) -> None:
        super().__init__()
        first, second = self.widths
        self.a, self.b, self.c = nn.Conv1d(1, first, 3), nn.Conv1d(first, second, 1), nn.Conv1d(second, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).view(x.shape[0], self.widths[0], -1).relu()
        return self.c(self.b(y).view(x.shape[0], self.widths[1], -1).tanh())


def test_widths_that_the_class_lists_follow_in_the_network_alone() -> None:
    network = Preset().eval()
    result = prune(network, EXAMPLE, criterion="random", budget=Budget(ratio=0.5))
    assert result.model.widths == (6, 9)
    assert Preset.widths == network.widths == (12, 18)


class Repeating(nn.Module):
    """Repeats keys unless each is asked once."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = 2
        self.a, self.b, self.c = nn.Linear(30, 2), nn.Linear(30, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        keys = self.a(x).view(x.shape[0], -1, self.repeats)
        return (keys[..., 0].tanh() if self.repeats == 1 else keys.sum(-1)), self.c(self.b(x).relu())


@pytest.mark.parametrize("budget", [Budget(ratio=0.5), Budget(macs=0.5)], ids=["ratio", "macs"])
def test_a_group_that_can_only_become_equal_stays(budget: Budget) -> None:
    result = prune(Repeating().eval(), EXAMPLE, criterion="random", budget=budget)
    assert result.report.widths["a.weight[0]"] == (2, 2)
    assert result.report.widths["b.weight[0]"][1] <= 10


class Slim(nn.Module):
    """A layer of which a part is run, too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.outer = 16
        self.a, self.c = nn.Linear(30, 16), nn.Linear(16, 3)
        self.weight = nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.a(x)
        inner, outer = self.inner // 2, self.outer // 2
        return F.linear(x[..., :inner], self.weight[:outer, :inner]).sum(-1), self.c(F.linear(x, self.weight))


def test_two_slices_that_end_at_the_same_number_are_told_apart() -> None:
    result = prune(Slim().eval(), EXAMPLE, criterion="random", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    assert result.model.weight.shape == (8, 8)
    assert set(result.plan.widths) == {"a.weight[0]", "a.weight[0]#2", "weight[0]", "weight[0]#2"}
