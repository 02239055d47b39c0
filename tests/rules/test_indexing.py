from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.rules.oracle import Study, randoms

IJ = torch.tensor([2, 0])
ROWS = torch.tensor([[0, 2, 1, 0], [1, 1, 0, 2]])


def check(study: Study, free: dict[str, int], locked: set[str]) -> None:
    """The couplings, what is locked, and that slicing agrees with the masked form."""
    assert study.free == free
    assert set(study.locked) == locked
    study.check()


def test_an_embedding_keeps_its_vocabulary() -> None:
    (w,) = randoms((10, 6))
    study = Study(lambda w, i: F.embedding(i, w), w=w, i=ROWS)
    check(study, {"w.1 out.2": 6, "i.0 out.0": 2, "i.1 out.1": 4}, {"w.0"})


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_embeddings_keeps_its_features(mode: str) -> None:
    (w,) = randoms((10, 6))
    study = Study(lambda w, i: F.embedding_bag(i, w, torch.arange(0, 5, 2), mode=mode), w=w, i=ROWS.flatten())
    check(study, {"w.1 out.1": 6}, {"w.0", "i.0"})


INDEX: list[tuple[Callable[..., Any], dict[str, int], set[str]]] = [
    (lambda x, i, j: x[i], {"i.0 out.0": 2, "x.1 out.1": 4, "x.2 out.2": 5, "j.0": 2}, {"x.0"}),
    (lambda x, i, j: x[:, i], {"x.0 out.0": 3, "i.0 out.1": 2, "x.2 out.2": 5, "j.0": 2}, {"x.1"}),
    (lambda x, i, j: x[..., i], {"x.0 out.0": 3, "x.1 out.1": 4, "i.0 out.2": 2, "j.0": 2}, {"x.2"}),
    (lambda x, i, j: x[i, j], {"i.0 j.0 out.0": 2, "x.2 out.1": 5}, {"x.0", "x.1"}),
    (lambda x, i, j: x[:, i, j], {"x.0 out.0": 3, "i.0 j.0 out.1": 2}, {"x.1", "x.2"}),
    (lambda x, i, j: x[i, :, j], {"i.0 j.0 out.0": 2, "x.1 out.1": 4}, {"x.0", "x.2"}),
    (lambda x, i, j: x[:, i[:, None], j], {"x.0 out.0": 3, "i.0 out.1": 2, "j.0 out.2": 2}, {"x.1", "x.2"}),
    (lambda x, i, j: x[i[:, None], :, j], {"i.0 out.0": 2, "j.0 out.1": 2, "x.1 out.2": 4}, {"x.0", "x.2"}),
    (lambda x, i, j: x.index_select(1, i), {"x.0 out.0": 3, "i.0 out.1": 2, "x.2 out.2": 5, "j.0": 2}, {"x.1"}),
]


@pytest.mark.parametrize(("function", "free", "locked"), INDEX, ids=range(len(INDEX)))
def test_positions_stand_where_numpy_puts_them(
    function: Callable[..., Any], free: dict[str, int], locked: set[str]
) -> None:
    (x,) = randoms((3, 4, 5))
    check(Study(function, x=x, i=IJ, j=torch.tensor([1, 2])), free, locked)


def test_separated_positions_stand_first() -> None:
    (x,) = randoms((3, 4, 5, 6))
    study = Study(lambda x, i, j: x[:, i, :, j], x=x, i=IJ, j=torch.tensor([1, 2]))
    check(study, {"i.0 j.0 out.0": 2, "x.0 out.1": 3, "x.2 out.2": 5}, {"x.1", "x.3"})


MASK = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, False, True]])


def test_a_mask_picks_from_all_its_dimensions() -> None:
    (x,) = randoms((3, 4, 5))
    check(Study(lambda x, m: x[m], x=x, m=MASK), {"x.2 out.1": 5}, {"x.0", "x.1", "m.0", "m.1"})
    check(Study(lambda x, m: x[:, m], x=x, m=MASK[0]), {"x.0 out.0": 3, "x.2 out.2": 5}, {"x.1", "m.0"})
    study = Study(lambda x, m, i: x[m, :, i], x=x, m=MASK[:, 0], i=IJ)
    check(study, {"x.1 out.1": 4}, {"x.0", "x.2", "m.0", "i.0"})
    assert study.locked["m.0"] == "a mask picks positions"


