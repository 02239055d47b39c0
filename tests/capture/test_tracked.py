"""Numbers that remember where they come from, by themselves and through the code of a network."""

import copy
import functools
import math
import operator
import pickle
from collections.abc import Callable
from typing import Any

import einops
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunegraph import apply, build_graph, verify
from prunegraph.capture.tracked import TrackedFloat, TrackedInt, expression_of, track
from prunegraph.capture.transparency import transparent_python
from prunegraph.ir.sizes import Attribute, Constant, Expression, Operation, evaluate, invert, recorded_value

WIDTH = Attribute("", "width", 12)
BINARY = [operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod]


class Notes:
    """Keeps what the code did with sizes."""

    def __init__(self) -> None:
        self.comparisons: list[tuple[Expression, Expression, str, bool]] = []
        self.conversions: list[Expression] = []

    def note_comparison(self, *comparison: Any) -> None:
        self.comparisons.append(comparison)

    def note_conversion(self, expression: Expression) -> None:
        self.conversions.append(expression)


def tracked(value: int = 12, name: str = "width") -> Any:
    return track(value, Attribute("", name, value), Notes())


@given(st.lists(st.tuples(st.sampled_from(BINARY), st.integers(1, 9), st.booleans()), max_size=6), st.integers(1, 50))
def test_arithmetic_is_pythons_and_can_be_repeated(
    steps: list[tuple[Callable[..., Any], int, bool]], other: int
) -> None:
    """The value is what plain numbers give, and the expression gives it for other values of the attribute too."""

    def compute(number: Any) -> Any:
        for operation, constant, swapped in steps:
            number = operation(constant, number) if swapped else operation(number, constant)
        return number

    try:
        plain, again = compute(12), compute(other)
    except ZeroDivisionError:
        return
    found = compute(tracked())
    expression = expression_of(found)
    assert found == plain
    assert isinstance(found, TrackedInt if isinstance(plain, int) else TrackedFloat)
    assert expression is not None
    assert evaluate(expression, recorded_value) == plain
    assert evaluate(expression, lambda leaf: other) == again


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda n: -n, -12),
        (lambda n: abs(-n), 12),
        (lambda n: n**0.5, 12**0.5),
        (lambda n: 2**n, 4096),
        (lambda n: divmod(n, 5), (2, 2)),
        (lambda n: math.ceil(n / 5), 3),
        (lambda n: math.floor(n / 5), 2),
        (lambda n: round(n / 5), 2),
        (lambda n: sum([n, n]), 24),
        (lambda n: math.prod([n, 2, n]), 288),
        (lambda n: max(n, 3), 12),
        (np.sqrt, 12**0.5),
        (lambda n: np.multiply(n, 2) + np.ceil(n / 5), 27),
    ],
)
def test_functions_keep_the_origin(compute: Callable[[Any], Any], expected: Any) -> None:
    found = compute(tracked())
    assert found == expected
    for item in found if isinstance(found, tuple) else (found,):
        expression = expression_of(item)
        assert expression is not None
        assert evaluate(expression, recorded_value) == item


def test_tracked_numbers_are_numbers_everywhere_else() -> None:
    number = tracked()
    assert (f"{number}", f"{number:03d}", repr(number), [0] * 20 + [1], {12: "x"}[number]) == (
        "12",
        "012",
        "12",
        [0] * 20 + [1],
        "x",
    )
    assert [1, 2, 3][tracked(2)] == 3
    assert list(range(tracked(2))) == [0, 1]
    assert "ab" * tracked(2) == "abab"
    assert (number > 3, number == 12, number != 12, bool(number)) == (True, True, False, True)
    assert torch.zeros(tracked(2), 3).shape == (2, 3)
    assert (np.float32(2) * number, np.exp(tracked(0)), np.add(number, [1, 2]).tolist()) == (24, 1, [13, 14])
    assert (np.arange(number).shape, np.array([number, 2]).dtype) == ((12,), np.array([12, 2]).dtype)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_are_equal(copied: Callable[[Any], Any]) -> None:
    assert copied(tracked()) == 12


