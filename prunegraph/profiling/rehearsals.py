"""Real networks of several widths, ready to be timed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from prunegraph.capture.clone import named_tensors
from prunegraph.capture.example import Nested, normalise_example
from prunegraph.capture.modes import in_mode
from prunegraph.capture.tracer import capture
from prunegraph.deployment import cuda_graph
from prunegraph.graph import DependencyGraph
from prunegraph.ir.plan import PruningPlan
from prunegraph.ir.trace import Trace
from prunegraph.surgery.slicing import apply


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rehearsal:
    """A real network of one width, ready to be timed as a whole and op by op.

    Attributes:
        share: of the channels that stayed in every group.
        plan: which they are.
        network: what `apply` made of the plan, in evaluation mode.
        example: its inputs, taken apart.
        trace: its recorded forward pass; the calls are those of the dense network.
        tensors: its parameters and buffers, in the order of the record.
        program: the record as a function of `operands`.
    """

    share: float
    plan: PruningPlan
    network: Callable[..., Any]
    example: Nested
    trace: Trace
    tensors: tuple[torch.Tensor, ...]
    program: fx.GraphModule

    def operands(self) -> list[torch.Tensor]:
        """Tensors and inputs, flat; copies of what a forward pass may write."""
        pairs = zip(self.tensors, self.trace.tensors.values(), strict=True)
        tensors = [tensor if spec.is_parameter else tensor.clone() for tensor, spec in pairs]
        return [*tensors, *(tensor.clone() for tensor in self.example.tensors)]


def rehearse(
    model: nn.Module, graph: DependencyGraph, example_inputs: Any, share: float, plan: PruningPlan
) -> Rehearsal | None:
    """Makes and records the network of a plan; None where it does not run the same ops as the dense one."""
    network = in_mode(apply(model, plan), training=False)
    trace = capture(network, example_inputs)
    if _targets(trace) != _targets(graph.trace):
        return None
    tensors = named_tensors(network)
    return Rehearsal(
        share=share,
        plan=plan,
        network=network,
        example=normalise_example(example_inputs),
        trace=trace,
        tensors=tuple(tensors[spec.name].detach() for spec in trace.tensors.values()),
        program=_program(trace),
    )


def on_cuda_graph(found: Rehearsal, example_inputs: Any) -> Rehearsal:
    """The same network as one CUDA graph.

    Raises:
        UnsupportedModelError: it cannot run so.
    """
    return replace(found, network=cuda_graph(found.network, example_inputs))


def _program(trace: Trace) -> fx.GraphModule:
    root = nn.Module()
    for name, constant in trace.constants.items():
        root.register_buffer(name, constant, persistent=False)
    return fx.GraphModule(root, trace.graph)


def _targets(trace: Trace) -> list[tuple[str, str]]:
    return [(node.name, str(node.target)) for node in trace.graph.nodes]
