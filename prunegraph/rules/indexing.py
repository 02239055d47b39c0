"""Ops that read or write at positions given by data: embeddings, indexing, gather and scatter, masks, diagonals.

A dimension that is addressed by position keeps its indices: without one of them all positions after it would mean
something else. The other dimensions pass.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import fx

from prunegraph.ir.trace import ValueSpec
from prunegraph.rules.base import Atoms, Call, Labels, Rule, replace_dim
from prunegraph.rules.locking import Locks, fixed_numbers, united, unlabelled
from prunegraph.rules.pointwise import FIXED_SIZE, broadcast

aten = torch.ops.aten

_POSITION = "its indices are addressed by position"
_PARTIAL = "only a part of this dimension is addressed"
_DIAGONAL = "the diagonal ties places of two dimensions"


class Embedding(Rule):
    """``y[..., d] = weight[indices[...], d]``."""

    def labels(self, call: Call) -> Labels:
        vocabulary, features = call.labels("weight")
        call.lock(vocabulary, "entries of a vocabulary", is_channel=False)
        return (*call.labels("indices"), features)


class EmbeddingBag(Rule):
    """Sums, means or maxima of rows of the weight: ``(bags, features)``, and bookkeeping."""

    def labels(self, call: Call) -> Any:
        vocabulary, features = call.labels("weight")
        call.lock(vocabulary, "entries of a vocabulary", is_channel=False)
        for name in ("indices", "offsets", "per_sample_weights"):
            call.lock_all(call.labels(name), _POSITION)
        return ((None, features), *unlabelled(call)[1:])


class Index(Rule):
    """``x[:, i, :, j]``: numpy's advanced indexing.

    The indices broadcast against each other. Their dimensions stand in the place of the indexed ones where those are
    adjacent, and first where they are not. A boolean mask stands for the positions of its true values, one per
    dimension of the mask.
    """

    def labels(self, call: Call) -> Labels:
        call.lock_all([call.labels("self")[dim] for dim in _indexed_dims(call)], _POSITION)
        out = result_labels(call)
        if len(out) == len(call.output_shape):
            return out
        call.lock_all(out, _POSITION)
        return (None,) * len(call.output_shape)


def _indices(call: Call) -> list[tuple[fx.Node | None, int]]:
    """The index of each dimension, or of several for a mask, with the number of dimensions it covers."""
    listed = [(node, len(call.shape(node)) if _is_mask(call, node) else 1) for node in call["indices"]]
    covered = sum(count for _, count in listed)
    return [*listed, *[(None, 1)] * (len(call.shape("self")) - covered)]


def _is_mask(call: Call, node: fx.Node | None) -> bool:
    spec = call.trace.values.get(node.name) if node is not None else None
    return isinstance(spec, ValueSpec) and spec.dtype in (torch.bool, torch.uint8)


def _indexed_dims(call: Call) -> list[int]:
    dims: list[int] = []
    start = 0
    for node, count in _indices(call):
        dims += range(start, start + count) if node is not None else ()
        start += count
    return dims


def result_labels(call: Call) -> Labels:
    """Labels of ``self[indices]``."""
    dims, labels = _indexed_dims(call), call.labels("self")
    passed = [atoms for dim, atoms in enumerate(labels) if dim not in dims]
    places = [place for place, (node, _) in enumerate(_indices(call)) if node is not None]
    first = dims[0] if dims and places[-1] - places[0] == len(places) - 1 else 0
    return (*passed[:first], *_position_labels(call), *passed[first:])


def _position_labels(call: Call) -> Labels:
    """Labels of the broadcast of the indices; a mask's positions are computed from data."""
    nodes = [node for node in call["indices"] if node is not None]
    if not any(_is_mask(call, node) for node in nodes):
        return broadcast(call, nodes)
    for node in nodes:
        call.lock_all(call.labels(node), "a mask picks positions")
    return (None,) * max([1, *(len(call.shape(node)) for node in nodes if not _is_mask(call, node))])


