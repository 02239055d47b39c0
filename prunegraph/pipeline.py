"""`prune`: composes the stages from the user's network to a smaller, verified one."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunegraph.errors import BudgetError
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.importance.scoring import Scoring, as_criterion
from prunegraph.ir.budget import Budget
from prunegraph.ir.latency import LatencyProfile
from prunegraph.ir.outcome import Report
from prunegraph.ir.plan import PruningPlan
from prunegraph.latency import LatencyModel
from prunegraph.plugin.contracts import Criterion, Progress
from prunegraph.proving import ProvedCut, cut_and_prove
from prunegraph.selection.costs import without_latency
from prunegraph.surgery.optimizer import slice_optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningResult:
    """A pruned network and how it came about.

    Attributes:
        model: the smaller network, of the user's own class, in the original's training mode.
        plan: which channels stayed; JSON, without tensors.
        report: costs before and after, what was locked, and the checks made.
        optimizer: the given optimizer's successor for the smaller network; None when none was given.
    """

    model: nn.Module
    plan: PruningPlan
    report: Report
    optimizer: torch.optim.Optimizer | None = None

    def __repr__(self) -> str:
        macs = f"MACs {self.report.dense.macs:,} -> {self.report.pruned.macs:,}"
        return f"PruningResult({type(self.model).__name__}, {self.plan}, {macs}; see its report)"


def prune(  # noqa: PLR0913 - the options of all stages
    model: nn.Module,
    example_inputs: Any,
    *,
    budget: Budget,
    criterion: str | Criterion | None = None,
    data: Iterable[tuple[Any, Any]] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    profile: LatencyProfile | None = None,
) -> PruningResult:
    """Removes the channels that the network can do without, and proves that the rest is what was chosen.

    Args:
        model: any network; it is left untouched.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
        budget: what may stay.
        criterion: name of an installed importance criterion, or a criterion; by default ``sepprune``, which learns on
            data with a loss, and ``l1`` where neither was given.
        data: batches ``(inputs, targets)`` for criteria that look at data, such as a list or a data loader; inputs are
            given like ``example_inputs``.
        loss: ``loss(output, targets)`` for criteria that look at a loss; less is better.
        seed: the only source of randomness.
        progress: told of the state of a scoring that takes long: number of the step, of all steps, named figures.
        checkpoint: file from which an interrupted scoring goes on, and to which it writes.
        optimizer: an optimizer of the network's parameters, whose state is carried over to the smaller network.
        profile: what the network's ops take on the device that counts, for budgets of latency.

    Raises:
        PrunegraphError: the stage that failed raises its own kind; nothing is changed then.
    """
    if criterion is None:
        criterion = "l1" if data is None and loss is None else "sepprune"
    scoring = Scoring(
        criterion=as_criterion(criterion), data=data, loss=loss, seed=seed, progress=progress, checkpoint=checkpoint
    )
    result = prune_in_stages(model, example_inputs, budget, scoring, stage=nullcontext, profile=profile)
    if optimizer is None:
        return result
    return replace(result, optimizer=slice_optimizer(optimizer, model, result.model, result.plan))


def prune_in_stages(
    model: nn.Module,
    example_inputs: Any,
    budget: Budget,
    scoring: Scoring,
    *,
    stage: Callable[[str], AbstractContextManager[Any]],
    profile: LatencyProfile | None = None,
) -> PruningResult:
    """`prune` for callers that show progress: each stage runs within ``stage(what it does)``."""
    if not isinstance(budget, Budget):
        raise BudgetError(f"expected a Budget, such as Budget(macs=0.5), got {budget!r}")
    name = scoring.criterion.name
    with stage("recording and analysing"):
        graph = build_graph(model, example_inputs)
    if not graph.groups:
        raise BudgetError(_nothing_to_prune(graph))
    with stage(f"scoring by {name}"):
        scores = scoring(graph, model, without_latency(graph, budget, profile))
    cut = cut_and_prove(model, graph, scores, budget, example_inputs, profile=profile, stage=stage)
    report = replace(_report(graph, cut, name), latency=_latency(graph, cut.plan, profile))
    return PruningResult(model=cut.model, plan=cut.plan, report=report)


def _latency(graph: DependencyGraph, plan: PruningPlan, profile: LatencyProfile | None) -> tuple[float, float] | None:
    if profile is None:
        return None
    model = LatencyModel(graph, profile)
    return model.of_plan(), model.of_plan(plan)


def _nothing_to_prune(graph: DependencyGraph) -> str:
    reasons = "; ".join(f"{group.name}: {group.locks[0]}" for group in graph.locked[:3])
    return f"there is nothing to prune in this network: every channel is locked ({reasons or 'no channels found'})"


def _report(graph: DependencyGraph, cut: ProvedCut, criterion: str) -> Report:
    return Report(
        criterion=criterion,
        dense=graph.cost(),
        pruned=graph.cost(cut.plan),
        widths={name: (cut.plan.widths[name], len(kept)) for name, kept in cut.plan.kept.items()},
        coverage=graph.coverage,
        locked=graph.locked,
        unproved=dict(cut.unproved),
        without_rule=dict(graph.without_rule),
        unused=graph.unused,
        verification=cut.verification,
    )
