"""What one run leaves out and another may read, such as rows of positional encodings."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from prunegraph.dependency.grouping import tabulate
from prunegraph.dependency.label_space import LabelSpace
from prunegraph.ir.sizes import ShapeOf
from prunegraph.rules.base import Atoms, Labels


def lock_unread(space: LabelSpace, labels: Mapping[str, Labels]) -> None:
    """Locks indices that a cut leaves out at a limit that depends on the input, and those that nothing else touches.

    ``self.pe[:, : x.shape[1]]`` reads as many rows as the input is long. The others may meet nothing in this run, and
    without them a longer input would read rows that belong to other positions.
    """
    components = space.components()
    alone, is_fixed = _alone(space, components), _fixed_sizes(space, components, labels)
    for item in space.left_out:
        varies = any(map(is_fixed, item.limits))
        space.lock_at(item.atoms if varies else item.atoms[alone[item.atoms]], item.lock)


def _alone(space: LabelSpace, components: Atoms) -> NDArray[np.bool_]:
    """For each atom whether what it comes and goes with belongs to one tensor only, and to no value cut out of it."""
    table = tabulate(space, components, np.zeros(space.count, bool))
    names = [name for name, _, _ in table.dims]
    tensor = np.array([names.index(name) for name in names], np.int64)[table.number]
    alone = np.zeros(space.count, bool)
    if len(table.ids):
        lowest, highest = (of.reduceat(tensor, table.starts) for of in (np.minimum, np.maximum))
        alone[table.ids] = (lowest == highest) & np.array([bool(name) for name in names])[lowest]
    return alone[components]


def _fixed_sizes(space: LabelSpace, components: Atoms, labels: Mapping[str, Labels]) -> Callable[[ShapeOf], bool]:
    """Tells of a size whether no plan changes it, and inputs may: it counts something else than channels.

    That of a whole dimension of a tensor is the same for all inputs.
    """
    stays = np.zeros(space.count, bool)
    for item in space.locked:
        stays[components[item.atoms]] = True
    whole = {atoms.tobytes() for dims in space.tensor_labels.values() for atoms in dims if atoms is not None}

    def is_fixed(size: ShapeOf) -> bool:
        known = labels.get(size.node)
        atoms = None if known is None else known[size.dim]
        return atoms is None or (bool(stays[components[atoms]].all()) and atoms.tobytes() not in whole)

    return is_fixed
