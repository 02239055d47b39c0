"""An oracle for op rules that needs no engine: what a rule says against what the op does when its operands are sliced.

Every dimension of every operand of a function is labelled. The rules' couplings say which indices may go together;
random subsets of them are removed from the operands. Then the function on the sliced operands must give the slices of
what the rules' masked form computes from the full operands, whose absent entries hold garbage.
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from prunegraph.capture.tracer import capture
from prunegraph.ir.sizes import OPERATIONS, Constant, Expression, Operation, ShapeOf
from prunegraph.ir.trace import Trace, ValueSpec
from prunegraph.rules.base import Atoms, Call, Labels, Product, Rule
from prunegraph.rules.book import RuleBook, make_call

BOOK = RuleBook()


class Sink:
    """Atoms of one function's operands; what the rules say about them."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.reasons: dict[int, str] = {}
        self.required: list[tuple[Expression, int | None, int]] = []

    def fresh(self, size: int) -> Atoms:
        self.parent += range(len(self.parent), len(self.parent) + size)
        return np.arange(len(self.parent) - size, len(self.parent))

    def unite(self, left: Atoms, right: Atoms) -> None:
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            self.parent[self.root(a)] = self.root(b)

    def lock(self, atoms: Atoms, reason: str, node: fx.Node, *, is_channel: bool) -> None:
        self.reasons |= dict.fromkeys(atoms.tolist(), reason)

    def leave_out(self, atoms: Atoms, limits: Sequence[Expression], node: fx.Node) -> None:
        """For other inputs than the one at hand."""

    def require_size(self, expression: Expression, atoms: Atoms | None, size: int, node: fx.Node) -> None:
        self.required.append((expression, None if atoms is None else len(atoms), size))
        if isinstance(expression, Constant) and atoms is not None:
            self.lock(atoms, "hard-coded", node, is_channel=True)

    def choose(self, node: fx.Node, question: str, ways: Sequence[Atoms]) -> int:
        """The likeliest way."""
        return 0

    def note_written(self, size: int, node: fx.Node) -> None:
        """Only explains locks."""

    def root(self, atom: int) -> int:
        while self.parent[atom] != atom:
            atom = self.parent[atom]
        return atom

    def roots(self, atoms: Atoms) -> Atoms:
        return np.array([self.root(atom) for atom in atoms.tolist()], dtype=np.int64)

    @property
    def locked(self) -> set[int]:
        return {self.root(atom) for atom in self.reasons}


