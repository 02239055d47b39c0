"""Numbers that remember where they come from.

During capture the plain integers of modules and shapes are replaced by `TrackedInt`, an ``int`` that carries an
`Expression`. Python's arithmetic on it yields tracked numbers again, so a size argument of a torch call tells which
attributes and shapes it was computed from.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from prunegraph.ir.sizes import OPERATIONS, RELATIONS, Constant, Expression, Number, Operation


class Journal(Protocol):
    """Is told what the code does with sizes beside computing others."""

    def note_comparison(self, left: Expression, right: Expression, relation: str, outcome: bool) -> None:
        """Two numbers were compared by one of `RELATIONS`."""

    def note_conversion(self, expression: Expression) -> None:
        """An ordinary number was made of a tracked one, and where it goes cannot be seen."""


_UFUNCS = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "truediv",
    "floor_divide": "floordiv",
    "sqrt": "sqrt",
    "power": "pow",
    "log": "log",
    "log2": "log2",
    "log10": "log10",
    "exp": "exp",
    "ceil": "ceil",
    "floor": "floor",
}
"""Functions of numpy and the operations of `OPERATIONS` that they are."""


def expression_of(value: Any) -> Expression | None:
    """The expression behind a tracked number; None for any other value."""
    return value.expression if isinstance(value, TrackedInt | TrackedFloat) else None


def track(value: Number, expression: Expression, journal: Journal) -> Any:
    """Wraps a plain number."""
    number: Any = int.__new__(TrackedInt, value) if isinstance(value, int) else float.__new__(TrackedFloat, value)
    number.expression, number.journal = expression, journal
    return number


def track_numpy(value: "np.integer[Any]", expression: Expression, journal: Journal) -> Any:
    """Wraps an integer of numpy."""
    number = int.__new__(TrackedNumpyInt, value)
    number.expression, number.journal, number.kind = expression, journal, type(value)
    return number


def as_float(value: Any) -> float:
    """``float(value)`` that keeps the origin of a tracked number."""
    if isinstance(value, _Tracked):
        return track(float(plain(value)), value.expression, value.journal)  # type: ignore[no-any-return]
    return float(value)


def ordinary(value: Any) -> Any:
    """An ordinary number of a tracked one, which is noted; any other value as it is."""
    if isinstance(value, _Tracked):
        value.journal.note_conversion(value.expression)
        return plain(value)
    return value


class _Tracked:
    """Arithmetic shared by the tracked integer and the tracked float."""

    expression: Expression
    journal: Journal

    def _apply(self, name: str, *operands: Any) -> Any:
        if not all(isinstance(operand, int | float) for operand in operands):
            return NotImplemented
        value = OPERATIONS[name](*(plain(operand) for operand in operands))
        if not isinstance(value, int | float):
            return value
        expression = Operation(name, tuple(expression_of(o) or Constant(plain(o)) for o in operands))
        return track(value, expression, self.journal)

    def __hash__(self) -> int:
        return hash(plain(self))

    def _compare(self, relation: str, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        outcome = RELATIONS[relation](plain(self), plain(other))
        self.journal.note_comparison(self.expression, expression_of(other) or Constant(plain(other)), relation, outcome)
        return outcome

    def __eq__(self, other: object) -> bool:
        return self._compare("==", other)  # type: ignore[no-any-return]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> Any:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Any:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._compare(">=", other)

    def __int__(self) -> int:
        self.journal.note_conversion(self.expression)
        return int(plain(self))

    def __float__(self) -> float:
        self.journal.note_conversion(self.expression)
        return float(plain(self))

    def __reduce__(self) -> Any:
        return type(plain(self)), (plain(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Tracked":
        return self

    def __add__(self, other: Any) -> Any:
        return self._apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        found = self._apply("mul", self, other)
        if found is NotImplemented and isinstance(other, Sequence):
            ordinary(self)  # into the length of a list
        return found

    def __rmul__(self, other: Any) -> Any:
        return self.__mul__(other) if isinstance(other, Sequence) else self._apply("mul", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self._apply("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._apply("floordiv", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._apply("truediv", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._apply("truediv", other, self)

    def __mod__(self, other: Any) -> Any:
        return self._apply("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return self._apply("mod", other, self)

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        return self._apply("pow", self, other) if modulus is None else pow(*map(ordinary, (self, other, modulus)))

    def __rpow__(self, other: Any) -> Any:
        return self._apply("pow", other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __neg__(self) -> Any:
        return self._apply("neg", self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self._apply("abs", self)

    def __ceil__(self) -> Any:
        return self._apply("ceil", self)

    def __floor__(self) -> Any:
        return self._apply("floor", self)

    def __trunc__(self) -> Any:
        return self._apply("floor" if plain(self) >= 0 else "ceil", self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """``np.sqrt(width)`` is answered with a tracked number, what has no counterpart by numpy."""
        name = _UFUNCS.get(ufunc.__name__) if method == "__call__" and not options else None
        found = NotImplemented if name is None else self._apply(name, *inputs)
        if found is not NotImplemented:
            return found
        return getattr(ufunc, method)(*(ordinary(item) for item in inputs), **options)

    def __round__(self, digits: int | None = None) -> Any:
        return self._apply("round", self) if digits is None else round(ordinary(self), digits)

    def __bool__(self) -> bool:
        return self != 0

    def conjugate(self) -> Any:
        """Itself, as is its real part."""
        return self

    @property
    def real(self) -> Any:
        """Itself."""
        return self


class TrackedInt(_Tracked, int):  # type: ignore[misc]  # its powers may be fractions
    """An integer with an expression; torch takes it wherever it takes an ``int``."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """An ordinary number, for code that asks one for its class and that for another one."""
        return int(*args, **options)

    def __lshift__(self, other: Any) -> Any:
        return self * 2 ** ordinary(other) if isinstance(other, int) else NotImplemented

    def __rshift__(self, other: Any) -> Any:
        return self // 2 ** ordinary(other) if isinstance(other, int) else NotImplemented

    def __invert__(self) -> Any:
        return -self - 1

    @property
    def numerator(self) -> Any:
        """Itself."""
        return self


class TrackedSize(tuple[Any, ...]):
    """Stands for a ``torch.Size``, which takes the product of its sizes where Python does not see it."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What ``isinstance`` is told; torch allows no class of its own to inherit from this one."""
        return torch.Size

    def numel(self) -> Any:
        """Number of elements."""
        return math.prod(self)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return TrackedSize(found) if isinstance(index, slice) else found

    def __add__(self, other: Any) -> "TrackedSize":
        return TrackedSize((*self, *other))

    def __radd__(self, other: Any) -> "TrackedSize":
        return TrackedSize((*other, *self))

    def __reduce__(self) -> Any:
        return torch.Size, (tuple(self),)


