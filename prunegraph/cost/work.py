"""How much work each op call does under any choice of channels: multiplications, and bytes that it reads and writes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from prunegraph.cost.build import output_sizes
from prunegraph.cost.model import Products, SizeTable
from prunegraph.dependency.propagation import RuledCall
from prunegraph.ir.trace import Trace
from prunegraph.rules.base import Product


class OpWork:
    """The work of every op call as a function of the kept channels, in closed form.

    Args:
        trace: the recorded forward pass.
        calls: node name -> op call and its rule; a call without a rule counts no multiplications.
        labels: node name -> labels of its value.
        channel_of: for each atom the number of its channel; -1 for what always stays.
    """

    def __init__(
        self,
        trace: Trace,
        calls: Mapping[str, RuledCall],
        labels: Mapping[str, Any],
        channel_of: NDArray[np.int64],
    ) -> None:
        nodes = [node for node in trace.graph.nodes if node.op == "call_function"]
        self.nodes = tuple(node.name for node in nodes)
        self.ops = tuple(str(node.target) for node in nodes)
        self.kinds = tuple(_kind(node, trace) for node in nodes)
        macs = [(i, product) for i, node in enumerate(nodes) for product in _macs(node, calls)]
        moved = [(i, product) for i, node in enumerate(nodes) for product in _bytes(node, trace, labels)]
        table = SizeTable(channel_of)
        self._owners = [np.array([i for i, _ in terms], np.int64) for terms in (macs, moved)]
        self._products = [Products([product for _, product in terms], table) for terms in (macs, moved)]
        self._sizes = table.compiled()

    def __call__(self, kept: NDArray[np.bool_], *, block: int = 1) -> NDArray[np.float64]:
        """Columns 1, MACs and bytes for each call, shape ``(calls, 3)``; channels count in blocks of ``block``."""
        sizes = self._sizes(kept, block=block)
        ones = np.ones(len(self.nodes))
        pairs = zip(self._owners, self._products, strict=True)
        sums = [np.bincount(owner, products(sizes), len(ones)) for owner, products in pairs]
        return np.stack([ones, *sums], axis=1)


def _kind(node: fx.Node, trace: Trace) -> str:
    """The call with the shapes of its operands in their places: calls of one kind take the same time."""
    return str((node.target, fx.map_arg((node.args, node.kwargs), lambda operand: str(trace.values.get(operand.name)))))


def _macs(node: fx.Node, calls: Mapping[str, RuledCall]) -> Iterator[Product]:
    ruled = calls.get(node.name)
    if ruled is not None:
        yield from ruled.macs()


def _bytes(node: fx.Node, trace: Trace, labels: Mapping[str, Any]) -> Iterator[Product]:
    for value in (node, *node.all_input_nodes):
        for size, product in output_sizes(trace.values.get(value.name), labels.get(value.name)):
            yield (size, *product)
