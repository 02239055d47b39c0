"""Ops that move indices about: permute, concatenate, expand, repeat, pad."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx

from prunegraph.ir.sizes import Derived
from prunegraph.rules.base import Atoms, Call, Labels, Rule, dims_of, replace_dim
from prunegraph.rules.creation import created
from prunegraph.rules.locking import fixed_numbers
from prunegraph.rules.pointwise import FIXED_SIZE, broadcast

aten = torch.ops.aten


class Permute(Rule):
    """Reorders dimensions; ``order`` gives the input dimension of each output dimension."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        return tuple(labels[dim] for dim in self.order(call, len(labels)))

    def order(self, call: Call, rank: int) -> Sequence[int]:
        """``permute(dims)``."""
        return dims_of(call["dims"], rank)


class Transpose(Permute):
    """Swaps two dimensions."""

    def __init__(self, first: str | int = "dim0", second: str | int = "dim1") -> None:
        self.first, self.second = first, second

    def order(self, call: Call, rank: int) -> Sequence[int]:
        order = list(range(rank))
        if rank < 2:
            return order
        pair = [call[name] if isinstance(name, str) else name for name in (self.first, self.second)]
        a, b = (int(dim) % rank for dim in pair)
        order[a], order[b] = b, a
        return order


class Reverse(Permute):
    """All dimensions in reverse order: ``x.T`` of any rank, ``numpy_T``."""

    def order(self, call: Call, rank: int) -> Sequence[int]:
        return range(rank - 1, -1, -1)


class MoveAxis(Permute):
    """``movedim(source, destination)``."""

    def order(self, call: Call, rank: int) -> Sequence[int]:
        source, destination = dims_of(call["source"], rank), dims_of(call["destination"], rank)
        order = [dim for dim in range(rank) if dim not in source]
        for place, dim in sorted(zip(destination, source, strict=True)):
            order.insert(place, dim)
        return order


_Sides: TypeAlias = list[tuple[int, Atoms | None]]
"""Size and atoms of each dimension."""


class Cat(Rule):
    """Concatenation: the atoms of the operands one after the other; the other dimensions are matched."""

    def labels(self, call: Call) -> Labels:
        operands = [self.sides(call, node) for node in call["tensors"] if call.shape(node) != (0,)]
        rank = len(call.output_shape)
        if not operands:
            return (None,) * rank
        dim = self.dim(call, rank)
        out = [atoms for _, atoms in operands[0]]
        for operand in operands[1:]:
            for other in set(range(rank)) - {dim}:
                out[other] = call.match(out[other], operand[other][1], FIXED_SIZE)
        out[dim] = self._joined(call, [operand[dim] for operand in operands])
        return tuple(out)

    def sides(self, call: Call, operand: fx.Node) -> _Sides:
        """The dimensions of an operand as it is joined."""
        return list(zip(call.shape(operand), call.labels(operand), strict=True))

    def dim(self, call: Call, rank: int) -> int:
        """The dimension along which the operands are joined."""
        return int(call.get("dim", call.get("axis", 0))) % rank

    def _joined(self, call: Call, parts: _Sides) -> Atoms | None:
        if all(atoms is None for _, atoms in parts):
            return None
        return np.concatenate([_or_fixed(call, atoms, size) for size, atoms in parts])


class Stacked(Cat):
    """``hstack``, ``vstack``, ``dstack``, ``column_stack``: concatenation of operands of at least some rank.

    Args:
        along: the dimension along which they are joined, the last one where there are fewer.
        rank: the least rank; dimensions of size 1 are added behind.
        as_row: whether one is added before a vector, too.
    """

    def __init__(self, along: int, rank: int = 1, as_row: bool = False) -> None:
        self.along, self.rank, self.as_row = along, rank, as_row

    def sides(self, call: Call, operand: fx.Node) -> _Sides:
        sides = super().sides(call, operand)
        row: _Sides = [(1, None)] * (self.as_row and len(sides) == 1)
        behind: _Sides = [(1, None)] * (self.rank - len(row) - len(sides))
        return row + sides + behind

    def dim(self, call: Call, rank: int) -> int:
        return min(self.along, rank - 1)


def _or_fixed(call: Call, atoms: Atoms | None, size: int) -> Atoms:
    """The atoms, or ones that always stay."""
    if atoms is not None:
        return atoms
    fixed = call.sink.fresh(size)
    call.lock(fixed, "part of a fixed size", is_channel=False)
    return fixed


class Stack(Rule):
    """Stacks operands of equal shape along a new dimension."""

    def labels(self, call: Call) -> Labels:
        united = broadcast(call, call["tensors"])
        dim = int(call.get("dim", 0)) % (len(united) + 1)
        return (*united[:dim], None, *united[dim:])


class Expand(Rule):
    """Repeats dimensions of size 1 by views: they become as wide as the code asks for."""

    def labels(self, call: Call) -> Labels:
        before, labels, after = call.shape("self"), call.labels("self"), call.output_shape
        new = len(after) - len(before)
        return tuple(
            self._dim(call, d, before[d - new] if d >= new else 1, labels[d - new] if d >= new else None)
            for d in range(len(after))
        )

    def _dim(self, call: Call, dim: int, size: int, atoms: Atoms | None) -> Atoms | None:
        wanted = call.output_shape[dim]
        if size != 1:
            if call.origin("size", dim) != Derived():  # else torch asks for the size that it finds
                call.require_size("size", dim, atoms, wanted)
            return atoms
        return created(call, "size", dim, wanted)


class ExpandAs(Rule):
    """``expand_as(other)``: takes the other operand's channels."""

    def labels(self, call: Call) -> Labels:
        return broadcast(call, [call["other"], call["self"]])


