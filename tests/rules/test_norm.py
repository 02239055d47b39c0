from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunegraph import apply, build_graph, verify
from prunegraph.rules.norm import masked_group_norm, masked_layer_norm, masked_rms_norm, masked_weight_norm
from tests.rules.oracle import Study, randoms

EPS = 1e-5


def group_norm(groups: int, shape: Sequence[int], affine: bool = True) -> Study:
    x, w, b = randoms(shape, (shape[1],), (shape[1],))
    if affine:
        return Study(lambda x, w, b: F.group_norm(x, groups, w, b, EPS), x=x, w=w, b=b)
    return Study(lambda x: F.group_norm(x, groups, None, None, EPS), x=x)


@pytest.mark.parametrize("shape", [(4, 6), (3, 6, 5), (2, 6, 3, 4)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_group_norm_counts_present_channels_of_each_group(groups: int, affine: bool, shape: Sequence[int]) -> None:
    study = group_norm(groups, shape, affine)
    assert study.free["x.1 w.0 b.0 out.1" if affine else "x.1 out.1"] == 6 // groups
    assert not study.locked
    study.check()


def test_groups_of_one_channel_come_and_go_with_num_groups() -> None:
    x, w, b = randoms((3, 6, 5), (6,), (6,))
    written = Study(lambda x, w, b: F.group_norm(x, 6, w, b, EPS), x=x, w=w, b=b)
    (required,) = written.sink.required
    assert required[1:] == (6, 6)
    # Here the number is written in the code, so that the channels must stay.
    assert set(written.locked) == {"x.1", "w.0", "b.0"}
    written.check()
    held = group_norm(6, (3, 6, 5))  # in the closure of a function, where it can follow
    assert held.free["x.1 w.0 b.0 out.1"] == 6


def test_num_groups_stays_where_groups_have_several_channels() -> None:
    assert [use[1:] for use in group_norm(3, (3, 6, 5)).sink.required] == [(None, 3)]


def test_index_of_a_group_goes_with_that_index_of_the_others() -> None:
    study = group_norm(3, (3, 6, 5))
    atoms = study.labels["w"][0]
    assert atoms is not None
    a, b = study.sink.roots(atoms)[:2].tolist()
    assert a != b
    assert study.sink.roots(atoms).tolist() == [a, b] * 3


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7)])
def test_layer_norm_counts_what_is_present(shape: Sequence[int], affine: bool) -> None:
    (x,) = randoms((2, 3, *shape))

    def run(x: Tensor, **vectors: Tensor) -> Tensor:
        sizes = x.shape[2:]
        return F.layer_norm(x, sizes, vectors.get("w"), vectors.get("b"), EPS)

    vectors = dict(zip(("w", "b"), randoms(shape, shape, seed=1), strict=True)) if affine else {}
    study = Study(run, x=x, **vectors)
    last = len(shape) + 1
    assert study.free[f"x.{last} w.{last - 2} b.{last - 2} out.{last}" if affine else f"x.{last} out.{last}"] == 7
    assert [use[1:] for use in study.sink.required] == [(size, size) for size in shape]
    assert not study.locked
    study.check()


def test_layer_norm_of_written_shape_locks() -> None:
    study = Study(lambda x: F.layer_norm(x, (7,)), x=randoms((3, 7))[0])
    assert study.locked == {"x.1": "hard-coded"}


@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_rms_norm_counts_what_is_present(shape: Sequence[int], eps: float | None) -> None:
    x, w = randoms((2, 3, *shape), shape)
    study = Study(lambda x, w: F.rms_norm(x, x.shape[2:], w, eps), x=x, w=w)
    assert not study.locked
    study.check()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (2, 6, 3, 4)])
def test_batch_norm_leaves_channels_to_themselves(shape: Sequence[int], training: bool) -> None:
    x, w, b, mean, var = randoms(shape, *[(6,)] * 4)
    study = Study(
        lambda x, w, b, mean, var: F.batch_norm(x, mean, var, w, b, training), x=x, w=w, b=b, mean=mean, var=var.abs()
    )
    assert study.free["x.1 w.0 b.0 mean.0 var.0 out.1"] == 6
    assert bool(study.locked) == training
    assert "x.1" not in study.locked
    study.check()


