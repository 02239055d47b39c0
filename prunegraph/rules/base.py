"""What an op rule is: one op, one place, three answers - labels, masked form and cost.

Every index of every dimension of every parameter and buffer is an *atom*, an integer. While the graph is walked, each
value carries per dimension either the array of atoms of its indices (such a dimension is *labelled*) or None (time,
batch, anything of fixed size). A rule says how labels pass through its op and which atoms must be kept or removed
together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import fx

from prunegraph.ir.sizes import Constant, Expression, ShapeOf, is_open, leaves
from prunegraph.ir.trace import Place, Site, Trace, ValueSpec

Atoms: TypeAlias = NDArray[np.int64]
"""Atoms of the indices of one dimension, shape ``(size,)``."""

Labels: TypeAlias = tuple[Atoms | None, ...]
"""Per dimension of a tensor: the atoms of its indices, or None where the size is fixed."""

Product: TypeAlias = tuple[int | Atoms, ...]
"""A term of a cost: the product of sizes; a labelled dimension's size is the number of its atoms that are kept."""


_DIMENSIONS = frozenset({"dim", "dims", "dim0", "dim1", "axis0", "axis1", "start_dim", "end_dim"})
"""Arguments that name dimensions."""


class LabelSink(Protocol):
    """Where rules put what they find: `prunegraph.dependency` collects it."""

    def fresh(self, size: int) -> Atoms:
        """New atoms that belong to no tensor: for a value made on the fly, which can be made smaller."""

    def unite(self, left: Atoms, right: Atoms) -> None:
        """Index i of ``left`` must be kept or removed together with index i of ``right``."""

    def separate(self, atoms: Atoms) -> None:
        """These indices form a value of their own: it must not lose all of them."""

    def leave_out(self, atoms: Atoms, limits: Sequence[Expression], node: fx.Node) -> None:
        """A cut at these limits leaves these indices out: they stay if another input may cut elsewhere."""

    def lock(self, atoms: Atoms, reason: str, node: fx.Node, *, is_channel: bool) -> None:
        """These atoms can never be removed; ``is_channel`` is False for kernel taps and the like."""

    def choose(self, node: fx.Node, question: str, ways: Sequence[Atoms]) -> int:
        """Which way to take where only one of several sets of atoms can stay prunable; the likeliest stands first.

        Another way is tried if everything that the first one left prunable turns out to be locked. ``question`` tells
        the choices at one node apart.
        """

    def require_size(self, expression: Expression, atoms: Atoms | None, size: int, node: fx.Node) -> None:
        """After pruning, the expression must evaluate to the number of kept atoms (``size`` where there are none)."""

    def note_written(self, size: int, node: fx.Node) -> None:
        """A value is made with a dimension of a size that no attribute or shape gives: the cause of later locks."""