class IndexPut(Rule):
    """``x[:, i, :, j] = values``; ``x[mask] = number`` writes place by place, so its channels pass."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        masks = [node for node in call["indices"] if node is not None]
        if len(masks) == 1 and _is_mask(call, masks[0]) and prod(call.shape("values")) == 1:
            for dim, atoms in zip(_indexed_dims(call), call.labels(masks[0]), strict=True):
                call.match(labels[dim], atoms, FIXED_SIZE)
            return labels
        # An absent index would still write, so the indices stay too.
        indices = [atoms for node in masks for atoms in call.labels(node)]
        call.lock_all([*indices, *(labels[dim] for dim in _indexed_dims(call))], _POSITION)
        self._match_values(call, result_labels(call))
        return labels

    def _match_values(self, call: Call, target: Labels) -> None:
        shape, values = call.shape("values"), call.labels("values")
        for dim in range(-1, -len(shape) - 1, -1):
            if shape[dim] != 1:
                call.match(values[dim], target[dim], FIXED_SIZE)


class Gather(Rule):
    """``y[i, j, k] = x[i, index[i, j, k], k]`` for ``dim`` 1; ``take_along_dim`` also broadcasts.

    Args:
        index: name of the argument with the positions.
    """

    def __init__(self, index: str) -> None:
        self.index = index

    def labels(self, call: Call) -> Labels:
        x, index = call.labels("self"), call.labels(self.index)
        if call.get("dim") is None or len(x) != len(index):
            return self._flat(call)
        out = [self._dim(call, dim, x[dim], index[dim]) for dim in range(len(x))]
        return tuple(out)

    def _flat(self, call: Call) -> Labels:
        """All elements in one row, addressed by position; a scalar counts as a row of one."""
        index = call.labels(self.index)
        call.lock_all(call.labels("self"), _POSITION)
        if len(index) == len(call.output_shape):
            return index
        call.lock_all(index, _POSITION)
        return (None,) * len(call.output_shape)

    def _dim(self, call: Call, dim: int, x: Atoms | None, index: Atoms | None) -> Atoms | None:
        if dim == int(call["dim"]) % len(call.shape("self")):
            call.lock(x, _POSITION)
            return index
        here, there = call.shape("self")[dim], call.shape(self.index)[dim]
        if here == there:
            return call.match(x, index, FIXED_SIZE)
        if 1 in (here, there) and self.index == "indices":
            return index if here == 1 else x
        call.lock_all([x, index], _PARTIAL)
        return None


class Scatter(Rule):
    """``x[i, index[i, j, k], k] = src[i, j, k]`` for ``dim`` 1, and its adding and reducing forms."""

    def labels(self, call: Call) -> Labels:
        names = ["self", *(name for name in ("index", "src") if isinstance(call.get(name), fx.Node))]
        return tuple(self._dim(call, names, dim) for dim in range(len(call.output_shape)))

    def _dim(self, call: Call, names: Sequence[str], dim: int) -> Atoms | None:
        # A scalar index or source counts as a row of one.
        sides = [((call.shape(name) or (1,))[dim], (call.labels(name) or (None,))[dim]) for name in names]
        addressed = dim == int(call["dim"]) % len(call.output_shape)
        if addressed or len({size for size, _ in sides}) > 1:
            call.lock_all([atoms for _, atoms in sides], _POSITION if addressed else _PARTIAL)
            return sides[0][1]
        return united(call, sides, FIXED_SIZE)


class IndexWrite(Rule):
    """``index_add``, ``index_copy``, ``index_reduce``, ``index_fill``: slices written at positions of one dimension."""

    def labels(self, call: Call) -> Labels:
        out, source = call.labels("self"), call.labels("source")
        call.lock_all(call.labels("index"), _POSITION)
        if not out:
            return out
        dim = int(call["dim"]) % len(out)
        call.lock_all([out[dim], *source[dim : dim + 1]], _POSITION)
        for other, atoms in enumerate(source):
            if other != dim:
                call.match(out[other], atoms, FIXED_SIZE)
        return out


class IndexSelect(Rule):
    """``x[:, index]`` for a list of positions."""

    def labels(self, call: Call) -> Labels:
        labels, index = call.labels("self"), call.labels("index")
        if not labels:
            return labels
        dim = int(call["dim"]) % len(labels)
        call.lock(labels[dim], _POSITION)
        return replace_dim(labels, dim, index[0] if index else None)


class Lookup(Rule):
    """Each element is looked up in a table of its own: ``bucketize``, ``isin``.

    Args:
        elements: name of the argument whose elements are looked up.
        table: name of the argument that is searched.
    """

    def __init__(self, elements: str, table: str) -> None:
        self.elements, self.table = elements, table

    def labels(self, call: Call) -> Labels:
        call.lock_all(call.labels(self.table), "a table that is searched")
        return call.labels(self.elements)


class SearchSorted(Rule):
    """Positions of values in sorted sequences: one sequence for all, or one per row of the values."""

    def labels(self, call: Call) -> Labels:
        table, values = call.labels("sorted_sequence"), call.labels("self")
        call.lock_all([*table[-1:], *call.labels("sorter")[-1:]], "a table that is searched")
        for rows in (table[:-1], call.labels("sorter")[:-1]):
            for own, other in zip(values, rows, strict=False):
                call.match(own, other, FIXED_SIZE)
        return values


class OneHot(Rule):
    """``(...)`` -> ``(..., classes)``."""

    def labels(self, call: Call) -> Labels:
        fixed_numbers(call, "num_classes")
        return (*call.labels("self"), None)


class Triangle(Rule):
    """``tril``, ``triu``: which places are zeroed depends on the positions along the last two dimensions."""

    def labels(self, call: Call) -> Labels:
        fixed_numbers(call, "diagonal")
        call.lock_all(call.labels("self")[-2:], _DIAGONAL)
        return call.labels("self")


class Diagonal(Rule):
    """The diagonal of two dimensions, as a new last one; that of a square couples its rows and columns."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels(call.tensors()[0])
        fixed_numbers(call, "offset")
        pair = [int(call[name]) % len(labels) for name in ("dim1", "dim2")]
        shared = _taken_diagonal(call, pair, int(call["offset"]))
        return (*(atoms for dim, atoms in enumerate(labels) if dim not in pair), shared)


