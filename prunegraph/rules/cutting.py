"""Ops that cut: chunk, split, unbind, select, slice, narrow, and the halves of a gated linear unit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prunegraph.ir.sizes import Constant, leaves, negated
from prunegraph.rules.base import Atoms, Call, Labels, Rule, replace_dim

aten = torch.ops.aten


class Chunk(Rule):
    """``chunk(n, dim)``, ``tensor_split``, ``glu``'s halves: the pieces are cut at sizes found from the whole.

    So that the cuts stay where they belong, index i of every piece is coupled; what one has more than others stays.
    """

    def labels(self, call: Call) -> tuple[Labels, ...]:
        labels = call.labels("self")
        dim = int(call.get("dim", 0)) % len(labels)
        atoms = labels[dim]
        sizes = [shape[dim] for shape in call.output_shapes]
        if atoms is not None:
            self._couple(call, atoms, sizes)
        return tuple(
            replace_dim(labels, dim, None if piece is None else call.piece(piece)) for piece in pieces(atoms, sizes)
        )

    def _couple(self, call: Call, atoms: Atoms, sizes: Sequence[int]) -> None:
        common = min(sizes)
        cut = np.split(atoms, np.cumsum(sizes)[:-1])
        for piece in cut[1:]:
            call.sink.unite(cut[0][:common], piece[:common])
        call.lock(np.concatenate([piece[common:] for piece in cut]), "split into pieces of unequal size")


class SplitBySize(Chunk):
    """``split(size, dim)``: pieces of one given size."""

    def _couple(self, call: Call, atoms: Atoms, sizes: Sequence[int]) -> None:
        super()._couple(call, atoms, sizes)
        call.require_size("split_size", None, atoms[: sizes[0]], sizes[0])


class SplitWithSizes(Chunk):
    """``split([a, b, ...], dim)``: each piece has a size of its own, and comes and goes by itself."""

    def _couple(self, call: Call, atoms: Atoms, sizes: Sequence[int]) -> None:
        for index, (piece, size) in enumerate(zip(pieces(atoms, sizes), sizes, strict=True)):
            call.require_size("split_sizes", index, piece, size)
            if piece is not None:
                call.sink.leave_out(piece, [call.origin("split_sizes", index)], call.node)


class SplitAt(Rule):
    """``tensor_split((i, j, ...), dim)``: each limit counts the indices before it."""

    def labels(self, call: Call) -> tuple[Labels, ...]:
        labels, limits = call.labels("self"), call["indices"]
        dim = int(call.get("dim", 0)) % len(labels)
        atoms = labels[dim]
        if atoms is None:
            return (labels,) * len(call.output_shapes)
        if list(limits) != sorted(limit for limit in limits if 0 <= limit <= len(atoms)):
            call.lock(atoms, "cut at places that are counted from the end or not in order")
            return tuple(replace_dim(labels, dim, None) for _ in call.output_shapes)
        for index, limit in enumerate(limits):
            call.require_size("indices", index, atoms[:limit], limit)
            call.sink.leave_out(atoms, [call.origin("indices", index)], call.node)
        cut = pieces(atoms, [shape[dim] for shape in call.output_shapes])
        return tuple(replace_dim(labels, dim, None if part is None else call.piece(part)) for part in cut)


def pieces(atoms: Atoms | None, sizes: Sequence[int]) -> list[Atoms | None]:
    """Consecutive pieces of the given sizes."""
    if atoms is None:
        return [None] * len(sizes)
    return list(np.split(atoms, np.cumsum(sizes)[:-1]))


class Unbind(Rule):
    """One output per index of a dimension: as their number is fixed, that dimension is locked."""

    def labels(self, call: Call) -> tuple[Labels, ...]:
        labels = call.labels("self")
        dim = int(call.get("dim", 0)) % len(labels)
        call.lock(labels[dim], "taken apart index by index")
        return (labels[:dim] + labels[dim + 1 :],) * len(call.output_shapes)


class Select(Rule):
    """``x[..., i]``: to keep its place, everything up to index i (or from i on, when negative) must stay."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        dim, index = int(call["dim"]) % len(labels), int(call["index"])
        atoms = labels[dim]
        if atoms is not None:
            call.lock(atoms[index:] if index < 0 else atoms[: index + 1], "one index is taken by its number")
            call.leave_out(atoms, "index")
        return labels[:dim] + labels[dim + 1 :]


