"""Comparisons of sizes that came out unequal: a choice of channels that makes them equal would turn a branch.

``y + (x if x.shape[1] == y.shape[1] else self.project(x))`` was recorded with its projection. Were both sides pruned to
the same width, the pruned network would leave the projection out and compute something else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunegraph.dependency.label_space import SizeUse
from prunegraph.ir.sizes import Attribute, Expression, Leaf, Number, evaluate, leaves
from prunegraph.ir.trace import Comparison, Site, Trace
from prunegraph.rules.base import Atoms, Labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch:
    """Two sizes that must remain unequal.

    Attributes:
        left: one size.
        right: the other.
        atoms: the indices that either size counts.
        site: the line that compares them.
    """

    left: Expression
    right: Expression
    atoms: Atoms
    site: Site

    def turns(self, value_of: Callable[[Leaf], Number]) -> bool:
        """Whether the sizes become equal when each leaf has the value that ``value_of`` gives."""
        try:
            return evaluate(self.left, value_of) == evaluate(self.right, value_of)
        except ArithmeticError:
            return False


def find_branches(trace: Trace, uses: Sequence[SizeUse], labels: Mapping[str, Labels]) -> tuple[Branch, ...]:
    """The comparisons that a choice of channels could turn."""
    counted = _counted_by_attribute(uses)
    found = []
    for comparison, site in trace.comparisons.items():
        atoms = list(_atoms(comparison, counted, labels))
        if not comparison.equal and atoms:
            found.append(Branch(left=comparison.left, right=comparison.right, atoms=np.concatenate(atoms), site=site))
    return tuple(found)


def _counted_by_attribute(uses: Iterable[SizeUse]) -> dict[Attribute, list[Atoms]]:
    found: dict[Attribute, list[Atoms]] = {}
    for use in uses:
        for leaf in leaves(use.expression):
            if isinstance(leaf, Attribute) and use.atoms is not None:
                found.setdefault(leaf, []).append(use.atoms)
    return found


def _atoms(
    comparison: Comparison, counted: Mapping[Attribute, list[Atoms]], labels: Mapping[str, Labels]
) -> Iterator[Atoms]:
    for leaf in (*leaves(comparison.left), *leaves(comparison.right)):
        if isinstance(leaf, Attribute):
            yield from counted.get(leaf, [])
        elif (known := labels.get(leaf.node)) is not None and (atoms := known[leaf.dim]) is not None:
            yield atoms