class _Function(nn.Module):
    """Gives a function a parameter, without which nothing could be pruned."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(2))
        self.function = function

    def forward(self, **operands: torch.Tensor) -> Any:
        return self.function(**operands)


class Study:
    """What the rules say about a function of named tensors.

    Attributes:
        free: the dimensions that belong together, such as ``"x.1 weight.0 out.1"`` -> number of independent sets.
        locked: dimensions with an index that must stay -> one of the reasons.
    """

    def __init__(self, function: Callable[..., Any], **operands: torch.Tensor) -> None:
        self.function, self.operands = function, operands
        self.trace: Trace = capture(_Function(function), {name: t.clone() for name, t in operands.items()})
        self.sink = Sink()
        self.known: dict[str, Any] = {}
        self.calls: dict[str, tuple[Rule, Call]] = {}
        self.labels = dict(zip(operands, map(self._input, self.trace.inputs), strict=True))
        for node in self.trace.graph.nodes:
            if node.op == "call_function":
                self._visit(node)
            elif node.op == "get_attr":
                self.known[node.name] = (None,) * self.trace.constants[str(node.target)].dim()
        self.outputs = self._output_labels()
        self.free, self.locked = self._summary()

    def _input(self, name: str) -> Labels:
        spec = self.trace.values[name]
        assert isinstance(spec, ValueSpec)
        self.known[name] = tuple(self.sink.fresh(size) if size > 1 else None for size in spec.shape)
        return self.known[name]

    def _visit(self, node: fx.Node) -> None:
        rule = BOOK.find(node.target)
        assert rule is not None, f"no rule for {node.target}"
        call = make_call(node, self.trace, self.known, self.sink)
        self.calls[node.name] = rule, call
        self.known[node.name] = rule.labels(call)
        check_labels(self.known[node.name], self.trace.values[node.name])

    def _output_labels(self) -> list[Labels]:
        (output,) = (node for node in self.trace.graph.nodes if node.op == "output")
        return [self.known[node.name] for node in output.args[0]]

    def _dimensions(self) -> Iterator[tuple[str, Atoms]]:
        named = dict(self.labels)
        single = len(self.outputs) == 1
        named |= {"out" if single else f"out{i}": labels for i, labels in enumerate(self.outputs)}
        for name, labels in named.items():
            yield from ((f"{name}.{dim}", atoms) for dim, atoms in enumerate(labels) if atoms is not None)

    def _summary(self) -> tuple[dict[str, int], dict[str, str]]:
        touched: dict[int, list[str]] = defaultdict(list)
        reasons = {self.sink.root(atom): reason for atom, reason in self.sink.reasons.items()}
        locked: dict[str, str] = {}
        for name, atoms in self._dimensions():
            for root in dict.fromkeys(self.sink.roots(atoms).tolist()):
                if root not in reasons:
                    touched[root].append(name)
                elif not name.startswith("out"):
                    locked[name] = reasons[root]
        free: dict[str, int] = defaultdict(int)
        for names in touched.values():
            free[" ".join(names)] += 1
        self._members = touched
        return dict(free), locked

    def draw(self, seed: int) -> Atoms:
        """Random keep values (0 or 1) by atom; some of each set of dimensions stays."""
        rng = np.random.default_rng(seed)
        sets: dict[str, list[int]] = defaultdict(list)
        for root, names in self._members.items():
            sets[" ".join(names)].append(root)
        keep = np.ones(len(self.sink.parent), np.int64)
        for roots in sets.values():
            keep[roots] = rng.random(len(roots)) < 0.5
            keep[rng.choice(roots)] = 1
        return keep[self.sink.roots(np.arange(len(keep)))] if len(keep) else keep

    def check(self, seeds: int = 5, tolerance: float = 1e-12) -> None:
        """Raises AssertionError where slicing and the masked form differ."""
        for seed in range(seeds):
            keep = self.draw(seed)
            small = {name: _sliced(t, self.labels[name], keep) for name, t in self.operands.items()}
            expected = _flat(self.function(**{name: t.clone() for name, t in small.items()}))
            full = [_with_garbage(t, self.labels[name], keep) for name, t in self.operands.items()]
            found = self.masked(keep)(torch.from_numpy(keep).double(), *full)
            for value, labels, wanted in zip(found, self.outputs, expected, strict=True):
                got = _sliced(value, labels, keep)
                assert got.shape == wanted.shape, f"{tuple(got.shape)} masked, {tuple(wanted.shape)} sliced"
                torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)

    def masked(self, keep: Atoms) -> fx.GraphModule:
        """The masked form of the function, of keep values by atom and the operands."""
        return _Masker(self, keep).build()

    def macs(self, keep: Atoms | None = None) -> int:
        """Sum of the rules' costs."""
        chosen = np.ones(len(self.sink.parent), np.int64) if keep is None else keep
        return sum(_product(term, chosen) for rule, call in self.calls.values() for term in rule.macs(call))


def check_labels(labels: Any, value: Any) -> None:
    """Labels have the shape of the value; dimensions of size 1 have none."""
    if isinstance(value, tuple):
        for item, spec in zip(labels, value, strict=True):
            check_labels(item, spec)
    elif isinstance(value, ValueSpec):
        assert [len(a) if a is not None else n for a, n in zip(labels, value.shape, strict=True)] == list(value.shape)
        assert all(atoms is None or len(atoms) > 1 for atoms in labels), "a dimension of size 1 is labelled"


