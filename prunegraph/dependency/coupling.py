"""Finds the coupled channels of a recorded network: labels, sizes and groups, tried again where a choice was bad."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from prunegraph.dependency.grouping import Grouping, group_channels
from prunegraph.dependency.label_space import Place
from prunegraph.dependency.propagation import Propagation, propagate
from prunegraph.dependency.size_uses import settle
from prunegraph.dependency.torch_modules import add_module_sizes
from prunegraph.ir.trace import Trace
from prunegraph.rules.book import RuleBook

_WORTH_A_TRY = 0.01
"""The least share of fixed parameters for which other ways are tried; the output's bias is fixed in every network."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coupling:
    """Which channels are coupled.

    Attributes:
        found: labels of every value, and what the rules said of them.
        grouping: the channel groups that follow.
        turned: places where another way than the likeliest was taken.
    """

    found: Propagation
    grouping: Grouping
    turned: Mapping[Place, int]

    @property
    def fixed_share(self) -> float:
        """Share of the parameters' elements that lie in tensors without a prunable dimension."""
        prunable = {member.tensor for group in self.grouping.groups for member in group.members}
        sizes = {s.name: prod(s.shape) for s in self.found.space.trace.tensors.values() if s.is_parameter}
        return sum(size for name, size in sizes.items() if name not in prunable) / max(sum(sizes.values()), 1)


def couple(trace: Trace, book: RuleBook) -> Coupling:
    """Finds the coupled channels; where a choice left nothing but locked ones prunable, its other ways are tried.

    A dimension that is split into (channels, taps) can shrink along one of the two axes only, and which of them are
    the channels shows later: where they meet others.
    """
    best = attempt = _couple(trace, book, {})
    while best.fixed_share > _WORTH_A_TRY and (further := _other_ways(attempt)):
        attempt = _couple(trace, book, {**attempt.turned, **further})
        best = min(best, attempt, key=lambda coupling: coupling.fixed_share)
    return best


def _couple(trace: Trace, book: RuleBook, turned: Mapping[Place, int]) -> Coupling:
    found = propagate(trace, book, turned)
    add_module_sizes(found.space)
    settle(found.space, found.labels)
    return Coupling(found=found, grouping=group_channels(found.space), turned=turned)


def _other_ways(coupling: Coupling) -> Mapping[Place, int]:
    """The next way of each choice after which everything was locked."""
    channel_of = coupling.grouping.channel_of
    return {
        choice.place: choice.taken + 1
        for choice in coupling.found.space.choices
        if (channel_of[choice.ways[choice.taken]] < 0).all() and choice.taken + 1 < len(choice.ways)
    }
