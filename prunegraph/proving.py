"""Selects channels, removes them and proves the result; groups whose removal cannot be proved stay."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from prunegraph.capture.caches import renew
from prunegraph.errors import BudgetError, VerificationError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.budget import Budget
from prunegraph.ir.latency import LatencyProfile
from prunegraph.ir.outcome import VerificationReport
from prunegraph.ir.plan import PruningPlan
from prunegraph.selection.selector import select
from prunegraph.surgery.slicing import apply
from prunegraph.verification.verifying import verify


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProvedCut:
    """A smaller network and its proof.

    Attributes:
        model: the pruned network.
        plan: what was removed.
        verification: the checks that were made.
        unproved: groups that had to stay -> the check that networks without some of their channels failed.
    """

    model: nn.Module
    plan: PruningPlan
    verification: VerificationReport
    unproved: Mapping[str, str]


def cut_and_prove(
    model: nn.Module,
    graph: DependencyGraph,
    scores: Mapping[str, torch.Tensor],
    budget: Budget,
    example_inputs: Any,
    *,
    profile: LatencyProfile | None = None,
    stage: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> ProvedCut:
    """Selects by scores and budget, cuts, verifies, and where that fails keeps the groups that the failure names.

    Code may hide from the record where a size comes from. Then a network that is cut there fails, and the error names
    the groups at the failing line, or in its module; without them the choice is made anew.

    Args:
        model: the network; left as it is.
        graph: its dependency graph.
        scores: of every group.
        budget: what may stay.
        example_inputs: as for `build_graph`.
        profile: for budgets of latency.
        stage: entered with the name of each stage.

    Raises:
        BudgetError: it cannot be met, or not without the groups that must stay.
        VerificationError: a check failed that no group can be blamed for.
    """
    unproved: dict[str, str] = {}
    while True:
        with stage("selecting channels"):
            plan = _selected(graph, scores, replace(budget, exclude=(*budget.exclude, *unproved)), profile, unproved)
        with stage("surgery"):
            pruned = apply(model, plan)
        try:
            with stage("verifying"):
                verification = verify(model, pruned, plan, example_inputs, graph=graph)
        except VerificationError as error:
            blamed = set(error.groups) - unproved.keys()
            if not blamed:
                raise
            failure = str(error).partition("\n")[0]
            unproved |= {group.name: failure for group in graph.groups if group.name in blamed}
        else:
            renew(pruned, example_inputs, _left_over(graph))
            return ProvedCut(model=pruned, plan=plan, verification=verification, unproved=unproved)


def _left_over(graph: DependencyGraph) -> list[str]:
    """Tensors that an earlier run left in the network for inputs of another shape: the example's run reads none."""
    tensors = graph.trace.tensors.values()
    return [s.name for s in tensors if s.name in graph.trace.unused and not (s.is_lasting or s.is_parameter)]


def _selected(
    graph: DependencyGraph,
    scores: Mapping[str, torch.Tensor],
    budget: Budget,
    profile: LatencyProfile | None,
    unproved: Mapping[str, str],
) -> PruningPlan:
    try:
        return select(graph, scores, budget, profile=profile)
    except BudgetError as error:
        if not unproved:
            raise
        reasons = "; ".join(f"{name}: {failure}" for name, failure in unproved.items())
        raise BudgetError(f"{error}. Groups that stay since their removal could not be proved: {reasons}") from error