class Masker(Protocol):
    """Builds the masked form of one op in the exact masked program; see `prunegraph.masked`."""

    def value(self, node: fx.Node) -> fx.Node:
        """The counterpart in the masked program of a node of the trace."""

    def keep(self, atoms: Atoms | None) -> fx.Node | None:
        """Keep values of the atoms, shape ``(size,)``; None where all of them always stay."""

    def times_keep(self, value: fx.Node, dim: int, atoms: Atoms | None) -> fx.Node:
        """``value`` times the keep values along ``dim``; ``value`` itself where all of them always stay."""

    def emit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of ``function`` on nodes of the masked program and constants."""

    def rerun(self, /, **replaced: Any) -> fx.Node:
        """The op itself, with some arguments (by schema name) replaced by nodes of the masked program."""

    def number(self, expression: Expression) -> Any:
        """What the expression will be in the pruned network: a number, or a node where it depends on masks."""


@dataclass(frozen=True, slots=True)
class Call:
    """One op call of the trace, as a rule sees it.

    Attributes:
        node: the graph node.
        arguments: value of each argument by its name in the op's schema, defaults filled in.
        places: where each argument stands in ``node.args`` or ``node.kwargs``.
        trace: the record that the node belongs to.
        known: labels of the values computed so far, by node name.
        sink: where couplings, locks and size uses go.
        claimed: places of the numbers whose origin the rule has asked for.
    """

    node: fx.Node
    arguments: Mapping[str, Any]
    places: Mapping[str, int | str]
    trace: Trace
    known: Mapping[str, Any]
    sink: LabelSink
    claimed: set[Place] = field(default_factory=set)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument, or the default where the schema has no such name or the call left it None."""
        value = self.arguments.get(name)
        return default if value is None else value

    def tensors(self) -> list[fx.Node]:
        """All tensor operands, also those in lists, in schema order."""
        return [node for value in self.arguments.values() for node in _nodes(value)]

    def shape(self, operand: str | fx.Node) -> tuple[int, ...]:
        """Sizes of a tensor operand."""
        node = self.arguments[operand] if isinstance(operand, str) else operand
        return self.trace.shape(node) or ()

    def labels(self, operand: str | fx.Node | None) -> Labels:
        """Labels of a tensor operand; an absent one has none."""
        node = self.arguments.get(operand) if isinstance(operand, str) else operand
        if not isinstance(node, fx.Node):
            return ()
        known = self.known.get(node.name)
        return known if known is not None else (None,) * len(self.trace.shape(node) or ())

    def sizes(self, operand: str | fx.Node) -> Product:
        """Per dimension the atoms, or the size where the dimension is not labelled: factors for a cost."""
        pairs = zip(self.shape(operand), self.labels(operand), strict=True)
        return tuple(size if atoms is None else atoms for size, atoms in pairs)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Sizes of the (first) output."""
        value = self.trace.values.get(self.node.name)
        value = value[0] if isinstance(value, tuple) else value
        return value.shape if isinstance(value, ValueSpec) else ()

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of all outputs of an op that returns several."""
        value = self.trace.values.get(self.node.name)
        return tuple(item.shape for item in value) if isinstance(value, tuple) else (self.output_shape,)

    def batch_sizes(self, *operands: str) -> Product:
        """Sizes of all dimensions but the last two, broadcast over the operands of a product of matrices."""
        rank = max(len(self.shape(name)) for name in operands)
        full = {
            dim: self.sizes(name)[dim]
            for name in operands
            for dim in range(-len(self.shape(name)), -2)
            if self.shape(name)[dim] != 1
        }
        return tuple(full.get(dim, 1) for dim in range(-rank, -2))

    @property
    def real_products(self) -> int:
        """Multiplications of real numbers in one multiplication of this op: 4 where it is complex."""
        value = self.trace.values.get(self.node.name)
        return 4 if isinstance(value, ValueSpec) and value.dtype.is_complex else 1

    def origin(self, name: str, index: int | None = None) -> Expression:
        """The expression behind a number among the arguments, or behind element ``index`` of a list of numbers."""
        path: Place = (self.places[name],) if name in self.places else ()
        path = path if index is None else (*path, index)
        self.claimed.add(path)
        value = self.arguments[name] if index is None else self.arguments[name][index]
        return self.trace.sizes.get(self.node.name, {}).get(path, Constant(value))

    def varies_with_input(self, name: str) -> bool:
        """Whether a number is read from sizes that no channel counts, such as time: another input gives another."""
        found = list(leaves(self.origin(name))) if self.get(name) is not None else []
        return bool(found) and all(isinstance(leaf, ShapeOf) and self._atoms_of(leaf) is None for leaf in found)

    def _atoms_of(self, size: ShapeOf) -> Atoms | None:
        labels = self.known.get(size.node)
        return labels[size.dim] if isinstance(labels, tuple) else None

    @property
    def site(self) -> Site:
        """The user's line that made the call."""
        return self.trace.site(self.node)

    def lock(self, atoms: Atoms | None, reason: str, *, is_channel: bool = True) -> None:
        """Locks the atoms, if there are any."""
        if atoms is not None:
            self.sink.lock(atoms, reason, self.node, is_channel=is_channel)

    def lock_all(self, labels: Iterable[Atoms | None], reason: str) -> None:
        """Locks every labelled dimension."""
        for atoms in labels:
            self.lock(atoms, reason)

    def match(self, left: Atoms | None, right: Atoms | None, reason: str) -> Atoms | None:
        """Two dimensions that must keep the same indices: united, or locked where one of them has a fixed size."""
        if left is None or right is None:
            self.lock(right if left is None else left, reason)
            return right if left is None else left
        self.sink.unite(left, right)
        return left

    def piece(self, atoms: Atoms) -> Atoms | None:
        """Labels of a dimension cut out of a greater one; a single index stays."""
        if len(atoms) <= 1:
            self.lock(atoms, "one index is cut out", is_channel=True)
            return None
        self.sink.separate(atoms)
        return atoms

    def leave_out(self, atoms: Atoms, *names: str) -> None:
        """These indices are not read here; the arguments that say so may depend on the input."""
        limits = [self.origin(name) for name in names if self.get(name) is not None]
        self.sink.leave_out(atoms, limits, self.node)

    def require_size(self, name: str, index: int | None, atoms: Atoms | None, size: int) -> None:
        """Ties a size argument to the number of atoms kept; an argument of -1 ties nothing."""
        expression = self.origin(name, index)
        if not is_open(expression):
            self.sink.require_size(expression, atoms, size, self.node)

    def fix_unclaimed_numbers(self) -> None:
        """Ties every number that the rule did not ask for to the value it has."""
        places = {place: name for name, place in self.places.items()}
        for path, expression in self.trace.sizes.get(self.node.name, {}).items():
            # Numbers of dimensions are no sizes, even where they are equal to one in the same call.
            is_size = places.get(path[0]) not in _DIMENSIONS and next(leaves(expression), None) is not None
            if is_size and path not in self.claimed:
                self.sink.require_size(expression, None, self._number_at(path), self.node)

    def _number_at(self, path: Place) -> Any:
        first, *rest = path
        value = self.node.args[first] if isinstance(first, int) else self.node.kwargs[first]
        for index in rest:
            value = value[index]  # type: ignore[index]
        return value