class Slice(Rule):
    """``x[a:b:s]``: the bounds must count the kept indices before them; a step couples runs of s indices.

    Negative bounds count those behind them.
    """

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        dim = int(call.get("dim", 0)) % len(labels)
        atoms = labels[dim]
        if atoms is None:
            return labels
        return replace_dim(labels, dim, self._cut(call, atoms))

    def _cut(self, call: Call, atoms: Atoms) -> Atoms | None:
        size, step = len(atoms), int(call.get("step", 1))
        start, end, _ = slice(call.get("start"), call.get("end"), step).indices(size)
        for name, bound in (("start", start), ("end", end)):
            # A literal within the first of the runs that a step couples is in each run, however many there are.
            if not (name == "start" and start < step and isinstance(call.origin(name), Constant)):
                self._require_bound(call, name, atoms, bound)
            if call.varies_with_input(name):
                call.lock(atoms, "which indices are read depends on the input")
        if step > 1:
            _couple_runs(call, atoms, step)
        cut = atoms[start:end:step]
        call.leave_out(np.setdiff1d(atoms, cut), "start", "end")
        return cut if len(cut) == size else call.piece(cut)

    def _require_bound(self, call: Call, name: str, atoms: Atoms, bound: int) -> None:
        given = call.get(name)
        beyond = given is not None and given >= len(atoms)
        # A literal at or beyond the end stays there when channels go; what shrinks with channels need not.
        if given is None or given == 0 or (beyond and isinstance(call.origin(name), Constant)):
            return
        if given < 0:
            self._require_from_end(call, name, atoms, given)
            return
        inside = given <= len(atoms)
        call.require_size(name, None, atoms[:bound] if inside else None, given)

    def _require_from_end(self, call: Call, name: str, atoms: Atoms, given: int) -> None:
        behind, size = atoms[given:], call.origin(name)
        if next(leaves(size), None) is None or -given > len(atoms):
            call.require_size(name, None, None, given)
            call.lock(behind, "cut off by a number counted from the end")
            return
        call.sink.require_size(negated(size), behind, -given, call.node)
        call.sink.separate(behind)  # none would be -0, which counts from the front


def _couple_runs(call: Call, atoms: Atoms, step: int) -> None:
    if len(atoms) % step:
        call.lock(atoms, f"every {step}th index is taken")
        return
    rows = atoms.reshape(-1, step)
    call.sink.unite(np.repeat(rows[:, 0], step - 1), rows[:, 1:].reshape(-1))


class Narrow(Rule):
    """``narrow(dim, start, length)``."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        dim = int(call["dim"]) % len(labels)
        atoms = labels[dim]
        if atoms is None:
            return labels
        start, length = call["start"], int(call["length"])
        if not isinstance(start, int):
            call.lock(atoms, "cut at a place that is computed from data")
            return replace_dim(labels, dim, call.piece(atoms[:length]))
        if start:
            call.require_size("start", None, atoms[:start], start)
        cut = atoms[start : start + length]
        call.require_size("length", None, cut, length)
        call.leave_out(np.setdiff1d(atoms, cut), "start", "length")
        if call.varies_with_input("start") or call.varies_with_input("length"):
            call.lock(atoms, "which indices are read depends on the input")
        return replace_dim(labels, dim, call.piece(cut))


class Glu(Rule):
    """``a * sigmoid(b)`` for the two halves a, b of a dimension: index i of both halves is one channel."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        dim = int(call.get("dim", -1)) % len(labels)
        atoms = labels[dim]
        if atoms is None:
            return labels
        first, second = np.split(atoms, 2)
        call.sink.unite(first, second)
        return replace_dim(labels, dim, call.piece(first))


RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.chunk, aten.unsafe_chunk), Chunk()),
    aten.tensor_split.sections: Chunk(),
    aten.tensor_split.indices: SplitAt(),
    **dict.fromkeys((aten.split.Tensor, aten.unsafe_split.Tensor), SplitBySize()),
    **dict.fromkeys((aten.split_with_sizes, aten.unsafe_split_with_sizes), SplitWithSizes()),
    aten.split.sizes: SplitWithSizes(),
    aten.unbind: Unbind(),
    aten.select: Select(),
    aten.slice: Slice(),
    **dict.fromkeys((aten.narrow, aten.narrow_copy), Narrow()),
    aten.glu: Glu(),
}
