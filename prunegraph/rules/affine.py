"""Ops that contract over a labelled dimension: linear maps, matrix products and convolutions."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from prunegraph.rules.base import Atoms, Call, Labels, Masker, Product, Rule, at
from prunegraph.rules.pointwise import FIXED_SIZE

aten = torch.ops.aten

_INPUT = "takes a fixed number of input features"


class Linear(Rule):
    """``y[..., o] = sum_i x[..., i] weight[o, i] + bias[o]``."""

    def labels(self, call: Call) -> Labels:
        x, weight, bias = call.labels("input"), call.labels("weight"), call.labels("bias")
        call.match(x[-1], weight[-1], _INPUT)
        if len(weight) == 1:
            return x[:-1]
        if bias:
            call.match(weight[0], bias[0], FIXED_SIZE)
        return (*x[:-1], weight[0])

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        x = call["input"]
        return mask.rerun(input=mask.times_keep(mask.value(x), -1, call.labels(x)[-1]))

    def macs(self, call: Call) -> Sequence[Product]:
        return [(call.real_products, *call.sizes("input"), *call.sizes("weight")[:-1])]


class MatrixProduct(Rule):
    """``y[..., n, m] = sum_k a[..., n, k] b[..., k, m]`` with broadcast batch dimensions, vectors as in torch.matmul.

    An optional third operand is added: ``addmm``, ``baddbmm``. Their factors ``alpha`` and ``beta``, where they were
    computed from sizes, become what they will be in the pruned network.
    """

    numbers_follow = True

    def __init__(self, left: str, right: str, added: str | None = None) -> None:
        self.left, self.right, self.added = left, right, added

    def labels(self, call: Call) -> Labels:
        a, b = call.labels(self.left), call.labels(self.right)
        call.match(a[-1], b[-2] if len(b) > 1 else b[-1], _INPUT)
        rank = max(len(a), len(b))
        batch = tuple(self._batch(call, dim - rank) for dim in range(rank - 2))
        out = (*batch, *((a[-2],) if len(a) > 1 else ()), *((b[-1],) if len(b) > 1 else ()))
        return self._plus(call, out)

    def _batch(self, call: Call, dim: int) -> Atoms | None:
        shapes = [(call.shape(name), call.labels(name)) for name in (self.left, self.right)]
        full = [labels[dim] for shape, labels in shapes if len(shape) >= -dim and shape[dim] != 1]
        if len(full) == 2:
            return call.match(full[0], full[1], FIXED_SIZE)
        return full[0] if full else None

    def _plus(self, call: Call, out: Labels) -> Labels:
        added = call.labels(self.added) if self.added else ()
        shape = call.shape(self.added) if self.added and added else ()
        for dim in range(-1, -len(added) - 1, -1):
            if shape[dim] != 1:
                call.match(out[dim], added[dim], FIXED_SIZE)
        return out

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        replaced: dict[str, Any] = {self.left: self._kept(call, mask)}
        for factor, operand in (("alpha", self.left), ("beta", self.added)):
            number = mask.number(call.origin(factor)) if factor in call.places else 1
            if operand is not None and isinstance(number, fx.Node):
                value = replaced.get(operand) or mask.value(call[operand])
                replaced |= {operand: mask.emit(torch.mul, value, number), factor: 1}
        return mask.rerun(**replaced)

    def _kept(self, call: Call, mask: Masker) -> fx.Node:
        """The left operand without the columns that are absent."""
        a = call[self.left]
        return mask.times_keep(mask.value(a), -1, call.labels(a)[-1])

    def macs(self, call: Call) -> Sequence[Product]:
        a, b = call.sizes(self.left), call.sizes(self.right)
        columns = b[-1:] if len(b) > 1 else ()
        return [(call.real_products, *call.batch_sizes(self.left, self.right), *a[-2:], *columns)]


class SummedProduct(MatrixProduct):
    """``y[n, m] = added[n, m] + sum_bk a[b, n, k] b[b, k, m]``: the products of the whole batch are summed."""

    def labels(self, call: Call) -> Labels:
        a, b = call.labels(self.left), call.labels(self.right)
        call.match(a[0], b[0], _INPUT)
        call.match(a[2], b[1], _INPUT)
        return self._plus(call, (a[1], b[2]))

    def _kept(self, call: Call, mask: Masker) -> fx.Node:
        a = call[self.left]
        batch, _, columns = call.labels(a)
        return mask.times_keep(mask.times_keep(mask.value(a), 0, batch), -1, columns)


class Outer(Rule):
    """``y[i, j] = a[i] b[j]``."""

    def labels(self, call: Call) -> Labels:
        return (*call.labels("self"), *call.labels("vec2"))


class Bilinear(Rule):
    """``y[..., o] = sum_ij a[..., i] weight[o, i, j] b[..., j] + bias[o]``."""

    def labels(self, call: Call) -> Labels:
        a, b, weight, bias = (call.labels(name) for name in ("input1", "input2", "weight", "bias"))
        call.match(a[-1], weight[1], _INPUT)
        call.match(b[-1], weight[2], _INPUT)
        if bias:
            call.match(weight[0], bias[0], FIXED_SIZE)
        return (*a[:-1], weight[0])

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        replaced = {n: mask.times_keep(mask.value(call[n]), -1, call.labels(n)[-1]) for n in ("input1", "input2")}
        return mask.rerun(**replaced)

    def macs(self, call: Call) -> Sequence[Product]:
        return [(call.real_products, *call.sizes("input1")[:-1], *call.sizes("weight"))]


class Convolution(Rule):
    """Convolutions in 1 to 3 dimensions, grouped and depthwise, transposed or not.

    ``y[n, o] = sum_i weight[o, i] * x[n, i] + bias[o]`` for input channels i of o's group. With several inputs per
    group the same in-group index is coupled over all groups, whose number stays; with one input per group the
    groups themselves come and go, and the op's ``groups`` argument with them. A label on a dimension along which the
    kernel slides is locked: there a channel is a place. Along a dimension where the kernel has a single tap and leaves
    every place where it is, labels pass.
    """

    def __init__(self, transposed: bool = False) -> None:
        self.transposed = transposed

    def labels(self, call: Call) -> Labels:
        x, weight, bias = call.labels("input"), call.labels("weight"), call.labels("bias")
        spatial = len(weight) - 2
        places = [atoms if self._leaves_places(call, dim) else None for dim, atoms in enumerate(x[len(x) - spatial :])]
        slid = [atoms for atoms, left in zip(x[len(x) - spatial :], places, strict=True) if left is None]
        call.lock_all(slid, "a kernel slides along this dimension")
        for taps in weight[2:]:
            call.lock(taps, "kernel taps", is_channel=False)
        channel = len(x) - spatial - 1
        out = self._channels(call, x[channel], weight)
        if bias:
            call.match(out, bias[0], FIXED_SIZE)
        return (*x[:channel], out, *places)

    def _leaves_places(self, call: Call, dim: int) -> bool:
        """Does the convolution treat each place along a spatial dimension on its own?"""
        if call.shape("weight")[2 + dim] > 1 or at(call.get("stride", 1), dim) != 1:
            return False
        edges = at(call.get("padding", 0), dim), at(call.get("output_padding", 0), dim)
        return all(isinstance(edge, str) or not edge for edge in edges)

    def _channels(self, call: Call, x: Atoms | None, weight: Labels) -> Atoms | None:
        groups = self._groups(call)
        if groups == 1:
            out, into = (weight[1], weight[0]) if self.transposed else (weight[0], weight[1])
            call.match(x, into, _INPUT)
            return out
        return self._grouped_transposed(call, x, weight) if self.transposed else self._grouped(call, x, weight)

    def _grouped(self, call: Call, x: Atoms | None, weight: Labels) -> Atoms | None:
        groups, inputs = self._groups(call), call.shape("weight")[1]
        if inputs == 1:
            return _depthwise(call, x, weight[0], groups)
        out = weight[0]
        if x is not None and out is not None and len(x) == groups * inputs:
            by_group = x.reshape(groups, -1), out.reshape(groups, -1)
            if call.sink.choose(call.node, "groups", (by_group[1][0], by_group[0][:, 0])) == 1:
                call.lock(weight[1], "inputs of one group of a convolution whose groups come and go", is_channel=False)
                _couple_groups(call, *by_group)
                return out
        into = _same_in_each(call, x, groups)
        call.match(into, weight[1], _INPUT)
        return _repeated(call, out, groups)

    def _grouped_transposed(self, call: Call, x: Atoms | None, weight: Labels) -> Atoms | None:
        """The weight is (input channels, outputs per group, ...): its dimension 0 spans all groups."""
        groups = self._groups(call)
        call.match(x, weight[0], _INPUT)
        if x is not None and len(x) % groups == 0 and self._groups_go(call, x.reshape(groups, -1)):
            outputs = call.shape("weight")[1]
            call.lock(weight[1], "outputs of one group of a convolution whose groups come and go", is_channel=False)
            _couple_groups(call, x.reshape(groups, -1))
            return np.asarray(np.repeat(x.reshape(groups, -1)[:, 0], outputs))
        _same_in_each(call, x, groups)
        return None if weight[1] is None else np.asarray(np.tile(weight[1], groups))

    def _groups_go(self, call: Call, inputs: Atoms) -> bool:
        """Whether whole groups come and go, rather than the same channel of each; one row of inputs per group.

        They do where each gives out a single channel, else nothing that is given out could go.
        """
        if inputs.shape[1] == 1:
            return True
        ways, wanted = (inputs[0], inputs[:, 0]), 1
        if call.shape("weight")[1] == 1:
            ways, wanted = ways[::-1], 0
        return call.sink.choose(call.node, "groups", ways) == wanted

    def _groups(self, call: Call) -> int:
        return int(call.get("groups", 1))

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        x, spatial = call["input"], len(call.shape("weight")) - 2
        channel = -spatial - 1
        return mask.rerun(input=mask.times_keep(mask.value(x), channel, call.labels(x)[channel]))

    def macs(self, call: Call) -> Sequence[Product]:
        spatial = len(call.shape("weight")) - 2
        taps = call.shape("weight")[2:]
        shape = call.shape("input") if self.transposed else call.output_shape
        batch = call.sizes("input")[: len(call.shape("input")) - spatial - 1]
        counted = zip(call.sizes("input")[-spatial:], shape[-spatial:], strict=True)
        places = [n if self._leaves_places(call, dim) else size for dim, (n, size) in enumerate(counted)]
        return [(*batch, *call.sizes("weight")[:2], call.real_products * prod(taps), *places)]


def _depthwise(call: Call, x: Atoms | None, out: Atoms | None, groups: int) -> Atoms | None:
    """One input per group: output channels of group g come and go with input channel g, or if that stays, alike."""
    if x is None and out is not None and len(out) > groups:
        return _repeated(call, out, groups)
    if out is None or x is None:
        call.lock(x if out is None else out, _INPUT)
        return out
    call.sink.unite(np.repeat(x, len(out) // groups), out)
    call.require_size("groups", None, x, groups)
    return out


def _couple_groups(call: Call, inputs: Atoms, *outputs: Atoms) -> None:
    """Each group comes and goes with all that it reads and gives out; one row per group."""
    for column in (*inputs.T[1:], *(column for table in outputs for column in table.T)):
        call.sink.unite(inputs[:, 0], column)
    call.require_size("groups", None, inputs[:, 0], len(inputs))


def _same_in_each(call: Call, atoms: Atoms | None, groups: int) -> Atoms | None:
    """Couples index i of every group; the atoms of the first group stand for all."""
    if atoms is None or len(atoms) % groups or len(atoms) == groups:
        call.lock(atoms, "one channel of each group of a grouped operation")
        return None
    table = atoms.reshape(groups, -1)
    for row in table[1:]:
        call.sink.unite(table[0], row)
    return np.asarray(table[0])


def _repeated(call: Call, atoms: Atoms | None, groups: int) -> Atoms | None:
    _same_in_each(call, atoms, groups)
    return atoms


class CompositeConvolution(Convolution):
    """``aten.convolution``: one op for all of them, told apart by its ``transposed`` argument."""

    def labels(self, call: Call) -> Labels:
        return Convolution(bool(call["transposed"])).labels(call)

    def macs(self, call: Call) -> Sequence[Product]:
        return Convolution(bool(call["transposed"])).macs(call)


RULES: dict[Any, Rule] = {
    aten.linear: Linear(),
    **dict.fromkeys((aten.matmul, aten.linalg_matmul), MatrixProduct("self", "other")),
    aten.mm: MatrixProduct("self", "mat2"),
    aten.bmm: MatrixProduct("self", "mat2"),
    aten.mv: MatrixProduct("self", "vec"),
    aten.dot: MatrixProduct("self", "tensor"),
    aten.addmm: MatrixProduct("mat1", "mat2", "self"),
    aten.baddbmm: MatrixProduct("batch1", "batch2", "self"),
    aten.addbmm: SummedProduct("batch1", "batch2", "self"),
    aten.addmv: MatrixProduct("mat", "vec", "self"),
    **dict.fromkeys((aten.outer, aten.ger), Outer()),
    aten.bilinear: Bilinear(),
    **{op: Convolution() for op in (aten.conv1d, aten.conv2d, aten.conv3d)},
    **{op: Convolution(True) for op in (aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)},
    aten.convolution: CompositeConvolution(),
}
