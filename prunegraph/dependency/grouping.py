"""From coupled atoms to channel groups and locked groups."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunegraph.dependency.label_space import CONVERSION, LabelSpace, conversion_lock
from prunegraph.ir.channels import ChannelGroup, Lock, LockedGroup, Member
from prunegraph.ir.sizes import attributes
from prunegraph.ir.trace import Site
from prunegraph.rules.base import Atoms

_MAX_LOCKS = 8
_PIECE = ""
"""In the place of a tensor's name: a value cut out of another, whose channels form groups of their own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouping:
    """Channel groups, and where each atom belongs.

    Attributes:
        groups: prunable groups in the order of the network's tensors.
        locked: coupled channels that must stay, except what nobody would call a channel (kernel taps).
        channel_of: for each atom the number of its channel, counted over all groups; -1 for what always stays.
    """

    groups: tuple[ChannelGroup, ...]
    locked: tuple[LockedGroup, ...]
    channel_of: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Family:
    """Components that touch the same tensor dimensions equally often."""

    members: tuple[Member, ...]
    components: Atoms


def group_channels(space: LabelSpace) -> Grouping:
    """Connected atoms that touch the same tensor dimensions equally often form one group of parallel channels."""
    components = space.components()
    stays = np.zeros(space.count, bool)
    for item in space.locked:
        stays[components[item.atoms]] = True
    families = [family for family in _families(tabulate(space, components, stays)) if family.members]
    prunable = [f for f in families if not stays[f.components[0]] and len(f.components) > 1]
    channel_of_component = np.full(space.count, -1, np.int64)
    groups: list[ChannelGroup] = []
    ranks = {spec.name: len(spec.shape) for spec in space.trace.tensors.values()}
    count = 0
    for family in prunable:
        width = len(family.components)
        channel_of_component[family.components] = np.arange(count, count + width)
        groups.append(_channel_group(family, ranks, groups))
        count += width
    locked = _locked_groups(space, components, [f for f in families if f not in prunable])
    return Grouping(groups=tuple(groups), locked=tuple(locked), channel_of=channel_of_component[components])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComponentTable:
    """Which indices of which tensor dimensions each component touches; rows are sorted by component.

    Attributes:
        dims: the labelled tensor dimensions, and the pieces that are values of their own: name, dimension, atoms.
        number: for each row its place in ``dims``.
        index: for each row the index along that dimension.
        ids: the components, ascending.
        starts: for each component its first row.
        lengths: for each component the number of its rows.
        first: for each component the place of its first index in the order of the network's tensors.
        family: for each component the number of the set of components that touch the same dimensions equally often.
    """

    dims: tuple[tuple[str, int, Atoms], ...]
    number: Atoms
    index: Atoms
    ids: Atoms
    starts: Atoms
    lengths: Atoms
    first: Atoms
    family: Atoms


def tabulate(space: LabelSpace, components: Atoms, stays: NDArray[np.bool_]) -> ComponentTable:
    """Sorts every (component, tensor dimension, index); components that stay form families of their own."""
    dims = tuple(
        (spec.name, dim, atoms)
        for spec in space.trace.tensors.values()
        if spec.name not in space.trace.unused
        for dim, atoms in enumerate(space.tensor_labels[spec.name])
        if atoms is not None
    ) + tuple((_PIECE, 0, atoms) for atoms in space.pieces)
    empty = np.empty(0, np.int64)
    component = components[np.concatenate([empty, *(atoms for _, _, atoms in dims)])]
    number = np.repeat(np.arange(len(dims)), [len(atoms) for _, _, atoms in dims])
    index = np.concatenate([empty, *(np.arange(len(atoms)) for _, _, atoms in dims)])
    order = np.argsort(component, kind="stable")  # rows are in the order of the dimensions and indices already
    ids, starts, lengths = np.unique(component[order], return_index=True, return_counts=True)
    signatures = _signatures(number[order], starts, stays[ids], len(dims))
    return ComponentTable(
        dims=dims,
        number=number[order],
        index=index[order],
        ids=ids,
        starts=starts,
        lengths=lengths,
        first=np.minimum.reduceat(order, starts) if len(ids) else empty,
        family=np.unique(signatures, return_inverse=True)[1],
    )


