"""The numbers that the code computes from sizes, as functions of the keep values."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from prunegraph.dependency.label_space import SizeUse
from prunegraph.dependency.size_uses import simplest_first
from prunegraph.graph import DependencyGraph
from prunegraph.ir.sizes import (
    OPERATIONS,
    Attribute,
    Derived,
    Expression,
    Leaf,
    Operation,
    ShapeOf,
    evaluate,
    inverse,
    leaves,
    recorded_value,
    unrounded,
)
from prunegraph.rules.base import Atoms


def _rounded(step: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Rounding with the gradient of what is rounded; its own is zero almost everywhere."""

    def of(value: torch.Tensor, divisor: Any = 1) -> torch.Tensor:
        exact: torch.Tensor = value / divisor
        return exact + (step(exact) - exact).detach()

    return of


_TENSOR_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": _rounded(torch.floor),
    "truediv": operator.truediv,
    "mod": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "abs": operator.abs,
    "sqrt": torch.sqrt,
    "log": lambda value, base=None: torch.log(value) if base is None else torch.log(value) / math.log(base),
    "log2": torch.log2,
    "log10": torch.log10,
    "exp": torch.exp,
    "ceil": _rounded(torch.ceil),
    "floor": _rounded(torch.floor),
    "round": _rounded(torch.round),
}


class Numbers:
    """Computes sizes in the masked graph: the number of channels that a dimension or an attribute counts is a sum.

    Args:
        source: the network's dependency graph.
        graph: the graph to which nodes are added.
        keep: gives the keep values of atoms, which must be prunable ones.
    """

    def __init__(self, source: DependencyGraph, graph: fx.Graph, keep: Callable[[Atoms], fx.Node]) -> None:
        self.source, self.graph, self.keep = source, graph, keep
        self.uses = _uses_that_tell(source.size_uses)

    def number(self, expression: Expression) -> Any:
        """A node, or the number as it was recorded where no choice of channels changes it."""
        match expression:
            case Operation(name=name, operands=operands) if any(map(self._varies, leaves(expression))):
                return self._computed(name, *map(self.number, operands))
            case ShapeOf() if self._varies(expression):
                return self._count(self._counted_by(expression), expression.value)
            case Attribute() if self._varies(expression):
                use = self.uses[expression]
                result = self._count(use.atoms, use.size)
                return inverse(use.expression, result, expression, known=self.number, compute=self._computed)
            case Derived():
                return None
            case _:
                return evaluate(expression, recorded_value)

    def _computed(self, name: str, *operands: Any) -> Any:
        if not any(isinstance(operand, fx.Node) for operand in operands):
            return OPERATIONS[name](*operands)
        return self.graph.call_function(_TENSOR_OPERATIONS[name], operands)

    def _count(self, atoms: Atoms | None, recorded: Any) -> Any:
        if not self._is_prunable(atoms):
            return recorded
        assert atoms is not None
        return self.graph.call_function(torch.sum, (self.keep(atoms),))

    def _varies(self, leaf: Leaf) -> bool:
        if isinstance(leaf, ShapeOf):
            return self._is_prunable(self._counted_by(leaf))
        use = self.uses.get(leaf)
        if use is None:
            return False
        return self._is_prunable(use.atoms) or any(self._varies(o) for o in leaves(use.expression) if o != leaf)

    def _counted_by(self, shape: ShapeOf) -> Atoms | None:
        labels = self.source.labels.get(shape.node)
        return None if labels is None else labels[shape.dim]

    def _is_prunable(self, atoms: Atoms | None) -> bool:
        return atoms is not None and bool((self.source.channel_of[atoms] >= 0).any())


def _uses_that_tell(uses: Iterable[SizeUse]) -> dict[Attribute, SizeUse]:
    """For attributes the use that determines them, as `prunegraph.dependency.size_uses.solve` goes through them.

    The others that one reads are determined by earlier uses, or keep the values that they have.
    """
    found: dict[Attribute, SizeUse | None] = {}
    for use, read in simplest_first(uses):
        unknown = [attribute for attribute in read if attribute not in found]
        determined = next((attribute for attribute in unknown if _can_tell(use, attribute)), None)
        found |= {attribute: use if attribute == determined else None for attribute in unknown}
    return {attribute: use for attribute, use in found.items() if use is not None}


def _can_tell(use: SizeUse, attribute: Attribute) -> bool:
    """Whether the use gives the attribute the value that it has; rounding may have lost it."""
    value = unrounded(use.expression, use.size, attribute, recorded_value)
    return value is not None and bool(np.isclose(value, attribute.value))