class Repeat(Rule):
    """``repeat(n0, n1, ...)``: tiles each dimension; one of size 1 becomes as wide as the code asks for."""

    def __init__(self, repeats: str) -> None:
        self.repeats = repeats

    def labels(self, call: Call) -> Labels:
        counts, before, labels = call[self.repeats], call.shape("self"), call.labels("self")
        rank = len(call.output_shape)
        shape = (1,) * (rank - len(before)) + tuple(before)
        padded = (None,) * (rank - len(before)) + tuple(labels)
        first = rank - len(counts)
        return tuple(self._dim(call, d - first, shape[d], padded[d]) if d >= first else padded[d] for d in range(rank))

    def _dim(self, call: Call, index: int, size: int, atoms: Atoms | None) -> Atoms | None:
        count = int(call[self.repeats][index])
        if size == 1:
            return created(call, self.repeats, index, count)
        if atoms is None:
            return None
        if count > 1:
            call.require_size(self.repeats, index, None, count)
        return np.tile(atoms, count)


class RepeatInterleave(Rule):
    """``repeat_interleave(n, dim)``: each index n times in a row; one index becomes as many as the code asks for.

    With a tensor for n, each index has a number of its own, and stays.
    """

    def labels(self, call: Call) -> Labels:
        labels, dim = call.labels("self"), call.get("dim")
        if dim is None and len(labels) != 1:
            call.lock_all(labels, "repeated over all dimensions")
            return (None,) * len(call.output_shape)
        dim = int(dim or 0) % len(labels)
        atoms, count = labels[dim], call["repeats"]
        if not isinstance(count, int):
            call.lock_all((atoms, *call.labels(count)), "each index is repeated as often as a tensor says")
            return replace_dim(labels, dim, None)
        if call.shape("self")[dim] == 1:
            return replace_dim(labels, dim, created(call, "repeats", None, count))
        if atoms is None:
            return labels
        repeated = np.repeat(atoms, count)
        if call.get("output_size") is not None:
            call.require_size("output_size", None, repeated, len(repeated))
        return replace_dim(labels, dim, repeated)


class Flip(Rule):
    """Reverses dimensions; ``flipud`` and ``fliplr`` always the same one."""

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        dims = dims_of(call["dims"] if self.dim is None else self.dim, len(labels))
        return tuple(a[::-1] if d in dims and a is not None else a for d, a in enumerate(labels))


class Rot90(Rule):
    """A plane of two dimensions turned by ``k`` right angles: reversed, and swapped where k is odd."""

    def labels(self, call: Call) -> Labels:
        out = list(call.labels("self"))
        first, second = dims_of(call["dims"], len(out))
        fixed_numbers(call, "k")
        for _ in range(int(call["k"]) % 4):
            turned = out[second]
            out[first], out[second] = None if turned is None else turned[::-1], out[first]
        return tuple(out)


class Roll(Rule):
    """Rotates dimensions: a rotation by a number of channels would be another one after pruning, so it locks."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        for dim in dims_of(call["dims"], len(labels)):
            call.lock(labels[dim], "rotated by a number of indices")
        return labels


class Pad(Rule):
    """Pads dimensions from the last one on; padded channels always stay."""

    def __init__(self, by_constant: bool = False) -> None:
        self.by_constant = by_constant

    def labels(self, call: Call) -> Labels:
        labels = list(call.labels("self"))
        amounts = call.get("pad", call.get("padding"))
        constant = self.by_constant or call.get("mode", "constant") == "constant"
        for step in range(len(amounts) // 2):
            dim, (before, after) = len(labels) - 1 - step, amounts[2 * step : 2 * step + 2]
            labels[dim] = self._padded(call, labels[dim], int(before), int(after), constant)
        return tuple(labels)

    def _padded(self, call: Call, atoms: Atoms | None, before: int, after: int, constant: bool) -> Atoms | None:
        if atoms is None or (before == 0 and after == 0):
            return atoms
        if not constant or before < 0 or after < 0:
            call.lock(atoms, "padded with neighbouring channels, or cut")
            return None
        return np.concatenate([_or_fixed(call, None, before), atoms, _or_fixed(call, None, after)])


RULES: dict[Any, Rule] = {
    aten.permute: Permute(),
    aten.transpose: Transpose(),
    aten.swapaxes: Transpose("axis0", "axis1"),
    aten.swapdims: Transpose(),
    aten.t: Transpose(0, 1),
    aten.mT: Transpose(-1, -2),
    aten.mH: Transpose(-1, -2),
    aten.adjoint: Transpose(-1, -2),
    aten.numpy_T: Reverse(),
    aten.movedim: MoveAxis(),
    aten.moveaxis: MoveAxis(),
    aten.cat: Cat(),
    aten.concat: Cat(),
    aten.concatenate: Cat(),
    aten.hstack: Stacked(1),
    aten.column_stack: Stacked(1, rank=2),
    aten.dstack: Stacked(2, rank=3, as_row=True),
    **dict.fromkeys((aten.vstack, aten.row_stack), Stacked(0, rank=2, as_row=True)),
    aten.stack: Stack(),
    aten.expand: Expand(),
    aten.broadcast_to: Expand(),
    aten.expand_as: ExpandAs(),
    aten.repeat: Repeat("repeats"),
    aten.tile: Repeat("dims"),
    aten.repeat_interleave.self_int: RepeatInterleave(),
    aten.repeat_interleave.self_Tensor: RepeatInterleave(),
    aten.flip: Flip(),
    aten.flipud: Flip(0),
    aten.fliplr: Flip(1),
    aten.rot90: Rot90(),
    aten.roll: Roll(),
    aten.pad: Pad(),
    aten.constant_pad_nd: Pad(by_constant=True),
}