@pytest.mark.parametrize("shape", [(2, 6, 9), (2, 6, 4, 5)])
@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_counts_present_places(shape: Sequence[int], affine: bool) -> None:
    x, w, b = randoms(shape, (6,), (6,))
    if affine:
        study = Study(lambda x, w, b: F.instance_norm(x, None, None, w, b, eps=0.1), x=x, w=w, b=b)
    else:
        study = Study(lambda x: F.instance_norm(x, eps=0.1), x=x)
    assert study.free["x.1 w.0 b.0 out.1" if affine else "x.1 out.1"] == 6
    assert not study.locked
    study.check()


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_weight_norm_counts_what_is_present(dim: int) -> None:
    v = randoms((4, 5, 3))[0]
    g = torch.rand([n if d == dim else 1 for d, n in enumerate(v.shape)], dtype=torch.float64)
    study = Study(lambda v, g: torch._weight_norm(v, g, dim), v=v, g=g)
    assert not study.locked
    if dim != -1:
        assert study.free[f"v.{dim} g.{dim} out.{dim}"] == v.shape[dim]
    study.check()


GLOBAL: dict[str, Callable[[Tensor], Tensor]] = {
    "mean of squares": lambda x: (
        (x - x.mean((1, 2), True)) / ((x - x.mean((1, 2), True)) ** 2).mean((1, 2), True).sqrt()
    ),
    "var": lambda x: (x - x.mean(1, True)) / (x.var(1, unbiased=False, keepdim=True) + EPS).sqrt(),
    "std": lambda x: (x - x.mean((1, 2), True)) / (x.std((1, 2), keepdim=True, correction=0) + EPS),
    "sum by shape": lambda x: x - x.sum(1, keepdim=True) / x.shape[1],
    "unit": lambda x: F.normalize(x, dim=1),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_norms_written_out(name: str) -> None:
    study = Study(lambda x: GLOBAL[name](x), x=randoms((3, 6, 5))[0])
    assert not study.locked
    study.check(tolerance=1e-10)


def pure_group_norm(groups: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    return (
        lambda x, keep, w, b: masked_group_norm(x, groups, w, b, EPS, (None, keep, None)),
        lambda x, w, b: F.group_norm(x, groups, w, b, EPS),
    )


def _layer(x: Tensor, keep: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return masked_layer_norm(x.transpose(1, 2), w, b, EPS, (keep,)).transpose(1, 2)


def _rms(x: Tensor, keep: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return masked_rms_norm(x.transpose(1, 2), w, EPS, (keep,)).transpose(1, 2)


PURE: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "group norm": pure_group_norm(1),
    "group norm of 2": pure_group_norm(2),
    "layer norm": (_layer, lambda x, w, b: F.layer_norm(x.transpose(1, 2), w.shape, w, b, EPS).transpose(1, 2)),
    "rms norm": (_rms, lambda x, w, b: F.rms_norm(x.transpose(1, 2), w.shape, w, EPS).transpose(1, 2)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", PURE)
def test_with_everything_present_it_is_the_op(name: str, dtype: torch.dtype) -> None:
    masked, function = PURE[name]
    x, w, b = (t.to(dtype) for t in randoms((3, 8, 50), (8,), (8,)))
    found, expected = masked(x, torch.ones(8), w, b), function(x, w, b)
    assert found.dtype == expected.dtype
    # In half precision the op rounds what it normalised before it scales it.
    tolerance = 10 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", PURE)
def test_in_autocast_it_is_the_op(name: str) -> None:
    masked, function = PURE[name]
    x, w, b = (t.float() for t in randoms((3, 8, 50), (8,), (8,)))
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = masked(x, torch.ones(8), w, b), function(x, w, b)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PURE)
def test_gradients_are_those_of_the_sliced_op(name: str) -> None:
    masked, function = PURE[name]
    x, w, b, seen = randoms((3, 8, 50), (8,), (8,), (3, 8, 50))
    kept = torch.tensor([0, 2, 4, 5])
    keep = torch.zeros(8).double().index_fill(0, kept, 1).requires_grad_()
    full = [t.clone().requires_grad_() for t in (x, w, b)]
    small = [t.index_select(min(t.dim() - 1, 1), kept).requires_grad_() for t in (x, w, b)]
    masked(full[0], keep, *full[1:])[:, kept].backward(seen[:, kept])
    function(*small).backward(seen[:, kept])
    for whole, part in zip(full[:2] if name == "rms norm" else full, small, strict=False):
        assert whole.grad is not None
        dim = min(whole.dim() - 1, 1)
        torch.testing.assert_close(whole.grad.index_select(dim, kept), part.grad, rtol=1e-10, atol=1e-10)
        absent = torch.tensor([1, 3, 6, 7])
        assert (whole.grad.index_select(dim, absent) == 0).all()
    assert keep.grad is not None
    assert keep.grad.isfinite().all()
    assert (keep.grad != 0).all()


@pytest.mark.parametrize("name", PURE)
def test_derivatives_between_present_and_absent(name: str) -> None:
    masked, _ = PURE[name]
    x, w, b = (t.requires_grad_() for t in randoms((2, 4, 3), (4,), (4,)))
    keep = torch.tensor([0.3, 0.9, 0.6, 1.0]).double().requires_grad_()
    assert torch.autograd.gradcheck(masked, (x, keep, w, b))


@pytest.mark.parametrize("name", ["group norm", "group norm of 2"])
def test_a_group_of_which_nothing_is_present_stays_finite(name: str) -> None:
    x, w, b = randoms((2, 4, 3), (4,), (4,))
    keep = torch.zeros(4).double().requires_grad_()
    y = PURE[name][0](x, keep, w, b)
    y.square().sum().backward()
    assert y.isfinite().all()


@pytest.mark.parametrize("name", PURE)
def test_nothing_cancels_in_float32(name: str) -> None:
    masked, function = PURE[name]
    x, w, b = randoms((3, 8, 50), (8,), (8,))
    x = (x + 100).float()
    kept = torch.tensor([1, 2, 5, 6])
    keep = torch.zeros(8).index_fill(0, kept, 1)
    found = masked(x, keep, w.float(), b.float())[:, kept].double()
    torch.testing.assert_close(found, function(x.double()[:, kept], w[kept], b[kept]), rtol=1e-4, atol=1e-4)


def test_masked_weight_norm_has_the_gradient_of_the_sliced_one() -> None:
    v, g = randoms((4, 6, 3), (4, 1, 1))
    kept = torch.tensor([0, 3, 4])
    keep = torch.zeros(6).double().index_fill(0, kept, 1)
    full, small = v.clone().requires_grad_(), v[:, kept].clone().requires_grad_()
    masked_weight_norm(full, g, 0, (None, keep, None))[:, kept].square().sum().backward()
    torch._weight_norm(small, g, 0).square().sum().backward()
    assert full.grad is not None
    torch.testing.assert_close(full.grad[:, kept], small.grad)


def wrapped(norm: nn.Module, last: bool = False) -> nn.Module:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.norm, self.after = nn.Conv1d(3, 12, 3), norm, nn.Conv1d(12, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.before(x)
            return self.after(self.norm(y.transpose(1, 2)).transpose(1, 2) if last else self.norm(y))

    return Network()


MODULES: dict[str, Callable[[], nn.Module]] = {
    "group 1": lambda: wrapped(nn.GroupNorm(1, 12)),
    "group 3": lambda: wrapped(nn.GroupNorm(3, 12)),
    "group each": lambda: wrapped(nn.GroupNorm(12, 12)),
    "layer": lambda: wrapped(nn.LayerNorm(12), last=True),
    "rms": lambda: wrapped(nn.RMSNorm(12), last=True),
    "batch": lambda: wrapped(nn.BatchNorm1d(12)),
    "instance": lambda: wrapped(nn.InstanceNorm1d(12, affine=True, track_running_stats=True)),
    "weight norm": lambda: wrapped(nn.utils.parametrizations.weight_norm(nn.Conv1d(12, 12, 3))),
}


@pytest.mark.parametrize("name", MODULES)
def test_pruned_networks_are_verified(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODULES[name]().double().eval(), torch.randn(2, 3, 20).double()
    graph = build_graph(model, x)
    assert not graph.without_rule
    assert max(group.width for group in graph.groups) == (4 if name == "group 3" else 12)
    plan = graph.plan({group.name: range(1, group.width, 2) for group in graph.groups})
    report = verify(model, apply(model, plan), plan, x, graph=graph)
    assert report.difference <= 1e-10
    assert graph.cost(plan).parameters < graph.cost().parameters