def test_comparisons_are_noted() -> None:
    notes = Notes()
    left, right = Attribute("a", "width", 4), Attribute("b", "width", 4)
    width, other = (track(4, expression, notes) for expression in (left, right))
    assert not width == 5  # noqa: SIM201 - the operator itself is tested
    assert width != 6
    assert width == 4
    assert width != "4"
    assert width == other
    assert width < 5
    assert width >= 4
    assert max(width, 2) == 4
    assert notes.comparisons == [
        (left, Constant(5), "==", False),
        (left, Constant(6), "==", False),
        (left, Constant(4), "==", True),
        (left, right, "==", True),
        (left, Constant(5), "<", True),
        (left, Constant(4), ">=", True),
        (left, Constant(2), "<", False),
        (left, Constant(4), "==", True),
    ]


@pytest.mark.parametrize(
    "convert",
    [
        int,
        float,
        lambda n: np.float32(n),
        lambda n: np.arange(n, 2 * n),
        math.gamma,
        lambda n: n & 6,
        lambda n: 6 | n,
        lambda n: n ^ 1,
        lambda n: 1 << n,
        lambda n: [0] * n,
        lambda n: n * "x",
        lambda n: pow(n, 2, 7),
        lambda n: n.bit_length(),
        lambda n: n.as_integer_ratio(),
        lambda n: np.maximum(n, 3),
    ],
)
def test_ordinary_numbers_made_of_a_size_are_noted(convert: Callable[[Any], Any]) -> None:
    number = tracked(4)
    found, expected = convert(number), convert(4)
    assert type(found) is type(expected)
    assert np.all(found == expected)
    assert number.expression in number.journal.conversions


def test_arguments_of_torch_are_no_conversions() -> None:
    number = tracked(4)
    half = number / 2
    values = torch.zeros(number, 2) * number + torch.full((2,), half) - half
    assert values.shape == (4, 2)
    assert torch.nn.functional.pad(values, (number, 0)).view(number, 6).narrow(0, 0, number)[:number].shape == (4, 6)
    assert list(range(number)) == [0, 1, 2, 3]
    assert number.journal.conversions == []


@pytest.mark.parametrize("convert", [lambda n: math.gcd(n, 6), lambda n: math.isqrt(n), lambda n: math.lcm(3, n)])
def test_functions_of_integers_make_ordinary_numbers(convert: Callable[[Any], Any]) -> None:
    number = tracked(4)
    with transparent_python():
        assert convert(number) == convert(4)
    assert number.expression in number.journal.conversions


@pytest.mark.parametrize(
    "compute",
    [
        lambda n: n >> 1,
        lambda n: n << 2,
        lambda n: +n,
        lambda n: ~n,
        lambda n: n.real + n.numerator + n.conjugate(),
        lambda n: math.trunc(n / 2),
        lambda n: math.log2(n),
        lambda n: math.log10(n),
        lambda n: math.log(n, 3),
        lambda n: math.pow(n, -0.5),
        lambda n: math.pow(2, n),
        lambda n: math.exp(n),
        lambda n: np.power(n, 0.5),
        lambda n: np.log2(n),
    ],
)
def test_functions_of_a_size_can_be_repeated(compute: Callable[[Any], Any]) -> None:
    with transparent_python():
        found = expression_of(compute(tracked(4)))
    assert found is not None
    assert evaluate(found, lambda leaf: 9) == pytest.approx(compute(9))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_inversion_finds_a_value_that_gives_the_target(value: int, factor: int, addend: int) -> None:
    product = Operation("mul", (Constant(factor), WIDTH))
    for expression in (
        WIDTH,
        Operation("add", (product, Constant(addend))),
        Operation("sub", (product, Constant(addend))),
        Operation("sub", (Constant(addend + factor * value), product)),
        Operation("floordiv", (WIDTH, Constant(factor))),
    ):
        target = evaluate(expression, lambda leaf: value)
        found = invert(expression, target, WIDTH, recorded_value)
        if target > 0:
            assert found is not None
            assert evaluate(expression, lambda leaf, found=found: found) == target