def _written(x: torch.Tensor, where: Any, value: Any) -> torch.Tensor:
    x = x.clone()
    x[where] = value
    return x


def test_writing_a_number_under_a_mask_passes_channels() -> None:
    (x,) = randoms((3, 4, 5))
    study = Study(lambda x, m: _written(x, m, 0.5), x=x, m=MASK)
    check(study, {"x.0 m.0 out.0": 3, "x.1 m.1 out.1": 4, "x.2 out.2": 5}, set())
    study = Study(lambda x, m: _written(x, (slice(None), m), 0.5), x=x, m=MASK[0])
    check(study, {"x.0 out.0": 3, "x.1 m.0 out.1": 4, "x.2 out.2": 5}, set())


def test_writing_values_under_a_mask_locks_its_dimensions() -> None:
    x, v = randoms((3, 4, 5), (8, 5))
    study = Study(lambda x, m, v: _written(x, m, v), x=x, m=MASK, v=v[: int(MASK.sum())])
    check(study, {"x.2 v.1 out.2": 5}, {"x.0", "x.1", "m.0", "m.1", "v.0"})


def test_writing_at_positions() -> None:
    x, v = randoms((3, 4, 5), (2, 5))
    study = Study(lambda x, i, v: _written(x, (slice(None), i), v), x=x, i=IJ, v=v)
    check(study, {"x.0 out.0": 3, "x.2 v.1 out.2": 5}, {"x.1", "i.0", "v.0"})
    study = Study(lambda x, i, v: x.index_put((i,), v, accumulate=True), x=x, i=IJ, v=v[:1, :1])
    check(study, {"x.1 out.1": 4, "x.2 out.2": 5}, {"x.0", "i.0"})


def test_gather_passes_what_it_does_not_address() -> None:
    (x,) = randoms((2, 3))
    check(Study(lambda x, i: x.gather(1, i), x=x, i=ROWS), {"x.0 i.0 out.0": 2, "i.1 out.1": 4}, {"x.1"})
    study = Study(lambda x, i: x.gather(1, i), x=randoms((6, 3))[0], i=ROWS)
    check(study, {"i.1 out.1": 4}, {"x.0", "x.1", "i.0"})


def test_take_along_dim_broadcasts() -> None:
    x, y = randoms((2, 3), (5, 1, 3))
    check(Study(lambda x, i: torch.take_along_dim(x, i, 1), x=x, i=ROWS), {"x.0 i.0 out.0": 2, "i.1 out.1": 4}, {"x.1"})
    study = Study(lambda y, i: torch.take_along_dim(y, i, 2), y=y, i=ROWS[None])
    check(study, {"y.0 out.0": 5, "i.1 out.1": 2, "i.2 out.2": 4}, {"y.2"})
    check(Study(lambda x, i: torch.take_along_dim(x, i), x=x, i=IJ), {"i.0 out.0": 2}, {"x.0", "x.1"})
    study = Study(lambda x, i: torch.take_along_dim(x, i), x=x, i=ROWS)
    check(study, {}, {"x.0", "x.1", "i.0", "i.1"})


def test_scalars_count_as_rows_of_one() -> None:
    (x,) = randoms((3,))
    check(Study(lambda x, i: x.gather(0, i), x=x, i=IJ[0]), {}, {"x.0"})
    check(Study(lambda x, i: x.scatter(0, i, 2.0), x=x, i=IJ[0]), {}, {"x.0"})
    check(Study(lambda x, i: x.index_select(0, i), x=x, i=IJ[0]), {}, {"x.0"})
    check(Study(lambda x, i, s: x.index_add(0, i, s), x=x, i=IJ[0], s=x[:1]), {}, {"x.0"})
    check(Study(lambda x, i: x[0].gather(0, i), x=x, i=IJ * 0), {"x.0": 2, "i.0 out.0": 2}, {"x.0"})
    check(Study(lambda x, i: x[i > 5], x=x, i=IJ[0]), {"x.0 out.1": 3}, set())


SCATTER: list[Callable[..., Any]] = [
    lambda x, i, s: x.scatter(1, i, s),
    lambda x, i, s: x.scatter_add(1, i, s),
    lambda x, i, s: x.clone().scatter_add_(1, i, s),
    lambda x, i, s: x.scatter(1, i, s, reduce="multiply"),
    lambda x, i, s: x.scatter_reduce(1, i, s, "amax"),
]


