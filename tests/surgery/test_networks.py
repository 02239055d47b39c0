"""What surgery keeps: the user's class, the original, and every property of every tensor."""

import copy
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunegraph import PlanError, PruningPlan, SurgeryError, UnsupportedModelError, apply, build_graph
from prunegraph.surgery.slicing import slice_tensor
from tests.dependency.cases import CASES, random_plan


def pruned_case(name: str, seed: int = 0) -> tuple[nn.Module, nn.Module, PruningPlan, Tensor]:
    model, x = CASES[name].example()
    plan = random_plan(build_graph(model, x), seed)
    return model, apply(model, plan), plan, x


def expected_slice(tensor: Tensor, kept: dict[int, tuple[int, ...]]) -> Tensor:
    for dim, indices in kept.items():
        tensor = torch.stack([tensor.select(dim, i) for i in indices], dim=dim)
    return tensor


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_the_slice_that_the_plan_says(name: str) -> None:
    model, pruned, plan, _ = pruned_case(name)
    kept, after = plan.kept_indices(), pruned.state_dict()
    assert list(after) == list(model.state_dict())
    for key, tensor in model.state_dict().items():
        assert torch.equal(after[key], expected_slice(tensor, kept.get(key, {}))), key
    assert kept


@pytest.mark.parametrize("name", CASES)
def test_the_original_is_untouched(name: str) -> None:
    model, x = CASES[name].example()
    model.train()
    next(model.parameters()).requires_grad_(False)
    next(iter(model.parameters())).grad = torch.ones_like(next(model.parameters()))
    before = state_of(model)
    plan = random_plan(build_graph(model, x), 0)
    pruned = apply(model, plan)
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.fill_(7)
    assert state_of(model) == before


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything one could see of a network."""
    return {
        "tensors": {name: (id(t), t._version, t.tolist()) for name, t in model.state_dict(keep_vars=True).items()},
        "gradients": {n: p.grad.tolist() for n, p in model.named_parameters() if p.grad is not None},
        "requires": {n: p.requires_grad for n, p in model.named_parameters()},
        "modules": {
            path: {
                name: repr(value) if name not in ("_parameters", "_buffers", "_modules") else sorted(value)
                for name, value in vars(module).items()
                if not isinstance(value, Tensor)
            }
            for path, module in model.named_modules()
        },
    }


@pytest.mark.parametrize("name", CASES)
def test_classes_and_flags_are_kept(name: str) -> None:
    model, x = CASES[name].example()
    model.train()
    next(model.children()).eval()
    pruned = apply(model, random_plan(build_graph(model, x), 0))
    assert type(pruned) is type(model)
    theirs = dict(pruned.named_modules())
    for path, module in model.named_modules():
        assert isinstance(theirs[path], type(module))
        assert theirs[path].training == module.training


@pytest.mark.parametrize("name", CASES)
def test_results_can_be_copied_saved_and_loaded(name: str) -> None:
    _, pruned, _, x = pruned_case(name)
    expected = pruned(x)
    twin = copy.deepcopy(pruned)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(pruned.state_dict())
    assert torch.equal(twin(x), expected)
    assert all(a is not b for a, b in zip(twin.parameters(), pruned.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", CASES)
def test_results_run_in_half_precision(name: str) -> None:
    _, pruned, _, x = pruned_case(name)
    expected = pruned(x)
    half = pruned.bfloat16()
    found = half(x.bfloat16() if x.is_floating_point() else x)
    assert found.dtype == torch.bfloat16
    assert float((found.double() - expected).detach().norm() / expected.detach().norm()) < 0.1


@pytest.mark.parametrize("name", ["chain", "heads", "attention", "gated", "masking", "dual path"])
def test_results_compile(name: str) -> None:
    _, pruned, _, x = pruned_case(name)
    torch._dynamo.reset()
    assert torch.allclose(torch.compile(pruned, backend="eager")(x), pruned(x), rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_a_pruned_network_can_be_pruned_again(name: str) -> None:
    """Twice in a row is the same as once, with the indices of both."""
    model, once, plan, x = pruned_case(name)
    graph = build_graph(once, x)
    second = random_plan(graph, 1)
    twice = apply(once, second)
    assert sum(p.numel() for p in twice.parameters()) <= sum(p.numel() for p in once.parameters())
    assert twice(x).shape == model(x).shape
    kept = {
        key: {
            dim: tuple(plan.tensors.get(key, {}).get(dim, range(tensor.shape[dim]))[i] for i in indices)
            for dim, indices in second.tensors.get(key, {}).items()
        }
        for key, tensor in model.state_dict().items()
    }
    for key, tensor in model.state_dict().items():
        dims = {**plan.tensors.get(key, {}), **kept[key]}
        assert torch.equal(twice.state_dict()[key], expected_slice(tensor, dims)), key


class Plain(nn.Module):
    """Sizes as attributes, in containers, in a dict, and used in arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.sizes = [4, (8, 3)]
        self.config = {"hidden": 6, "name": "plain"}
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.a(x).reshape(batch, -1, self.sizes[1][0]).reshape(batch, self.width // 2, -1, 2).flatten(1)
        x = self.b(x.reshape(batch, self.width)).view(batch, self.config["hidden"])
        return self.c(x)


def test_attributes_follow_also_in_containers() -> None:
    model = Plain()
    graph = build_graph(model, torch.randn(5, 3))
    pruned = apply(model, graph.plan({"a.weight[0]": [0, 3], "b.weight[0]": [1, 2, 5]}))
    assert (pruned.width, pruned.sizes, pruned.config) == (4, [4, (4, 3)], {"hidden": 3, "name": "plain"})
    assert (model.width, model.sizes, model.config) == (8, [4, (8, 3)], {"hidden": 6, "name": "plain"})
    assert (pruned.a.out_features, pruned.b.in_features, pruned.b.out_features) == (4, 4, 3)
    assert type(pruned.width) is int
    numbers = [v for module in pruned.modules() for v in vars(module).values() if isinstance(v, int)]
    assert {type(number) for number in numbers} <= {int, bool}
    assert pruned(torch.randn(2, 3)).shape == (2, 2)


@pytest.mark.parametrize("name", CASES)
def test_torchs_own_attributes_tell_the_new_sizes(name: str) -> None:
    """What ``repr`` shows is what the tensors are."""
    _, pruned, _, _ = pruned_case(name)
    for module in pruned.modules():
        match module:
            case nn.Linear(weight=weight):
                assert (module.out_features, module.in_features) == tuple(weight.shape)
            case nn.ConvTranspose1d(weight=weight):
                assert (module.in_channels, module.out_channels / module.groups) == tuple(weight.shape[:2])
            case nn.Conv1d(weight=weight) | nn.Conv2d(weight=weight):
                assert (module.out_channels, module.in_channels / module.groups) == tuple(weight.shape[:2])
            case nn.BatchNorm1d(weight=weight):
                assert (module.num_features,) == tuple(weight.shape) == tuple(module.running_var.shape)
            case nn.GroupNorm(weight=weight):
                assert (module.num_channels,) == tuple(weight.shape)
            case nn.LayerNorm(weight=weight):
                assert module.normalized_shape == tuple(weight.shape)
            case nn.LSTM() | nn.GRU():
                gates = 4 if isinstance(module, nn.LSTM) else 3
                assert tuple(module.weight_ih_l0.shape) == (gates * module.hidden_size, module.input_size)
                assert module.weight_hh_l0.shape[1] == (module.proj_size or module.hidden_size)
            case nn.Embedding(weight=weight):
                assert (module.num_embeddings, module.embedding_dim) == tuple(weight.shape)
            case nn.PReLU(weight=weight):
                assert module.num_parameters == weight.numel()


@pytest.mark.parametrize(
    "normed",
    [
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_normed_weights_tell_the_new_sizes(normed: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Conv1d(3, 12, 5), normed(nn.Conv1d(12, 8, 3)), nn.Conv1d(8, 2, 1)).eval()
    graph = build_graph(model, torch.randn(2, 3, 20))
    pruned = apply(model, graph.plan({group.name: range(0, group.width, 2) for group in graph.groups}))
    assert pruned[0].out_channels == 6
    assert (pruned[1].out_channels, pruned[1].in_channels) == tuple(pruned[1].weight.shape[:2])


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))


def prune_two_layers(model: nn.Module) -> nn.Module:
    graph = build_graph(model, torch.randn(2, 3, 8, 8, dtype=next(model.parameters()).dtype))
    return apply(model, graph.plan({"0.weight[0]": [1, 2, 7]}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_element_types_are_kept(dtype: torch.dtype) -> None:
    model = two_layers().to(dtype)
    pruned = prune_two_layers(model)
    assert {n: t.dtype for n, t in pruned.state_dict().items()} == {n: t.dtype for n, t in model.state_dict().items()}


def test_requires_grad_is_kept() -> None:
    model = two_layers()
    model[0].weight.requires_grad_(False)
    pruned = prune_two_layers(model)
    assert {n: p.requires_grad for n, p in pruned.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in pruned.parameters())


def test_memory_format_is_kept() -> None:
    pruned = prune_two_layers(two_layers().to(memory_format=torch.channels_last))
    assert pruned[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not pruned[0].weight.is_contiguous()
    assert prune_two_layers(two_layers())[0].weight.is_contiguous()


@pytest.mark.parametrize("kept", [{}, {0: [0, 2]}], ids=["whole", "sliced"])
def test_weights_that_lie_transposed_lie_in_order(kept: dict[int, list[int]]) -> None:
    """A saved network does not tell how weights lie, and kernels round by that."""
    assert slice_tensor(torch.randn(4, 3).mT.contiguous().mT, kept).is_contiguous()


@pytest.mark.parametrize("shape", [(6, 1, 3, 3), (6, 4, 1, 1), (6, 1, 1, 1), (6, 2, 3, 3, 2)], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_slices_lie_as_torch_would_lay_them(shape: tuple[int, ...], last: bool) -> None:
    """With one channel, or one tap, both formats are contiguous, and only the strides tell them apart."""
    memory_format = {4: torch.channels_last, 5: torch.channels_last_3d}[len(shape)] if last else torch.contiguous_format
    tensor = torch.empty(shape, memory_format=memory_format).normal_()
    found = slice_tensor(tensor, {0: [0, 2, 5]})
    assert found.stride() == torch.empty((3, *shape[1:]), memory_format=memory_format).stride()
    assert torch.equal(found, tensor[[0, 2, 5]])


def test_ties_and_shared_modules_are_kept() -> None:
    _, tied, plan, _ = pruned_case("tied")
    assert tied.last.weight is tied.table.weight
    assert plan.kept_indices()["last.weight"] == plan.kept_indices()["table.weight"]
    model = nn.Sequential(nn.Linear(3, 6), block := nn.Linear(6, 6), nn.ReLU(), block, nn.Linear(6, 2))
    graph = build_graph(model, torch.randn(4, 3))
    pruned = apply(model, graph.plan({graph.groups[0].name: [0, 2, 3]}))
    assert pruned[1] is pruned[3]
    assert pruned[1].weight.shape == (3, 3)


def test_gradients_and_storage_are_not_shared() -> None:
    model = two_layers()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    pruned = prune_two_layers(model)
    assert all(p.grad is None for p in pruned.parameters())
    theirs = {t.data_ptr() for t in pruned.state_dict().values()}
    assert not theirs & {t.data_ptr() for t in model.state_dict().values()}


def test_hooks_of_the_user_still_run() -> None:
    calls: list[str] = []
    model = two_layers()
    model[2].register_forward_hook(lambda *_: calls.append("hook"))
    graph = build_graph(model, torch.randn(2, 3, 8, 8))
    assert calls
    calls.clear()
    apply(model, graph.plan({"0.weight[0]": [1]}))(torch.randn(2, 3, 8, 8))
    assert calls == ["hook"]


def test_a_plan_of_another_network_is_refused() -> None:
    _, _, plan, _ = pruned_case("cat")
    model, _ = CASES["chain"].example()
    with pytest.raises(PlanError, match=r"made for another network: a.weight has shape"):
        apply(model, plan)


@pytest.mark.parametrize(
    "indices", [(0, 100, 101), (-1, 2), (2, 1), (1, 1), ()], ids=["beyond", "negative", "unsorted", "twice", "none"]
)
def test_indices_that_are_no_choice_are_refused(indices: tuple[int, ...]) -> None:
    model, _, plan, _ = pruned_case("chain")
    broken = dataclasses.replace(plan, tensors={**plan.tensors, "a.weight": {0: indices}})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PlanError, match=r"a.weight\[0\]"):
        apply(model, broken)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_an_attribute_that_changed_since_is_refused() -> None:
    model, _, plan, _ = pruned_case("heads")
    model.width = 5
    with pytest.raises(SurgeryError, match="width from 4 to 2, but it is 5"):
        apply(model, plan)


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    model = two_layers()
    model.lock = threading.Lock()
    with pytest.raises(UnsupportedModelError, match=r"copy.deepcopy failed.*lock"):
        build_graph(model, torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("build", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_transformer_layers_stay_what_they_are(build: Callable[..., nn.Module]) -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.layer, self.b = (
                nn.Linear(3, 8),
                build(8, 2, 12, batch_first=True, dropout=0.0),
                nn.Linear(8, 2),
            )
            self.decodes = build is nn.TransformerDecoderLayer

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(self.layer(x, x) if self.decodes else self.layer(x))

    torch.manual_seed(0)
    model, x = Layers().double().eval(), torch.randn(2, 5, 3, dtype=torch.float64)
    plan = random_plan(build_graph(model, x), 0)
    pruned = apply(model, plan)
    assert type(pruned.layer) is build
    assert pruned(x).shape == (2, 5, 2)
    assert plan.replaced
    with torch.no_grad():
        assert torch.allclose(pruned(x), pruned.train()(x))
