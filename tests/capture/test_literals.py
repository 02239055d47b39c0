"""Fractions in the network's code and among its attributes: numbers as any other, but for the sizes that they meet."""

import functools
import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunegraph import apply, build_graph, verify
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
    with fractions_in([sys.modules[__name__]], [], []):
        assert all(expression_of(found) is not None for found in (scaled.half * size, scaled.within(size)))
        assert expression_of(scaled.decorated() * size) is not None
    assert codes == [Scaled.half.fget.__code__, Scaled.within.__code__, Scaled.decorated.__wrapped__.__code__]
    assert type(scaled.half) is float
    assert type(scaled.within(2)) is float


HALF = 0.5
FACTORS = {"half": 0.5, "of": (0.5, 1.5)}


class Factors:
    half = 0.5


class Dividing(nn.Module):
    """Divides a float, which comes from somewhere, by its width."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.divided = way, lambda width: 0.5 / width
        self.register_buffer("factor", torch.tensor(0.5))
        self.first, self.last = nn.Conv1d(1, 8, 3), nn.Conv1d(8, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x - WAYS[self.way](self, x.shape[1]))

    @functools.cached_property
    def fixed(self) -> float:
        return 0.5 / self.first.out_channels


def made_within(factor: float) -> Callable[[Dividing, int], float]:
    return lambda network, width: factor + 0.5 / width


WAYS: dict[str, Callable[[Dividing, int], float]] = {
    "constant of the module": lambda network, width: HALF / width,
    "constant in a dict": lambda network, width: FACTORS["of"][0] / width,
    "constant of a class": lambda network, width: Factors.half / width,
    "constant in a tuple": lambda network, width: sum(factor / width for factor in (0.5, 1.5)),
    "default": lambda network, width, half=0.5: half / width,
    "keyword": lambda network, width, *, half=0.5: half / width,
    "one of the defaults": lambda network, width, half=0.5, other=object(): half / width,  # noqa: B008
    "pi": lambda network, width: 2 * math.pi / width + np.pi / width,
    "logarithm": lambda network, width: -math.log(10000.0) / width,
    "sine": lambda network, width: math.sin(0.5) / width,
    "item": lambda network, width: network.factor.item() / width,
    "list": lambda network, width: network.factor.view(1).tolist()[0] / width,
    "lambda in an attribute": lambda network, width: network.divided(width),
    "closure": made_within(2.0),
    "cached property": lambda network, width: network.fixed,
}


@pytest.mark.parametrize("way", WAYS)
def test_sizes_answer_floats_from_anywhere(way: str) -> None:
    network, x = Dividing(way).double().eval(), torch.randn(1, 1, 20, dtype=torch.float64)
    graph = build_graph(network, x)
    plan = graph.plan({"first.weight[0]": range(5)})
    assert verify(network, apply(network, plan), plan, x, graph=graph).difference < 1e-12
    assert (type(HALF), type(math.pi), type(Factors.half), FACTORS) == (
        float,
        float,
        float,
        {"half": 0.5, "of": (0.5, 1.5)},
    )