class TrackedNumpyInt(TrackedInt):
    """Stands for an integer of numpy; what only that one can do (``item()``) is done by an ordinary one."""

    kind: "type[np.integer[Any]]"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.journal.note_conversion(self.expression)
        return getattr(self.kind(plain(self)), name)


class TrackedFloat(_Tracked, float):  # type: ignore[misc]
    """A float with an expression, such as ``width ** -0.5``."""

    def __new__(cls, *args: Any) -> Any:
        """An ordinary number, see `TrackedInt`."""
        return float(*args)


def _of_ordinary_numbers(kind: type, name: str) -> Callable[..., Any]:
    def method(self: Any, *others: Any, **options: Any) -> Any:
        return getattr(kind, name)(ordinary(self), *map(ordinary, others), **options)

    method.__name__ = name
    return method


_OF_BITS = ("and", "rand", "or", "ror", "xor", "rxor", "rlshift", "rrshift", "index")
_OF_INTEGERS = (*(f"__{name}__" for name in _OF_BITS), "as_integer_ratio", "bit_length", "bit_count", "to_bytes")
_WITHOUT_COUNTERPART = (
    (TrackedInt, int, _OF_INTEGERS),
    (TrackedFloat, float, ("as_integer_ratio", "is_integer", "hex")),
)
for _tracked, _ordinary, _names in _WITHOUT_COUNTERPART:
    for _name in _names:
        setattr(_tracked, _name, _of_ordinary_numbers(_ordinary, _name))


def plain(value: Any) -> Number:
    """The number itself, of which nobody is told."""
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)
