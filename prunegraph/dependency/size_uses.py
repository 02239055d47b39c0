"""Makes the sizes that user code computes consistent: which attribute takes which value after pruning.

Each `SizeUse` is an equation: an expression over attributes and shapes equals a number of kept indices. For a choice
of kept channels `solve` finds the attribute values. `settle` makes sure, before any choice is made, that there always
will be such values: uses of one attribute are coupled, and what still contradicts is locked.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunegraph.dependency.grouping import tabulate
from prunegraph.dependency.label_space import CONVERSION, LabelSpace, SizeUse, conversion_lock
from prunegraph.ir.channels import Lock
from prunegraph.ir.sizes import (
    RELATIONS,
    Attribute,
    Constant,
    Expression,
    Leaf,
    Number,
    Operation,
    ShapeOf,
    attributes,
    evaluate,
    invert,
    leaves,
    recorded_value,
)
from prunegraph.ir.trace import Comparison
from prunegraph.rules.base import Atoms, Labels

EQUALITY = "equality"
"""Stands for the op where code compares attributes."""

_TRIALS = 10
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conflict:
    """A use whose equation cannot hold, and the uses that fixed the attributes in it."""

    use: SizeUse
    fixed_by: tuple[SizeUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """Attribute values for one choice of kept channels.

    Attributes:
        values: the attributes that count channels.
        conflicts: equations that do not hold.
        value_of: every attribute and shape under the choice.
    """

    values: Mapping[Attribute, int]
    conflicts: tuple[Conflict, ...]
    value_of: Callable[[Leaf], Number]


def solve(
    uses: Sequence[tuple[SizeUse, list[Attribute]]],
    count: Callable[[SizeUse], Number],
    size_of: Callable[[ShapeOf], int],
) -> Solution:
    """Finds attribute values such that every use evaluates to its count.

    Args:
        uses: the equations, as `simplest_first` has them.
        count: number of kept indices that a use must equal.
        size_of: size of a value's dimension after pruning.
    """
    values: dict[Attribute, int] = {}
    owners: dict[Attribute, SizeUse] = {}
    conflicts: list[Conflict] = []

    def value_of(leaf: Leaf) -> Number:
        return size_of(leaf) if isinstance(leaf, ShapeOf) else values.get(leaf, leaf.value)

    for use, known in uses:
        found = _solve_one(use.expression, known, count(use), values, value_of)
        if found is None:
            conflicts.append(Conflict(use=use, fixed_by=tuple(owners[a] for a in known if a in owners)))
            continue
        for attribute, value in found.items():
            values[attribute] = value
            owners.setdefault(attribute, use)
    return Solution(values=values, conflicts=tuple(conflicts), value_of=value_of)


def simplest_first(uses: Iterable[SizeUse]) -> list[tuple[SizeUse, list[Attribute]]]:
    """The uses with the attributes that each reads, in the order in which they are solved.

    Those of a single attribute come first, so that products such as ``heads * width`` find one factor known; what only
    compares attributes comes last.
    """
    pairs = [(use, attributes(use.expression)) for use in uses]
    return sorted(
        pairs,
        key=lambda pair: (pair[0].op == EQUALITY, len(pair[1]), not isinstance(pair[0].expression, Attribute)),
    )


def _solve_one(
    expression: Expression,
    known: Sequence[Attribute],
    target: Number,
    values: Mapping[Attribute, int],
    value_of: Callable[[Leaf], Number],
) -> dict[Attribute, int] | None:
    try:
        if evaluate(expression, value_of) == target:
            return {attribute: int(value_of(attribute)) for attribute in known}
        for unknown in [attribute for attribute in known if attribute not in values]:
            found = invert(expression, target, unknown, value_of)
            if found is not None:
                rest = {attribute: int(value_of(attribute)) for attribute in known}
                return {**rest, unknown: found}
    except ArithmeticError:
        return None
    return None


def settle(space: LabelSpace, labels: Mapping[str, Labels]) -> None:
    """Couples and locks atoms until every choice of kept channels has a solution.

    Sizes of interchangeable indices come last: what the others say may be enough for as many of them to stay.
    """
    last = [use for use in space.uses if use.is_interchangeable]
    space.uses[:] = [use for use in space.uses if not use.is_interchangeable]
    space.uses.extend(_comparisons(space, labels))
    space.uses.extend(_conversions(space))
    _settle_known(space, labels)
    if last:
        space.uses.extend(last)
        _settle_known(space, labels)


def _settle_known(space: LabelSpace, labels: Mapping[str, Labels]) -> None:
    """Random choices are tried, enough of them that no contradiction of small widths hides by chance.

    Each is mended by coupling the uses that disagree, index by index or block by block, or by locking them where that
    does not help.
    """
    _couple_equal_expressions(space, labels)
    first: dict[Expression, SizeUse] = {}
    for use in space.uses:
        first.setdefault(use.expression, use)  # what equal expressions count is coupled by now
    uses = simplest_first(first.values())
    generator = np.random.default_rng(_SEED)
    choices, passed = _Choices(space), 0
    while passed < _TRIALS:
        solution = _solved(uses, labels, choices.draw(generator))
        passed += 1
        for conflict in solution.conflicts:
            _mend(space, conflict, labels, choices.components)
        if solution.conflicts:
            choices, passed = _Choices(space), 0


def solve_for(uses: Sequence[SizeUse], labels: Mapping[str, Labels], kept: NDArray[np.bool_]) -> Solution:
    """Solves the uses where ``kept`` tells for each atom whether it stays."""
    return _solved(simplest_first(uses), labels, kept)


def _solved(
    uses: Sequence[tuple[SizeUse, list[Attribute]]], labels: Mapping[str, Labels], kept: NDArray[np.bool_]
) -> Solution:
    def size_of(leaf: ShapeOf) -> int:
        atoms = _atoms_of(leaf, labels)
        return leaf.value if atoms is None else int(kept[atoms].sum())

    return solve(uses, lambda use: use.size if use.atoms is None else int(kept[use.atoms].sum()), size_of)


def _comparisons(space: LabelSpace, labels: Mapping[str, Labels]) -> list[SizeUse]:
    """``assert x.shape[1] == self.channels`` tells what the attribute counts, ``== 64`` that the width stays.

    So does ``>=``, if the two are equal: with fewer channels and the attribute as it was it would come out otherwise.
    Attributes that are found equal to others (``self.total == sum(self.widths)``) must be so again.
    """
    found = []
    for comparison, site in space.trace.comparisons.items():
        sides = comparison.left, comparison.right
        if comparison.found_equal and sides[0] != sides[1] and all(map(_is_of_attributes, sides)):
            found.append(SizeUse(expression=Operation("sub", sides), atoms=None, size=0, op=EQUALITY, site=site))
        for shape, other in ((comparison.left, comparison.right), (comparison.right, comparison.left)):
            if not isinstance(shape, ShapeOf) or labels.get(shape.node) is None or not _needs_all(comparison, shape):
                continue
            atoms = labels[shape.node][shape.dim]
            tells = atoms is not None or comparison.found_equal
            if tells and (isinstance(other, Constant) or attributes(other)):
                found.append(SizeUse(expression=other, atoms=atoms, size=shape.value, op="comparison", site=site))
    return found


def _is_of_attributes(side: Expression) -> bool:
    return bool(attributes(side)) and not any(isinstance(leaf, ShapeOf) for leaf in leaves(side))


def _needs_all(comparison: Comparison, shape: ShapeOf) -> bool:
    """Whether both sides are equal, and one channel less would turn the comparison."""

    def sides(less: int) -> list[Number]:
        def value_of(leaf: Leaf) -> Number:
            return max(shape.value - less, 1) if leaf == shape else leaf.value

        return [evaluate(side, value_of) for side in (comparison.left, comparison.right)]

    left, right = sides(0)
    return left == right and RELATIONS[comparison.relation](*sides(1)) != comparison.outcome


def _conversions(space: LabelSpace) -> list[SizeUse]:
    """A size that became an ordinary number stays, since nobody sees where the number goes."""
    return [
        SizeUse(expression=size, atoms=None, size=evaluate(size, recorded_value), op=CONVERSION, site=site)
        for size, site in space.trace.converted.items()
    ]


def _couple_equal_expressions(space: LabelSpace, labels: Mapping[str, Labels]) -> None:
    """Dimensions that are given the same size by the same expression come and go together, or stay together."""
    components = space.components()
    first: dict[Expression, Atoms | None] = {}
    for use in space.uses:
        known = _atoms_of(use.expression, labels) if isinstance(use.expression, ShapeOf) else use.atoms
        atoms = first.setdefault(use.expression, known)
        if atoms is None or use.atoms is None:
            _lock(space, use, (atoms, use.atoms))
        elif (np.sort(components[atoms]) != np.sort(components[use.atoms])).any():
            space.unite(atoms, use.atoms)
            components = space.components() if use.is_interchangeable else components  # it may do for the next as well


class _Choices:
    """Choices as a plan may make them: of each family of coupled sets some stay, at least one; what is locked stays."""

    def __init__(self, space: LabelSpace) -> None:
        self.components = space.components()
        self._locked = np.zeros(space.count, bool)
        for item in space.locked:
            self._locked[self.components[item.atoms]] = True
        self._table = tabulate(space, self.components, self._locked)

    def draw(self, generator: np.random.Generator) -> NDArray[np.bool_]:
        """For each atom whether it stays."""
        table, locked = self._table, self._locked
        draw = generator.random(len(table.ids))
        rate = generator.uniform(0.2, 0.8, len(table.ids))[table.family]
        greatest = np.full(len(table.ids), -1.0)
        np.maximum.at(greatest, table.family, draw)
        stays = np.ones(len(locked), bool)
        stays[table.ids] = locked[table.ids] | (draw > rate) | (draw == greatest[table.family])
        return np.asarray(stays[self.components])


def _mend(space: LabelSpace, conflict: Conflict, labels: Mapping[str, Labels], components: Atoms) -> None:
    use = conflict.use
    if _couple_parts(space, use, labels, components):
        return
    mended = [_couple_in_proportion(space, (use, other), components) for other in conflict.fixed_by]
    if any(mended) or (not mended and _couple_multiples(space, use, components)):
        return
    if _couple_with_shape(space, use, labels, components):
        return
    if (
        use.op == EQUALITY
        and len(conflict.fixed_by) == 2
        and _couple_in_proportion(space, conflict.fixed_by, components)
    ):
        return
    for involved in (use, *conflict.fixed_by):
        _lock(space, involved, (involved.atoms, *_read_shapes(involved, labels)))


def _couple_in_proportion(space: LabelSpace, uses: tuple[SizeUse, SizeUse], components: Atoms) -> bool:
    """Couples index i of one with block i of the other, so that ``width`` and ``2 * width`` shrink in proportion.

    Where one is cut out of the other, as the slices at multiples of ``width`` are, all parts shrink alike.

    Returns:
        Whether that couples anything new.
    """
    counted = sorted((use.atoms for use in uses if use.atoms is not None), key=len)
    if len(counted) != 2:
        return False
    if len(counted[0]) < len(counted[1]) and _lies_in(counted[0], counted[1], components):
        return _couple_equal_parts(space, counted[1], len(counted[0]), components)
    return _couple_blocks(space, counted, math.gcd(*map(len, counted)), components)


def _couple_with_shape(space: LabelSpace, use: SizeUse, labels: Mapping[str, Labels], components: Atoms) -> bool:
    """Couples a dimension in proportion to another one whose size it is computed from: ``x.shape[-1] // heads``."""
    shapes = {leaf for leaf in leaves(use.expression) if isinstance(leaf, ShapeOf)}
    read = _atoms_of(shapes.pop(), labels) if len(shapes) == 1 else None
    if use.atoms is None or read is None:
        return False
    return _couple_blocks(space, [use.atoms, read], math.gcd(len(use.atoms), len(read)), components)


