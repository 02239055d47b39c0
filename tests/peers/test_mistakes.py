"""Mistakes that other pruning libraries make or made; each is a test here."""

import gc
import math
import weakref
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, MaskedProgram, PlanError, apply, build_graph, prune, score, select, slice_optimizer
from tests.unknown_op import NAME, mystery

SIGNAL = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(0))


def convolutions(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Conv1d(a, b, 3, padding=1) for a, b in pairwise(widths)))


def test_the_optimizer_trains_the_pruned_network() -> None:
    """Elsewhere it stays bound to parameters that are gone, and training silently stops."""
    model = convolutions(1, 16, 16, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(SIGNAL).square().mean().backward()
    optimizer.step()
    result = prune(model, SIGNAL, budget=Budget(ratio=0.5), optimizer=optimizer)
    assert result.optimizer is not None
    held = {id(p) for group in result.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in result.model.parameters()}
    before = [p.clone() for p in result.model.parameters()]
    result.model(SIGNAL).square().mean().backward()
    result.optimizer.step()
    assert all(not torch.equal(p, old) for p, old in zip(result.model.parameters(), before, strict=True))


def test_nothing_keeps_an_old_network_alive() -> None:
    """Elsewhere a mutable default argument keeps it, with all of its weights."""
    model = convolutions(1, 16, 1)
    alive = weakref.ref(model)
    result = prune(model, SIGNAL, budget=Budget(ratio=0.5))
    del model
    gc.collect()
    assert alive() is None
    assert result.model(SIGNAL).shape == SIGNAL.shape


def test_settings_of_one_pruning_do_not_leak_into_the_next() -> None:
    first = prune(convolutions(1, 16, 1), SIGNAL, budget=Budget(ratio=0.5, pin={"0": 3}))
    second = prune(convolutions(1, 16, 1), SIGNAL, budget=Budget(ratio=0.5))
    assert [len(r.plan.kept["0.weight[0]"]) for r in (first, second)] == [3, 8]
    assert Budget(ratio=0.1).pin == {}


@pytest.mark.parametrize(("ratio", "left"), [(0.2, 16), (0.8, 4)])
def test_a_ratio_removes_what_it_says(ratio: float, left: int) -> None:
    """Elsewhere a helper removes 80 % when it is asked for 20 %."""
    result = prune(convolutions(1, 20, 20, 1), SIGNAL, budget=Budget(ratio=ratio))
    assert [after for _, after in result.report.widths.values()] == [left, left]


def test_the_output_keeps_its_width() -> None:
    """Elsewhere a network with 3 outputs is left with 1."""
    result = prune(convolutions(1, 16, 3), SIGNAL, budget=Budget(ratio=0.9))
    assert result.model(SIGNAL).shape == (2, 3, 32)


class Sequence(nn.Module):
    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.out = layer, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x)[0])


@pytest.mark.parametrize("batch", [1, 4])
def test_the_macs_of_an_lstm_count_steps_and_batch_once(batch: int) -> None:
    """Elsewhere 643.9 M are counted for 9.8 M, and the batch twice."""
    model = Sequence(nn.LSTM(16, 32, batch_first=True), 32)
    cost = build_graph(model, torch.randn(batch, 50, 16)).cost()
    assert cost.macs == batch * 50 * (4 * 32 * (16 + 32) + 32 * 4)


def test_the_products_of_attention_are_counted() -> None:
    """Elsewhere they count as 0."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            return self.out(nn.functional.scaled_dot_product_attention(q, k, v))

    cost = build_graph(Attention(), torch.randn(2, 30, 8)).cost()
    assert cost.macs == 2 * (30 * 8 * 24 + 2 * 30 * 30 * 8 + 30 * 8 * 8)


def test_a_unit_of_an_lstm_leaves_all_of_its_gates() -> None:
    """Elsewhere masks are drawn for each gate, and the pruned network differs by 0.21."""
    torch.manual_seed(0)
    model = Sequence(nn.LSTM(6, 10, batch_first=True), 10).double()
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    graph = build_graph(model, x)
    plan = graph.plan({graph.groups[0].name: [1, 4, 5]})
    assert plan.kept_indices()["layer.weight_ih_l0"][0] == (1, 4, 5, 11, 14, 15, 21, 24, 25, 31, 34, 35)
    pruned = apply(model, plan)
    mask = torch.zeros(10, dtype=torch.float64)
    mask[[1, 4, 5]] = 1
    assert torch.allclose(MaskedProgram(graph)({graph.groups[0].name: mask}, x), pruned(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 16), nn.GroupNorm(4, 16), nn.LayerNorm(32), nn.InstanceNorm1d(16)])
def test_statistics_of_norms_do_not_count_absent_channels(norm: nn.Module) -> None:
    """Elsewhere zeroed channels still count: the mask looks like another network than the one that one gets."""
    model = nn.Sequential(nn.Conv1d(1, 16, 1), norm, nn.Conv1d(16, 1, 1)).double()
    x = SIGNAL.double()
    graph = build_graph(model, x)
    (group,) = graph.groups
    plan = graph.plan({group.name: range(group.width // 2)})
    mask = (torch.arange(group.width) < group.width // 2).double()
    assert torch.allclose(MaskedProgram(graph)({group.name: mask}, x), apply(model, plan)(x), rtol=1e-10, atol=1e-12)


def test_indices_beyond_the_width_are_refused() -> None:
    """Elsewhere removing [0, 100, 101] of 8 filters leaves 7 rows and says that there are 5."""
    graph = build_graph(convolutions(1, 8, 1), SIGNAL)
    with pytest.raises(PlanError, match="has channels 0 to 7, not 101"):
        graph.plan({"0.weight[0]": [0, 100, 101]})


def test_linear_layers_around_a_transposition_are_not_coupled() -> None:
    """Elsewhere the features of the first and the time that the second reads are taken for the same."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.time, self.out = nn.Linear(6, 12), nn.Linear(12, 9), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.time(self.features(x).transpose(1, 2)).transpose(1, 2))

    model, x = Mixer(), torch.randn(2, 12, 6)
    graph = build_graph(model, x)
    assert [[f"{m.tensor}[{m.dim}]" for m in group.members] for group in graph.groups] == [
        ["features.weight[0]", "features.bias[0]", "out.weight[1]"]
    ]
    assert prune(model, x, budget=Budget(ratio=0.5)).model(x).shape == model(x).shape


