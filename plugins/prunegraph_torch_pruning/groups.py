"""A channel group in the terms of torch-pruning."""

from collections.abc import Iterator

import numpy as np
import torch_pruning
from numpy.typing import NDArray

from prunegraph.ir.channels import ChannelGroup, Member
from prunegraph_torch_pruning.layers import Layers, Side


def as_group(group: ChannelGroup, layers: Layers) -> torch_pruning.Group:
    """The group with one entry per side of a layer, the layer that makes the channels first.

    An entry lists indices along that side and, for each, the channel that it belongs to. Several rows of an output that
    belong to one channel, such as the gates of a recurrent unit, are entries of their own. So is everything in the
    first entry, by which torch-pruning takes the number of channels. A group of nothing that torch-pruning knows is
    empty.
    """
    made = torch_pruning.Group()
    for member in sorted(group.members, key=lambda member: not _makes(member, group)):
        side = layers.side(member)
        if side is not None:
            for indices in _parts(member, whole=len(made) > 0 and not side.is_output):
                _add(made, side, indices)
    return made


def _makes(member: Member, group: ChannelGroup) -> bool:
    return group.name.partition("#")[0] == f"{member.tensor}[{member.dim}]"


def _parts(member: Member, whole: bool) -> Iterator[NDArray[np.int64]]:
    """The indices, shape ``(width, multiplicity)``, as a whole or column by column."""
    if whole:
        yield member.indices
    else:
        yield from np.split(member.indices, member.indices.shape[1], axis=1)


def _add(made: torch_pruning.Group, side: Side, indices: NDArray[np.int64]) -> None:
    node = torch_pruning.Node(side.layer, None)
    function = side.pruning_function
    channels = np.repeat(np.arange(len(indices)), indices.shape[1])
    # Ascending, since some importances sort the indices without the channels that they belong to.
    order = np.argsort(indices, axis=None, kind="stable")
    made.add_dep(torch_pruning.Dependency(function, function, node, node), indices.reshape(-1)[order].tolist())
    made[-1].root_idxs = channels[order].tolist()
