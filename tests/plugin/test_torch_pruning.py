"""torch-pruning's criteria on prunegraph's groups give what they give on torch-pruning's own groups."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F
from torch_pruning import importance as tp

import prunegraph
from prunegraph.errors import CriterionError
from prunegraph.graph import build_graph
from prunegraph.plugin import CriterionContext, NetworkScores, create_manager, load_criteria, run_criterion
from prunegraph_torch_pruning import TorchPruning
from tests.plugin.graphs import WEIGHTS, graph, group, member
from tests.plugin.networks import batches, exact_batches, exact_network, network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
REGISTERED = [criterion for name, criterion in load_criteria(create_manager()).items() if name.startswith("tp-")]


class Plain(nn.Module):
    """A chain with batch norms, a depthwise and a transposed convolution, and a linear map behind a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.depthwise = nn.Conv1d(6, 6, 3, padding=1, groups=6)
        self.two = nn.ConvTranspose1d(6, 5, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm1d(5)
        self.linear = nn.Linear(5 * 9, 7)
        self.last = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.depthwise(self.norm(self.one(x))))
        hidden = torch.tanh(self.norm2(self.two(hidden)))
        out: Tensor = self.last(F.relu(self.linear(hidden.flatten(1))))
        return out


class Residual(nn.Module):
    """Two convolutions whose outputs are added, and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(2, 6, 3, padding=1)
        self.two = nn.Conv1d(6, 6, 3, padding=1)
        self.norm = nn.LayerNorm(6)
        self.linear = nn.Linear(6, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x)
        hidden = (hidden + self.two(torch.tanh(hidden))).transpose(1, 2)
        out: Tensor = self.last(torch.tanh(self.linear(self.norm(hidden))))
        return out


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"Plain": Plain, "Residual": Residual}
IMPORTANCES: Mapping[str, Callable[[], Any]] = {
    "L1": lambda: tp.GroupMagnitudeImportance(p=1),
    "L2 with biases, raw": lambda: tp.GroupMagnitudeImportance(bias=True, normalizer=None),
    "first": lambda: tp.GroupMagnitudeImportance(group_reduction="first"),
    "sum": lambda: tp.GroupMagnitudeImportance(group_reduction="sum", normalizer="gaussian"),
    "convolutions": lambda: tp.GroupMagnitudeImportance(target_types=[nn.modules.conv._ConvNd, nn.Linear]),
    "bn scale": lambda: tp.BNScaleImportance(),
    "lamp": lambda: tp.LAMPImportance(),
    "fpgm": lambda: tp.FPGMImportance(),
    "taylor": lambda: tp.GroupTaylorImportance(),
    "taylor of sums": lambda: tp.GroupTaylorImportance(multivariable=True, bias=True, normalizer="max"),
    "hessian": lambda: tp.GroupHessianImportance(),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for tensor in model.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    return model.eval()


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(output.flatten(), targets.flatten()[: output.numel()])


def own_scores(
    model: nn.Module, importance: Any, data: list[tuple[Tensor, Tensor]], roots: set[str]
) -> dict[str, Tensor | None]:
    """What a user of torch-pruning gets: root layer -> scores, ``None`` where it has none."""
    model = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=data[0][0])
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for inputs, targets in data:
        model.zero_grad()
        loss(model(inputs), targets).backward()
        if hasattr(importance, "accumulate_grad"):
            importance.accumulate_grad(model)
        total = [old + parameter.grad / len(data) for old, parameter in zip(total, model.parameters(), strict=True)]
    for parameter, gradient in zip(model.parameters(), total, strict=True):
        parameter.grad = gradient
    return {root: importance(own_group(graph, model.get_submodule(root))) for root in roots}


def own_group(graph: torch_pruning.DependencyGraph, layer: nn.Module) -> torch_pruning.Group:
    if isinstance(layer, nn.Linear):
        return graph.get_pruning_group(layer, torch_pruning.prune_linear_out_channels, list(range(layer.out_features)))
    return graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, list(range(layer.out_channels)))


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_equal_those_on_torch_prunings_own_groups(name: str, importance: str) -> None:
    model, data = made(name), batches(2)
    found = build_graph(model, data[0][0])
    expected = own_scores(model, IMPORTANCES[importance](), data, {each.module for each in found.groups})
    criterion = TorchPruning(name="tp", importance=IMPORTANCES[importance]())
    if all(score is None for score in expected.values()):
        with pytest.raises(CriterionError, match="has no number for any group"):
            prunegraph.score(found, criterion, data=data, loss=loss)
        return
    scores = prunegraph.score(found, criterion, data=data, loss=loss)
    assert isinstance(scores, NetworkScores)
    best = max(float(score.max()) for score in expected.values() if score is not None)
    for each in found.groups:
        own = expected[each.module]
        wanted = torch.full((each.width,), best + 1) if own is None else own
        torch.testing.assert_close(scores[each.name], wanted, rtol=1e-4, atol=1e-5)


def test_a_batch_norm_that_only_one_group_passes_leaves_the_other_whole() -> None:
    scores = prunegraph.score(build_graph(made("Plain"), batches(1)[0][0]), "tp-bn-scale")
    alone, normed = scores["linear.weight[0]"], scores["one.weight[0]"]
    assert float(alone.min()) > float(normed.max())


def test_every_gate_of_a_recurrent_unit_is_an_output_of_its_own() -> None:
    """L1 magnitude of an LSTM's four gates, twice, and of the columns that read a unit: means over nine matrices."""
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 5)
    rows = [[unit + 5 * gate for gate in range(4)] for unit in range(5)]
    hidden = group(
        "weight_ih_l0[0]",
        member("weight_ih_l0", 0, rows),
        member("weight_hh_l0", 0, rows),
        member("weight_hh_l0", 1, [[unit] for unit in range(5)]),
        member("bias_ih_l0", 0, rows),
    )
    weights = {name: weight.detach() for name, weight in lstm.named_parameters()}
    criterion = TorchPruning(name="tp", importance=tp.GroupMagnitudeImportance(p=1, normalizer=None))
    scores = run_criterion(criterion, graph(hidden, kinds={"": nn.LSTM}), weights, CriterionContext())
    into, recurrent = weights["weight_ih_l0"].view(4, 5, 3).abs(), weights["weight_hh_l0"].view(4, 5, 5).abs()
    expected = (into.sum(dim=(0, 2)) + recurrent.sum(dim=(0, 2)) + recurrent.sum(dim=(0, 1))) / 9
    torch.testing.assert_close(scores["weight_ih_l0[0]"], expected)


