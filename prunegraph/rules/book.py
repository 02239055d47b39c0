"""The rule book: which rule answers for which ATen op."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx

from prunegraph.ir.trace import Trace
from prunegraph.rules import (
    affine,
    attention,
    creation,
    cutting,
    einsum,
    indexing,
    layout,
    loss,
    matrices,
    norm,
    pointwise,
    reduction,
    reshape,
    sequence,
    series,
    spatial,
    spectral,
)
from prunegraph.rules.base import Call, LabelSink, Rule

_FAMILIES = (
    pointwise,
    affine,
    reshape,
    layout,
    creation,
    cutting,
    norm,
    reduction,
    loss,
    series,
    sequence,
    attention,
    einsum,
    matrices,
    spectral,
    indexing,
    spatial,
)


class RuleBook:
    """A frozen mapping from ops to rules: by exact overload, else by name, else by the out-of-place form's name."""

    def __init__(self, extra: Mapping[Any, Rule] | None = None) -> None:
        self._rules: dict[Any, Rule] = {}
        for family in _FAMILIES:
            self._rules.update(family.RULES)
        self._rules.update(extra or {})

    def find(self, target: Callable[..., Any] | str) -> Rule | None:
        """The op's rule, or None where it has none."""
        for key in _keys(target):
            if key in self._rules:
                return self._rules[key]
        return None


def _keys(target: Any) -> Iterable[Any]:
    yield target
    if isinstance(target, torch._ops.OpOverload):
        packet = target.overloadpacket
        yield packet
        if packet.__name__.endswith("_"):
            functional = getattr(torch.ops.aten, packet.__name__.rstrip("_"), None)
            yield getattr(functional, target._overloadname, None)
            yield functional


def make_call(node: fx.Node, trace: Trace, known: Mapping[str, Any], sink: LabelSink) -> Call:
    """The node's arguments by the names of the op's schema."""
    arguments: dict[str, Any] = {}
    places: dict[str, int | str] = {}
    if isinstance(node.target, torch._ops.OpOverload):
        for position, schema in enumerate(node.target._schema.arguments):
            if position < len(node.args):
                arguments[schema.name], places[schema.name] = node.args[position], position
            elif schema.name in node.kwargs:
                arguments[schema.name], places[schema.name] = node.kwargs[schema.name], schema.name
            else:
                arguments[schema.name] = schema.default_value
    else:
        arguments = {str(position): value for position, value in enumerate(node.args)} | dict(node.kwargs)
    return Call(node=node, arguments=arguments, places=places, trace=trace, known=known, sink=sink)
