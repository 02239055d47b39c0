"""What only training reads, such as heads for auxiliary losses: it shrinks with what it reads.

The record of the network is that of a run in eval mode. A second one, in training mode, tells only of the tensors
that the first does not read: which channels theirs come and go with, and why they stay.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunegraph.dependency.label_space import LabelSpace, LockedAtoms, SizeUse
from prunegraph.ir.sizes import Attribute, attributes, leaves
from prunegraph.ir.trace import Trace
from prunegraph.rules.base import Atoms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingLinks:
    """Couplings of a run in training mode; atoms of tensors are the same in every run.

    Attributes:
        tensors: names of the parameters and buffers that only training reads.
        components: for each atom of that run the number of the set of atoms that it comes and goes with.
        locked: what stays there.
        uses: sizes that are given there.
    """

    tensors: frozenset[str]
    components: Atoms
    locked: Sequence[LockedAtoms]
    uses: Sequence[SizeUse]

    def join(self, space: LabelSpace) -> None:
        """Couples and locks the atoms of the tensors that only training reads as they are there."""
        added = _atoms(space, self.tensors)
        for item in self.locked:
            stays = np.isin(self.components[added], self.components[item.atoms])
            space.lock_at(added[stays], item.lock, is_channel=item.is_channel)
        atoms = np.concatenate([added, _atoms(space, _names_in_use(space.trace))])
        atoms = atoms[np.isin(self.components[atoms], self.components[added])]
        atoms = atoms[np.argsort(self.components[atoms], kind="stable")]
        together = self.components[atoms[:-1]] == self.components[atoms[1:]]
        space.unite(atoms[:-1][together], atoms[1:][together])
        known = {attribute for use in space.uses for attribute in attributes(use.expression)}
        space.uses.extend(use for use in self.uses if self._is_new(use, known, space))

    def _is_new(self, use: SizeUse, known: Collection[Attribute], space: LabelSpace) -> bool:
        """Whether an attribute that only training reads counts atoms of tensors."""
        read = list(leaves(use.expression))
        counts = use.atoms is not None and bool((use.atoms < space.tensor_atoms).all())
        return counts and all(isinstance(leaf, Attribute) and leaf not in known for leaf in read)


def read_in_training(trace: Trace, training: Trace) -> frozenset[str]:
    """Names of the parameters and buffers that only the run in training mode reads."""
    return unread(trace) - training.unused


def unread(trace: Trace) -> frozenset[str]:
    """Names of the parameters and buffers with channels that a run does not read, such as averages of a codebook."""
    specs = (spec for spec in trace.tensors.values() if spec.name in trace.unused)
    return frozenset(spec.name for spec in specs if (spec.is_parameter or spec.is_lasting) and spec.shape)


def with_tensors(trace: Trace, names: frozenset[str]) -> Trace:
    """The record in which these tensors count as read."""
    return replace(trace, unused=trace.unused - names)


def _names_in_use(trace: Trace) -> frozenset[str]:
    return frozenset(spec.name for spec in trace.tensors.values()) - trace.unused


def _atoms(space: LabelSpace, names: frozenset[str]) -> Atoms:
    labels = [atoms for name in sorted(names) for atoms in space.tensor_labels[name] if atoms is not None]
    return np.concatenate([np.empty(0, np.int64), *labels])
