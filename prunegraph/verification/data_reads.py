"""Where data decide: numbers that the code reads out of them, and sizes that depend on them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from prunegraph.ir.trace import Trace, ValueSpec

aten = torch.ops.aten

_READS = (aten.item, aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.resolve_neg)
"""Ops that Python code ends with where it reads a tensor; ``tolist`` and ``numpy`` resolve signs first."""

_INDEXED = (aten.index, aten._unsafe_index)
_POSITIONS = (aten.where.default, aten.nonzero_numpy.default)


def changed_reads(trace: Trace, dense: Mapping[str, Any], masked: Mapping[str, Any]) -> Iterator[fx.Node]:
    """Nodes of which the code took numbers into the record that are others under the masks.

    Args:
        trace: the record.
        dense: node name -> value, as recorded.
        masked: node name -> value under the masks, as far as the program runs.
    """
    for node in trace.graph.nodes:
        read = getattr(node.target, "overloadpacket", None) in _READS and node.name in masked
        if read and not _alike(dense[node.name], masked[node.name]):
            yield node


def _alike(left: Any, right: Any) -> bool:
    left, right = torch.as_tensor(left), torch.as_tensor(right)
    return left.shape == right.shape and bool(torch.isclose(left, right, equal_nan=True).all())


def sizes_depend_on_data(trace: Trace) -> bool:
    """Whether an op gives as many values as its operands' values say, such as those that a mask picks."""
    return any(_picks(trace, node) for node in trace.graph.nodes)


def _picks(trace: Trace, node: fx.Node) -> bool:
    if getattr(node.target, "overloadpacket", None) in _INDEXED:
        return any(_is_mask(trace, index) for index in node.all_input_nodes[1:])
    return node.target in _POSITIONS or torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ())


def _is_mask(trace: Trace, node: fx.Node) -> bool:
    spec = trace.values.get(node.name)
    return isinstance(spec, ValueSpec) and spec.dtype in (torch.bool, torch.uint8)
