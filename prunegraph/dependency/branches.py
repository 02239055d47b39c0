"""Comparisons of sizes: a choice of channels for which one comes out otherwise would turn a branch.

``y + (x if x.shape[1] == y.shape[1] else self.project(x))`` was recorded with its projection. Were both sides pruned to
the same width, the pruned network would leave the projection out and compute something else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunegraph.dependency.label_space import SizeUse
from prunegraph.ir.sizes import RELATIONS, Attribute, Leaf, Number, evaluate, leaves
from prunegraph.ir.trace import Comparison, Site, Trace
from prunegraph.rules.base import Atoms, Labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch:
    """Two sizes whose comparison must come out as it did.

    Attributes:
        comparison: the sizes, and how they compare.
        atoms: the indices that either size counts.
        site: the line that compares them.
    """

    comparison: Comparison
    atoms: Atoms
    site: Site

    @property
    def is_of_order(self) -> bool:
        """Whether it asks which size is greater; otherwise the sizes must remain unequal."""
        return self.comparison.relation != "=="

    def turns(self, value_of: Callable[[Leaf], Number]) -> bool:
        """Whether the comparison comes out otherwise when each leaf has the value that ``value_of`` gives."""
        compared = self.comparison
        try:
            left, right = evaluate(compared.left, value_of), evaluate(compared.right, value_of)
        except ArithmeticError:
            return False
        return RELATIONS[compared.relation](left, right) != compared.outcome


def find_branches(trace: Trace, uses: Sequence[SizeUse], labels: Mapping[str, Labels]) -> tuple[Branch, ...]:
    """The comparisons that a choice of channels could turn."""
    counted = _counted_by_attribute(uses)
    found = []
    for comparison, site in trace.comparisons.items():
        atoms = list(_atoms(comparison, counted, labels))
        if not comparison.found_equal and atoms:
            found.append(Branch(comparison=comparison, atoms=np.concatenate(atoms), site=site))
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