class _Masker:
    """A small builder of masked programs, apart from the library's own."""

    def __init__(self, study: Study, keep: Atoms) -> None:
        self.study = study
        self.graph = fx.Graph()
        self.constants = nn.Module()
        self.values: dict[str, fx.Node] = {}
        self.keep_all = self.graph.placeholder("keep_all")
        self.call: Call | None = None

    def build(self) -> fx.GraphModule:
        for node in self.study.trace.graph.nodes:
            if node.op == "placeholder":
                is_operand = node.name in self.study.trace.inputs
                self.values[node.name] = self.graph.placeholder(node.name) if is_operand else self.keep_all
            elif node.op == "call_function":
                self.values[node.name] = self._call(node)
            elif node.op == "get_attr":
                self.values[node.name] = self._constant(self.study.trace.constants[str(node.target)])
            else:
                self.graph.output(tuple(self.value(item) for item in node.args[0]))
        return fx.GraphModule(self.constants, self.graph)

    def _call(self, node: fx.Node) -> fx.Node:
        rule, self.call = self.study.calls[node.name]
        return rule.masked(self.call, self) or self._copied({}, {})

    def value(self, node: fx.Node) -> fx.Node:
        return self.values[node.name]

    def keep(self, atoms: Atoms | None) -> fx.Node | None:
        if atoms is None or set(self.study.sink.roots(atoms).tolist()) <= self.study.sink.locked:
            return None
        index = self._constant(torch.from_numpy(self.study.sink.roots(atoms)))
        return self.graph.call_function(operator.getitem, (self.keep_all, index))

    def _constant(self, tensor: torch.Tensor) -> fx.Node:
        name = f"constant{len(list(self.constants.buffers()))}"
        self.constants.register_buffer(name, tensor)
        return self.graph.get_attr(name)

    def times_keep(self, value: fx.Node, dim: int, atoms: Atoms | None) -> fx.Node:
        keep = self.keep(atoms)
        return value if keep is None else self.graph.call_function(_times_along, (value, keep, dim))

    def emit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(function, args, kwargs)

    def rerun(self, /, **replaced: Any) -> fx.Node:
        assert self.call is not None
        places = self.call.places
        assert all(name in self.call.arguments for name in replaced), f"{replaced} are not in the schema"
        return self._copied(
            {places[n]: v for n, v in replaced.items() if isinstance(places.get(n), int)},
            {n: v for n, v in replaced.items() if not isinstance(places.get(n), int)},
        )

    def _copied(self, positional: Mapping[Any, Any], named: Mapping[str, Any]) -> fx.Node:
        assert self.call is not None
        node = self.call.node
        args = [positional[i] if i in positional else fx.map_arg(arg, self.value) for i, arg in enumerate(node.args)]
        kwargs = {**{k: fx.map_arg(v, self.value) for k, v in node.kwargs.items()}, **named}
        return self.graph.call_function(node.target, tuple(args), kwargs)  # type: ignore[arg-type]

    def number(self, expression: Expression) -> Any:
        match expression:
            case ShapeOf(node=name, dim=dim, value=value):
                keep = self.keep(self.study.known[name][dim])
                return value if keep is None else self.emit(torch.sum, keep)
            case Operation(name=name, operands=operands):
                values = [self.number(operand) for operand in operands]
                nodes = any(isinstance(value, fx.Node) for value in values)
                return self.emit(getattr(operator, name), *values) if nodes else OPERATIONS[name](*values)
            case _:
                return expression.value  # type: ignore[union-attr]


def _times_along(value: torch.Tensor, keep: torch.Tensor, dim: int) -> torch.Tensor:
    shape = [1] * value.dim()
    shape[dim] = -1
    return value * keep.reshape(shape)


def _sliced(tensor: torch.Tensor, labels: Labels, keep: Atoms) -> torch.Tensor:
    for dim, atoms in enumerate(labels):
        if atoms is not None:
            tensor = tensor.index_select(dim, torch.from_numpy(np.flatnonzero(keep[atoms])))
    return tensor


def _with_garbage(tensor: torch.Tensor, labels: Labels, keep: Atoms) -> torch.Tensor:
    """The tensor with large random numbers wherever an index of some dimension is absent."""
    tensor = tensor.clone()
    if not tensor.is_floating_point() and not tensor.is_complex():
        return tensor
    generator = torch.Generator().manual_seed(0)
    for dim, atoms in enumerate(labels):
        if atoms is not None:
            absent = torch.from_numpy(np.flatnonzero(keep[atoms] == 0))
            shape = [len(absent) if d == dim else n for d, n in enumerate(tensor.shape)]
            noise = torch.randn(shape, generator=generator, dtype=tensor.dtype)
            tensor.index_copy_(dim, absent, 100 * noise)
    return tensor


def _flat(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _product(term: Product, keep: Atoms) -> int:
    return int(np.prod([factor if isinstance(factor, int) else keep[factor].sum() for factor in term], dtype=np.int64))


def randoms(*shapes: Sequence[int], seed: int = 0) -> list[torch.Tensor]:
    """Tensors of normal random numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