@pytest.mark.parametrize("function", SCATTER, ids=range(len(SCATTER)))
@pytest.mark.filterwarnings("ignore:The reduce argument")
def test_scatter_passes_what_it_does_not_address(function: Callable[..., Any]) -> None:
    x, s = randoms((2, 6), (2, 4))
    check(Study(function, x=x, i=ROWS, s=s), {"x.0 i.0 s.0 out.0": 2}, {"x.1", "i.1", "s.1"})


def test_scatter_of_numbers_and_of_parts() -> None:
    x, s = randoms((2, 6), (3, 4))
    check(Study(lambda x, i: x.scatter(1, i, 2.0), x=x, i=ROWS), {"x.0 i.0 out.0": 2}, {"x.1", "i.1"})
    study = Study(lambda x, i, s: x.scatter(1, i, s), x=x, i=ROWS, s=s)
    check(study, {}, {"x.0", "x.1", "i.0", "i.1", "s.0", "s.1"})
    assert "part" in study.locked["x.0"]


WRITES: list[Callable[..., Any]] = [
    lambda x, i, s: x.index_add(1, i, s),
    lambda x, i, s: x.index_copy(1, i, s),
    lambda x, i, s: x.index_reduce(1, i, s, "mean"),
    lambda x, i, s: x.clone().index_add_(1, i, s, alpha=2),
]


@pytest.mark.parametrize("function", WRITES, ids=range(len(WRITES)))
@pytest.mark.filterwarnings("ignore:index_reduce")
def test_slices_are_written_at_positions(function: Callable[..., Any]) -> None:
    x, s = randoms((3, 4, 5), (3, 2, 5))
    study = Study(function, x=x, i=IJ, s=s)
    check(study, {"x.0 s.0 out.0": 3, "x.2 s.2 out.2": 5}, {"x.1", "s.1", "i.0"})


def test_index_fill() -> None:
    (x,) = randoms((3, 4))
    check(Study(lambda x, i: x.index_fill(1, i, 2.0), x=x, i=IJ), {"x.0 out.0": 3}, {"x.1", "i.0"})


def test_elements_are_looked_up_one_by_one() -> None:
    x, t = randoms((2, 4), (2, 5))
    t = t.sort().values
    row = t[0]
    check(Study(lambda x, t: torch.bucketize(x, t), x=x, t=row), {"x.0 out.0": 2, "x.1 out.1": 4}, {"t.0"})
    check(Study(lambda x, t: torch.isin(x, t), x=x, t=t), {"x.0 out.0": 2, "x.1 out.1": 4}, {"t.0", "t.1"})
    check(Study(lambda x, t: torch.searchsorted(t, x), x=x, t=row), {"x.0 out.0": 2, "x.1 out.1": 4}, {"t.0"})
    check(Study(lambda x, t: torch.searchsorted(t, x), x=x, t=t), {"x.0 t.0 out.0": 2, "x.1 out.1": 4}, {"t.1"})


def test_one_hot_adds_a_fixed_dimension() -> None:
    check(Study(lambda i: F.one_hot(i, 3), i=ROWS), {"i.0 out.0": 2, "i.1 out.1": 4}, set())


@pytest.mark.parametrize("function", [torch.tril, torch.triu])
def test_triangles_lock_the_last_two_dimensions(function: Callable[..., Any]) -> None:
    (x,) = randoms((2, 3, 4))
    check(Study(lambda x: function(x, 1), x=x), {"x.0 out.0": 2}, {"x.1", "x.2"})


DIAGONALS: list[tuple[Callable[..., Any], dict[str, int], set[str]]] = [
    (lambda x: x.diagonal(), {"x.2 out.0": 4}, {"x.0", "x.1"}),
    (lambda x: x.diagonal(1, 0, 2), {"x.1 out.0": 3}, {"x.0", "x.2"}),
    (lambda x: torch.linalg.diagonal(x), {"x.0 out.0": 2}, {"x.1", "x.2"}),
    (lambda x: (x.mT @ x).diagonal(1, 1, 2), {"x.0 out.0": 2, "x.1": 3}, {"x.2"}),
    (lambda x: torch.diag_embed(x, 1), {"x.0 out.0": 2, "x.1 out.1": 3}, {"x.2"}),
    (lambda x: torch.diag(x.sum((0, 1)), 1), {"x.0": 2, "x.1": 3}, {"x.2"}),
    (lambda x: torch.diag(x.sum(0)), {"x.0": 2}, {"x.1", "x.2"}),
]


