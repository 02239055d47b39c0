"""Products that name their dimensions: einsum, tensordot, inner products, distances.

Every dimension of every operand has a name; equal names are one dimension. Named dimensions that the output lacks are
summed over.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx

from prunegraph.rules.base import Atoms, Call, Labels, Masker, Product, Rule
from prunegraph.rules.locking import Locks, united
from prunegraph.rules.pointwise import FIXED_SIZE

aten = torch.ops.aten

Name: TypeAlias = Hashable
"""Name of a dimension: a letter, or a negative number for a dimension under an ellipsis, counted from the right."""

Term: TypeAlias = tuple[Name, ...]
"""Names of the dimensions of one tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """Names of the dimensions of the operands and of the output."""

    terms: tuple[Term, ...]
    output: Term


def parse_equation(equation: str, ranks: Sequence[int]) -> Equation:
    """Reads an einsum equation for operands of the given ranks.

    Without ``->`` the output has the dimensions under the ellipsis and then, in alphabetical order, each letter that
    occurs once.

    >>> parse_equation("...ij, jk", (3, 2)).output
    (-1, 'i', 'k')
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = tuple(_term(text, rank) for text, rank in zip(left.split(","), ranks, strict=True))
    hidden = max(sum(isinstance(name, int) for name in term) for term in terms)
    if arrow:
        return Equation(terms=terms, output=_term(right, len(right.replace("...", "")) + hidden))
    counts = Counter(name for term in terms for name in term if isinstance(name, str))
    once = tuple(sorted(letter for letter, count in counts.items() if count == 1))
    return Equation(terms=terms, output=(*range(-hidden, 0), *once))


def _term(text: str, rank: int) -> Term:
    before, ellipsis, after = text.partition("...")
    hidden = range(len(before) + len(after) - rank, 0) if ellipsis else ()
    return (*before, *hidden, *after)


class Contraction(Rule):
    """``out[o...] = sum_s a[...] b[...] ...`` over all named dimensions s that the output lacks.

    In the masked form one operand that has a summed labelled dimension is multiplied by its keep values. The cost of
    two operands is the product of the sizes of all their dimensions; more of them are multiplied pair by pair. A pair
    that shares no summed dimension is multiplied element by element, which counts nothing.
    """

    @abstractmethod
    def operands(self, call: Call) -> Sequence[fx.Node]:
        """The tensors that are multiplied."""

    @abstractmethod
    def equation(self, call: Call) -> Equation:
        """Names of all dimensions."""

    @abstractmethod
    def rerun(self, mask: Masker, values: Sequence[fx.Node]) -> fx.Node:
        """The op on other operands."""

    def path(self, call: Call) -> Iterator[tuple[int, int]]:
        """Places of the operands of each product among those left over; results go to the end."""
        for _ in self.operands(call)[1:]:
            yield 0, 1

    def labels(self, call: Call) -> Labels:
        equation, operands = self.equation(call), self.operands(call)
        sides: dict[Name, list[tuple[int, Atoms | None]]] = {}
        for node, term in zip(operands, equation.terms, strict=True):
            for name, size, atoms in zip(term, call.shape(node), call.labels(node), strict=True):
                sides.setdefault(name, []).append((size, atoms))
                if term.count(name) > 1:
                    call.lock(atoms, "the diagonal of two dimensions is taken")
        matched = {name: united(call, pairs, FIXED_SIZE) for name, pairs in sides.items()}
        return tuple(matched[name] for name in equation.output)

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        equation = self.equation(call)
        done = set(equation.output)
        values: list[fx.Node] = []
        for node, term in zip(self.operands(call), equation.terms, strict=True):
            value = mask.value(node)
            for dim, (name, atoms) in enumerate(zip(term, call.labels(node), strict=True)):
                if name not in done and atoms is not None:
                    value = mask.times_keep(value, dim, atoms)
                    done.add(name)
            values.append(value)
        return self.rerun(mask, values)

    def macs(self, call: Call) -> Sequence[Product]:
        equation = self.equation(call)
        sizes = self._sizes(call, equation)
        pending = [
            {name for name, size in zip(term, call.sizes(node), strict=True) if not _is_repeated(size, sizes[name])}
            for node, term in zip(self.operands(call), equation.terms, strict=True)
        ]
        products: list[Product] = []
        for pair in self.path(call):
            right, left = (pending.pop(place) for place in sorted(pair, reverse=True))
            needed = set(equation.output).union(*pending)
            # What only one of the two has and nobody needs later is summed before the product.
            joint = (left & right) | ((left | right) & needed)
            pending.append(joint & needed)
            if joint - needed:
                products.append((call.real_products, *(size for name, size in sizes.items() if name in joint)))
        return products

    def _sizes(self, call: Call, equation: Equation) -> dict[Name, int | Atoms]:
        found: dict[Name, int | Atoms] = {}
        for node, term in zip(self.operands(call), equation.terms, strict=True):
            for name, size in zip(term, call.sizes(node), strict=True):
                if name not in found or _is_repeated(found[name], size):
                    found[name] = size
        return found


def _is_repeated(size: int | Atoms, whole: int | Atoms) -> bool:
    """Whether a dimension's one index is repeated to match another operand's; one kept channel is not."""
    return not isinstance(size, np.ndarray) and size == 1 and (isinstance(whole, np.ndarray) or whole != 1)


class Einsum(Contraction):
    """``torch.einsum``; the letters of the equation are the names."""

    def operands(self, call: Call) -> Sequence[fx.Node]:
        return list(call["tensors"])

    def equation(self, call: Call) -> Equation:
        return parse_equation(call["equation"], [len(call.shape(node)) for node in call["tensors"]])

    def rerun(self, mask: Masker, values: Sequence[fx.Node]) -> fx.Node:
        return mask.rerun(tensors=list(values))

    def path(self, call: Call) -> Iterator[tuple[int, int]]:
        flat = call.get("path")
        return super().path(call) if not flat else iter(zip(flat[::2], flat[1::2], strict=True))


class PairProduct(Contraction):
    """``inner``, ``vdot``: the last dimensions of two operands are multiplied and summed."""

    def operands(self, call: Call) -> Sequence[fx.Node]:
        return [call["self"], call["other"]]

    def summed(self, call: Call) -> tuple[Sequence[int], Sequence[int]]:
        """The dimensions of either operand that are multiplied and summed."""
        scalar = not call.shape("self") or not call.shape("other")
        return ([], []) if scalar else ([-1], [-1])

    def equation(self, call: Call) -> Equation:
        left, right = (len(call.shape(node)) for node in self.operands(call))
        names: list[Name] = list(range(left, left + right))
        on_left, on_right = self.summed(call)
        for a, b in zip(on_left, on_right, strict=True):
            names[b] = a % left
        gone = {dim % left for dim in on_left}
        output = (*(n for n in range(left) if n not in gone), *(n for n in names if n not in gone))
        return Equation(terms=(tuple(range(left)), tuple(names)), output=output)

    def rerun(self, mask: Masker, values: Sequence[fx.Node]) -> fx.Node:
        return mask.rerun(**{"self": values[0], "other": values[1]})


class TensorDot(PairProduct):
    """``tensordot(a, b, dims)``."""

    def summed(self, call: Call) -> tuple[Sequence[int], Sequence[int]]:
        return call["dims_self"], call["dims_other"]


class Distance(Rule):
    """``cdist``: ``y[..., p, r] = (sum_m |x1[..., p, m] - x2[..., r, m]| ** q) ** (1 / q)``.

    A feature that is zero in both operands adds nothing, whatever the norm, so both are multiplied by keep.
    """

    def labels(self, call: Call) -> Labels:
        a, b = call.labels("x1"), call.labels("x2")
        call.match(a[-1], b[-1], FIXED_SIZE)
        return (*_batch(call, a, b), a[-2], b[-2])

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        return mask.rerun(
            **{name: mask.times_keep(mask.value(call[name]), -1, call.labels(name)[-1]) for name in ("x1", "x2")}
        )

    def macs(self, call: Call) -> Sequence[Product]:
        a, b = call.sizes("x1"), call.sizes("x2")
        return [(*call.batch_sizes("x1", "x2"), *a[-2:], b[-2])]


def _batch(call: Call, a: Labels, b: Labels) -> Labels:
    rank = len(call.output_shape)
    pairs = [(call.shape("x1"), a), (call.shape("x2"), b)]
    return tuple(
        united(call, [(shape[dim], labels[dim]) for shape, labels in pairs if len(shape) >= -dim], FIXED_SIZE)
        for dim in range(-rank, -2)
    )


RULES: dict[Any, Rule] = {
    aten.einsum: Einsum(),
    aten.tensordot: TensorDot(),
    aten.inner: PairProduct(),
    aten.vdot: PairProduct(),
    aten.cdist: Distance(),
    aten._cdist_forward: Distance(),
    aten.kron: Locks("every index of a Kronecker product mixes two indices"),
    aten.pdist: Locks("compares all pairs of rows"),
}
