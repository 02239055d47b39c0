"""Where a size comes from: expressions over module attributes and tensor shapes.

User code computes sizes with plain Python arithmetic: ``self.heads * self.width``, ``x.shape[1] // 2``. An
`Expression` is the frozen record of such a computation. It can be evaluated again after pruning, when attributes and
shapes have new values, and it can be inverted to find the attribute value that yields a wanted size.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

Number: TypeAlias = int | float


@dataclass(frozen=True, slots=True)
class Constant:
    """A number written in the code (or one whose origin is unknown)."""

    value: Number


@dataclass(frozen=True, slots=True)
class Derived:
    """A size that torch itself computed from the shapes of its operands: always right after pruning."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """An integer attribute of a module: ``module`` is its dotted path, ``name`` may index containers: ``size[0]``."""

    module: str
    name: str
    value: int

    def __str__(self) -> str:
        return f"{self.module}.{self.name}".lstrip(".")


@dataclass(frozen=True, slots=True)
class ShapeOf:
    """The size of dimension ``dim`` of the value of graph node ``node``."""

    node: str
    dim: int
    value: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An arithmetic operation of `OPERATIONS` on one or two operands."""

    name: str
    operands: tuple["Expression", ...]


Value = TypeVar("Value")
Leaf: TypeAlias = Attribute | ShapeOf
Expression: TypeAlias = Constant | Derived | Attribute | ShapeOf | Operation

OPERATIONS: Mapping[str, Callable[..., Number]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "truediv": operator.truediv,
    "mod": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "abs": abs,
    "sqrt": math.sqrt,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "exp": math.exp,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
}

_UNDONE: Mapping[str, tuple[tuple[str, bool], tuple[str, bool]]] = {
    "add": (("sub", True), ("sub", True)),
    "sub": (("add", True), ("sub", False)),
    "mul": (("truediv", True), ("truediv", True)),
    "truediv": (("mul", True), ("truediv", False)),
    "floordiv": (("mul", True), ("truediv", False)),
}
"""What finds the left operand of an operation, and the right one, and whether the result stands first in that."""

RELATIONS: Mapping[str, Callable[[Number, Number], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def leaves(expression: Expression) -> Iterator[Leaf]:
    """Yields the attributes and shapes that the expression reads, from left to right."""
    if isinstance(expression, Attribute | ShapeOf):
        yield expression
    elif isinstance(expression, Operation):
        for operand in expression.operands:
            yield from leaves(operand)


def attributes(expression: Expression) -> list[Attribute]:
    """The distinct attributes that the expression reads."""
    return list(dict.fromkeys(leaf for leaf in leaves(expression) if isinstance(leaf, Attribute)))


def negated(expression: Expression) -> Expression:
    """``-expression``."""
    match expression:
        case Operation(name="neg", operands=(operand,)):
            return operand
        case _:
            return Operation("neg", (expression,))


def evaluate(expression: Expression, value_of: Callable[[Leaf], Number]) -> Number:
    """The value of the expression when each leaf has the value that ``value_of`` gives.

    Raises:
        ArithmeticError: the arithmetic is impossible with these values (division by zero).
    """
    match expression:
        case Constant(value=value):
            return value
        case Operation(name=name, operands=operands):
            return OPERATIONS[name](*(evaluate(operand, value_of) for operand in operands))
        case Attribute() | ShapeOf():
            return value_of(expression)
        case Derived():
            raise ArithmeticError("a size derived by torch has no value of its own")


def recorded_value(leaf: Leaf) -> Number:
    """The value the leaf had when the network was recorded."""
    return leaf.value


def is_open(expression: Expression) -> bool:
    """-1, in the code or in an attribute, asks for the size that is left over."""
    try:
        return evaluate(expression, recorded_value) == -1
    except ArithmeticError:
        return False


def invert(
    expression: Expression, target: Number, unknown: Attribute, value_of: Callable[[Leaf], Number]
) -> int | None:
    """The value of ``unknown`` for which the expression equals ``target``, or None where no such integer exists.

    Division and rounding are inverted as if nothing was rounded (``width // 2 == 5`` gives 10, ``int(width * 2.5)
    == 7`` gives 2.8), so the whole numbers beside the result are checked by evaluating again.
    """
    found = unrounded(expression, target, unknown, value_of)
    if found is None or not math.isfinite(found):
        return None

    def fits(value: int) -> bool:
        return value >= 1 and evaluate(expression, lambda leaf: value if leaf == unknown else value_of(leaf)) == target

    return next((value for value in (math.floor(found), math.ceil(found)) if fits(value)), None)


def unrounded(
    expression: Expression, result: Number, unknown: Attribute, value_of: Callable[[Leaf], Number]
) -> Number | None:
    """The value of ``unknown`` that gives the expression this result if nothing is rounded; None if there is none."""
    try:
        return inverse(
            expression,
            result,
            unknown,
            known=lambda operand: evaluate(operand, value_of),
            compute=lambda name, *operands: OPERATIONS[name](*operands),
        )
    except ArithmeticError:
        return None


def inverse(
    expression: Expression,
    result: Value,
    unknown: Attribute,
    known: Callable[[Expression], Value],
    compute: Callable[..., Value],
) -> Value | None:
    """``unknown`` computed from the result of the expression, as if nothing was rounded; None where that cannot be.

    Args:
        expression: what reads the unknown attribute, once.
        result: the value that it has.
        unknown: the attribute to compute.
        known: gives the value of any other part of the expression.
        compute: ``compute(name, left, right)`` calls one of `OPERATIONS`.
    """
    if expression == unknown:
        return result
    match expression:
        case Operation(name="neg", operands=(operand,)):
            return inverse(operand, compute("neg", result), unknown, known, compute)
        case Operation(name="ceil" | "floor" | "round", operands=(operand,)):
            return inverse(operand, result, unknown, known, compute)
        case Operation(name=name, operands=(left, right)):
            on_left, on_right = unknown in leaves(left), unknown in leaves(right)
            if on_left == on_right or name not in _UNDONE:
                return None
            searched, other = (left, right) if on_left else (right, left)
            undone, result_first = _UNDONE[name][on_right]
            operands = (result, known(other)) if result_first else (known(other), result)
            return inverse(searched, compute(undone, *operands), unknown, known, compute)
    return None
