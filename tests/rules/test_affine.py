from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from tests.rules.oracle import Study, randoms


@pytest.mark.parametrize(
    ("added", "rows"), [((5, 7), "c.0 a.1 out.0"), ((1, 7), "a.1 out.0"), ((7,), "a.1 out.0"), ((1, 1), "a.1 out.0")]
)
def test_addbmm_sums_over_the_batch(added: Sequence[int], rows: str) -> None:
    a, b, c = randoms((3, 5, 6), (3, 6, 7), added)
    study = Study(lambda a, b, c: torch.addbmm(c, a, b, beta=0.5, alpha=2), a=a, b=b, c=c)
    columns = f"b.2 c.{len(added) - 1} out.1" if added[-1] > 1 else "b.2 out.1"
    assert {frozenset(key.split()): size for key, size in study.free.items()} == {
        frozenset(("a.0", "b.0")): 3,
        frozenset(("a.2", "b.1")): 6,
        frozenset(rows.split()): 5,
        frozenset(columns.split()): 7,
    }
    assert study.locked == {}
    assert study.macs() == 3 * 5 * 6 * 7
    study.check()


def test_addbmm_meets_fixed_sizes() -> None:
    a, b = randoms((3, 5, 6), (3, 6, 7))
    study = Study(lambda a, b: torch.addbmm(torch.ones(5, 7).double(), a, b), a=a, b=b)
    assert set(study.locked) == {"a.1", "b.2"}
    study.check()


@pytest.mark.parametrize("outer", [torch.outer, torch.ger])
def test_an_outer_product_keeps_the_indices_of_both(outer) -> None:
    a, b = randoms((5,), (7,))
    study = Study(lambda a, b: outer(a, b), a=a, b=b)
    assert {frozenset(key.split()): size for key, size in study.free.items()} == {
        frozenset(("a.0", "out.0")): 5,
        frozenset(("b.0", "out.1")): 7,
    }
    assert study.locked == {}
    study.check()


POINTWISE = {
    "conv1d": (lambda x, w: F.conv1d(x, w), (2, 6, 9), (5, 6, 1)),
    "conv1d, depthwise": (lambda x, w: F.conv1d(x, w, groups=6), (2, 6, 9), (6, 1, 1)),
    "conv1d, same": (lambda x, w: F.conv1d(x, w, padding="same"), (2, 6, 9), (5, 6, 1)),
    "conv1d, unbatched": (lambda x, w: F.conv1d(x, w), (6, 9), (5, 6, 1)),
    "transposed": (lambda x, w: F.conv_transpose1d(x, w), (2, 6, 9), (6, 5, 1)),
    "conv2d, taps before": (lambda x, w: F.conv2d(x, w, padding=(1, 0)), (2, 6, 4, 9), (5, 6, 3, 1)),
    "transposed, taps before": (
        lambda x, w: F.conv_transpose2d(x, w, stride=(2, 1), output_padding=(1, 0)),
        (2, 6, 4, 9),
        (6, 5, 3, 1),
    ),
}


@pytest.mark.parametrize(("function", "x", "weight"), POINTWISE.values(), ids=POINTWISE.keys())
def test_places_that_a_convolution_treats_one_by_one_pass(function, x, weight) -> None:
    given = dict(zip(("x", "w"), randoms(x, weight), strict=True))
    study = Study(function, **given)
    rank = len(x) - 1
    assert study.free[f"x.{rank} out.{rank}"] == 9
    assert f"x.{rank}" not in study.locked
    study.check()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: F.conv1d(x, w, stride=2),
        lambda x, w: F.conv1d(x, w, padding=1),
        lambda x, w: F.conv1d(x, w.expand(5, 6, 2)),
        lambda x, w: F.conv_transpose1d(x, w.transpose(0, 1), stride=2, output_padding=1),
    ],
)
def test_places_that_a_convolution_moves_stay(function) -> None:
    x, w = randoms((2, 6, 9), (5, 6, 1))
    assert Study(function, x=x, w=w).locked["x.2"] == "a kernel slides along this dimension"
