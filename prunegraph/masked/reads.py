"""What the code of a network reads out of data, such as lengths, or which branch to take."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from prunegraph.graph import DependencyGraph
from prunegraph.ir.trace import DATA_READS


class DataReads:
    """The places of a record where the code read a tensor.

    Args:
        graph: the network's dependency graph; its tensors are used as they are.
    """

    def __init__(self, graph: DependencyGraph) -> None:
        trace = graph.trace
        nodes = [node for node in trace.graph.nodes if getattr(node.target, "overloadpacket", None) in DATA_READS]
        self._tensors = [(graph.weights[spec.name], spec.is_parameter) for spec in trace.tensors.values()]
        self._program = self._ending_with(nodes, trace.as_module()) if nodes else None

    def __bool__(self) -> bool:
        return self._program is not None

    @staticmethod
    def _ending_with(nodes: Sequence[fx.Node], module: fx.GraphModule) -> fx.GraphModule:
        program, copies = fx.Graph(), dict[fx.Node, Any]()
        program.graph_copy(nodes[0].graph, copies)
        program.output(tuple(copies[node] for node in nodes))
        program.eliminate_dead_code()
        return fx.GraphModule(module, program)

    @torch.no_grad()
    def of(self, inputs: Sequence[torch.Tensor]) -> list[Any]:
        """What the code reads where these inputs lead it the recorded way."""
        if self._program is None:
            return []
        tensors = [tensor if is_parameter else tensor.clone() for tensor, is_parameter in self._tensors]
        return list(self._program(*tensors, *(tensor.clone() for tensor in inputs)))


def alike(left: Any, right: Any) -> bool:
    """Whether two values that were read are the same, to rounding."""
    left, right = torch.as_tensor(left), torch.as_tensor(right)
    return left.shape == right.shape and bool(torch.isclose(left, right, equal_nan=True).all())
