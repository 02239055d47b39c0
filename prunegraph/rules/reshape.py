"""Views and reshapes: dimensions that are merged and split, and which axis of a split stays prunable."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from prunegraph.ir.sizes import Attribute, Derived, Expression, ShapeOf, is_open, leaves
from prunegraph.rules.base import Atoms, Call, Labels, Rule

aten = torch.ops.aten

_IN_CODE = 2
"""How rigid a size is that is written in the code."""


class Reshape(Rule):
    """``view``, ``reshape``, ``flatten``, ``unflatten``: sizes are matched block by block.

    Merging a labelled dimension with a fixed one repeats its atoms. Splitting a labelled dimension leaves one of the
    new axes prunable: the one along which the atoms already vary alone, else the one whose size the code can give up
    most easily, else the larger, else another one; the atoms along the other axes are united.
    """

    def __init__(self, sizes: str | None = None) -> None:
        self.sizes = sizes

    def labels(self, call: Call) -> Labels:
        out: list[Atoms | None] = [None] * len(call.output_shape)
        before, after = call.shape("self"), call.output_shape
        if 0 in before:
            return tuple(out)
        for into, outof in matching_blocks(before, after):
            self._pass_block(call, into, outof, out)
        for dim, atoms in enumerate(out):
            origin = self._origin(call, dim)
            if not _is_left_over(origin):
                call.sink.require_size(origin, atoms, after[dim], call.node)
        return tuple(out)

    def _pass_block(self, call: Call, into: list[int], outof: list[int], out: list[Atoms | None]) -> None:
        labels = call.labels("self")
        if all(labels[dim] is None for dim in into) or not outof:
            return
        atoms = self._merged(call, into)
        if len(outof) == 1:
            out[outof[0]] = atoms
            return
        table = atoms.reshape([call.output_shape[dim] for dim in outof])
        axis = self._prunable_axis(call, table, outof)
        rows = _along(table, axis)
        call.sink.unite(np.tile(rows[0], len(rows) - 1), rows[1:].reshape(-1))
        out[outof[axis]] = rows[0]

    def _merged(self, call: Call, into: list[int]) -> Atoms:
        """Atoms of the merged dimensions; at most one of them can vary, the others are locked."""
        shape = call.shape("self")
        labelled = {dim: atoms for dim in into if (atoms := call.labels("self")[dim]) is not None}
        ways = sorted(labelled, key=lambda dim: -_distinct(labelled[dim]))
        varying = ways[self._choose(call, f"merged {into[0]}", [labelled[dim] for dim in ways])]
        for dim in ways:
            if dim != varying:
                call.lock(labelled[dim], "flattened with another channel dimension; only one of the two can shrink")
        view = [shape[dim] if dim == varying else 1 for dim in into]
        return np.broadcast_to(labelled[varying].reshape(view), [shape[dim] for dim in into]).reshape(-1)

    def _prunable_axis(self, call: Call, table: Atoms, outof: list[int]) -> int:
        varying = [axis for axis in range(table.ndim) if (table != table.take([0], axis=axis)).any()]
        candidates = varying or list(range(table.ndim))
        rigidity = {axis: self._rigidity(call, outof[axis]) for axis in candidates}
        ways = sorted(candidates, key=lambda axis: (rigidity[axis], -_distinct(_along(table, axis)[0])))
        open_ways = [axis for axis in ways if rigidity[axis] < _IN_CODE]
        if not open_ways:
            return ways[0]
        return open_ways[self._choose(call, f"split {outof[0]}", [_along(table, axis)[0] for axis in open_ways])]

    def _choose(self, call: Call, question: str, ways: Sequence[Atoms]) -> int:
        return call.sink.choose(call.node, question, ways) if len(ways) > 1 else 0

    def _rigidity(self, call: Call, dim: int) -> int:
        """0: the size follows by itself; 1: an attribute must change; ``_IN_CODE``: it cannot."""
        origin = self._origin(call, dim)
        if _is_left_over(origin) or _reads_labelled_shape(call, origin):
            return 0
        return 1 if any(isinstance(leaf, Attribute) for leaf in leaves(origin)) else _IN_CODE

    def _origin(self, call: Call, dim: int) -> Expression:
        if self.sizes is None or not isinstance(call.get(self.sizes), list | tuple):
            return Derived()
        sizes = call[self.sizes]
        index = dim - self._offset(call)
        return call.origin(self.sizes, index) if 0 <= index < len(sizes) else Derived()

    def _offset(self, call: Call) -> int:
        """Where the listed sizes begin: ``unflatten`` lists those of one dimension only."""
        return int(call["dim"]) % len(call.shape("self")) if "dim" in call.arguments else 0


class ReshapeAs(Reshape):
    """``view_as(other)``, ``reshape_as(other)``: the sizes are those of the other operand."""

    def _origin(self, call: Call, dim: int) -> Expression:
        return ShapeOf(call["other"].name, dim, call.shape("other")[dim])


class ViewAsType(Rule):
    """``view(dtype)``: the memory read as other numbers, of which the last dimension may hold more or fewer."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        if call.output_shape == call.shape("self"):
            return labels
        call.lock(labels[-1], "numbers are put together or taken apart along this dimension")
        return (*labels[:-1], None)