def test_training_modes_are_left_alone() -> None:
    """Elsewhere the analysis leaves the network in eval mode."""
    model = nn.Sequential(nn.Conv1d(1, 8, 1), nn.BatchNorm1d(8), nn.Dropout(), nn.Conv1d(8, 1, 1)).train()
    model[1].eval()
    result = prune(model, SIGNAL, budget=Budget(ratio=0.5))
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert [module.training for module in result.model.modules()] == [True, True, False, True, True]


def test_scores_count_all_coupled_layers() -> None:
    """Elsewhere layers are judged one by one: small where they are made, channels may be large where they are read."""
    model = convolutions(1, 4, 1)
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].weight[0] = 0.5
        model[0].bias.zero_()
        model[1].weight.fill_(0.1)
        model[1].weight[:, 0] = 10
    graph = build_graph(model, SIGNAL)
    scores = score(graph, "l1")
    assert int(scores["0.weight[0]"].argmax()) == 0
    assert 0 in select(graph, scores, Budget(ratio=0.75)).kept["0.weight[0]"]


def test_what_cannot_be_followed_is_named() -> None:
    """Elsewhere such layers are silently left out, or taken for harmless."""

    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 1), nn.Conv1d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(mystery(self.a(x)).detach()))

    report = prune(Opaque(), SIGNAL, budget=Budget(ratio=0.5)).report
    assert report.without_rule == {NAME: 1}
    assert f"prunegraph has no rule for {NAME}" in [lock.reason for group in report.locked for lock in group.locks]


def test_files_shrink_with_the_network(tmp_path: Path) -> None:
    """Elsewhere the zeros are saved too."""
    model = convolutions(1, 256, 256, 1)
    torch.save(model.state_dict(), tmp_path / "dense.pt")
    result = prune(model, SIGNAL, budget=Budget(params=0.25))
    prunegraph.save(result, tmp_path / "pruned")
    size = sum(path.stat().st_size for path in (tmp_path / "pruned").glob("*.safetensors"))
    assert size < 0.3 * (tmp_path / "dense.pt").stat().st_size


@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_rounding_respects_what_a_layer_must_be_divisible_by(round_to: int) -> None:
    """Elsewhere one rounding for all breaks grouped layers: here each channel of a group of 3 parts is 3 indices."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 48, 1), nn.GroupNorm(3, 48), nn.Conv1d(48, 96, 1, groups=3), nn.PReLU(96), nn.Conv1d(96, 1, 1)
    )
    result = prune(model, SIGNAL, budget=Budget(ratio=0.4, round_to=round_to))
    widths = [after for _, after in result.report.widths.values()]
    assert all(width % round_to == 0 for width in widths)
    assert result.model[0].out_channels % 3 == result.model[2].out_channels % 3 == 0
    assert result.model(SIGNAL).shape == SIGNAL.shape


def test_weights_load_without_pickled_code(tmp_path: Path) -> None:
    """Elsewhere the result is a pickle of the whole network, which ``weights_only`` refuses."""
    result = prune(convolutions(1, 16, 1), SIGNAL, budget=Budget(ratio=0.5))
    torch.save(result.model.state_dict(), tmp_path / "weights.pt")
    loaded = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in result.model.state_dict().items())


@pytest.mark.parametrize("budget", [Budget(macs=10**15), Budget(ratio=0.001)], ids=str)
def test_a_pruning_of_nothing_is_no_success(budget: Budget) -> None:
    """Elsewhere the step ends and says nothing."""
    with pytest.raises(prunegraph.BudgetError, match="nothing would be pruned"):
        prune(convolutions(1, 16, 1), SIGNAL, budget=budget)


def test_state_of_an_optimizer_is_that_of_the_kept_channels() -> None:
    """Elsewhere it is dropped, or belongs to other channels."""
    model = convolutions(1, 8, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(SIGNAL).square().mean().backward()
    optimizer.step()
    plan = build_graph(model, SIGNAL).plan({"0.weight[0]": [2, 5]})
    pruned = apply(model, plan)
    state = slice_optimizer(optimizer, model, pruned, plan).state[pruned[0].weight]
    assert torch.equal(state["exp_avg"], optimizer.state[model[0].weight]["exp_avg"][[2, 5]])
    assert math.isclose(float(state["step"]), 1)
