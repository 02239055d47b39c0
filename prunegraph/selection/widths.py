"""`widths_for_speed`: how wide each group stays, so that a share of the MACs takes the least time."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from prunegraph.errors import BudgetError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.latency import LatencyProfile
from prunegraph.latency import LatencyModel
from prunegraph.selection.alike import alike

_TILTS = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0)
"""How much more than others a group narrows that saves more time per MAC; 0 is the same share of every group."""
_SWEEPS = 4
_STEPS = 14
_GREATEST = 16.0
_NARROWER = 0.75


def widths_for_speed(
    graph: DependencyGraph, profile: LatencyProfile, *, macs: float, round_to: int = 1, least: float = 0.25
) -> dict[str, int]:
    """Widths at which a share of the MACs takes the least time, as ``Budget(macs=..., pin=...)`` takes them.

    A channel between layers that multiply saves MACs; one that also passes through norms, activations and depthwise
    convolutions saves more time for each of them. Groups are narrowed by a power of that ratio, and the power with the
    least predicted latency wins; from the widths that it gives, the same again, as long as that helps.

    Args:
        graph: the network's dependency graph.
        profile: what its ops take on the device.
        macs: share of the dense network's multiply-accumulate operations that may stay; above 1, their number.
        round_to: widths become multiples of this where they shrink.
        least: share of its channels that every group keeps.

    Returns:
        Group name -> number of channels.

    Raises:
        BudgetError: no such widths leave so few MACs.
        InputError: the profile is not one of this graph.
    """
    latency = LatencyModel(graph, profile)
    limit = macs * graph.cost().macs if macs <= 1 else macs
    best = {group.name: group.width for group in graph.groups}
    for _ in range(_SWEEPS):
        worth = _time_per_mac(graph, latency, best, round_to)
        shares = np.array([best[group.name] / group.width for group in graph.groups])
        found = [_within(graph, limit, shares * worth**-tilt, round_to, least) for tilt in _TILTS]
        choices = [widths for widths in found if _macs(graph, widths) <= limit and not _turns_branch(graph, widths)]
        if not choices:
            raise BudgetError(f"{macs=} cannot be met: {_why_not(graph, limit, round_to, least)}")
        before, best = best, min(choices, key=lambda widths: latency.seconds(_kept(graph, widths)))
        if best == before:
            break
    return _filled(graph, latency, limit, best, round_to)


def _why_not(graph: DependencyGraph, limit: float, round_to: int, least: float) -> str:
    smallest = _macs(graph, _widths(graph, np.full(len(graph.groups), least), round_to, least))
    if smallest <= limit:
        return "with all widths that were tried, two sizes that the code compares would be ordered otherwise"
    return (
        f"{least:.0%} of the channels of every group, in multiples of {round_to}, leave "
        f"{smallest / graph.cost().macs:.3f} of the MACs; lower least or round_to"
    )


def _filled(
    graph: DependencyGraph, latency: LatencyModel, limit: float, widths: dict[str, int], round_to: int
) -> dict[str, int]:
    """Widths to which no step can be added within the MACs."""
    whole = {group.name: group.width for group in graph.groups}
    together = alike(graph)
    parts = [*together, *({name} for name in whole if not any(name in names for names in together))]

    def wider(names: Iterable[str]) -> dict[str, int]:
        return widths | {
            name: min(_rounded(widths[name] + round_to, whole[name], round_to), whole[name]) for name in names
        }

    def seconds_per_mac(names: Iterable[str]) -> float:
        more = wider(names)
        macs = _macs(graph, more) - _macs(graph, widths)
        return (latency.seconds(_kept(graph, more)) - latency.seconds(_kept(graph, widths))) / max(macs, 1)

    parts.sort(key=seconds_per_mac)
    grown = True
    while grown:
        grown = False
        for names in parts:
            more = wider(names)
            if more != widths and _macs(graph, more) <= limit and not _turns_branch(graph, more):
                widths, grown = more, True
    return widths


def _time_per_mac(
    graph: DependencyGraph, latency: LatencyModel, widths: Mapping[str, int], round_to: int
) -> NDArray[np.float64]:
    """By which factor each group saves more of the time than of the MACs when it is narrowed from around its width."""
    time, macs = latency.seconds(_kept(graph, widths)), _macs(graph, widths)
    ratios = []
    for group in graph.groups:
        width = widths[group.name]
        narrow, wide = (
            {**widths, group.name: _rounded(share * width, group.width, round_to)}
            for share in (_NARROWER, 1 / _NARROWER)
        )
        saved = latency.seconds(_kept(graph, wide)) - latency.seconds(_kept(graph, narrow))
        fewer = _macs(graph, wide) - _macs(graph, narrow)
        ratios.append((saved / time) / (fewer / macs) if fewer else 1.0)
    worth = np.clip(ratios, 1 / _GREATEST, _GREATEST)
    for names in alike(graph):
        members = [number for number, group in enumerate(graph.groups) if group.name in names]
        worth[members] = worth[members].mean()
    return worth


def _within(
    graph: DependencyGraph, limit: float, tilted: NDArray[np.float64], round_to: int, least: float
) -> dict[str, int]:
    """The widest choice that fits, of those whose shares are multiples of the tilted ones."""
    low, high = np.log(least / tilted.max(initial=1.0)), np.log(1 / tilted.min(initial=1.0))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = _macs(graph, _widths(graph, np.exp(middle) * tilted, round_to, least)) <= limit
        low, high = (middle, high) if fits else (low, middle)
    return _widths(graph, np.exp(low) * tilted, round_to, least)


def _widths(graph: DependencyGraph, shares: NDArray[np.float64], round_to: int, least: float) -> dict[str, int]:
    pairs = zip(graph.groups, np.clip(shares, least, 1).tolist(), strict=True)
    return {group.name: _rounded(share * group.width, group.width, round_to) for group, share in pairs}


def _rounded(width: float, most: int, round_to: int) -> int:
    """Halves go down; what is narrower than one multiple stays whole."""
    return min(max(int(np.ceil(width / round_to - 0.5)), 1) * round_to, most)


def _macs(graph: DependencyGraph, widths: Mapping[str, int]) -> float:
    return graph.macs_and_parameters(_kept(graph, widths))[0]


def _kept(graph: DependencyGraph, widths: Mapping[str, int]) -> NDArray[np.bool_]:
    return graph.kept_channels({name: range(width) for name, width in widths.items()})


def _turns_branch(graph: DependencyGraph, widths: Mapping[str, int]) -> bool:
    return graph.turned_branch({name: range(width) for name, width in widths.items()}) is not None
