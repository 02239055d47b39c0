"""Walks the recorded graph once and lets each op's rule pass the labels on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from prunegraph.dependency.label_space import LabelSpace, Place, op_name
from prunegraph.dependency.uniform import UniformValues
from prunegraph.errors import PrunegraphError
from prunegraph.ir.trace import TensorSpec, Trace, ValueSpec
from prunegraph.rules.base import Call, Masker, Product, Rule
from prunegraph.rules.book import RuleBook, make_call


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RuledCall:
    """A call of the graph and the rule that answers for it."""

    call: Call
    rule: Rule

    def macs(self) -> list[Product]:
        """What the rule says that the call costs."""
        with self._named():
            return list(self.rule.macs(self.call))

    def masked(self, masker: Masker) -> fx.Node | None:
        """What the rule says that the call computes when some channels are masked; None for the same."""
        with self._named():
            return self.rule.masked(self.call, masker)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"in the rule {type(self.rule).__name__} for {op_name(self.call.node)}")
            raise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Propagation:
    """What the walk found.

    Attributes:
        space: atoms, couplings, locks and size uses.
        labels: node name -> labels of its value (a tuple of them for several outputs).
        calls: node name -> the call with its rule, for ops that have one.
        without_rule: names of ops without a rule that channels meet -> number of calls.
    """

    space: LabelSpace
    labels: Mapping[str, Any]
    calls: Mapping[str, RuledCall]
    without_rule: Mapping[str, int]


def propagate(trace: Trace, book: RuleBook, turned: Mapping[Place, int]) -> Propagation:
    """Labels every value of the graph.

    Tensors bring their own atoms, inputs none. What the network returns is locked, as is whatever meets an op
    without a rule. Where rules have a choice they take their first way, or the one given in ``turned``.
    """
    walk = _Walk(trace, LabelSpace(trace, turned), book)
    for node in trace.graph.nodes:
        walk.visit(node)
    return Propagation(
        space=walk.space,
        labels=MappingProxyType(walk.labels),
        calls=MappingProxyType(walk.calls),
        without_rule=MappingProxyType(walk.without_rule),
    )


def possible_sources(trace: Trace, spec: TensorSpec) -> list[str]:
    """What the module of a tensor that no state dict holds may compute it from in another run: it did not in this."""
    module = spec.name.rpartition(".")[0]
    unread = [s.name for s in trace.tensors.values() if s.is_lasting and s.name in trace.unused]
    return [] if spec.is_lasting else [name for name in unread if name.rpartition(".")[0] == module]


class _Walk:
    def __init__(self, trace: Trace, space: LabelSpace, book: RuleBook) -> None:
        self.trace, self.space, self.book = trace, space, book
        self.labels: dict[str, Any] = {}
        self.calls: dict[str, RuledCall] = {}
        self.without_rule: dict[str, int] = {}
        self.uniform = UniformValues(space)

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            spec = self.trace.tensors.get(node.name)
            self.labels[node.name] = self.space.tensor_labels[spec.name] if spec else self._unlabelled(node)
            if spec:
                self._lock_left_over(node, spec)
        elif node.op == "call_function":
            self._visit_call(node)
        elif node.op == "output":
            self._lock_operands(node, "the network's output keeps its shape")
        else:
            self.labels[node.name] = self._unlabelled(node)

    def _visit_call(self, node: fx.Node) -> None:
        rule = self.book.find(node.target)
        self.uniform.note_read(node)
        if rule is None:
            self._without_rule(node)
            return
        call = make_call(node, self.trace, self.labels, self.space)
        locks, uses = len(self.space.locked), len(self.space.uses)
        try:
            labels = rule.labels(call)
            if not rule.numbers_follow:
                call.fix_unclaimed_numbers()
        except PrunegraphError:
            raise
        except Exception as error:  # what the rule does not know about the channels, nobody does
            failure = f"the rule {type(rule).__name__} for {op_name(node)} failed: {type(error).__name__}: {error}"
            self._lock_operands(node, failure)
            self.labels[node.name] = self._unlabelled(node)
            return
        self.calls[node.name] = RuledCall(call=call, rule=rule)
        self.labels[node.name] = self.uniform.labels_of(node, labels, uses)
        self.space.explain_locks(node, locks, _fixed_sizes(call.output_shape, labels))

    def _lock_left_over(self, node: fx.Node, spec: TensorSpec) -> None:
        """What an earlier run left in a module, instead of which another run may read what this one did not."""
        sources = possible_sources(self.trace, spec)
        if sources:
            reason = (
                f"{spec.name} may be left over from an earlier run and be computed anew from {sources[0]}, which this "
                "run did not read; give a network that has not run yet"
            )
            for atoms in _all_labels(self.labels[node.name]):
                self.space.lock(atoms, reason, node, is_channel=True)

    def _without_rule(self, node: fx.Node) -> None:
        if isinstance(node.target, torch._ops.OpOverload) and any(map(self._is_met, node.all_input_nodes)):
            name = op_name(node)
            self.without_rule[name] = self.without_rule.get(name, 0) + 1
            self._lock_operands(node, f"prunegraph has no rule for {name}")
        self.labels[node.name] = self._unlabelled(node)

    def _is_met(self, operand: fx.Node) -> bool:
        """Whether the value has channels, or came out of an op without a rule that channels met."""
        met = isinstance(operand.target, torch._ops.OpOverload) and op_name(operand) in self.without_rule
        return met or bool(_all_labels(self.labels.get(operand.name)))

    def _lock_operands(self, node: fx.Node, reason: str) -> None:
        for operand in node.all_input_nodes:
            for atoms in _all_labels(self.labels.get(operand.name)):
                self.space.lock(atoms, reason, node, is_channel=True)

    def _unlabelled(self, node: fx.Node) -> Any:
        value = self.trace.values.get(node.name)
        if isinstance(value, tuple):
            return tuple((None,) * len(item.shape) if isinstance(item, ValueSpec) else None for item in value)
        return (None,) * len(value.shape) if isinstance(value, ValueSpec) else None


def _fixed_sizes(shape: tuple[int, ...], labels: Any) -> set[int]:
    """Sizes of the dimensions of a single output that have no labels."""
    if not isinstance(labels, tuple) or len(labels) != len(shape):
        return set()
    return {size for size, atoms in zip(shape, labels, strict=True) if atoms is None}


def _all_labels(labels: Any) -> list[Any]:
    if labels is None:
        return []
    if isinstance(labels, tuple):
        return [atoms for item in labels for atoms in _all_labels(item)]
    return [labels]