def _families(table: ComponentTable) -> Iterator[_Family]:
    """Gathers the components of each family, in the order of the network's tensors."""
    by_family = np.lexsort((table.first, table.family))
    parts = np.split(by_family, np.flatnonzero(np.diff(table.family[by_family])) + 1) if len(by_family) else []
    for part in sorted(parts, key=lambda part: int(table.first[part[0]])):
        rows = table.starts[part][:, None] + np.arange(table.lengths[part[0]])
        yield _Family(members=_members(table.dims, table.number[rows], table.index[rows]), components=table.ids[part])


def _signatures(number: Atoms, starts: Atoms, stays: NDArray[np.bool_], count: int) -> NDArray[np.uint64]:
    """A hash of which dimensions each component touches, how often, and if it stays: a sum of 64-bit random numbers."""
    if not len(starts):
        return np.empty(0, np.uint64)
    random = np.random.default_rng(0).integers(0, 2**63, count + 1, dtype=np.uint64)
    return np.asarray(np.add.reduceat(random[number], starts) + random[count] * stays, np.uint64)


def _members(dims: Sequence[tuple[str, int, Atoms]], number: Atoms, index: Atoms) -> tuple[Member, ...]:
    """``number`` and ``index`` have one row per channel, with the same dimension numbers in each."""
    cuts = np.flatnonzero(np.diff(number[0])) + 1
    columns = zip(np.split(number[0], cuts), np.split(index, cuts, axis=1), strict=True)
    return tuple(
        Member(tensor=dims[n[0]][0], dim=dims[n[0]][1], indices=indices)
        for n, indices in columns
        if dims[n[0]][0] != _PIECE
    )


def _channel_group(family: _Family, ranks: Mapping[str, int], earlier: Sequence[ChannelGroup]) -> ChannelGroup:
    members = family.members
    producer = next((m for m in members if m.dim == 0 and ranks[m.tensor] > 1), members[0])
    name = f"{producer.tensor}[{producer.dim}]"
    same = sum(group.name.partition("#")[0] == name for group in earlier)
    return ChannelGroup(
        name=f"{name}#{same + 1}" if same else name,
        width=len(family.components),
        members=members,
        module=producer.tensor.rpartition(".")[0],
    )


def _locked_groups(space: LabelSpace, components: Atoms, families: Sequence[_Family]) -> Iterator[LockedGroup]:
    family_of = np.full(space.count, -1, np.int64)
    for number, family in enumerate(families):
        family_of[family.components] = number
    reasons: list[dict[Lock, None]] = [{} for _ in families]
    structural = np.zeros(space.count, bool)
    for item in space.locked:
        touched = components[item.atoms]
        if item.is_channel:
            numbers = np.unique(family_of[touched])
            for number in numbers[numbers >= 0].tolist():  # what touches no tensor is in no family
                reasons[number][item.lock] = None
        else:
            structural[touched] = True
    hints = [conversion_lock(use) for use in space.uses if use.op == CONVERSION and attributes(use.expression)]
    for family, locks in zip(families, reasons, strict=True):
        if not locks and structural[family.components].all():
            continue
        yield LockedGroup(
            name=f"{family.members[0].tensor}[{family.members[0].dim}]",
            width=len(family.components),
            members=family.members,
            locks=(tuple(locks) or (_one_channel(family), *hints))[:_MAX_LOCKS],
        )


def _one_channel(family: _Family) -> Lock:
    module = family.members[0].tensor.rpartition(".")[0]
    return Lock(reason="all indices are coupled: there is only one channel", op="coupling", site=Site(module=module))
