"""Values made from nothing, of any size or of a fixed one; and nodes that are no computation."""

import operator
from typing import Any

import torch
from torch import fx

from prunegraph.ir.sizes import Constant
from prunegraph.rules.base import Atoms, Call, Labels, Rule

aten = torch.ops.aten


def created(call: Call, name: str, index: int, size: int) -> Atoms | None:
    """Atoms for a dimension that is made as wide as a size argument says; none where the number is in the code."""
    if size <= 1 or isinstance(call.origin(name, index), Constant):
        return None
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


class GetItem(Rule):
    """Picks one output of an op that returns several."""

    def labels(self, call: Call) -> Any:
        source, index = call.node.args
        assert isinstance(source, fx.Node)
        known = call.known.get(source.name)
        return known[index] if isinstance(known, tuple) and isinstance(index, int) else None


class Nothing(Rule):
    """Assertions and the like: no output, no influence."""

    def labels(self, call: Call) -> Any:
        return None


_CREATED = "zeros ones full empty new_zeros new_ones new_full new_empty"
_FIXED = (
    "arange linspace logspace eye rand randn randint randperm rand_like randn_like randint_like hann_window "
    "hamming_window blackman_window bartlett_window kaiser_window scalar_tensor _local_scalar_dense item tril_indices "
    "triu_indices normal uniform exponential randn_like"
)
_NO_INFLUENCE = "_assert_tensor_metadata _assert_async _assert_scalar sym_size sym_numel is_same_size"

RULES: dict[Any, Rule] = {
    operator.getitem: GetItem(),
    **{getattr(aten, name): Create() for name in _CREATED.split()},
    **{getattr(aten, name): Fixed() for name in _FIXED.split()},
    **{getattr(aten, name): Nothing() for name in _NO_INFLUENCE.split()},
}
