"""Collects a network's cost terms from its graph: each op's rule tells its MACs."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from prunegraph.cost.model import Allocation, CostModel, Term
from prunegraph.dependency.propagation import Propagation
from prunegraph.ir.trace import Trace, ValueSpec
from prunegraph.rules.base import Product


def build_cost_model(trace: Trace, found: Propagation, channel_of: NDArray[np.int64]) -> CostModel:
    """The cost of any choice of channels, from the labels of every value and the MACs of every op."""
    return CostModel(
        macs=list(_mac_terms(trace, found)),
        parameters=list(_parameter_terms(trace, found)),
        memory=list(_allocations(trace, found.labels)),
        channel_of=channel_of,
    )


def _mac_terms(trace: Trace, found: Propagation) -> Iterator[Term]:
    for name, ruled in found.calls.items():
        for product in ruled.macs():
            yield Term(factors=product, module=trace.sites[name].module if name in trace.sites else "")


def _parameter_terms(trace: Trace, found: Propagation) -> Iterator[Term]:
    for spec in trace.tensors.values():
        if spec.is_parameter:
            yield Term(
                factors=_sizes(spec.shape, found.space.tensor_labels[spec.name]), module=spec.name.rpartition(".")[0]
            )


def _allocations(trace: Trace, labels: Mapping[str, Any]) -> Iterator[Allocation]:
    """One per op output that is new memory; views live in, and prolong the life of, what they look at."""
    order = {node: step for step, node in enumerate(trace.graph.nodes)}
    owner: dict[fx.Node, fx.Node] = {}
    last: dict[fx.Node, int] = {}
    for node, step in order.items():
        owner[node] = owner[node.all_input_nodes[0]] if _shares_memory(node) and node.all_input_nodes else node
        for used in (node, *node.all_input_nodes):
            last[owner[used]] = step
    for node, step in order.items():
        if node.op != "call_function" or owner[node] is not node:
            continue
        for itemsize, factors in output_sizes(trace.values.get(node.name), labels.get(node.name)):
            yield Allocation(
                factors=factors,
                bytes_per_element=itemsize,
                first=step,
                last=last[node],
            )


def _shares_memory(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return any(result.alias_info is not None for result in node.target._schema.returns)


def output_sizes(value: Any, labels: Any) -> Iterator[tuple[int, Product]]:
    """Bytes per element and sizes of each tensor that an op gives out."""
    if isinstance(value, ValueSpec):
        yield value.dtype.itemsize, _sizes(value.shape, labels)
    elif isinstance(value, tuple):
        for position, item in enumerate(value):
            inner = labels[position] if isinstance(labels, tuple) and position < len(labels) else None
            yield from output_sizes(item, inner)


def _sizes(shape: tuple[int, ...], labels: Any) -> Product:
    if not isinstance(labels, tuple) or len(labels) != len(shape):
        return shape
    return tuple(size if atoms is None else atoms for size, atoms in zip(shape, labels, strict=True))
