"""Rows of tables that one run leaves out and another may read, such as those of positional encodings."""

import numpy as np
from numpy.typing import NDArray

from prunegraph.dependency.grouping import tabulate
from prunegraph.dependency.label_space import LabelSpace
from prunegraph.rules.base import Atoms


def lock_unread(space: LabelSpace) -> None:
    """Locks the indices that a cut leaves out and that no other tensor or value shares: nothing else would keep them.

    ``self.pe[:, : x.shape[1]]`` reads as many rows as the input is long. The others meet nothing in this run, and
    without them a longer input would read rows that belong to other positions.
    """
    components = space.components()
    alone = _alone(space, components)
    for item in space.left_out:
        space.lock_at(item.atoms[alone[item.atoms]], item.lock, is_channel=item.is_channel)


def _alone(space: LabelSpace, components: Atoms) -> NDArray[np.bool_]:
    """For each atom whether what it comes and goes with belongs to one tensor only."""
    table = tabulate(space, components, np.zeros(space.count, bool))
    names = [name for name, _, _ in table.dims]
    tensor = np.array([names.index(name) for name in names], np.int64)[table.number]
    alone = np.zeros(space.count, bool)
    if len(table.ids):
        lowest, highest = (of.reduceat(tensor, table.starts) for of in (np.minimum, np.maximum))
        alone[table.ids] = (lowest == highest) & np.array([bool(name) for name in names])[lowest]
    return alone[components]