class AsStrided(Rule):
    """``as_strided``: the dimensions in front pass, up to the first that the memory is read by in another way.

    Windows along the last dimensions are such another way; those in front are told by their strides in a tensor
    without gaps. Whatever stands behind must not reach into the next index of what passes.
    """

    def labels(self, call: Call) -> Labels:
        labels, shape = call.labels("self"), call.shape("self")
        sizes, strides = call["size"], call["stride"]
        passed = 0
        if not call.get("storage_offset"):
            same = [(n, prod(shape[dim + 1 :])) for dim, n in enumerate(shape)]
            pairs = zip(zip(sizes, strides, strict=True), same, strict=False)
            passed = next((dim for dim, (a, b) in enumerate(pairs) if a != b), min(len(sizes), len(shape)))
        while passed and _reach(sizes[passed:], strides[passed:]) > prod(shape[passed:]):
            passed -= 1
        call.lock_all(labels[passed:], "windows over the memory of this dimension")
        for dim, atoms in enumerate(labels[:passed]):
            call.require_size("size", dim, atoms, sizes[dim])
        return (*labels[:passed], *(None,) * (len(sizes) - passed))


def _reach(sizes: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements of the memory dimensions span."""
    return 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))


def _is_left_over(size: Expression) -> bool:
    """A size that follows from the others: none is given, or -1 is, in the code or by an attribute."""
    return size == Derived() or is_open(size)


def _along(table: Atoms, axis: int) -> Atoms:
    """The table as rows that run along one axis."""
    return np.moveaxis(table, axis, -1).reshape(-1, table.shape[axis])


def _distinct(atoms: Atoms) -> int:
    """How many there are: where channels are merged with the batch, each stands for every example."""
    return len(np.unique(atoms))


def _reads_labelled_shape(call: Call, origin: Expression) -> bool:
    for leaf in leaves(origin):
        known = call.known.get(leaf.node) if isinstance(leaf, ShapeOf) else None
        if isinstance(leaf, ShapeOf) and known is not None and known[leaf.dim] is not None:
            return True
    return False


def matching_blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pairs the smallest runs of dimensions with equal products; dimensions of size 1 are left out.

    >>> list(matching_blocks((2, 12, 5), (2, 3, 4, 5)))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    left = [dim for dim, size in enumerate(before) if size != 1]
    right = [dim for dim, size in enumerate(after) if size != 1]
    while left and right:
        into, outof = [left.pop(0)], [right.pop(0)]
        while (m := prod(before[d] for d in into)) != (n := prod(after[d] for d in outof)):
            if m < n:
                into.append(left.pop(0))
            else:
                outof.append(right.pop(0))
        yield into, outof


RULES: dict[Any, Rule] = {
    aten.view: Reshape("size"),
    aten.reshape: Reshape("shape"),
    aten._unsafe_view: Reshape("size"),
    aten._reshape_alias: Reshape("size"),
    aten.unflatten: Reshape("sizes"),
    aten.flatten: Reshape(),
    aten.ravel: Reshape(),
    aten.squeeze: Reshape(),
    aten.unsqueeze: Reshape(),
    aten.view.dtype: ViewAsType(),
    aten.as_strided: AsStrided(),
    aten.view_as: ReshapeAs(),
    aten.reshape_as: ReshapeAs(),
    aten.atleast_1d: Reshape(),
    aten.atleast_2d: Reshape(),
    aten.atleast_3d: Reshape(),
}
