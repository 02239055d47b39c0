"""Rewrites the recorded graph into the exact masked program, op by op, as the rules tell."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunegraph.graph import DependencyGraph
from prunegraph.ir.sizes import Expression
from prunegraph.masked.gradients import GradientsAsMeant
from prunegraph.masked.numbers import Numbers
from prunegraph.masked.overwritten import copy_what_is_overwritten, written
from prunegraph.rules.base import Atoms, Call


def build_masked_graph(graph: DependencyGraph) -> fx.GraphModule:
    """The masked program as a function of (keep values and a final 1, tensors, inputs), all flat.

    Each node keeps the name of its counterpart in the trace under ``meta["origin"]``.
    """
    return _Builder(graph).build()


class _Builder:
    """State of one rewriting: the new graph, its counterparts of old nodes, and shared pieces."""

    def __init__(self, graph: DependencyGraph) -> None:
        self.source = graph
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.counterpart: dict[fx.Node, fx.Node] = {}
        self.all_keep = self.graph.placeholder("keep")
        self.keeps: dict[bytes, fx.Node] = {}
        self.products: dict[tuple[fx.Node, int, bytes], fx.Node] = {}
        self.numbers = Numbers(graph, self.graph, self._kept)
        self.gradients = GradientsAsMeant(graph.trace, self.root, self.graph, self.counterpart)

    def build(self) -> fx.GraphModule:
        for name, constant in self.source.trace.constants.items():
            self.root.register_buffer(name, constant, persistent=False)
        for node in self.source.trace.graph.nodes:
            with self.gradients.stopped(node):
                new = self._masked(node) or self._copied(node)
            new.meta = {"origin": node.name}
            self.counterpart[node] = new
            self.gradients.replace_after(node)
            if written(node):
                self.products.clear()
        copy_what_is_overwritten(self.graph)
        return fx.GraphModule(self.root, self.graph)

    def _copied(self, node: fx.Node) -> fx.Node:
        new = self.graph.node_copy(node, self.counterpart.__getitem__)
        if new.target is torch.ops.aten.view.default:  # masked ops may lay out their results in another way
            new.target = torch.ops.aten.reshape.default
        return new

    def _masked(self, node: fx.Node) -> fx.Node | None:
        ruled = self.source.calls.get(node.name)
        return None if ruled is None else ruled.masked(_CallMasker(self, ruled.call))

    def keep(self, atoms: Atoms | None) -> fx.Node | None:
        return None if atoms is None or (self.source.channel_of[atoms] < 0).all() else self._kept(atoms)

    def _kept(self, atoms: Atoms) -> fx.Node:
        channels = self.source.channel_of[atoms]
        key = channels.tobytes()
        if key not in self.keeps:
            self.keeps[key] = self._gather(channels)
        return self.keeps[key]

    def _gather(self, channels: Atoms) -> fx.Node:
        """Keep values of the channels; those numbered -1 take the final 1."""
        count = int(self.source.channel_of.max()) + 1
        name = f"channels_{len(self.keeps)}"
        self.root.register_buffer(name, torch.from_numpy(np.where(channels < 0, count, channels)), persistent=False)
        # Placed at the very front, since every later op may share it.
        with self.graph.inserting_after(self.all_keep):
            index = self.graph.get_attr(name)
        with self.graph.inserting_after(index):
            return self.graph.call_function(torch.index_select, (self.all_keep, 0, index))

    def times_keep(self, value: fx.Node, dim: int, atoms: Atoms | None) -> fx.Node:
        keep = self.keep(atoms)
        if keep is None or atoms is None:
            return value
        key = value, dim, self.source.channel_of[atoms].tobytes()
        if key not in self.products:
            self.products[key] = self.graph.call_function(scale_along, (value, dim, keep))
        return self.products[key]


class _CallMasker:
    """What the rule of one call may do; implements `prunegraph.rules.base.Masker`."""

    def __init__(self, builder: _Builder, call: Call) -> None:
        self.builder, self.call = builder, call

    def value(self, node: fx.Node) -> fx.Node:
        return self.builder.counterpart[node]

    def keep(self, atoms: Atoms | None) -> fx.Node | None:
        return self.builder.keep(atoms)

    def times_keep(self, value: fx.Node, dim: int, atoms: Atoms | None) -> fx.Node:
        return self.builder.times_keep(value, dim, atoms)

    def emit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> fx.Node:
        return self.builder.graph.call_function(function, args, kwargs)

    def number(self, expression: Expression) -> Any:
        return self.builder.numbers.number(expression)

    def rerun(self, /, **replaced: Any) -> fx.Node:
        node = self.call.node
        args = list(fx.map_arg(list(node.args), self.value))
        kwargs = dict(fx.map_arg(dict(node.kwargs), self.value))
        target, fitted = self._fitted(replaced)
        for name, value in fitted.items():
            place = self.call.places[name]
            if isinstance(place, int):
                args[place] = value
            else:
                kwargs[place] = value
        return self.builder.graph.call_function(target, tuple(args), kwargs)

    def _fitted(self, replaced: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        """A number that became a node fits another overload of the op, or else must become a number again."""
        target: Any = self.call.node.target
        numbers = {n for n, v in replaced.items() if isinstance(v, fx.Node) and _is_number(self.call[n])}
        if not numbers:
            return target, replaced
        packet = target.overloadpacket
        others = {n for n in self.call.places if _is_number(self.call[n])} - numbers
        if any(numbers <= takes and not others & takes for takes in map(_tensors_of, _overloads(packet))):
            return packet, replaced
        return target, {n: self.emit(Tensor.item, v) if n in numbers else v for n, v in replaced.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _overloads(packet: Any) -> list[Any]:
    return [getattr(packet, name) for name in packet.overloads()]


def _tensors_of(overload: Any) -> set[str]:
    """Names of the arguments that are tensors."""
    return {argument.name for argument in overload._schema.arguments if "Tensor" in str(argument.type)}


def scale_along(value: Tensor, dim: int, keep: Tensor) -> Tensor:
    """``value`` times ``keep`` along one dimension, in the precision of ``value``.

    Args:
        value: any shape.
        dim: the dimension of size n; negative ones count from the end.
        keep: keep values, shape ``(n,)``.
    """
    shape = [1] * value.dim()
    shape[dim] = -1
    dtype = value.dtype.to_real() if value.is_complex() else value.dtype
    return value * keep.to(dtype).view(shape)
