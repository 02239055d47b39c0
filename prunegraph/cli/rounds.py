"""Gradual pruning in ``prunegraph finetune``: from a saved result on down to a share of the dense network's MACs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from torch import nn

from prunegraph.errors import InputError
from prunegraph.graph import build_graph
from prunegraph.io.saved_network import SavedNetwork
from prunegraph.io.state import state_of
from prunegraph.io.structure import structure_of
from prunegraph.ir.budget import Budget
from prunegraph.ir.plan import PruningPlan
from prunegraph.plugin.manager import find_criterion
from prunegraph.recovery.recovering import Recovery
from prunegraph.recovery.settings import GradualPruning


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsRequest:
    """What the user typed.

    Attributes:
        macs: share of the dense network's MACs to go on down to; None for no further pruning.
        count: rounds.
        between: optimizer steps from one round to the next.
        criterion: name of the importance criterion.
    """

    macs: float | None
    count: int
    between: int
    criterion: str


def gradual_pruning(request: RoundsRequest, saved: SavedNetwork, example: Any) -> GradualPruning | None:
    """Rounds that each leave the same share of the MACs that they find.

    Raises:
        InputError: the saved network is that small already.
    """
    if request.macs is None:
        return None
    left = saved.pruned.macs / max(saved.dense.macs, 1)
    if not 0 < request.macs < left:
        raise InputError(f"--macs {request.macs:g} leaves nothing to prune: the saved network has {left:.1%} of them")
    each = Budget(macs=(request.macs / left) ** (1 / request.count))
    return GradualPruning(
        example_inputs=example,
        budgets=(each,) * request.count,
        between=request.between,
        criterion=find_criterion(request.criterion),
    )


def recovered(saved: SavedNetwork, dense: nn.Module, example: Any, found: Recovery, criterion: str) -> SavedNetwork:
    """What is to be saved after a recovery: plan and cost too, when there were rounds of pruning."""
    if found.plans:
        graph = build_graph(dense, example)
        plan = graph.plan(_kept((saved.plan, *found.plans)))
        described = f"{saved.criterion}, then {criterion} in {len(found.plans)} rounds"
        saved = replace(saved, plan=plan, criterion=described, dense=graph.cost(), pruned=graph.cost(plan))
    return replace(saved, state=state_of(found.model), structure=structure_of(found.model))


def _kept(plans: Sequence[PruningPlan]) -> dict[str, tuple[int, ...]]:
    first, *later = plans
    return dict(reduce(lambda plan, then: replace(plan, kept=plan.kept_after(then)), later, first).kept)