def _couple_multiples(space: LabelSpace, use: SizeUse, components: Atoms) -> bool:
    """Couples a dimension that is ``2 * width`` wide in pairs, as many as the attribute counts, or the greatest one."""
    known = attributes(use.expression)
    if use.atoms is None or not known:
        return False
    count = max(math.gcd(int(use.size), attribute.value) for attribute in known)
    return _couple_blocks(space, [use.atoms], count, components)


def _couple_parts(space: LabelSpace, use: SizeUse, labels: Mapping[str, Labels], components: Atoms) -> bool:
    """Couples index i of every half (third, ...) of a dimension that is cut at a half (two thirds, ...) of its size."""
    shapes = {leaf for leaf in leaves(use.expression) if isinstance(leaf, ShapeOf)}
    whole = _atoms_of(shapes.pop(), labels) if len(shapes) == 1 else None
    if use.atoms is None or whole is None or not _lies_in(use.atoms, whole, components):
        return False
    return _couple_equal_parts(space, whole, len(use.atoms), components)


def _lies_in(part: Atoms, whole: Atoms, components: Atoms) -> bool:
    return bool(np.isin(components[part], components[whole]).all())


def _couple_equal_parts(space: LabelSpace, whole: Atoms, cut: int, components: Atoms) -> bool:
    """Couples index i of parts so wide that both the cut and the whole are multiples, or narrower ones if they are."""
    widest = math.gcd(len(whole), cut)
    for width in (w for w in range(widest, 1, -1) if widest % w == 0):
        parts = whole.reshape(-1, width)
        if (components[parts] != components[parts[0]]).any():
            space.unite(np.tile(parts[0], len(parts) - 1), parts[1:].reshape(-1))
            return True
    return False


