from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.rules.oracle import Study, randoms


def check(study: Study, *locked: str) -> Study:
    """Asserts that only the given dimensions are locked and that slicing agrees with the masked form."""
    assert set(study.locked) == set(locked)
    study.check()
    return study


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_differences_lock_their_dimension_alone(dim: int, n: int) -> None:
    study = Study(lambda x: torch.diff(x, n, dim), x=randoms((4, 5, 6))[0])
    check(study, f"x.{dim % 3}")
    free = {f"x.{other} out.{other}": size for other, size in enumerate((4, 5, 6)) if other != dim % 3}
    assert study.free == free


def test_what_is_joined_to_a_difference_shares_its_channels() -> None:
    x, p, a = randoms((4, 5, 6), (4, 5, 1), (4, 5, 3))
    study = check(Study(lambda x, p, a: torch.diff(x, prepend=p, append=a), x=x, p=p, a=a), "x.2", "a.2")
    assert study.free == {"x.0 p.0 a.0 out.0": 4, "x.1 p.1 a.1 out.1": 5}


TRAPEZOIDS: dict[str, Callable[..., Any]] = {
    "trapezoid": torch.trapezoid,
    "trapz": torch.trapz,
    "cumulative": torch.cumulative_trapezoid,
}


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", TRAPEZOIDS)
def test_evenly_spaced_integrals_lock_their_dimension_alone(name: str, dim: int) -> None:
    study = Study(lambda y: TRAPEZOIDS[name](y, dx=0.5, dim=dim), y=randoms((4, 5, 6))[0])
    check(study, f"y.{dim % 3}")
    assert sum(study.free.values()) == 15 - (4, 5, 6)[dim]


@pytest.mark.parametrize(
    ("points", "dim", "free"),
    [
        ((6,), 2, {"y.0 {0}": 4, "y.1 {1}": 5}),
        ((5,), 1, {"y.0 {0}": 4, "y.2 {2}": 6}),
        ((4, 5, 6), 1, {"y.0 x.0 {0}": 4, "y.2 x.2 {2}": 6}),
        ((5, 6), 2, {"y.0 {0}": 4, "y.1 x.0 {1}": 5}),
        ((1, 5, 6), 2, {"y.0 {0}": 4, "y.1 x.1 {1}": 5}),
    ],
)
@pytest.mark.parametrize("name", TRAPEZOIDS)
def test_integrals_over_given_points(name: str, points: tuple[int, ...], dim: int, free: dict[str, int]) -> None:
    y, x = randoms((4, 5, 6), points)
    study = Study(lambda y, x: TRAPEZOIDS[name](y, x, dim=dim), y=y, x=x)
    check(study, f"y.{dim}", f"x.{dim + len(points) - 3 if len(points) > 1 else 0}")
    outs = [f"out.{d if name == 'cumulative' else d - (d > dim)}" for d in range(3)]
    assert study.free == {key.format(*outs): size for key, size in free.items()}


def test_points_of_a_higher_rank_lock_everything() -> None:
    y, x = randoms((5, 3), (5, 4, 3))
    check(Study(lambda y, x: torch.trapezoid(y, x, dim=0), y=y, x=x), "y.0", "y.1", "x.0", "x.1", "x.2")


def test_a_single_series() -> None:
    y, x = randoms((5,), (5,))
    check(Study(lambda y, x: torch.trapezoid(y, x), y=y, x=x), "y.0", "x.0")
    check(Study(lambda y: torch.diff(y), y=y), "y.0")


@pytest.mark.parametrize("function", [torch.quantile, torch.nanquantile])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("keepdim", [True, False])
def test_quantiles_lock_their_dimension_alone(function: Callable[..., Any], dim: int, keepdim: bool) -> None:
    (x,) = randoms((4, 5, 6))
    q = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    check(Study(lambda x: function(x, 0.3, dim, keepdim), x=x), f"x.{dim % 3}")
    levels = check(Study(lambda x, q: function(x, q, dim, keepdim), x=x, q=q), f"x.{dim % 3}", "q.0")
    assert sorted(levels.free.values()) == sorted({4, 5, 6} - {(4, 5, 6)[dim]})
    one = check(Study(lambda x: function(x, torch.tensor(0.3).double(), dim, keepdim), x=x), f"x.{dim % 3}")
    assert sorted(one.free.values()) == sorted({4, 5, 6} - {(4, 5, 6)[dim]})


def test_quantiles_of_everything() -> None:
    (x,) = randoms((4, 5))
    q = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    check(Study(lambda x, q: torch.quantile(x, q), x=x, q=q), "x.0", "x.1", "q.0")
    check(Study(lambda x: torch.quantile(x, 0.5, keepdim=True), x=x), "x.0", "x.1")
    check(Study(lambda x: torch.quantile(x[0, 0], 0.5), x=x), "x.0", "x.1")


@pytest.mark.parametrize("k", [-1, 0, 1, 2, 3, 5])
@pytest.mark.parametrize("dims", [(0, 1), (2, 0), (-1, -2)])
def test_turned_planes_keep_their_channels(k: int, dims: tuple[int, int]) -> None:
    study = check(Study(lambda x: torch.rot90(x, k, dims), x=randoms((4, 5, 6))[0]))
    place = {dim: dim for dim in range(3)}
    if k % 2:
        place[dims[0] % 3], place[dims[1] % 3] = dims[1] % 3, dims[0] % 3
    assert study.free == {f"x.{dim} out.{place[dim]}": size for dim, size in enumerate((4, 5, 6))}


STACKS: list[tuple[Callable[..., Any], tuple[tuple[int, ...], ...], dict[str, int]]] = [
    (torch.hstack, ((3, 4, 2), (3, 5, 2)), {"a.0 b.0 out.0": 3, "a.1 out.1": 4, "b.1 out.1": 5, "a.2 b.2 out.2": 2}),
    (torch.hstack, ((4,), (5,)), {"a.0 out.0": 4, "b.0 out.0": 5}),
    (torch.vstack, ((3, 4), (4,)), {"a.0 out.0": 3, "a.1 b.0 out.1": 4}),
    (torch.row_stack, ((4,), (4,)), {"a.0 b.0 out.1": 4}),
    (torch.column_stack, ((4, 3), (4,)), {"a.0 b.0 out.0": 4, "a.1 out.1": 3}),
    (torch.dstack, ((4,), (4,)), {"a.0 b.0 out.1": 4}),
    (torch.dstack, ((4, 3), (4, 3, 2)), {"a.0 b.0 out.0": 4, "a.1 b.1 out.1": 3, "b.2 out.2": 2}),
]


@pytest.mark.parametrize(("stack", "shapes", "free"), STACKS, ids=range(len(STACKS)))
def test_stacked_operands_lie_one_after_the_other(
    stack: Callable[..., Any], shapes: tuple[tuple[int, ...], ...], free: dict[str, int]
) -> None:
    a, b = randoms(*shapes)
    assert check(Study(lambda a, b: stack((a, b)), a=a, b=b)).free == free
