"""Copies of tensors that a later op overwrites, for the ops before it: autograd may have saved what they read.

A network that is trained as it is overwrites nothing that its own gradients need. But other ops than the network's
read its values in the masked program, and the gradients of a record are those of every op, where the network may have
said how to differentiate several at once.
"""

from typing import Any

import torch
from torch import fx

_SAVING_THEIR_RESULTS = frozenset([
    "relu", "sigmoid", "special_expit", "tanh", "tan", "elu", "celu", "selu", "softmax", "log_softmax", "sgn",
    "copysign", "exp", "exp2", "expm1", "special_exp2", "special_expm1", "pow", "float_power", "sqrt", "rsqrt",
    "reciprocal", "hypot", "ldexp", "polar", "amax", "amin", "prod", "cumprod", "std", "logsumexp",
    "special_logsumexp", "norm", "linalg_norm", "linalg_vector_norm", "dist", "cdist",
])  # fmt: skip
"""Ops whose derivative torch computes from the result."""

_SOMETIMES_THEIR_INPUT = frozenset([
    "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "type_as", "sum_to_size", "atleast_1d",
    "atleast_2d", "atleast_3d", "broadcast_tensors", "meshgrid", "cartesian_prod", "conj_physical", "einsum",
])  # fmt: skip
"""Ops that may hand on their input itself, or a view of it, which their schema does not say."""


def copy_what_is_overwritten(graph: fx.Graph) -> None:
    """Changes the graph in place; its values stay the same."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    memory = _memory(graph)
    last_write = {memory[target]: order[node] for node in graph.nodes for target in written(node)}
    copies: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes) if last_write else ():
        if written(node):
            copies.clear()
        if _makes_new(node):
            for value in node.all_input_nodes:
                if last_write.get(memory[value], -1) > order[node]:
                    copies[value] = copies.get(value) or _copied(graph, value, node)
                    node.replace_input_with(value, copies[value])
            if _name(node) in _SAVING_THEIR_RESULTS and last_write.get(node, -1) > order[node]:
                copy = _copied(graph, node, node.next)
                memory[copy] = node
                node.replace_all_uses_with(copy, lambda user, copy=copy: user is not copy)
    graph.lint()


def _copied(graph: fx.Graph, value: fx.Node, before: fx.Node) -> fx.Node:
    with graph.inserting_before(before):
        return graph.call_function(torch.ops.aten.clone.default, (value,))


def _memory(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Node -> the node that made the memory in which its value, or the values in its list, may lie."""
    memory: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        inputs = [] if _makes_new(node) else node.all_input_nodes[:1]
        memory[node] = memory[inputs[0]] if inputs else node
    return memory


def _makes_new(node: fx.Node) -> bool:
    """Whether the op is known to make tensors of its own, and to leave its inputs as they are."""
    schema = _schema(node)
    if schema is None:
        return getattr(node.target, "__module__", "").startswith("prunegraph.")  # a statistic or norm under masks
    has_aliases = any(part.alias_info is not None for part in (*schema.arguments, *schema.returns))
    return not has_aliases and _name(node) not in _SOMETIMES_THEIR_INPUT


def written(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values the op overwrites."""
    schema = _schema(node)
    if schema is None:
        return node.all_input_nodes[:1] if node.target is torch.Tensor.copy_ else []
    found: list[fx.Node] = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            fx.map_arg(value, found.append)
    return found


def _name(node: fx.Node) -> str:
    schema = _schema(node)
    return "" if schema is None else schema.name.partition("::")[2]


def _schema(node: fx.Node) -> Any:
    """Of the ATen op; all overloads of one agree in what they overwrite."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverloadPacket):
        target = getattr(target, target.overloads()[0])  # type: ignore[no-untyped-call]
    return target._schema if isinstance(target, torch._ops.OpOverload) else None
