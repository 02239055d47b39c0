"""Gradients of a loss by a network's parameters, batch by batch, on the recorded forward pass."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from prunegraph.errors import CriterionError, InputError
from prunegraph.graph import DependencyGraph
from prunegraph.importance.batches import GraphOf, batches_of, graph_for, pair_of, recorded_inputs
from prunegraph.ir.trace import Trace
from prunegraph.masked.gradients import GradientsAsMeant
from prunegraph.masked.overwritten import copy_what_is_overwritten


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchGradients:
    r"""For each batch $b$ the derivatives $\partial L_b / \partial w$ of its loss by every parameter.

    Going through it goes through the data and computes one mapping, parameter name -> tensor of the parameter's shape,
    for each batch; nothing is kept. What is run is the record of the network's forward pass: in eval mode, on the
    network's own tensors where they are. A tied parameter has one gradient, over all of its uses; a parameter that is
    not read has zeros; one of integers has none. The derivative of a complex parameter is torch's:
    $\partial L / \partial \Re w + i\, \partial L / \partial \Im w$. Gradients go through ``torch.no_grad`` and custom
    functions as in the masked program, see `GradientsAsMeant`.
    The network's tensors, its buffers and its ``.grad`` stay as they are.

    Attributes:
        graph: the network's dependency graph.
        data: batches ``(inputs, targets)`` on the network's device, the inputs as for `build_graph`.
        loss: ``loss(output, targets)``, a scalar tensor.
        graph_of: the graph for inputs of other shapes than the example's; without it all batches have those.

    Raises:
        InputError: while it is gone through: there is no batch, a batch is no pair, has other shapes than the
            example, or cannot be run; the loss is not a scalar tensor that depends on the network's output.
        CriterionError: while it is gone through: a loss or a gradient is not finite, or torch cannot differentiate
            an op; names the batch, and the tensor or op.
    """

    graph: DependencyGraph
    data: Iterable[tuple[Any, Any]]
    loss: Callable[[Any, Any], torch.Tensor]
    graph_of: GraphOf | None = None

    def __iter__(self) -> Iterator[Mapping[str, torch.Tensor]]:
        """Computes the gradients of one batch after the other."""
        graph, program = self.graph, _Program(self.graph)
        for number, batch in enumerate(batches_of(self.data)):
            where = f"batch {number} of the data"
            inputs, targets = pair_of(batch, where)
            found = graph_for(inputs, self.graph, self.graph_of)
            if found is not graph:
                graph, program = found, _Program(found)
            yield program.gradients(inputs, targets, self.loss, where)


class _Program:
    """The recorded forward pass as a function of parameters that are differentiated."""

    def __init__(self, graph: DependencyGraph) -> None:
        self.trace = graph.trace
        self.function = differentiable_record(graph.trace)
        tensors = {spec.name: graph.weights[spec.name].detach() for spec in graph.trace.tensors.values()}
        self.leaves = {
            spec.name: tensors[spec.name].requires_grad_()
            for spec in graph.trace.tensors.values()
            if spec.is_parameter and (spec.dtype.is_floating_point or spec.dtype.is_complex)
        }
        self.tensors = tuple(tensors.values())

    def gradients(
        self, inputs: Any, targets: Any, loss: Callable[[Any, Any], torch.Tensor], where: str
    ) -> Mapping[str, torch.Tensor]:
        tensors = recorded_inputs(self.trace, inputs, where)
        with torch.enable_grad():
            value = _scalar(loss(self._output(tensors, where), targets), where)
            found = _derivatives(value, tuple(self.leaves.values()), where)
        gradients = dict(zip(self.leaves, found, strict=True))
        _refuse_not_finite(gradients, where)
        return gradients

    def _output(self, inputs: tuple[torch.Tensor, ...], where: str) -> Any:
        # Copies, since a forward pass may write to buffers, inputs and even weights.
        operands = [tensor.clone() for tensor in (*self.tensors, *inputs)]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "RNN module weights are not part of single contiguous chunk of memory"
                )
                outputs = self.function(*operands)
        except RuntimeError as error:
            raise InputError(f"the network cannot be run on {where}: {error}") from error
        return self.trace.output.rebuild(outputs)


def differentiable_record(trace: Trace) -> fx.GraphModule:
    """The record as a function of all tensors and inputs, ready for autograd, with the gradients that the code wants.

    CuDNN differentiates recurrent layers in training mode only; without dropout both modes compute the same.
    """
    graph, root, copies = fx.Graph(), nn.Module(), dict[fx.Node, fx.Node]()
    gradients = GradientsAsMeant(trace, root, graph, copies)
    for node in trace.graph.nodes:
        with gradients.stopped(node):
            copies[node] = graph.node_copy(node, copies.__getitem__)
        gradients.replace_after(node)
    for node in graph.nodes:
        names = [argument.name for argument in getattr(getattr(node.target, "_schema", None), "arguments", ())]
        if {"train", "dropout", "params"} <= set(names):
            node.update_arg(names.index("dropout"), 0.0)
            node.update_arg(names.index("train"), True)
    copy_what_is_overwritten(graph)
    for name, constant in trace.constants.items():
        root.register_buffer(name, constant, persistent=False)
    return fx.GraphModule(root, graph)


def _derivatives(value: torch.Tensor, leaves: tuple[torch.Tensor, ...], where: str) -> tuple[torch.Tensor, ...]:
    try:
        return torch.autograd.grad(value, leaves, materialize_grads=True)
    except RuntimeError as error:
        raise CriterionError(
            f"the loss on {where} cannot be differentiated: {error}; choose a criterion that needs no gradients, "
            "such as l1 or reconstruction"
        ) from error


def _scalar(value: Any, where: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        found = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f"the loss must be a scalar tensor, got {found} on {where}; take its mean")
    if not value.requires_grad:
        raise InputError(f"the loss on {where} has no gradient; compute it from the output without detaching it")
    if not bool(value.isfinite()):
        raise CriterionError(f"the loss on {where} is {value.item()}; look for silent or broken signals in it")
    return value.reshape(())


def _refuse_not_finite(gradients: Mapping[str, torch.Tensor], where: str) -> None:
    finite = torch.stack([gradient.isfinite().all() for gradient in gradients.values()]).tolist()
    bad = [name for name, is_finite in zip(gradients, finite, strict=True) if not is_finite]
    if bad:
        raise CriterionError(
            f"the loss on {where} has NaN or infinite derivatives by {', '.join(map(repr, bad[:3]))}; "
            "look for silent or broken signals in it"
        )
