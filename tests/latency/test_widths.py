"""Widths for speed meet the budget of MACs, and narrow first what saves the most time."""

from dataclasses import replace

import pytest

from prunegraph import Budget, BudgetError, LatencyProfile, score, select
from prunegraph.latency import LatencyModel
from prunegraph.selection.widths import widths_for_speed


def plan_of(graph, widths):
    return graph.plan({name: range(width) for name, width in widths.items()})


@pytest.fixture
def slow_activation(timings: LatencyProfile) -> LatencyProfile:
    """PReLU, which counts no MACs and sees the channels of one group only, takes nearly all of the time."""
    ops = [replace(op, per_byte=1e-5 if "prelu" in op.op else 0.0, per_mac=1e-15) for op in timings.ops]
    return replace(timings, ops=tuple(ops))


@pytest.mark.parametrize("share", [0.4, 0.5, 0.8])
@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_the_macs_are_used_up_from_below(graph, timings: LatencyProfile, share: float, round_to: int) -> None:
    widths = widths_for_speed(graph, timings, macs=share, round_to=round_to)
    whole = {group.name: group.width for group in graph.groups}
    limit = share * graph.cost().macs
    assert graph.cost(plan_of(graph, widths)).macs <= limit
    for name, width in widths.items():
        wider = min((width // round_to + 1) * round_to, whole[name])
        assert width == whole[name] or graph.cost(plan_of(graph, widths | {name: wider})).macs > limit
    assert all(width % round_to == 0 or width == whole[name] for name, width in widths.items())
    assert all(width >= 0.25 * whole[name] - round_to / 2 for name, width in widths.items())


def test_the_group_that_takes_the_time_is_narrowed_most(graph, slow_activation: LatencyProfile) -> None:
    widths = widths_for_speed(graph, slow_activation, macs=0.5)
    shares = {group.name: widths[group.name] / group.width for group in graph.groups}
    slow = next(name for name in shares if "wide" in name)
    assert all(shares[slow] < share for name, share in shares.items() if name != slow)


def test_half_of_the_macs_is_faster_than_with_the_same_share_everywhere(graph, slow_activation: LatencyProfile) -> None:
    seconds = LatencyModel(graph, slow_activation).of_plan
    fast = plan_of(graph, widths_for_speed(graph, slow_activation, macs=0.5))
    even = select(graph, score(graph), Budget(ratio=0.3))
    assert graph.cost(even).macs >= graph.cost(fast).macs - 0.1 * graph.cost().macs
    assert seconds(fast) < 0.75 * seconds(even)


def test_they_are_pins_of_a_budget_for_any_criterion(graph, timings: LatencyProfile) -> None:
    widths = widths_for_speed(graph, timings, macs=0.5, round_to=8)
    plan = select(graph, score(graph, "l1"), Budget(macs=0.5, pin=widths))
    assert {name: len(kept) for name, kept in plan.kept.items()} == widths


def test_what_cannot_be_met_is_refused(graph, timings: LatencyProfile) -> None:
    with pytest.raises(
        BudgetError, match=r"macs=0\.01 cannot be met: 50% of the channels of .* leave 0\.\d+ of the MACs"
    ):
        widths_for_speed(graph, timings, macs=0.01, least=0.5)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_going_on_from_the_widths_found_saves_time(
    graph, timings: LatencyProfile, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = LatencyModel(graph, timings).of_plan
    monkeypatch.setattr("prunegraph.selection.widths._filled", lambda graph, latency, limit, widths, round_to: widths)
    last = seconds(plan_of(graph, widths_for_speed(graph, timings, macs=share)))
    monkeypatch.setattr("prunegraph.selection.widths._SWEEPS", 1)
    assert last < seconds(plan_of(graph, widths_for_speed(graph, timings, macs=share)))
