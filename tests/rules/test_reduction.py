from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from prunegraph.rules import masked_reductions as mr
from tests.rules.oracle import Study, randoms

DIMS = (0, 1, -1, (0, 1), (1, 2), (0, 1, 2))

OVER_DIMS: dict[str, Callable[..., Any]] = {
    "sum": torch.sum,
    "nansum": torch.nansum,
    "mean": torch.mean,
    "nanmean": torch.nanmean,
    "var": torch.var,
    "var biased": partial(torch.var, correction=0),
    "var by flag": partial(torch.var, unbiased=False),
    "std": torch.std,
    "std of correction 0.5": partial(torch.std, correction=0.5),
    "var_mean": torch.var_mean,
    "std_mean": partial(torch.std_mean, correction=0),
    "amax": torch.amax,
    "amin": torch.amin,
    "logsumexp": torch.logsumexp,
    "norm": torch.linalg.vector_norm,
    "norm of order 3": partial(torch.linalg.vector_norm, ord=3),
    "norm of order 1": partial(torch.linalg.vector_norm, ord=1),
    "norm of order inf": partial(torch.linalg.vector_norm, ord=inf),
    "norm of order -inf": partial(torch.linalg.vector_norm, ord=-inf),
    "norm of order 0": partial(torch.linalg.vector_norm, ord=0),
    "norm of order 0.5": partial(torch.linalg.vector_norm, ord=0.5),
    "torch.norm": partial(torch.norm, p=2),
    "torch.norm of order 1": partial(torch.norm, p=1),
}


# Where one entry is left, its variance is NaN, here as there.
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", OVER_DIMS)
def test_only_present_entries_count(name: str, dim: int | tuple[int, ...], keepdim: bool) -> None:
    function = OVER_DIMS[name]
    (x,) = randoms((5, 6, 7))
    Study(lambda x: function(x, dim=dim, keepdim=keepdim), x=x).check()


WHOLE: dict[str, Callable[..., Any]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "std": torch.std,
    "var": partial(torch.var, unbiased=False),
    "var_mean": torch.var_mean,
    "max": torch.max,
    "min": torch.min,
    "prod": torch.prod,
    "norm": torch.norm,
    "linalg norm": torch.linalg.norm,
    "Frobenius norm": partial(torch.norm, p="fro"),
    "aminmax": torch.aminmax,
}


@pytest.mark.parametrize("name", WHOLE)
def test_reductions_of_everything(name: str) -> None:
    study = Study(lambda x: WHOLE[name](x), x=randoms((4, 5, 3))[0])
    assert study.free == {"x.0": 4, "x.1": 5, "x.2": 3}
    study.check()


ALONG_ONE: dict[str, Callable[..., Any]] = {
    "values of max": lambda x, dim: x.max(dim).values,
    "values of min": lambda x, dim: x.min(dim, keepdim=True)[0],
    "prod": lambda x, dim: x.prod(dim),
    "aminmax": lambda x, dim: torch.aminmax(x, dim=dim),
    "softmax": lambda x, dim: x.softmax(dim),
    "softmax of large values": lambda x, dim: (1000 * x).softmax(dim),
    "softmin": lambda x, dim: torch.nn.functional.softmin(x, dim),
    "log_softmax": lambda x, dim: x.log_softmax(dim),
    "cumsum": lambda x, dim: x.cumsum(dim),
    "cumprod": lambda x, dim: torch.cumprod(x, dim),
    "unit vectors": lambda x, dim: torch.nn.functional.normalize(x, dim=dim),
    "any": lambda x, dim: (x > 0.5).any(dim).double(),
    "all": lambda x, dim: (x > -0.5).all(dim, keepdim=True).double(),
    "count": lambda x, dim: torch.count_nonzero(x > 0, dim=dim).double(),
    "sum of integers": lambda x, dim: x.round().long().sum(dim).double(),
    "mean of a row of minus infinity": lambda x, dim: x.masked_fill(x > inf, -inf).logsumexp(dim),
    "vector norm by linalg.norm": lambda x, dim: torch.linalg.norm(x, ord=3, dim=dim),
    "Frobenius norm": lambda x, dim: torch.linalg.norm(x, dim=dim),
}


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ALONG_ONE)
def test_reductions_along_one_dimension(name: str, dim: int) -> None:
    study = Study(lambda x: ALONG_ONE[name](x, dim), x=randoms((4, 5, 6))[0])
    assert not study.locked
    study.check()


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", ["sum", "mean", "std", "var_mean", "norm", "norm of order 3"])
@pytest.mark.parametrize("dim", [1, (0, 2), (0, 1, 2)])
def test_complex_entries(name: str, dim: int | tuple[int, ...]) -> None:
    real, imag = randoms((4, 5, 6), (4, 5, 6))
    function = OVER_DIMS[name]
    Study(lambda x: function(x, dim=dim), x=torch.complex(real, imag)).check()


