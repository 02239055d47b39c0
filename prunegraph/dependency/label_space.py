"""Collects what the op rules find: atoms, couplings, locks and size uses."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import fx

from prunegraph.ir.channels import Lock
from prunegraph.ir.sizes import Expression, Number, ShapeOf, leaves
from prunegraph.ir.trace import Site, Trace
from prunegraph.rules.base import Atoms, Labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SizeUse:
    """A number in the user's code that must equal the number of kept atoms after pruning.

    Attributes:
        expression: where the number comes from.
        atoms: the indices it counts; None where the size is fixed.
        size: the number now.
        op: the op that was given the number.
        site: the line that gave it.
        is_interchangeable: whether which atoms stay is all one, as those of zeros: the others decide.
    """

    expression: Expression
    atoms: Atoms | None
    size: Number
    op: str
    site: Site
    is_interchangeable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LockedAtoms:
    """Atoms that must stay; ``is_channel`` is False for what nobody would call a channel, such as kernel taps."""

    atoms: Atoms
    lock: Lock
    is_channel: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeftOut:
    """Atoms that a cut leaves out, the sizes behind its limits, and the lock if another input may need them."""

    atoms: Atoms
    limits: tuple[ShapeOf, ...]
    lock: Lock


CONVERSION = "int or float"
"""In the place of an op: code that makes an ordinary number of a size, so that nobody sees where the number goes."""

_LEFT_OUT = "left out for these inputs; for others it may be read"

Place: TypeAlias = tuple[str, str]
"""A node, and what is to be chosen there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """A place where only one of several sets of atoms can stay prunable.

    Attributes:
        place: where.
        ways: the sets of atoms, the likeliest first.
        taken: number of the way that was taken.
    """

    place: Place
    ways: Sequence[Atoms]
    taken: int


class LabelSpace:
    """The atoms of one network and all that is known about them; implements `prunegraph.rules.base.LabelSink`.

    Args:
        trace: the record of the network.
        turned: places where another way than the first is to be taken, and which.
    """

    def __init__(self, trace: Trace, turned: Mapping[Place, int]) -> None:
        self.trace = trace
        self.turned = turned
        self.count = 0
        self.tensor_labels: dict[str, Labels] = {}
        self.locked: list[LockedAtoms] = []
        self.left_out: list[LeftOut] = []
        self.uses: list[SizeUse] = []
        self.pieces: list[Atoms] = []
        self.choices: list[Choice] = []
        self._written: dict[str, dict[int, Lock]] = {}
        self._lefts: list[Atoms] = []
        self._rights: list[Atoms] = []
        for spec in trace.tensors.values():
            self.tensor_labels[spec.name] = tuple(self.fresh(n) if n > 1 else None for n in spec.shape)
        self.tensor_atoms = self.count

    def fresh(self, size: int) -> Atoms:
        """New atoms."""
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def unite(self, left: Atoms, right: Atoms) -> None:
        """Index i of both come and go together."""
        if len(left) != len(right):
            raise ValueError(f"cannot unite {len(left)} indices with {len(right)}")
        if left is not right and len(left):
            self._lefts.append(left)
            self._rights.append(right)

    def separate(self, atoms: Atoms) -> None:
        """These indices form a value of their own."""
        self.pieces.append(atoms)

    def leave_out(self, atoms: Atoms, limits: Sequence[Expression], node: fx.Node) -> None:
        """This run does not read these atoms here."""
        lock = Lock(reason=_LEFT_OUT, op=op_name(node), site=self.trace.site(node))
        sizes = tuple(leaf for limit in limits for leaf in leaves(limit) if isinstance(leaf, ShapeOf))
        self.left_out.append(LeftOut(atoms=atoms, limits=sizes, lock=lock))

    def lock(self, atoms: Atoms, reason: str, node: fx.Node, *, is_channel: bool) -> None:
        """These atoms stay."""
        self.lock_at(atoms, Lock(reason=reason, op=op_name(node), site=self.trace.site(node)), is_channel=is_channel)

    def lock_at(self, atoms: Atoms, lock: Lock, *, is_channel: bool = True) -> None:
        """These atoms stay, for a reason that is already written."""
        if len(atoms):
            self.locked.append(LockedAtoms(atoms=atoms, lock=lock, is_channel=is_channel))

    def require_size(self, expression: Expression, atoms: Atoms | None, size: int, node: fx.Node) -> None:
        """The expression counts these atoms; a number of no known origin locks them."""
        if next(leaves(expression), None) is None:
            if atoms is not None:
                self.lock_at(atoms, self._without_origin(size, node))
            return
        site = self.trace.site(node)
        self.uses.append(SizeUse(expression=expression, atoms=atoms, size=size, op=op_name(node), site=site))

    def choose(self, node: fx.Node, question: str, ways: Sequence[Atoms]) -> int:
        """Which way to take where only one of several sets of atoms can stay prunable."""
        place = node.name, question
        taken = min(self.turned.get(place, 0), len(ways) - 1)  # choices before may have left fewer ways here
        choice = Choice(place=place, ways=ways, taken=taken)
        self.choices.append(choice)
        return choice.taken

    def note_written(self, size: int, node: fx.Node) -> None:
        """A value is made with a dimension of a size that no attribute or shape gives."""
        self._written.setdefault(node.name, {})[size] = self._without_origin(size, node)

    def explain_locks(self, node: fx.Node, first: int, fixed: Collection[int]) -> None:
        """Puts before the locks of a call the cause that lies further up: the size with which an operand was made.

        Args:
            node: the call.
            first: number of locks there were before it.
            fixed: sizes of its output's dimensions that have no labels, which hand the cause on.
        """
        causes = {size: lock for operand in node.all_input_nodes for size, lock in self._written_in(operand).items()}
        explained = [item for item in self.locked[first:] if len(item.atoms) in causes]
        self.locked[first:first] = [replace(item, lock=causes[len(item.atoms)]) for item in explained]
        handed_on = {size: lock for size, lock in causes.items() if size in fixed}
        if handed_on:
            self._written[node.name] = handed_on | self._written_in(node)

    def _written_in(self, node: fx.Node) -> dict[int, Lock]:
        return self._written.get(node.name, {})

    def _without_origin(self, size: int, node: fx.Node) -> Lock:
        site = self.trace.site(node)
        return Lock(reason=_without_origin(size, site), op=op_name(node), site=site)

    def components(self) -> Atoms:
        """For each atom the number of the set of atoms that it comes and goes with."""
        left = np.concatenate(self._lefts) if self._lefts else np.empty(0, np.int64)
        right = np.concatenate(self._rights) if self._rights else np.empty(0, np.int64)
        shape = (self.count, self.count)
        coupling = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=shape)
        return np.asarray(connected_components(coupling, directed=False)[1], np.int64)


def conversion_lock(use: SizeUse) -> Lock:
    """Why a size stays of which the code makes an ordinary number."""
    reason = f"int() or float() makes an ordinary number of the size {use.size}; leave it out, and the size can follow"
    return Lock(reason=reason, op=use.op, site=use.site)


def _without_origin(size: int, site: Site) -> str:
    if re.search(rf"(?<![\w.]){size}(?![\w.])", site.code):
        return f"the size {size} is written in the code"
    return f"the size {size} has an unknown origin: no attribute or shape that could be followed"


def op_name(node: fx.Node) -> str:
    """Name of the op for people: ``aten.conv1d``."""
    return str(node.target).removesuffix(".default") if node.op == "call_function" else node.op