class DiagonalEmbed(Rule):
    """The last dimension as the diagonal of two new ones, which both carry its channels."""

    def labels(self, call: Call) -> Labels:
        *others, last = call.labels("self")
        fixed_numbers(call, "offset")
        both = _on_diagonal(call, last, int(call["offset"]))
        rank = len(others) + 2
        for dim in sorted(int(call[name]) % rank for name in ("dim1", "dim2")):
            others.insert(dim, both)
        return tuple(others)


class Diag(Rule):
    """A vector as the diagonal of a matrix, or the diagonal of a matrix."""

    def labels(self, call: Call) -> Labels:
        labels, offset = call.labels("self"), int(call["diagonal"])
        fixed_numbers(call, "diagonal")
        if len(labels) == 1:
            return (_on_diagonal(call, labels[0], offset),) * 2
        return (_taken_diagonal(call, (0, 1), offset),)


def _on_diagonal(call: Call, atoms: Atoms | None, offset: int) -> Atoms | None:
    """Labels of the rows, and of the columns, of a matrix with these indices on its diagonal."""
    if offset:
        call.lock(atoms, _DIAGONAL)
        return None
    return atoms


def _taken_diagonal(call: Call, pair: Sequence[int], offset: int) -> Atoms | None:
    """Labels of the diagonal of a pair of dimensions: off the main one places would shift, so they are locked."""
    node = call.tensors()[0]
    rows, columns = (call.labels(node)[dim] for dim in pair)
    if offset or len({call.shape(node)[dim] for dim in pair}) > 1:
        call.lock_all([rows, columns], _DIAGONAL)
        return None
    return call.match(rows, columns, _DIAGONAL)


def _locking(names: Sequence[str], reason: str) -> dict[Any, Rule]:
    return {getattr(aten, name): Locks(reason) for name in names}


RULES: dict[Any, Rule] = {
    aten.embedding: Embedding(),
    aten.embedding_bag: EmbeddingBag(),
    aten._embedding_bag: EmbeddingBag(),
    aten.embedding_renorm_: Locks("the norm of whole rows limits each feature"),
    aten.index.Tensor: Index(),
    aten._unsafe_index: Index(),
    aten.index_put: IndexPut(),
    aten._unsafe_index_put: IndexPut(),
    aten._index_put_impl_: IndexPut(),
    aten.index_select: IndexSelect(),
    aten.gather: Gather("index"),
    aten.take_along_dim: Gather("indices"),
    aten.scatter: Scatter(),
    aten.scatter_add: Scatter(),
    aten.scatter_reduce: Scatter(),
    aten.index_add: IndexWrite(),
    aten.index_copy: IndexWrite(),
    aten.index_reduce: IndexWrite(),
    aten.index_fill: IndexWrite(),
    aten.bucketize: Lookup("self", "boundaries"),
    aten.isin: Lookup("elements", "test_elements"),
    aten.searchsorted: SearchSorted(),
    aten.one_hot: OneHot(),
    aten.tril: Triangle(),
    aten.triu: Triangle(),
    aten.diagonal: Diagonal(),
    aten.diagonal_copy: Diagonal(),
    aten.linalg_diagonal: Diagonal(),
    aten.diag_embed: DiagonalEmbed(),
    aten.diag: Diag(),
    aten.where.default: Locks("positions are picked by value"),
    **_locking(["masked_select", "masked_scatter", "nonzero", "argwhere"], "positions are picked by value"),
    **_locking(["_unique", "_unique2", "unique_dim", "unique_consecutive"], "values are picked by content"),
    **_locking(["unique_dim_consecutive", "bincount", "histc"], "values are picked by content"),
    **_locking(["diagflat", "diagonal_scatter", "trace"], _DIAGONAL),
    **_locking(["take", "put"], _POSITION),
}
