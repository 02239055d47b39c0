"""Finds the coupled channels of a recorded network: labels, sizes and groups, tried again where a choice was bad."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from prunegraph.dependency.grouping import Grouping, group_channels
from prunegraph.dependency.label_space import Choice, Place
from prunegraph.dependency.other_runs import OtherRun
from prunegraph.dependency.propagation import Propagation, propagate
from prunegraph.dependency.size_uses import settle
from prunegraph.dependency.torch_modules import add_module_sizes
from prunegraph.dependency.unread import lock_unread
from prunegraph.ir.trace import Trace
from prunegraph.rules.book import RuleBook

_PARTICULARS = re.compile(r"(node|module)='[^']*'|, value=\d+")
"""What expressions of sizes in one line of code differ by from call to call: whose size, and how large."""

_MOST_PLACES = 8
"""How many places, or kinds of them, are tried one after the other."""

_ANY = math.inf

_WORTH_A_TRY = 0.002
"""The least fixed share for which other ways are tried; the output's bias is fixed in every network."""

_MUCH = 0.25
"""A fixed share with which other ways are tried though something is prunable after each choice."""


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
        """Share of what cannot shrink: of the dimensions of all parameters, each with its tensor's elements."""
        trace = self.found.space.trace
        prunable = {(member.tensor, member.dim) for group in self.grouping.groups for member in group.members}
        shapes = {s.name: s.shape for s in trace.tensors.values() if s.is_parameter and s.name not in trace.unused}
        sizes = {(name, dim): prod(shape) for name, shape in shapes.items() for dim, n in enumerate(shape) if n > 1}
        return sum(size for place, size in sizes.items() if place not in prunable) / max(sum(sizes.values()), 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Network:
    """What is coupled, and with what turned choices the record is walked through."""

    trace: Trace
    book: RuleBook
    others: Sequence[OtherRun]

    def coupled(self, turned: Mapping[Place, int]) -> Coupling:
        """The coupled channels with these choices."""
        found = propagate(self.trace, self.book, turned)
        for other in self.others:
            other.join(found.space)
        add_module_sizes(found.space)
        settle(found.space, found.labels)
        lock_unread(found.space, found.labels)
        return Coupling(found=found, grouping=group_channels(found.space), turned=turned)


def couple(trace: Trace, book: RuleBook, others: Sequence[OtherRun] = ()) -> Coupling:
    """Finds the coupled channels; where a choice left nothing but locked ones prunable, its other ways are tried.

    A dimension that is split into (channels, taps) can shrink along one of the two axes only, and which of them are
    the channels shows later: where they meet others. First all such choices are turned at once; then, where values
    that meet made different choices and turning all of them would only swap these, those of one kind after the other.
    """
    network = _Network(trace=trace, book=book, others=others)
    first = best = attempt = network.coupled({})
    while best.fixed_share > _WORTH_A_TRY and (further := _other_ways(attempt)):
        attempt = network.coupled({**attempt.turned, **further})
        best = _freest(best, attempt)
    for coarsely in (False, True):
        is_sure = best.fixed_share > _WORTH_A_TRY and bool(_other_ways(best)) and not coarsely
        if is_sure or best.fixed_share > _MUCH:
            attempt = _turned_by_kinds(network, first, coarsely, most=_ANY if is_sure else _MOST_PLACES)
            best = _freest(best, attempt)
    for other in others if best.fixed_share > _WORTH_A_TRY else ():  # two runs with different choices lock each other
        best = _freest(best, network.coupled(other.turned))
    return _turned_back(network, best) if best.fixed_share > _WORTH_A_TRY else best


def _freest(*found: Coupling) -> Coupling:
    """That of the least fixed share, the first of equals."""
    return min(found, key=lambda coupling: coupling.fixed_share)


def _turned_by_kinds(network: _Network, best: Coupling, coarsely: bool, most: float) -> Coupling:
    """Turns the choices of one kind after the other, as far as that frees something.

    Of one kind are those that answer one question in one line of code, then only those of a line whose sizes are
    computed alike: one line may split queries by their heads and keys by the width of theirs. Where no line alone frees
    anything, all that split a dimension, or all that merge two, may: they are tried first if ``coarsely``. Of more than
    ``most`` kinds none is tried.
    """
    sites = {node.name: network.trace.site(node) for node in network.trace.graph.nodes}

    def line(place: Place) -> tuple[Any, ...]:
        return sites[place[0]].file, sites[place[0]].line, place[1]

    def computation(place: Place) -> tuple[Any, ...]:
        return (*line(place), _PARTICULARS.sub("", str(network.trace.sizes.get(place[0]))))

    def question(place: Place) -> str:
        return place[1].partition(" ")[0]

    for kind_of in (*([question] if coarsely else []), line, computation):
        kinds: dict[Any, dict[Place, int]] = {}
        for place, way in _other_ways(best).items():
            kinds.setdefault(kind_of(place), {})[place] = way
        for ways in kinds.values() if 1 < len(kinds) <= most else ():
            attempt = network.coupled({**best.turned, **ways})
            best = _freest(best, attempt)
    return best


def _turned_back(network: _Network, best: Coupling) -> Coupling:
    """Takes the likeliest way again where it was left for another one and all was locked nevertheless.

    Lines that many modules run are turned in all of them, and in some the likeliest way may have been right: it is
    taken in one place after the other, unless they are many, then in all that answer one question.
    """
    places = _in_vain(best)
    for place in places if len(places) <= _MOST_PLACES else ():
        best = _likeliest(network, best, {place})
    for question in dict.fromkeys(question for _, question in _in_vain(best)):
        best = _likeliest(network, best, {place for place in _in_vain(best) if place[1] == question})
    return best


def _likeliest(network: _Network, best: Coupling, places: Collection[Place]) -> Coupling:
    """With the likeliest way in these places, if that frees something."""
    turned = {place: way for place, way in best.turned.items() if place not in places}
    return _freest(best, network.coupled(turned))


def _other_ways(coupling: Coupling) -> Mapping[Place, int]:
    """The next way of each choice after which everything was locked."""
    locked = _locked_choices(coupling)
    return {choice.place: choice.taken + 1 for choice in locked if choice.taken + 1 < len(choice.ways)}


def _in_vain(coupling: Coupling) -> list[Place]:
    """Where another way than the likeliest was taken, and everything was locked nevertheless."""
    return [choice.place for choice in _locked_choices(coupling) if choice.taken]


def _locked_choices(coupling: Coupling) -> list[Choice]:
    """After which nothing of the way that was taken is prunable."""
    channel_of = coupling.grouping.channel_of
    return [c for c in coupling.found.space.choices if (channel_of[c.ways[c.taken]] < 0).all()]
