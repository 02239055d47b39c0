"""What runs of the network other than the recorded one tell: which channels come and go together, and why some stay.

The record is that of a run in eval mode, with whatever earlier runs left in the network. A second one, in training
mode, tells of the tensors that the first does not read, such as heads for auxiliary losses: they shrink with what they
read. A third one, without what earlier runs left, tells of all: where a cache is made anew, its channels must follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunegraph.dependency.label_space import LabelSpace, LockedAtoms, Place, SizeUse
from prunegraph.ir.sizes import Attribute, ShapeOf, attributes, leaves
from prunegraph.ir.trace import Trace
from prunegraph.rules.base import Atoms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OtherRun:
    """Couplings of another run; atoms of tensors are the same in every run.

    Attributes:
        tensors: names of the parameters and buffers of which it tells what comes and goes together.
        locks: names of those of which it also tells what stays; what it returns keeps its shape in any case.
        components: for each atom of that run the number of the set of atoms that it comes and goes with.
        locked: what stays there.
        uses: sizes that are given there.
        turned: places where another way than the likeliest was taken, which is to be tried in all runs.
        asks_for_batch: whether its code compares the first dimension of a tensor, in which batches go, with a size.
    """

    tensors: frozenset[str]
    locks: frozenset[str]
    components: Atoms
    locked: Sequence[LockedAtoms]
    uses: Sequence[SizeUse]
    turned: Mapping[Place, int]
    asks_for_batch: bool

    @classmethod
    def of(
        cls, space: LabelSpace, turned: Mapping[Place, int], tensors: frozenset[str], locks: frozenset[str]
    ) -> "OtherRun":
        """What the labels of the other run's record say of these tensors."""
        return cls(
            tensors=tensors,
            locks=locks,
            components=space.components(),
            locked=space.locked,
            uses=space.uses,
            turned=turned,
            asks_for_batch=_asks_for_batch(space.trace),
        )

    def join(self, space: LabelSpace) -> None:
        """Couples and locks the atoms of these tensors as they are there."""
        added, lockable = _atoms(space, self.tensors), _atoms(space, self.locks)
        for item in self.locked:
            candidates = added if item.lock.op == "output" else lockable
            stays = np.isin(self.components[candidates], self.components[item.atoms])
            space.lock_at(candidates[stays], item.lock, is_channel=item.is_channel)
        atoms = np.concatenate([added, _atoms(space, read_by(space.trace))])
        atoms = atoms[np.isin(self.components[atoms], self.components[added])]
        atoms = atoms[np.argsort(self.components[atoms], kind="stable")]
        together = self.components[atoms[:-1]] == self.components[atoms[1:]]
        space.unite(atoms[:-1][together], atoms[1:][together])
        known = {attribute for use in space.uses for attribute in attributes(use.expression)}
        of_component = dict(zip(self.components[atoms].tolist(), atoms.tolist(), strict=True))
        for use in self.uses:
            counted = self._counted(use, of_component)
            read = list(leaves(use.expression))
            if counted is not None and all(isinstance(leaf, Attribute) and leaf not in known for leaf in read):
                space.uses.append(replace(use, atoms=counted))

    def _counted(self, use: SizeUse, of_component: Mapping[int, int]) -> Atoms | None:
        """Atoms of tensors that come and go with those that the size counts; None where there are none."""
        if use.atoms is None:
            return None
        found = [of_component.get(number, -1) for number in self.components[use.atoms].tolist()]
        return None if -1 in found else np.array(found, np.int64)


def read_in_training(trace: Trace, training: Trace) -> frozenset[str]:
    """Names of the tensors that only the run in training mode reads."""
    return read_by(training) - read_by(trace)


def unread(trace: Trace) -> frozenset[str]:
    """Names of the parameters and buffers with channels that a run does not read, such as averages of a codebook."""
    specs = (spec for spec in trace.tensors.values() if spec.name in trace.unused)
    return frozenset(spec.name for spec in specs if (spec.is_parameter or spec.is_lasting) and spec.shape)


def read_by(trace: Trace) -> frozenset[str]:
    """Names of the tensors that a run reads."""
    return frozenset(spec.name for spec in trace.tensors.values()) - trace.unused


def with_tensors(trace: Trace, names: frozenset[str]) -> Trace:
    """The record in which these tensors count as read."""
    return replace(trace, unused=trace.unused - names)


def _atoms(space: LabelSpace, names: frozenset[str]) -> Atoms:
    labels = [atoms for name in sorted(names) for atoms in space.tensor_labels[name] if atoms is not None]
    return np.concatenate([np.empty(0, np.int64), *labels])


def _asks_for_batch(trace: Trace) -> bool:
    sides = (side for comparison in trace.comparisons for side in (comparison.left, comparison.right))
    return any(isinstance(leaf, ShapeOf) and leaf.dim == 0 for side in sides for leaf in leaves(side))
