"""Fractions in the network's code and among its attributes: numbers as any other, but for the sizes that they meet."""

import sys

import pytest
import torch

from prunegraph.capture.literals import Fraction, fractions_in
from prunegraph.capture.tracked import expression_of, track
from prunegraph.ir.sizes import Attribute, Constant, Operation
from tests.capture.test_tracked import Notes

WIDTH = Attribute("", "width", 8)


class Scaled:
    """Fractions where functions may hold them."""

    @property
    def half(self) -> float:
        return 0.5

    @staticmethod
    def within(width: float) -> float:
        return next(0.5 * size for size in (width,))

    @torch.no_grad()
    def decorated(self) -> float:
        return -0.5


def test_a_size_answers_for_a_fraction_and_for_what_is_made_of_it() -> None:
    size = track(8, WIDTH, Notes())
    assert expression_of(Fraction(0.5) * size) == Operation("mul", (Constant(0.5), WIDTH))
    assert expression_of(1 / -Fraction(2.0) * size) == Operation("mul", (Constant(-0.5), WIDTH))
    assert Fraction(9.0) > size
    assert size.journal.comparisons == [(WIDTH, Constant(9.0), "<", True)]


@pytest.mark.parametrize("value", [0.5, -2.0, float("inf")])
def test_it_is_a_float_everywhere_else(value: float) -> None:
    fraction = Fraction(value)
    assert fraction == value
    assert hash(fraction) == hash(value)
    assert (fraction + 1, 2 - fraction, abs(fraction), fraction < 0) == (value + 1, 2 - value, abs(value), value < 0)
    assert f"{fraction:.2f}" == f"{value:.2f}"
    assert fraction**0.25 == value**0.25


def test_functions_have_their_own_literals_again() -> None:
    scaled, size = Scaled(), track(8, WIDTH, Notes())
    codes = [Scaled.half.fget.__code__, Scaled.within.__code__, Scaled.decorated.__wrapped__.__code__]
    with fractions_in([__name__, "not_imported"]):
        assert all(expression_of(found) is not None for found in (scaled.half * size, scaled.within(size)))
        assert expression_of(scaled.decorated() * size) is not None
    assert codes == [Scaled.half.fget.__code__, Scaled.within.__code__, Scaled.decorated.__wrapped__.__code__]
    assert type(scaled.half) is float
    assert type(scaled.within(2)) is float
    assert "not_imported" not in sys.modules
