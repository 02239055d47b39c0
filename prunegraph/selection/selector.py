"""`select`: chooses the channels that stay, by score, under a budget."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray

from prunegraph.errors import BudgetError, InputError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.budget import Budget
from prunegraph.ir.channels import ChannelGroup
from prunegraph.ir.plan import PruningPlan
from prunegraph.plugin.contracts import NetworkScores

_EXACT = 1e-9


def select(graph: DependencyGraph, scores: Mapping[str, torch.Tensor], budget: Budget) -> PruningPlan:
    """Keeps the channels with the greatest scores that the budget has room for.

    Scores are divided by their group's mean absolute score, so that groups of different scale compare, unless they are
    `NetworkScores`. Channels leave
    in the order of their scores over the whole network until the costs fit; what then still fits comes back, greatest
    scores first. With ``ratio`` every group loses the same share.

    Args:
        graph: the network's dependency graph.
        scores: group name -> scores of shape ``(width,)``.
        budget: what may stay.

    Raises:
        BudgetError: the budget cannot be met, which gives the reachable range; or it would prune nothing.
        InputError: a name pattern matches no group, or the scores are not those of the graph's groups.
    """
    if not isinstance(budget, Budget):
        raise BudgetError(f"expected a Budget, such as Budget(macs=0.5), got {budget!r}")
    selection = _Selection(graph, scores, budget)
    widths = selection.uniform() if budget.ratio is not None else selection.within_cost()
    if widths and not budget.allows_everything and widths == [group.width for group in graph.groups]:
        raise BudgetError(
            f"nothing would be pruned: the network has {graph.cost().macs:,} MACs and {graph.cost().parameters:,} "
            f"parameters in {len(widths)} groups of up to {max(widths)} channels; give a smaller budget"
        )
    return graph.plan(selection.kept(selection.without_turned_branch(widths)))


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


class _Selection:
    """One choice in the making: groups, their ranked channels and their allowed widths."""

    def __init__(self, graph: DependencyGraph, scores: Mapping[str, torch.Tensor], budget: Budget) -> None:
        self.graph, self.budget = graph, budget
        _refuse_strangers(graph, scores)
        comparable = isinstance(scores, NetworkScores)
        self.scores = [_checked(group, scores) if comparable else _normalised(group, scores) for group in graph.groups]
        self.ranking = [np.argsort(-score, kind="stable") for score in self.scores]
        self.ranks = [np.argsort(ranking) for ranking in self.ranking]
        self.ranges = _ranges(graph.groups, budget)
        self.limits = self._limits()

    def kept(self, widths: Sequence[int]) -> dict[str, list[int]]:
        """The best channels of each group."""
        chosen = zip(self.graph.groups, self.ranking, widths, strict=True)
        return {group.name: ranking[:width].tolist() for group, ranking, width in chosen}

    def uniform(self) -> list[int]:
        """Every group loses the same share."""
        share = 1 - (self.budget.ratio or 0.0)
        return [r.rounded(round(g.width * share)) for g, r in zip(self.graph.groups, self.ranges, strict=True)]

    def within_cost(self) -> list[int]:
        """The widest choice in the order of scores that fits, then whatever else fits."""
        self._check_reachable()
        order = self._removal_order()
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if self._fits(self._widths_after(order[:middle])):
                high = middle
            else:
                low = middle + 1
        return self._filled(self._widths_after(order[:low]), order[:low])

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

    def _filled(self, widths: list[int], removed: NDArray[np.int64]) -> list[int]:
        """Gives channels back, greatest scores first, as long as the costs still fit."""
        for number in dict.fromkeys(removed[::-1].tolist()):
            wider = [*widths[:number], self.ranges[number].next_up(widths[number]), *widths[number + 1 :]]
            if self._fits(wider):
                widths = wider
        return widths

    def _fits(self, widths: Sequence[int]) -> bool:
        costs = self._costs(widths)
        return all(cost <= limit * (1 + _EXACT) for cost, limit in zip(costs, self.limits, strict=True))

    def _costs(self, widths: Sequence[int]) -> tuple[float, float]:
        stays = [ranks < width for ranks, width in zip(self.ranks, widths, strict=True)]
        return self.graph.macs_and_parameters(np.concatenate([np.empty(0, bool), *stays]))

    def _limits(self) -> tuple[float, float]:
        dense = self._costs([group.width for group in self.graph.groups])
        asked = (self.budget.macs, self.budget.params)
        return tuple(  # type: ignore[return-value]
            float("inf") if value is None else value * cost if value <= 1 else float(value)
            for value, cost in zip(asked, dense, strict=True)
        )

    def without_turned_branch(self, widths: list[int]) -> list[int]:
        """Narrows one of the groups whose widths the code compares until no comparison comes out otherwise."""
        while branch := self.graph.turned_branch(self.kept(widths)):
            counted = self.graph.groups_of(branch)
            loose = [n for n, group in enumerate(self.graph.groups) if group.name in counted]
            number = max(loose, key=lambda n: widths[n] - self.ranges[n].least)
            narrower = self.ranges[number].next_down(widths[number])
            if narrower == widths[number]:
                break  # making the plan says what is wrong
            widths = [*widths[:number], narrower, *widths[number + 1 :]]
        return widths

    def _check_reachable(self) -> None:
        least = [r.least for r in self.ranges]
        if self._fits(least):
            return
        smallest, dense = self._costs(least), self._costs([r.most for r in self.ranges])
        for name, cost, limit, whole in zip(("macs", "params"), smallest, self.limits, dense, strict=True):
            if cost > limit:
                raise BudgetError(
                    f"{name}={getattr(self.budget, name)} cannot be met: this network can go from {whole:,.0f} down to "
                    f"{cost:,.0f} {name} ({cost / whole:.1%}); {_locked_share(self.graph)}"
                )


def _refuse_strangers(graph: DependencyGraph, scores: Mapping[str, torch.Tensor]) -> None:
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


def _locked_share(graph: DependencyGraph) -> str:
    return f"{graph.coverage:.0%} of its parameters lie in prunable groups, see graph.locked for the rest"