@pytest.mark.parametrize(("function", "free", "locked"), DIAGONALS, ids=range(len(DIAGONALS)))
def test_diagonals_lock_their_dimensions(function: Callable[..., Any], free: dict[str, int], locked: set[str]) -> None:
    (x,) = randoms((2, 3, 4))
    check(Study(function, x=x), free, locked)


SQUARES: list[tuple[Callable[..., Any], dict[str, int]]] = [
    (lambda x: x.diagonal(dim1=1, dim2=2), {"x.0 out.0": 2, "x.1 x.2 out.1": 4}),
    (lambda x: x.diagonal(0, 2, 1), {"x.0 out.0": 2, "x.1 x.2 out.1": 4}),
    (lambda x: torch.diag(x.sum(0)), {"x.0": 2, "x.1 x.2 out.0": 4}),
    (lambda x: torch.diag(x.sum((0, 1))), {"x.0": 2, "x.1": 4, "x.2 out.0 out.1": 4}),
    (lambda x: torch.diag_embed(x), {"x.0 out.0": 2, "x.1 out.1": 4, "x.2 out.2 out.3": 4}),
    (lambda x: torch.diag_embed(x, 0, 2, 0), {"x.2 out.0 out.2": 4, "x.0 out.1": 2, "x.1 out.3": 4}),
    (lambda x: x - torch.diag(torch.diag(x.sum(0))), {"x.0 out.0": 2, "x.1 x.2 out.1 out.2": 4}),
]


@pytest.mark.parametrize(("function", "free"), SQUARES, ids=range(len(SQUARES)))
def test_a_main_diagonal_couples_rows_and_columns(function: Callable[..., Any], free: dict[str, int]) -> None:
    check(Study(function, x=randoms((2, 4, 4))[0]), free, set())


def _loaded(x: torch.Tensor) -> torch.Tensor:
    product = x @ x.mT
    product.diagonal(dim1=1, dim2=2).add_(0.5)
    return product


EYES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: x @ x.mT + torch.eye(x.size(1)),
    lambda x: x @ x.mT + 0.5 * torch.eye(x.size(1), x.size(1)).to(x),
    _loaded,
]


@pytest.mark.parametrize("function", EYES, ids=range(len(EYES)))
def test_the_diagonal_of_a_covariance_is_loaded(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    study = Study(function, x=randoms((2, 4, 5))[0])
    check(study, {"x.0 out.0": 2, "x.1 out.1 out.2": 4, "x.2": 5}, set())


def test_an_identity_of_a_size_in_the_code_stays() -> None:
    (x,) = randoms((2, 4, 5))
    assert set(Study(lambda x: x @ x.mT + torch.eye(4), x=x).locked) == {"x.1"}
    assert set(Study(lambda x: x @ x.mT + torch.eye(x.size(1), 4), x=x).locked) == {"x.1"}
    assert set(Study(lambda x: torch.eye(x.size(1), 3).to(x).T @ x, x=x).locked) == {"x.1"}


BY_VALUE: list[Callable[..., Any]] = [
    lambda x: torch.masked_select(x, x > 0),
    lambda x: (x > 0).nonzero(),
    lambda x: torch.argwhere(x > 0),
    lambda x: torch.where(x > 0),
    lambda x: torch.unique(x),
    lambda x: torch.unique(x, dim=0),
    lambda x: torch.unique_consecutive(x),
    lambda x: torch.masked_scatter(x, x > 0, x),
    lambda x: torch.take(x, torch.tensor([1, 3])),
    lambda x: torch.trace(x),
    lambda x: torch.diag(x),
    lambda x: torch.histc(x, 4),
]


@pytest.mark.parametrize("function", BY_VALUE, ids=range(len(BY_VALUE)))
def test_what_is_picked_by_value_locks_everything(function: Callable[..., Any]) -> None:
    (x,) = randoms((3, 4))
    check(Study(function, x=x), {}, {"x.0", "x.1"})
