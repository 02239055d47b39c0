"""Gradients of the masked program where the network's code says itself how they flow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function

from prunegraph.ir.trace import OwnBackward, Trace
from prunegraph.masked.overwritten import written


class GradientsAsMeant:
    """Straight-through estimators keep their gradients, be they written with ``no_grad`` or as custom functions.

    What is computed under ``no_grad`` gives none to values that go other ways as well; to those that go no other way,
    such as the features of a frozen encoder, gradients flow as if there was no ``no_grad``: without them nothing would
    tell which of their channels matter.

    Args:
        trace: the record.
        root: modules and buffers of the masked program.
        graph: the masked program in the making.
        counterpart: node of the record -> node of the masked program.
    """

    def __init__(self, trace: Trace, root: nn.Module, graph: fx.Graph, counterpart: dict[fx.Node, fx.Node]) -> None:
        self._trace, self._root, self._graph, self._counterpart = trace, root, graph, counterpart
        self._nodes = {node.name: node for node in trace.graph.nodes}
        self._detached: dict[fx.Node, fx.Node] = {}
        self._own = {call.last: call for call in trace.own_backwards}

    @contextmanager
    def stopped(self, node: fx.Node) -> Iterator[None]:
        """While the node is made, what it reads gets no gradients, if the code wants that."""
        cut = {value: self._counterpart[value] for value in self._cut_off(node)}
        self._counterpart.update({value: self._without_gradient(value) for value in cut})
        try:
            yield
        finally:
            self._counterpart.update(cut)

    def _cut_off(self, node: fx.Node) -> list[fx.Node]:
        if node.name not in self._trace.without_gradient or written(node):
            return []
        return [value for value in node.all_input_nodes if value.op == "call_function" and self._goes_on(value)]

    def _goes_on(self, value: fx.Node) -> bool:
        without = self._trace.without_gradient
        return value.name not in without and any(user.name not in without for user in value.users)

    def _without_gradient(self, value: fx.Node) -> fx.Node:
        if value not in self._detached:
            detach = torch.ops.aten.detach.default
            self._detached[value] = self._graph.call_function(detach, (self._counterpart[value],))
        return self._detached[value]

    def replace_after(self, node: fx.Node) -> None:
        """Where a custom function ends with the node, what it gave is replaced by the same with its gradient."""
        call = self._own.get(node.name)
        if call is None:
            return
        tensors = [self._counterpart[self._nodes[call.args[place]]] for place in call.tensors]
        for place, name in enumerate(call.outputs):
            if name:
                output, module = self._nodes[name], f"gradient_of_{name}"
                self._root.add_module(module, WithGradientOf(call, place))
                self._counterpart[output] = self._graph.call_module(module, (self._counterpart[output], *tensors))


class WithGradientOf(nn.Module):
    """A value, with the gradient of a custom function.

    Args:
        call: of the function.
        output: which of its outputs the value is.
    """

    def __init__(self, call: OwnBackward, output: int) -> None:
        super().__init__()
        self.call, self.output = call, output

    def forward(self, value: Tensor, *tensors: Tensor) -> Tensor:
        """``value``; gradients go to the tensors that the function was given."""
        if not torch.is_grad_enabled():
            return value
        given = dict(zip(self.call.tensors, tensors, strict=True))
        apply: Callable[..., Any] = self.call.kind.apply
        passed = apply(*(given.get(place, arg) for place, arg in enumerate(self.call.args)))
        combined: Tensor = _GradientOf.apply(  # type: ignore[no-untyped-call]
            value, passed[self.output] if isinstance(passed, tuple) else passed
        )
        return combined


class _GradientOf(Function):
    """The first value; gradients flow to the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, passed: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, Any]:
        return None, gradients[0]
