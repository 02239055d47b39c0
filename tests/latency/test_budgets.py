"""Budgets of latency are met from below by the table, with the channels of the greatest scores."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from prunegraph import Budget, BudgetError, LatencyProfile, prune, score, select
from prunegraph.latency import LatencyModel
from prunegraph.selection.costs import without_latency
from tests.latency.networks import separator


@pytest.fixture
def seconds(graph, timings: LatencyProfile):
    return LatencyModel(graph, timings).of_plan


@pytest.mark.parametrize("criterion", ["l1", "random"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_a_latency_is_met_from_below(graph, timings: LatencyProfile, seconds, criterion: str, share: float) -> None:
    limit = share * seconds()
    scores = score(graph, criterion)
    plan = select(graph, scores, Budget(latency_ms=1000 * limit), profile=timings)
    assert 0.98 * limit <= seconds(plan) <= limit * (1 + 1e-9)
    for group in graph.groups:
        gone = np.setdiff1d(np.arange(group.width), plan.kept[group.name])
        stays = scores[group.name][list(plan.kept[group.name])]
        assert not len(gone) or stays.min() >= scores[group.name][torch.from_numpy(gone)].max()


def test_a_real_time_factor_is_a_latency(graph, timings: LatencyProfile, seconds) -> None:
    limit = 0.5 * seconds()
    by_rtf = select(graph, score(graph), Budget(rtf=limit / 0.05), profile=timings)
    by_latency = select(graph, score(graph), Budget(latency_ms=1000 * limit), profile=timings)
    assert by_rtf.kept == by_latency.kept


@pytest.mark.parametrize(("latency", "macs"), [(0.9, 0.4), (0.5, 0.95)])
def test_all_costs_of_a_budget_are_met(graph, timings: LatencyProfile, seconds, latency: float, macs: float) -> None:
    budget = Budget(latency_ms=1000 * latency * seconds(), macs=macs, round_to=4)
    plan = select(graph, score(graph), budget, profile=timings)
    assert seconds(plan) <= latency * seconds() * (1 + 1e-9)
    assert graph.cost(plan).macs <= macs * graph.cost().macs
    assert all(len(kept) % 4 == 0 or len(kept) == plan.widths[name] for name, kept in plan.kept.items())


def test_what_cannot_be_met_says_how_far_one_can_go(graph, timings: LatencyProfile, seconds) -> None:
    least = seconds(graph.plan({group.name: [0] for group in graph.groups}))
    message = f"latency_ms=0.5 cannot be met: .* from {1000 * seconds():.3g} ms down to {1000 * least:.3g} ms"
    with pytest.raises(BudgetError, match=message):
        select(graph, score(graph), Budget(latency_ms=0.5), profile=timings)
    with pytest.raises(BudgetError, match=r"rtf=0.001 cannot be met: .* a real-time factor of"):
        select(graph, score(graph), Budget(rtf=0.001), profile=timings)


def test_a_network_that_is_fast_enough_is_left_alone(graph, timings: LatencyProfile, seconds) -> None:
    with pytest.raises(BudgetError, match=re.escape(f"takes {1000 * seconds():.3g} ms by the profile")):
        select(graph, score(graph), Budget(latency_ms=2000 * seconds()), profile=timings)


@pytest.mark.parametrize("budget", [Budget(latency_ms=1), Budget(rtf=0.1), Budget(macs=0.5, latency_ms=1)])
def test_without_a_table_the_budget_says_to_make_one(graph, budget: Budget) -> None:
    with pytest.raises(BudgetError, match=r"needs a profile of the device: make one with prunegraph\.profile"):
        select(graph, score(graph), budget)
    with pytest.raises(BudgetError, match="needs a profile"):
        prune(*separator(), budget=budget)


def test_a_real_time_factor_needs_the_sample_rate(graph, timings: LatencyProfile) -> None:
    with pytest.raises(BudgetError, match="knows the sample rate"):
        select(graph, score(graph), Budget(rtf=0.1), profile=replace(timings, seconds=None))


@pytest.mark.parametrize("name", ["latency_ms", "rtf"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "20"])
def test_numbers_out_of_range_are_refused(name: str, value) -> None:
    with pytest.raises(BudgetError, match=f"{name}=.* is out of range: give"):
        Budget(**{name: value})


@pytest.mark.parametrize("other", [{"ratio": 0.5}, {"threshold": 0.1}])
def test_a_latency_does_not_go_with_a_ratio_or_a_threshold(other: dict) -> None:
    with pytest.raises(BudgetError, match=r"and/or rtf=.*, or as ratio"):
        Budget(latency_ms=20, **other)


def test_prune_meets_a_latency_and_proves_the_result(timings: LatencyProfile, seconds) -> None:
    result = prune(*separator(), budget=Budget(latency_ms=600 * seconds()), profile=timings)
    assert seconds(result.plan) <= 0.6 * seconds()
    assert result.report.latency == pytest.approx((seconds(), seconds(result.plan)))
    assert f"latency by the profile: {1000 * seconds():.3g} -> " in str(result.report)


def test_criteria_see_a_budget_of_macs_that_asks_for_about_as_much(graph, timings: LatencyProfile, seconds) -> None:
    asked = Budget(latency_ms=600 * seconds(), round_to=2, exclude=("masks*",))
    seen = without_latency(graph, asked, timings)
    assert (seen.latency_ms, seen.rtf, seen.round_to, seen.exclude) == (None, None, 2, ("masks*",))
    assert seen.macs is not None
    widths = {g.name: range(max(round(g.width * s), 1)) for s in [0.5] for g in graph.groups}
    wider = seconds(graph.plan(widths)) < 0.6 * seconds()
    assert (seen.macs > graph.cost(graph.plan(widths)).macs / graph.cost().macs) is wider


def test_budgets_without_latency_reach_criteria_as_they_are(graph) -> None:
    budget = Budget(macs=0.5)
    assert without_latency(graph, budget, None) is budget