class Rule(ABC):
    """How one op couples channels, what it computes under masks, and what it costs.

    Attributes:
        numbers_follow: whether the op's numbers may change with the widths (``x / x.shape[1]``); the masked form takes
            them from `Masker.number` then. Otherwise a number that `labels` does not ask for keeps its value.
    """

    numbers_follow: ClassVar[bool] = False

    @abstractmethod
    def labels(self, call: Call) -> Any:
        """Labels of the output (a tuple of them for several outputs); couplings and locks go to the call's sink."""

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        """The op's node in the exact masked program; None where absent channels cannot change the present ones."""
        return None

    def alike(self, call: Call) -> Sequence[tuple[Atoms, Atoms]]:
        """Pairs of dimensions that the op's fastest kernels take at one width only; what is chosen heeds that."""
        return ()

    def macs(self, call: Call) -> Sequence[Product]:
        """Multiply-accumulate operations as a sum of products of sizes; ops that only move or map values cost 0."""
        return ()


def _nodes(value: Any) -> list[fx.Node]:
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, list | tuple):
        return [node for item in value for node in _nodes(item)]
    return []


def packet(node: fx.Node) -> Any:
    """The op that a node calls, whichever overload of it; what else it calls as it is."""
    return getattr(node.target, "overloadpacket", node.target)


def dims_of(value: Any, rank: int) -> tuple[int, ...]:
    """Non-negative dimensions of an argument that is a number, a list, or None or empty for all."""
    if value is None or (isinstance(value, list | tuple) and not value):
        return tuple(range(rank))
    listed = value if isinstance(value, list | tuple) else [value]
    return tuple(int(dim) % max(rank, 1) for dim in listed)


def replace_dim(labels: Labels, dim: int, atoms: Atoms | None) -> Labels:
    """The labels with one dimension's atoms replaced."""
    changed = list(labels)
    changed[dim] = atoms
    return tuple(changed)


def at(value: Any, place: int) -> Any:
    """An item of a list of sizes, which may hold one for all dimensions, or none."""
    if not isinstance(value, list | tuple):
        return value
    return value[place % len(value)] if value else None