@pytest.mark.parametrize("shapes", [((4, 5, 6), (4, 5, 6)), ((4, 5, 6), (1, 5, 1)), ((5, 6), (4, 5, 6))])
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_cosine_similarity(shapes: Sequence[Sequence[int]], dim: int) -> None:
    a, b = randoms(*shapes)
    study = Study(lambda a, b: torch.nn.functional.cosine_similarity(a, b, dim=dim), a=a, b=b)
    assert not study.locked
    study.check()


IN_PLACE: dict[str, Callable[[Tensor], Any]] = {
    "renorm": lambda x: x.renorm_(2, 0, 1.0),
    "cumsum": lambda x: x.cumsum_(1),
    "cumprod": lambda x: x.cumprod_(1),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_is_written_into_a_view_is_seen_through_the_whole(name: str) -> None:
    def function(x: Tensor) -> Tensor:
        whole = x * 1
        IN_PLACE[name](whole.transpose(0, 2))
        return whole.square()

    study = Study(function, x=randoms((4, 5, 6))[0])
    study.check()
    keep = torch.full((len(study.sink.parent),), 0.5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(study.masked(study.draw(0))(keep, *study.operands.values())[0].sum(), keep)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("shapes", [((4, 5, 6), (4, 5, 6)), ((4, 5, 6), (5, 1)), ((6,), (4, 5, 6)), ((6,), (6,))])
@pytest.mark.parametrize(("order", "eps"), [(2.0, 1e-6), (1.0, 0.5), (3.0, 0.5), (inf, 0.5), (0.0, 0.5)])
def test_pairwise_distance(shapes: Sequence[Sequence[int]], order: float, eps: float) -> None:
    """With such an eps an absent channel that added it would show."""
    a, b = randoms(*shapes)
    for keepdim in (False, True):
        study = Study(lambda a, b: torch.nn.functional.pairwise_distance(a, b, order, eps, keepdim), a=a, b=b)  # noqa: B023
        assert not study.locked
        study.check()


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize(("order", "largest"), [(2, 3.0), (1, 7.0), (3.5, 0.1), (2, 1000.0)])
def test_renorm(dim: int, order: float, largest: float) -> None:
    (x,) = randoms((4, 5, 6))
    study = Study(lambda x: torch.renorm(x, order, dim, largest), x=x)
    assert study.free == {"x.0 out.0": 4, "x.1 out.1": 5, "x.2 out.2": 6}
    study.check()
    Study(lambda x: x.clone().renorm_(order, dim, largest) + 1, x=x).check()


def test_labels_of_what_is_left_pass() -> None:
    (x,) = randoms((4, 5, 6))
    assert Study(lambda x: x.mean((0, 2)), x=x).free == {"x.0": 4, "x.1 out.0": 5, "x.2": 6}
    assert Study(lambda x: x.mean(1, keepdim=True), x=x).free == {"x.0 out.0": 4, "x.1": 5, "x.2 out.2": 6}
    assert Study(lambda x: x.softmax(1), x=x).free == {"x.0 out.0": 4, "x.1 out.1": 5, "x.2 out.2": 6}
    both = Study(lambda x: torch.var_mean(x, 1), x=x).free
    assert both == {"x.0 out0.0 out1.0": 4, "x.1": 5, "x.2 out0.1 out1.1": 6}


RANKED: dict[str, Callable[[Tensor], Any]] = {
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(1, keepdim=True),
    "max": lambda x: x.max(1),
    "indices of min": lambda x: x.min(1).indices,
    "sort": lambda x: x.sort(1),
    "sort descending": lambda x: x.sort(dim=1, descending=True),
    "argsort": lambda x: x.argsort(1),
    "topk": lambda x: x.topk(3, dim=1),
    "topk of all": lambda x: x.topk(5, dim=1),
    "median": lambda x: x.median(1),
    "nanmedian": lambda x: x.nanmedian(1, keepdim=True),
    "kthvalue": lambda x: x.kthvalue(2, dim=1),
    "mode": lambda x: x.mode(1),
    "cummax": lambda x: x.cummax(1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
}


@pytest.mark.parametrize("name", RANKED)
def test_what_tells_positions_locks_its_dimension_alone(name: str) -> None:
    study = Study(RANKED[name], x=randoms((4, 5, 6))[0])
    assert set(study.locked) == {"x.1"}
    assert sorted(study.free.values()) == [4, 6]
    study.check()


def test_ranks_of_everything_lock_everything() -> None:
    (x,) = randoms((4, 5, 6))
    assert set(Study(torch.argmax, x=x).locked) == {"x.0", "x.1", "x.2"}
    assert set(Study(torch.median, x=x).locked) == {"x.0", "x.1", "x.2"}


def test_norms_of_matrices_lock() -> None:
    study = Study(lambda x: torch.linalg.norm(x, ord=2, dim=(1, 2)), x=randoms((4, 5, 6))[0])
    assert {"x.1", "x.2"} <= set(study.locked)


PURE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (mr.masked_sum, torch.sum),
    "mean": (mr.masked_mean, torch.mean),
    "var": (mr.masked_var, torch.var),
    "std": (mr.masked_std, torch.std),
    "amax": (mr.masked_amax, torch.amax),
    "amin": (mr.masked_amin, torch.amin),
    "logsumexp": (mr.masked_logsumexp, torch.logsumexp),
    "norm": (
        lambda x, keeps, dims, keepdim: mr.masked_vector_norm(x, keeps, dims, keepdim, 2.0),
        lambda x, dim: torch.linalg.vector_norm(x, dim=dim),
    ),
    "prod": (mr.masked_prod, lambda x, dim: x.flatten(1).prod(1)),
    "softmax": (lambda x, keeps, dims, keepdim: mr.masked_softmax(x, keeps, dims[0]), lambda x, dim: x.softmax(dim[0])),
    "log_softmax": (
        lambda x, keeps, dims, keepdim: mr.masked_log_softmax(x, keeps, dims[0]),
        lambda x, dim: x.log_softmax(dim[0]),
    ),
}


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_with_everything_present_it_is_the_op(name: str, dtype: torch.dtype) -> None:
    masked, function = PURE[name]
    x = randoms((3, 5, 6))[0].to(dtype)
    found = masked(x, (None, torch.ones(5), torch.ones(6)), (1, 2), False)
    expected = function(x, dim=(1, 2))
    assert found.dtype == expected.dtype
    # In half precision torch rounds some intermediate results that we do not.
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("keep", [[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
def test_gradients_are_finite_and_reach_absent_channels(name: str, keep: list[float]) -> None:
    masked, _ = PURE[name]
    x = randoms((3, 4, 6))[0].requires_grad_()
    keeps = torch.tensor(keep, dtype=torch.float64, requires_grad=True)
    result = masked(x, (None, keeps, None), (1, 2), False)
    (result.nan_to_num(neginf=0).square().sum()).backward()
    assert keeps.grad is not None
    assert x.grad is not None
    if any(keep):
        assert keeps.grad.isfinite().all()
        assert x.grad.isfinite().all()
    if keep[0] == 0 and any(keep) and name not in ("amax", "amin"):
        assert (keeps.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("name", PURE)
def test_derivatives_between_present_and_absent(name: str) -> None:
    masked, _ = PURE[name]
    (x,) = randoms((2, 3, 4))
    first, second = torch.tensor([0.3, 0.9, 0.6]).double(), torch.tensor([0.2, 0.7, 1.0, 0.4]).double()
    # How far an absent entry is moved is no part of the derivative of an extreme.
    inputs = (x.requires_grad_(name not in ("amax", "amin")), first.requires_grad_(), second.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, a, b: masked(x, (None, a, b), (1, 2), True), inputs)
    assert torch.autograd.gradcheck(lambda x, a, b: masked(x, (None, a, None), (1, 2), True), inputs)


@pytest.mark.parametrize("name", ["mean", "var", "std"])
def test_nothing_cancels_in_float32(name: str) -> None:
    masked, function = PURE[name]
    x = randoms((3, 8, 500))[0] + 1000
    x = x.float()
    kept = torch.tensor([0, 3, 4, 7])
    keep = torch.zeros(8).index_fill(0, kept, 1)
    for dims, keeps in (((1, 2), (None, keep, None)), ((1,), (None, keep, None))):
        found = masked(x, keeps, dims, False).double()
        expected = function(x.double()[:, kept], dim=dims)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_halves_are_summed_in_float32() -> None:
    x = torch.full((1, 4, 20000), 8.0, dtype=torch.float16)
    keep = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert mr.masked_mean(x, (None, keep, None), (1, 2), False).item() == 8


@pytest.mark.parametrize("name", ["sum", "mean", "softmax", "norm"])
def test_types_in_autocast_are_those_of_the_op(name: str) -> None:
    masked, function = PURE[name]
    x = randoms((3, 5, 6))[0].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = masked(x, (None, torch.ones(5), None), (1,), False), function(x, dim=(1,))
    assert found.dtype in (torch.float32, expected.dtype)
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-2, atol=1e-2)