def _couple_blocks(space: LabelSpace, dims: Iterable[Atoms], count: int, components: Atoms) -> bool:
    """Couples the indices of each of ``count`` blocks of all dimensions together; one block is no choice."""
    if count < 2:
        return False
    blocks = np.concatenate([_blocks(atoms, count, components) for atoms in dims], axis=1)
    for column in blocks.T[1:]:
        space.unite(blocks[:, 0], column)
    return bool((components[blocks] != components[blocks[:, :1]]).any())


def _blocks(atoms: Atoms, count: int, components: Atoms) -> Atoms:
    """The atoms in ``count`` rows: i with i + count where they are coupled so already, else neighbours."""
    columns = atoms.reshape(-1, count)
    coupled = (components[columns] == components[columns[0]]).all()
    return columns.T if coupled else atoms.reshape(count, -1)


def _lock(space: LabelSpace, use: SizeUse, all_atoms: Iterable[Atoms | None]) -> None:
    lock = conversion_lock(use) if use.op == CONVERSION else Lock(reason=_reason(use), op=use.op, site=use.site)
    for atoms in all_atoms:
        if atoms is not None:
            space.lock_at(atoms, lock)


def _read_shapes(use: SizeUse, labels: Mapping[str, Labels]) -> list[Atoms | None]:
    return [_atoms_of(leaf, labels) for leaf in leaves(use.expression) if isinstance(leaf, ShapeOf)]


def _atoms_of(leaf: ShapeOf, labels: Mapping[str, Labels]) -> Atoms | None:
    known = labels.get(leaf.node)
    return None if known is None else known[leaf.dim]


def _reason(use: SizeUse) -> str:
    names = ", ".join(str(leaf) if isinstance(leaf, Attribute) else "a shape" for leaf in leaves(use.expression))
    if use.op == EQUALITY:
        return f"sizes that the code found equal cannot both follow: {names}"
    if names:
        return f"the size {use.size} computed in the code cannot follow: {names}"
    return f"the size {use.size} must equal a number that is written in the code, or that an earlier run left there"
