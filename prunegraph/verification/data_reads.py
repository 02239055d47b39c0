"""Where data decide: numbers that the code reads out of them, and sizes that depend on them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from prunegraph.ir.trace import DATA_READS, Trace, ValueSpec
from prunegraph.masked.reads import alike

aten = torch.ops.aten

_INDEXED = (aten.index, aten._unsafe_index)
_POSITIONS = (aten.where.default, aten.nonzero_numpy.default)


def changed_reads(
    trace: Trace, dense: Mapping[str, Any], masked: Mapping[str, Any], *, sizes: bool
) -> Iterator[fx.Node]:
    """Nodes of which the code took numbers into the record that are others under the masks.

    Args:
        trace: the record.
        dense: node name -> value, as recorded.
        masked: node name -> value under the masks, as far as the program runs.
        sizes: whether sizes that data decide on count, too: the code may have branched on them.
    """
    for node in trace.graph.nodes:
        if node.name not in masked:
            continue
        before, after = dense[node.name], masked[node.name]
        read = getattr(node.target, "overloadpacket", None) in DATA_READS and not alike(before, after)
        if read or (sizes and _picks(trace, node) and _shapes(before) != _shapes(after)):
            yield node


def _shapes(value: Any) -> list[torch.Size]:
    return [tensor.shape for tensor in pytree.tree_leaves(value)]


def contraction_orders(trace: Trace) -> list[Any]:
    """In which order each einsum contracts its operands; opt_einsum chooses by widths."""
    calls = [node for node in trace.graph.nodes if getattr(node.target, "overloadpacket", None) is aten.einsum]
    return [node.kwargs.get("path") for node in calls]


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


def newly_undefined(
    trace: Trace, dense: Mapping[str, Any], recorded: Trace, pruned: Mapping[str, Any]
) -> fx.Node | None:
    """The first node whose values are all finite in the original but not in the pruned network."""
    for node, other in zip(trace.steps, recorded.steps, strict=False):
        if _is_finite(dense.get(node.name)) and not _is_finite(pruned.get(other.name)):
            return node
    return None


def _is_finite(value: Any) -> bool:
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())