def test_an_importance_of_the_users_own_is_run() -> None:
    class Outputs(tp.Importance):
        def __call__(self, group: torch_pruning.Group) -> Tensor:
            (layer, indices) = next((dep.layer, indices) for dep, indices in group)
            return layer.weight.data[indices].flatten(1).amax(dim=1)

    scores = run_criterion(TorchPruning(name="own", importance=Outputs()), graph(), WEIGHTS, CriterionContext())
    assert scores["first"].tolist() == [3.0, 2.0]


def test_scoring_twice_gives_the_same_although_importances_keep_state() -> None:
    found, data = build_graph(made("Plain"), batches(1)[0][0]), batches(2)
    importance = tp.GroupHessianImportance()
    once, twice = (
        prunegraph.score(found, TorchPruning(name="tp", importance=importance), data=data, loss=loss) for _ in range(2)
    )
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert importance._accu_grad == {}


class Doubled(tp.Importance):
    def __call__(self, group: torch_pruning.Group) -> Tensor:
        return torch.ones(2, 2)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (tp.ActivationImportance(), "ActivationImportance observes activations through hooks"),
        (tp.OBDCImportance(), "OBDCImportance observes"),
        (tp.GroupMagnitudeImportance, "expected an object of a class in torch_pruning.importance"),
        (Doubled(), r"gave shape \(2, 2\) for the 2 channels of group 'first'"),
        (tp.GroupMagnitudeImportance(normalizer="other"), "GroupMagnitudeImportance failed on group 'first'"),
        (tp.GroupMagnitudeImportance(target_types=[nn.LSTM]), "no number for any group.*target_types"),
        (tp.GroupTaylorImportance(), "needs gradients: give data and a loss"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_run_is_told(importance: Any, message: str) -> None:
    with pytest.raises(CriterionError, match=message):
        run_criterion(TorchPruning(name="tp", importance=importance), graph(), WEIGHTS, CriterionContext())


@pytest.mark.parametrize("criterion", REGISTERED, ids=lambda criterion: criterion.name)
@pytest.mark.parametrize("name", ["Normed", "Grouped", "Recurrent", "Shared", "Attentive"])
def test_registered_criteria_score_every_group_of_networks_beyond_torch_pruning(name: str, criterion: Any) -> None:
    found, data = build_graph(network(name), batches(1)[0][0]), batches(1)
    if criterion.name == "tp-bn-scale" and name != "Normed":
        with pytest.raises(CriterionError, match="no number for any group"):
            prunegraph.score(found, criterion)
        return
    scores = prunegraph.score(found, criterion, data=data, loss=F.mse_loss)
    for each in found.groups:
        assert len(set(scores[each.name].tolist())) == each.width


@needs_cuda
@pytest.mark.parametrize("criterion", REGISTERED, ids=lambda criterion: criterion.name)
def test_scores_on_cuda_equal_those_on_the_cpu(criterion: Any) -> None:
    def scores(device: str) -> Mapping[str, Tensor]:
        data = exact_batches(2, device)
        found = build_graph(exact_network("Normed", device), data[0][0])
        return prunegraph.score(found, criterion, data=data, loss=F.mse_loss)

    on_cpu, on_cuda = scores("cpu"), scores("cuda")
    for group_name, expected in on_cpu.items():
        assert on_cuda[group_name].is_cuda
        torch.testing.assert_close(on_cuda[group_name].cpu(), expected, rtol=1e-4, atol=1e-6)