@pytest.mark.parametrize(("factor", "target"), [(2, 7), (5, 3)])
def test_inversion_gives_up_where_no_whole_number_fits(factor: int, target: int) -> None:
    assert invert(Operation("mul", (WIDTH, Constant(factor))), target, WIDTH, recorded_value) is None


@functools.lru_cache(maxsize=None)  # noqa: UP033 - the form is what is tested
def remembered(width: int) -> tuple[int, int]:
    return width // 2, 2


class Sized(nn.Module):
    """Writes sizes in some way between two layers of 8 channels; ``size`` gets the module and the value."""

    def __init__(self, size: Callable[..., Tensor]) -> None:
        super().__init__()
        self.size = size
        self.width, self.half, self.pair, self.nested, self.ratio = 8, 4, (8, 1), {"w": [8]}, 2.0
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

    def share(self, width: int) -> float:
        return 0.5 * width

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.size(self, self.a(x)))


def parted(x: Tensor, width: int) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :width, 1:] = x[:, :width, :-1]
    out[:, width:] = x[:, width:]
    return out.mean(2)


def wrote(x: Tensor, number: float) -> Tensor:
    x = x.clone()
    x[0] = number
    return x


FOLLOW: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "attribute": lambda m, x: x.view(-1, m.width),
    "attribute in a tuple": lambda m, x: x.view(-1, m.pair[0]),
    "attribute in a dict": lambda m, x: x.view(-1, m.nested["w"][0]),
    "half and twice": lambda m, x: x.view(-1, m.width // 2, 2).flatten(1),
    "product": lambda m, x: x.view(-1, 2, m.half).relu().view(-1, 2 * m.half),
    "shape": lambda m, x: x.view(x.shape[0], x.shape[1]),
    "size": lambda m, x: x.view(x.size(0), x.size(-1)),
    "size by keyword": lambda m, x: x.view(x.size(dim=0), x.size(dim=-1)),
    "size of one": lambda m, x: x.view(x.size()),
    "unpacked": lambda m, x: x.view(*x.shape[:-1], x.shape[-1]),
    "new_zeros": lambda m, x: x + x.new_zeros(x.shape),
    "zeros by attribute": lambda m, x: x + torch.zeros(m.width),
    "expand": lambda m, x: x[:, :1].expand(-1, m.width) + x,
    "repeat": lambda m, x: x[:, :1].repeat(1, x.shape[1]) + x,
    "slice": lambda m, x: torch.cat([x[:, : m.width // 2], x[:, m.width // 2 :]], 1),
    "narrow": lambda m, x: torch.cat([x.narrow(1, 0, m.half), x.narrow(1, m.half, m.half)], 1),
    "split": lambda m, x: torch.cat(x.split(m.half, dim=1)[::-1], 1),
    "comparison": lambda m, x: x if x.shape[1] == m.width else x[:, :1],
    "scale by a root": lambda m, x: x / math.sqrt(x.shape[-1]),
    "scale by a power": lambda m, x: x * m.width**-0.5,
    "scale by numpy's root": lambda m, x: x / np.sqrt(x.shape[-1]),
    "mean by hand": lambda m, x: x - x.sum(-1, keepdim=True) / x.size(-1),
    "mean by numel": lambda m, x: x / x.numel(),
    "mean by numel of a part of the shape": lambda m, x: x / x.shape[1:].numel(),
    "numel of a longer shape": lambda m, x: x.view(-1, ((2,) + x.shape[1:] + (3,)).numel() // 6),  # noqa: RUF005 - from both sides
    "shape asked for its class": lambda m, x: x.view(*x.shape) if isinstance(x.shape, torch.Size) else x[:, :1],
    "shape copied": lambda m, x: x.view(copy.deepcopy(x.shape)) + torch.empty(torch.Size(x.shape)).zero_(),
    "remembered": lambda m, x: x.view(-1, *remembered(x.shape[1])).flatten(1),
    "einops": lambda m, x: einops.rearrange(x, "b (h w) -> b h w", w=m.half).flatten(1),
    "einops both": lambda m, x: einops.rearrange(einops.rearrange(x, "b (h w) -> b w h", h=2), "b w h -> b (h w)"),
    "unflatten": lambda m, x: x.unflatten(1, (2, m.half)).flatten(1),
    "norm": lambda m, x: nn.functional.layer_norm(x, (m.width,)),
    "norm by shape": lambda m, x: nn.functional.layer_norm(x, x.shape[1:]),
    "keyword": lambda m, x: torch.reshape(input=x, shape=(x.shape[0], m.width)),
    "through int": lambda m, x: x.view(-1, int(m.width / 2)).view(-1, int(m.width)),
    "through a product with a float": lambda m, x: (
        x.view(-1, int(m.width * 1.0)).view(-1, int(m.share(m.width)), 2).flatten(1)
    ),
    "through a ratio": lambda m, x: x.view(-1, int(m.ratio * m.half)),
    "rounded": lambda m, x: x.view(-1, round(m.half * 2.0)).view(-1, math.ceil(m.half / 0.5)),
    "scale by a share": lambda m, x: x * m.share(x.shape[-1]) + m.ratio**-m.width,
    "share of a sum": lambda m, x: torch.add(x, x.tanh(), alpha=1 / x.shape[1]),
    "bounds": lambda m, x: x.clamp(-1 / x.shape[1], 3.0),
    "both bounds": lambda m, x: x.clamp(-1 / x.shape[1], 4 / m.width),
    "slope": lambda m, x: nn.functional.leaky_relu(x, 1 / m.width),
    "fill": lambda m, x: torch.full_like(x, 1 / m.width) + x,
    "a written number": lambda m, x: wrote(x, 10 / x.shape[1]),
    "from the end": lambda m, x: torch.cat([x[:, -m.half :], x[:, : -m.half]], 1),
    "a dimension of the same number": lambda m, x: parted(x.unsqueeze(-1).expand(-1, -1, 3), x.shape[1] // 4),
    "tensor_split": lambda m, x: torch.cat(x.tensor_split((m.half, m.width), dim=1)[::-1], 1),
    "every second": lambda m, x: torch.cat([x[:, 1::2], x[:, ::2]], 1),
    "functional split": lambda m, x: torch.cat(torch.split(x, [m.half, m.width - m.half], dim=1), 1),
}


@pytest.mark.parametrize("way", FOLLOW)
def test_sizes_follow_after_pruning(way: str) -> None:
    torch.manual_seed(0)
    model, x = Sized(FOLLOW[way]).double(), torch.randn(5, 3, dtype=torch.float64)
    graph = build_graph(model, x)
    assert graph.groups
    plan = graph.plan({g.name: range(0, g.width, 2) for g in graph.groups})
    pruned = apply(model, plan)
    assert pruned.a.out_features < 8
    assert verify(model, pruned, plan, x, graph=graph).difference < 1e-10


LOCK: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a number": lambda m, x: x.view(-1, 8),
    "a number through an index": lambda m, x: x.view(-1, operator.index(m.width)),
    "a closure": lambda m, x, width=8: x.view(-1, width),
    "numpy": lambda m, x: x.view(-1, int(np.prod([2, 4]))),
    "read from a tensor": lambda m, x: x.view(-1, int(torch.tensor(8).item())),
}


@pytest.mark.parametrize("way", LOCK)
def test_sizes_of_unknown_origin_lock(way: str) -> None:
    graph = build_graph(Sized(LOCK[way]), torch.randn(5, 3))
    assert [g.name for g in graph.groups] == []
    (lock,) = {lock.reason for g in graph.locked for lock in g.locks if lock.op == "aten.view"}
    written = way in ("a number", "a closure", "read from a tensor")
    assert lock.startswith("the size 8 is written in the code" if written else "the size 8 has an unknown origin")


def test_the_class_of_a_number_makes_ordinary_ones() -> None:
    size = track(8, Attribute("", "width", 8), Notes())
    made = [type(size)(3), type(size)(size), (size**0.5).__class__(2.0)]
    assert not any(isinstance(number, TrackedInt | TrackedFloat) for number in made)
    assert made == [3, 8, 2.0]
