"""`select`: chooses the channels that stay, by score, under a budget."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray

from prunegraph.errors import BudgetError, InputError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.budget import Budget
from prunegraph.ir.channels import ChannelGroup
from prunegraph.ir.latency import LatencyProfile
from prunegraph.ir.plan import PruningPlan
from prunegraph.latency import LatencyModel
from prunegraph.plugin.contracts import GraphView, NetworkScores
from prunegraph.selection.alike import alike
from prunegraph.selection.costs import Costs, shown

_EXACT = 1e-9
_USED_UP = 0.99


def select(
    graph: DependencyGraph,
    scores: Mapping[str, torch.Tensor],
    budget: Budget,
    *,
    profile: LatencyProfile | None = None,
) -> PruningPlan:
    """Keeps the channels with the greatest scores that the budget has room for.

    Scores are divided by their group's mean absolute score, so that groups of different scale compare, unless they are
    `NetworkScores`. Channels leave in the order of their scores over the whole network until the costs fit; what then
    still fits comes back, greatest scores first. With ``ratio`` every group loses the same share. Under costs, groups
    that an op's fastest kernels take at one width only (keys and values of attention) get one width, unless the budget
    pins them.

    Args:
        graph: the network's dependency graph.
        scores: group name -> scores of shape ``(width,)``.
        budget: what may stay.
        profile: what the network's ops take on the device, for budgets of latency.

    Raises:
        BudgetError: the budget cannot be met, which gives the reachable range; or it would prune nothing; or it is one
            of latency and there is no profile.
        InputError: a name pattern matches no group, or the scores or the profile are not those of this graph.
    """
    if not isinstance(budget, Budget):
        raise BudgetError(f"expected a Budget, such as Budget(macs=0.5), got {budget!r}")
    latency = None if profile is None else LatencyModel(graph, profile)
    values, ranges = _values(graph, scores), _ranges(graph.groups, budget)
    selection = _Selection(graph, values, _terms(graph, budget, ranges, latency))
    widths = selection.filled(selection.coarse())
    while ranges := _in_order(graph, selection, widths) or _even(graph, selection, widths):
        selection = _Selection(graph, values, _terms(graph, budget, ranges, latency))
        widths = selection.filled(selection.coarse())
    if widths and not budget.allows_everything and widths == [group.width for group in graph.groups]:
        takes = "" if latency is None else f" takes {1000 * latency.of_plan():.3g} ms by the profile and"
        raise BudgetError(
            f"nothing would be pruned: the network{takes} has {graph.cost().macs:,} MACs and "
            f"{graph.cost().parameters:,} parameters in {len(widths)} groups of up to {max(widths)} channels; give a "
            "smaller budget"
        )
    return graph.plan(selection.kept(without_turned_branch(graph, selection, widths)))


def prunable_groups(graph: GraphView, budget: Budget) -> frozenset[str]:
    """Names of the groups that a budget's patterns let become narrower.

    Raises:
        InputError: a pattern matches no group.
    """
    ranges = zip(graph.groups, _ranges(graph.groups, budget), strict=True)
    return frozenset(group.name for group, allowed in ranges if allowed.least < group.width)


class Projection:
    """The choice that a budget leaves, for any scores: made once, asked often.

    It is what `select` chooses but for the last few channels that would still fit.

    Args:
        graph: the groups.
        budget: what may stay.

    Raises:
        BudgetError: the budget cannot be met.
    """

    def __init__(self, graph: GraphView, budget: Budget) -> None:
        self._graph, self._terms = graph, _terms(graph, budget, _ranges(graph.groups, budget))
        self._bounds = np.cumsum([group.width for group in graph.groups])[:-1]

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which channels stay; scores and result of shape ``(channels,)``, over all groups in their order."""
        selection = _Selection(self._graph, np.split(scores, self._bounds), self._terms)
        return selection.stays(selection.coarse())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Widths that a group may take: ``least``, ``least + step``, ... and ``most``."""

    least: int
    most: int
    step: int

    def rounded(self, width: int) -> int:
        """The nearest allowed width; half-way cases go down."""
        if width >= self.most:
            return self.most
        steps = -(-(2 * width - self.step) // (2 * self.step))
        return min(max(steps * self.step, self.least), self.most)

    def next_down(self, width: int) -> int:
        return max((width - 1) // self.step * self.step, self.least)

    def next_up(self, width: int) -> int:
        return min((width // self.step + 1) * self.step, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """A budget on one network.

    Attributes:
        budget: as the user gave it.
        ranges: widths that each group may take.
        costs: what counts, as functions of the channels that stay.
        limits: how much of each may stay.
    """

    budget: Budget
    ranges: Sequence[_Range]
    costs: Costs
    limits: tuple[float, ...]


class _Selection:
    """One choice in the making: groups, their ranked channels and their allowed widths."""

    def __init__(self, graph: GraphView, scores: Sequence[NDArray[np.float64]], terms: _Terms) -> None:
        self.graph, self.scores, self.budget = graph, scores, terms.budget
        self.ranges, self.costs, self.limits = terms.ranges, terms.costs, terms.limits
        self.ranking = [np.argsort(-score, kind="stable") for score in scores]
        self.group_sizes = [len(ranking) for ranking in self.ranking]
        self.ranks = np.concatenate([np.empty(0, np.int64), *(np.argsort(ranking) for ranking in self.ranking)])

    def kept(self, widths: Sequence[int]) -> dict[str, list[int]]:
        """The best channels of each group."""
        chosen = zip(self.graph.groups, self.ranking, widths, strict=True)
        return {group.name: ranking[:width].tolist() for group, ranking, width in chosen}

    def stays(self, widths: Sequence[int]) -> NDArray[np.bool_]:
        """For each channel over all groups whether it is among the best of its group."""
        return np.asarray(self.ranks < np.repeat(widths, self.group_sizes))

    def coarse(self) -> list[int]:
        """The widths before what still fits comes back."""
        if self.budget.ratio is not None:
            return self._uniform(1 - self.budget.ratio)
        if self.budget.threshold is not None:
            return self._above(self.budget.threshold)
        return self._within_cost()

    def _uniform(self, share: float) -> list[int]:
        return [r.rounded(round(g.width * share)) for g, r in zip(self.graph.groups, self.ranges, strict=True)]

    def _above(self, threshold: float) -> list[int]:
        return [
            r.rounded(max(int((score >= threshold).sum()), r.least))
            for score, r in zip(self.scores, self.ranges, strict=True)
        ]

    def _within_cost(self) -> list[int]:
        """The widest choice in the order of scores that fits."""
        order = self._removal_order()
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if self._fits(self._widths_after(order[:middle])):
                high = middle
            else:
                low = middle + 1
        return self._widths_after(order[:low])

    def _removal_order(self) -> NDArray[np.int64]:
        """Group number of each channel that may leave, lowest score first."""
        leaving = [
            (score[ranking[r.least :]][::-1], np.full(max(len(score) - r.least, 0), number))
            for number, (score, ranking, r) in enumerate(zip(self.scores, self.ranking, self.ranges, strict=True))
        ]
        if not leaving:
            return np.empty(0, np.int64)
        values = np.concatenate([value for value, _ in leaving])
        return np.concatenate([number for _, number in leaving])[np.argsort(values, kind="stable")]

    def _widths_after(self, removed: NDArray[np.int64]) -> list[int]:
        gone = np.bincount(removed, minlength=len(self.ranges))
        return [r.rounded(g.width - int(n)) for g, r, n in zip(self.graph.groups, self.ranges, gone, strict=True)]

    def filled(self, widths: list[int]) -> list[int]:
        """Gives channels back until the costs are used up to 1 %, or none fits any more."""
        if not self.budget.has_costs:
            return widths
        wider = self._one_more_each(widths)
        while wider != widths and self._fits(wider, share=_USED_UP):
            widths, wider = wider, self._one_more_each(wider)
        return wider

    def _one_more_each(self, widths: list[int]) -> list[int]:
        """Gives each group one channel back if the costs still fit, the greatest scores first."""
        for number in self._by_best_removed(widths):
            wider = [*widths[:number], self.ranges[number].next_up(widths[number]), *widths[number + 1 :]]
            if self._fits(wider):
                widths = wider
        return widths

    def _fits(self, widths: Sequence[int], share: float = 1.0) -> bool:
        return _fits(self.costs(self.stays(widths)), [share * limit for limit in self.limits])

    def _by_best_removed(self, widths: Sequence[int]) -> list[int]:
        """Numbers of the groups that lost channels, the one that lost the best channel first."""
        narrowed = [n for n, (r, width) in enumerate(zip(self.ranges, widths, strict=True)) if width < r.most]
        return sorted(narrowed, key=lambda n: -self.scores[n][self.ranking[n][widths[n]]])


def _in_order(graph: DependencyGraph, selection: _Selection, widths: Sequence[int]) -> list[_Range]:
    """Ranges with greater least widths, if the code asks which of two sizes is greater and would get another answer.

    Or whether they are equal, where it would find them so and the groups are as narrow as they may be.
    """
    branch, wider = graph.turned_branch(selection.kept(widths)), list(widths)
    if branch is None:
        return []
    counted = [number for number, group in enumerate(graph.groups) if group.name in graph.groups_of(branch)]
    if not branch.is_of_order and any(widths[n] > selection.ranges[n].least for n in counted):
        return []
    while branch is graph.turned_branch(selection.kept(wider)):
        before = list(wider)
        for number in counted:
            wider[number] = min(selection.ranges[number].next_up(wider[number]), selection.ranges[number].most)
        if wider == before:
            return []  # making the plan says what is wrong
    ranges = list(selection.ranges)
    for number in counted:
        ranges[number] = replace(ranges[number], least=max(ranges[number].least, wider[number]))
    return ranges


def _even(graph: DependencyGraph, selection: _Selection, widths: Sequence[int]) -> list[_Range]:
    """Ranges of one width for groups that kernels want alike, if they are not and the budget leaves them the choice."""
    ranges, numbers = list(selection.ranges), {group.name: n for n, group in enumerate(graph.groups)}
    for names in alike(graph) if selection.budget.has_costs else ():
        members = [numbers[name] for name in names]
        if len({widths[n] for n in members}) > 1 and all(ranges[n].least < ranges[n].most for n in members):
            least = max(ranges[n].least for n in members)
            width = max(ranges[members[0]].rounded(round(np.mean([widths[n] for n in members]))), least)
            for n in members:
                ranges[n] = replace(ranges[n], least=width, most=width)
    cost = selection.costs(_first_channels(graph, [r.least for r in ranges]))
    return ranges if ranges != selection.ranges and _fits(cost, selection.limits) else []


def without_turned_branch(graph: DependencyGraph, selection: _Selection, widths: list[int]) -> list[int]:
    """Narrows one of the groups whose widths the code compares until no comparison comes out otherwise."""
    while branch := graph.turned_branch(selection.kept(widths)):
        counted = graph.groups_of(branch)
        loose = [n for n, group in enumerate(graph.groups) if group.name in counted]
        number = max(loose, key=lambda n: widths[n] - selection.ranges[n].least)
        narrower = selection.ranges[number].next_down(widths[number])
        if narrower == widths[number]:
            break  # making the plan says what is wrong
        widths = [*widths[:number], narrower, *widths[number + 1 :]]
    return widths


def _terms(graph: GraphView, budget: Budget, ranges: Sequence[_Range], latency: LatencyModel | None = None) -> _Terms:
    costs = Costs(graph, budget, latency)
    most, least = (costs(_first_channels(graph, [getattr(r, end) for r in ranges])) for end in ("most", "least"))
    limits = costs.limits(_first_channels(graph, [group.width for group in graph.groups]))
    free = sum(r.least < r.most for r in ranges)
    for name, cost, limit, whole in zip(costs.names, least, limits, most, strict=True):
        if not _fits((cost,), (limit,)):
            raise BudgetError(
                f"{name}={getattr(budget, name)} cannot be met: this network can go from {shown(name, whole)} down to "
                f"{shown(name, cost)} ({cost / whole:.1%}) with {free} of its {len(ranges)} channel groups free to "
                f"shrink; {graph.coverage:.0%} of its parameters lie in channel groups, see graph.locked for the rest"
            )
    return _Terms(budget=budget, ranges=ranges, costs=costs, limits=limits)


def _first_channels(graph: GraphView, widths: Sequence[int]) -> NDArray[np.bool_]:
    """Which channels stay when each group keeps that many; for the costs it does not matter which they are."""
    flags = [np.arange(group.width) < width for group, width in zip(graph.groups, widths, strict=True)]
    return np.concatenate([np.empty(0, bool), *flags])


def _fits(costs: Sequence[float], limits: Sequence[float]) -> bool:
    return all(cost <= limit * (1 + _EXACT) for cost, limit in zip(costs, limits, strict=True))


def _values(graph: GraphView, scores: Mapping[str, torch.Tensor]) -> list[NDArray[np.float64]]:
    """The scores of each group, on one scale over the network."""
    _refuse_strangers(graph, scores)
    comparable = isinstance(scores, NetworkScores)
    return [_checked(group, scores) if comparable else _normalised(group, scores) for group in graph.groups]


def _refuse_strangers(graph: GraphView, scores: Mapping[str, torch.Tensor]) -> None:
    if not isinstance(scores, Mapping):
        raise InputError(f"expected a dict from group names to scores, got {type(scores).__name__}")
    unknown = set(scores) - {group.name for group in graph.groups}
    if unknown:
        raise InputError(
            f"there is no channel group named {min(unknown, key=str)!r}; are these the scores of another network?"
        )


def _normalised(group: ChannelGroup, scores: Mapping[str, torch.Tensor]) -> NDArray[np.float64]:
    values = _checked(group, scores)
    return np.asarray(values / max(np.abs(values).mean(), 1e-30))


def _checked(group: ChannelGroup, scores: Mapping[str, torch.Tensor]) -> NDArray[np.float64]:
    if group.name not in scores:
        raise InputError(f"there are no scores for the group {group.name!r}")
    values = torch.as_tensor(scores[group.name]).detach().double().cpu().numpy()
    if values.shape != (group.width,):
        raise InputError(f"group {group.name!r} has {group.width} channels, but scores of shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"the scores of the group {group.name!r} are not finite; they are {values[:3]}, ...")
    return np.asarray(values)


def _ranges(groups: Sequence[ChannelGroup], budget: Budget) -> list[_Range]:
    included = _matching(groups, budget.include) if budget.include else set(range(len(groups)))
    excluded = _matching(groups, budget.exclude)
    pinned = {number: width for pattern, width in budget.pin.items() for number in _matching(groups, [pattern])}
    ranges = []
    for number, group in enumerate(groups):
        if number in pinned:
            ranges.append(_pinned(group, pinned[number]))
        elif number in excluded or number not in included:
            ranges.append(_Range(least=group.width, most=group.width, step=1))
        else:
            least = min(-(-budget.min_width // budget.round_to) * budget.round_to, group.width)
            ranges.append(_Range(least=least, most=group.width, step=budget.round_to))
    return ranges


def _pinned(group: ChannelGroup, width: int) -> _Range:
    if not 1 <= width <= group.width:
        raise BudgetError(f"cannot pin group {group.name!r} to {width} channels: it has {group.width}")
    return _Range(least=width, most=width, step=1)


def _matching(groups: Sequence[ChannelGroup], patterns: Sequence[str]) -> set[int]:
    found: set[int] = set()
    for pattern in patterns:
        matches = {number for number, group in enumerate(groups) if _matches(group, pattern)}
        if not matches:
            near = difflib.get_close_matches(pattern, [group.name for group in groups], n=3, cutoff=0.3)
            raise InputError(
                f"the pattern {pattern!r} matches no channel group; patterns are compared with group names, module "
                f"paths and tensor names, such as {', '.join(near) or 'those of graph.groups'}"
            )
        found |= matches
    return found


def _matches(group: ChannelGroup, pattern: str) -> bool:
    names = {group.name, group.module, *(member.tensor for member in group.members)}
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)
