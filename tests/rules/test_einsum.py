from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prunegraph.rules.einsum import parse_equation
from tests.rules.oracle import Study, randoms


def einsum(equation: str, *shapes: tuple[int, ...]) -> Study:
    operands = dict(zip("abc", randoms(*shapes), strict=False))
    return Study(lambda **named: torch.einsum(equation, *named.values()), **operands)


CASES = [
    ("ij,jk->ik", [(3, 4), (4, 5)], {"a.0 out.0": 3, "a.1 b.0": 4, "b.1 out.1": 5}),
    (" b i j , j k ", [(2, 3, 4), (4, 5)], {"a.0 out.0": 2, "a.1 out.1": 3, "a.2 b.0": 4, "b.1 out.2": 5}),
    ("bA,ba", [(2, 3), (2, 4)], {"a.0 b.0": 2, "a.1 out.0": 3, "b.1 out.1": 4}),
    ("zx,y", [(2, 3), (4,)], {"a.0 out.2": 2, "a.1 out.0": 3, "b.0 out.1": 4}),
    ("bhd,bhd->bh", [(2, 3, 4), (2, 3, 4)], {"a.0 b.0 out.0": 2, "a.1 b.1 out.1": 3, "a.2 b.2": 4}),
    ("...i,oi->...o", [(2, 3, 4), (5, 4)], {"a.0 out.0": 2, "a.1 out.1": 3, "a.2 b.1": 4, "b.0 out.2": 5}),
    (
        "...ij,...jk",
        [(2, 1, 3, 4), (6, 4, 5)],
        {
            "a.0 out.0": 2,
            "b.0 out.1": 6,
            "a.2 out.2": 3,
            "a.3 b.1": 4,
            "b.2 out.3": 5,
        },
    ),
    ("i...,i...->i", [(2, 3), (2, 3)], {"a.0 b.0 out.0": 2, "a.1 b.1": 3}),
    ("ij,ij,ik->jk", [(3, 4), (3, 4), (3, 5)], {"a.0 b.0 c.0": 3, "a.1 b.1 out.0": 4, "c.1 out.1": 5}),
    ("ij->j", [(3, 4)], {"a.0": 3, "a.1 out.0": 4}),
    ("bi,bj->bij", [(2, 3), (2, 4)], {"a.0 b.0 out.0": 2, "a.1 out.1": 3, "b.1 out.2": 4}),
]


@pytest.mark.parametrize(("equation", "shapes", "free"), CASES, ids=[case[0] for case in CASES])
def test_letters_are_followed(equation: str, shapes: list[Any], free: dict[str, int]) -> None:
    study = einsum(equation, *shapes)
    assert study.free == free
    assert study.locked == {}
    study.check()


def test_a_letter_of_size_one_fits_any_width() -> None:
    study = einsum("bi,bj->ij", (1, 3), (2, 4))
    assert study.free == {"b.0": 2, "a.1 out.0": 3, "b.1 out.1": 4}
    study.check()


def test_a_diagonal_is_locked() -> None:
    study = einsum("ii,ij->ij", (3, 3), (3, 4))
    assert study.free == {"b.1 out.1": 4}
    assert set(study.locked) == {"a.0", "a.1", "b.0"}
    assert "diagonal" in study.locked["a.0"]
    study.check()


def test_a_letter_of_fixed_size_locks_its_partners() -> None:
    (x,) = randoms((3, 4))
    study = Study(
        lambda x: torch.einsum("ij,jk->ik", x, torch.linspace(0, 1, 8, dtype=torch.float64).reshape(4, 2)), x=x
    )
    assert study.locked == {"x.1": "meets a value of fixed size"}
    assert study.free == {"x.0 out.0": 3}


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bij,jk->bik", [(2, 3, 4), (4, 5)], 2 * 3 * 4 * 5),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5),
        ("ij->j", [(3, 4)], 0),
        ("ij,k->jk", [(2, 3), (4,)], 0),
        ("ij,ij->ij", [(2, 3), (2, 3)], 0),
    ],
)
def test_cost_is_that_of_pairwise_products(equation: str, shapes: list[Any], macs: int) -> None:
    study = einsum(equation, *shapes)
    with FlopCounterMode(display=False) as counter:
        study.function(**study.operands)
    assert study.macs() == macs == counter.get_total_flops() // 2


def test_cost_follows_what_is_kept() -> None:
    study = einsum("bij,jk->bik", (2, 8, 8), (8, 8))
    keep = study.draw(0)
    sizes = [int(keep[atoms].sum()) for atoms in (*study.labels["a"], study.labels["b"][1]) if atoms is not None]
    assert study.macs(keep) == sizes[0] * sizes[1] * sizes[2] * sizes[3] < study.macs()


@pytest.mark.parametrize(
    ("equation", "ranks", "output"),
    [
        ("ba", (2,), ("a", "b")),
        ("bA,ba", (2, 2), ("A", "a")),
        ("i...j->j...", (4,), ("j", -2, -1)),
        ("...,...->", (2, 3), ()),
        ("ii", (2,), ()),
    ],
)
def test_output_of_an_equation(equation: str, ranks: tuple[int, ...], output: tuple[Any, ...]) -> None:
    assert parse_equation(equation, ranks).output == output


def test_tensordot_contracts_the_named_dimensions() -> None:
    a, b = randoms((2, 3, 4), (4, 2, 5))
    study = Study(lambda a, b: torch.tensordot(a, b, dims=([0, 2], [1, 0])), a=a, b=b)
    assert study.free == {"a.0 b.1": 2, "a.2 b.0": 4, "a.1 out.0": 3, "b.2 out.1": 5}
    assert study.macs() == 2 * 3 * 4 * 5
    study.check()


def test_inner_products_contract_the_last_dimensions() -> None:
    a, b = randoms((2, 3), (4, 3))
    study = Study(lambda a, b: torch.inner(a, b), a=a, b=b)
    assert study.free == {"a.0 out.0": 2, "a.1 b.1": 3, "b.0 out.1": 4}
    assert study.macs() == 24
    study.check()
    dot = Study(lambda a, b: torch.vdot(a, b), a=a[0], b=b[0])
    assert dot.free == {"a.0 b.0": 3}
    dot.check()


@pytest.mark.parametrize("norm", [0.0, 1.0, 2.0, 3.0, float("inf")])
def test_distances_count_kept_features_only(norm: float) -> None:
    a, b = randoms((2, 3, 8), (1, 4, 8))
    study = Study(lambda a, b: torch.cdist(a, b, p=norm), a=a, b=b)
    assert study.free == {"a.0 out.0": 2, "a.1 out.1": 3, "a.2 b.2": 8, "b.1 out.2": 4}
    assert study.macs() == 2 * 3 * 4 * 8
    study.check()


def test_a_kronecker_product_is_locked() -> None:
    a, b = randoms((2, 3), (4, 1))
    study = Study(lambda a, b: torch.kron(a, b), a=a, b=b)
    assert study.free == {}
    assert set(study.locked) == {"a.0", "a.1", "b.0"}
