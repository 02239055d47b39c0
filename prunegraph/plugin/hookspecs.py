"""The hooks: what a plug-in may provide. Each returns values; none changes anything."""

from collections.abc import Mapping, Sequence

import pluggy
from torch._ops import OpOverload

from prunegraph.plugin.contracts import Criterion
from prunegraph.rules.base import Rule

PROJECT = "prunegraph"
"""Name of the entry-point group and of the hook markers."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plug-in as the implementation of the hook of the same name."""


@hookspec
def prunegraph_criteria() -> Sequence[Criterion]:  # type: ignore[empty-body]
    """Criteria that this plug-in offers.

    Called whenever a criterion is looked up; making the objects must be cheap.

    Returns:
        Objects that satisfy `prunegraph.plugin.Criterion`. A name that another plug-in offers too is refused.
    """


@hookspec
def prunegraph_op_rules() -> Mapping[OpOverload, Rule]:  # type: ignore[empty-body]
    """Rules for operators that prunegraph does not know: custom ops, and new ones of torch.

    An operator without a rule locks every channel that touches it. A rule says how channels pass through the
    operator, what the operator computes when some of them are masked, and what it costs.

    Returns:
        operator (``torch.ops.mylib.gate.default``) -> its rule. An operator that already has a rule is refused.
    """
