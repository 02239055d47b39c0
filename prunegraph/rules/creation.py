"""Values made from nothing, of any size or of a fixed one; and nodes that are no computation."""

import math
import operator
from typing import Any

import torch
from torch import fx

from prunegraph.ir.sizes import Attribute, Constant, Expression, Leaf, Number, evaluate, leaves
from prunegraph.rules.base import Atoms, Call, Labels, Masker, Rule
from prunegraph.rules.locking import fixed_numbers
from prunegraph.rules.pointwise import broadcast

aten = torch.ops.aten


def created(call: Call, name: str, index: int | None, size: int) -> Atoms | None:
    """Atoms for a dimension that is made as wide as a size argument says; none where the number is in the code."""
    if size <= 1:
        return None
    origin = call.origin(name, index)
    if isinstance(origin, Constant):
        call.sink.note_written(size, call.node)
    if not any(_may_change(call, leaf) for leaf in leaves(origin)):
        return None  # as many as the input's examples, or steps of time
    atoms = call.sink.fresh(size)
    call.require_size(name, index, atoms, size)
    return atoms


class Create(Rule):
    """Values made from nothing (``zeros``, ``ones``, ``full``): any size will do, unless it is written in the code."""

    def labels(self, call: Call) -> Labels:
        return tuple(created(call, "size", dim, size) for dim, size in enumerate(call.output_shape))


class Fixed(Rule):
    """Values of fixed content, such as ``arange``, random numbers and windows: they cannot be made smaller."""

    def labels(self, call: Call) -> Any:
        for operand in call.tensors():
            call.lock_all(call.labels(operand), f"goes into {call.node.target}")
        shapes = call.output_shapes
        return (None,) * len(shapes[0]) if len(shapes) == 1 else tuple((None,) * len(shape) for shape in shapes)


class Drawn(Fixed):
    """Random numbers. In training mode they are as many as there are channels; else they cannot be made fewer."""

    def labels(self, call: Call) -> Any:
        if not call.trace.training or len(call.output_shapes) > 1:
            return super().labels(call)
        if call.tensors():
            return broadcast(call, call.tensors())
        return tuple(created(call, "size", dim, size) for dim, size in enumerate(call.output_shape))


class Eye(Fixed):
    """The identity matrix: what is left of one when rows and columns of the same indices go is one again."""

    def labels(self, call: Call) -> Any:
        rows, columns = call.output_shape
        if rows != columns:
            return super().labels(call)
        atoms = created(call, "n", None, rows)
        if atoms is not None and "m" in call.arguments:
            call.require_size("m", None, atoms, columns)
        return atoms, atoms


class Arange(Fixed):
    """``start, start + step, ...`` up to ``end``.

    As cumulative norms count channels (``arange(c, c * (t + 1), c)``), the numbers may change with the widths where
    that leaves the number of elements as it is.
    """

    def labels(self, call: Call) -> Any:
        if not self._keeps_length(call):
            fixed_numbers(call, "start", "end", "step")
        return super().labels(call)

    def _keeps_length(self, call: Call) -> bool:
        bounds = self._bounds(call)
        read = {leaf for bound in bounds for leaf in leaves(bound) if _may_change(call, leaf)}

        def length(changed: Leaf, value: Number) -> int:
            start, end, step = (evaluate(b, lambda leaf: value if leaf == changed else leaf.value) for b in bounds)
            return math.ceil((end - start) / step) if step else -1

        trials = ((leaf, value) for leaf in read for value in {1, leaf.value // 2, leaf.value - 1} if value > 0)
        return all(length(leaf, value) == call.output_shape[0] for leaf, value in trials)

    def _bounds(self, call: Call) -> list[Expression]:
        given = {"start": Constant(0), "step": Constant(1)}
        return [call.origin(n) if n in call.places else given[n] for n in ("start", "end", "step")]

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        start, _, step = (mask.number(bound) for bound in self._bounds(call))
        if not isinstance(start, fx.Node) and not isinstance(step, fx.Node):
            return None
        value = call.trace.values[call.node.name]
        return mask.emit(progression, start, step, value.shape[0], value.dtype, call.get("device"))


def progression(
    start: torch.Tensor | Number,
    step: torch.Tensor | Number,
    count: int,
    dtype: torch.dtype,
    device: torch.device | None,
) -> torch.Tensor:
    """``start + step * (0, 1, ..., count - 1)``, shape ``(count,)``."""
    return (start + step * torch.arange(count, device=device)).to(dtype)


def _may_change(call: Call, leaf: Leaf) -> bool:
    if isinstance(leaf, Attribute):
        return True
    known = call.known.get(leaf.node)
    return known is not None and known[leaf.dim] is not None


class GetItem(Rule):
    """Picks one output of an op that returns several."""

    def labels(self, call: Call) -> Any:
        source, index = call.node.args
        assert isinstance(source, fx.Node)
        known = call.known.get(source.name)
        return known[index] if isinstance(known, tuple) and isinstance(index, int) else None


class Nothing(Rule):
    """Assertions and the like: no output, no influence. Equality of values chose a branch when it was recorded."""

    def labels(self, call: Call) -> Any:
        return None


_CREATED = "zeros ones full empty new_zeros new_ones new_full new_empty"
_FIXED = (
    "linspace logspace randperm hann_window hamming_window blackman_window bartlett_window kaiser_window scalar_tensor "
    "_local_scalar_dense item tril_indices triu_indices"
)
_DRAWN = "rand randn randint rand_like randn_like randint_like normal uniform exponential"
_NO_INFLUENCE = (
    "_assert_tensor_metadata _assert_async _assert_scalar sym_size sym_numel is_same_size equal allclose "
    "_has_compatible_shallow_copy_type"
)

RULES: dict[Any, Rule] = {
    operator.getitem: GetItem(),
    **{getattr(aten, name): Create() for name in _CREATED.split()},
    aten.arange: Arange(),
    aten.eye: Eye(),
    **{getattr(aten, name): Fixed() for name in _FIXED.split()},
    **{getattr(aten, name): Drawn() for name in _DRAWN.split()},
    **{getattr(aten, name): Nothing() for name in _NO_INFLUENCE.split()},
}
