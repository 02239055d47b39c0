"""The Taylor criterion against values worked out by hand and against what removing a channel removes."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunegraph
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.plugin import CriterionContext, run_criterion
from prunegraph_taylor import Taylor
from tests.plugin.graphs import WEIGHTS, graph, group, member
from tests.plugin.networks import NETWORKS, batches, exact_batches, exact_network, network
from tests.plugin.test_gradients import own_gradients

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
ONES = {name: torch.ones_like(weight) for name, weight in WEIGHTS.items()}
# Filter, bias, norm, two columns of the linear map: the sums of each channel's weights.
SUMS = [(3 - 4) + 1 - 1 + (1 - 2 + 2 + 0), (0 + 2) - 2 + 0.5 + (2 + 4 + 1 - 3)]


def scores_of(*gradients: dict[str, Tensor]) -> list[float]:
    return run_criterion(Taylor(), graph(), WEIGHTS, CriterionContext(gradients=gradients))["first"].tolist()


def test_one_batch_gives_the_absolute_sum_of_weight_times_gradient() -> None:
    assert scores_of(ONES) == pytest.approx([abs(value) for value in SUMS])
    assert scores_of(ONES | {"norm.weight": torch.tensor([2.0, -6.0])}) == pytest.approx([1.0, 4.5 - 0.5 - 3])


def test_batches_of_opposite_gradients_do_not_cancel() -> None:
    opposite = {name: -3 * gradient for name, gradient in ONES.items()}
    assert scores_of(ONES, opposite) == pytest.approx([2 * abs(value) for value in SUMS])


def test_a_weight_that_belongs_to_a_channel_twice_counts_once() -> None:
    square = {"recurrent": torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])}
    units = [[0], [1], [2]]
    hidden = group("recurrent", member("recurrent", 0, units), member("recurrent", 1, units))
    context = CriterionContext(gradients=[{"recurrent": torch.ones(3, 3)}])
    scores = run_criterion(Taylor(), graph(hidden), square, context)["recurrent"]
    assert scores.tolist() == [7 + 8 + 64, 56 + 2 + 128, 448 + 4 + 32]


def test_an_lstm_unit_owns_its_row_of_every_gate() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4)
    rows = [[unit, unit + 4, unit + 8, unit + 12] for unit in range(4)]
    columns = [[unit] for unit in range(4)]
    hidden = group(
        "lstm",
        member("weight_ih_l0", 0, rows),
        member("weight_hh_l0", 0, rows),
        member("weight_hh_l0", 1, columns),
        member("bias_ih_l0", 0, rows),
    )
    weights = {name: weight.detach() for name, weight in lstm.named_parameters()}
    gradients = {name: torch.randn_like(weight) for name, weight in weights.items()}
    scores = run_criterion(Taylor(), graph(hidden), weights, CriterionContext(gradients=[gradients]))["lstm"]
    product = {name: weights[name] * gradients[name] for name in weights}
    for unit in range(4):
        gates = sum(block[unit].sum() for block in product["weight_ih_l0"].chunk(4))
        gates += sum(block[unit] for block in product["bias_ih_l0"].chunk(4))
        recurrent = product["weight_hh_l0"].view(4, 4, 4)
        gates += recurrent[:, unit].sum() + recurrent[:, :, unit].sum() - recurrent[:, unit, unit].sum()
        assert scores[unit] == pytest.approx(abs(float(gates)), rel=1e-5)


def what_goes(graph: DependencyGraph, name: str, width: int, channel: int) -> dict[str, np.ndarray]:
    """For each parameter which of its elements a plan without this channel leaves out."""
    plan = graph.plan({name: [other for other in range(width) if other != channel]})
    gone = {}
    for tensor, dims in plan.tensors.items():
        stays = np.ix_(*(dims.get(dim, range(size)) for dim, size in enumerate((plan.shapes | plan.fleeting)[tensor])))
        gone[tensor] = np.ones((plan.shapes | plan.fleeting)[tensor], bool)
        gone[tensor][stays] = False
    return gone


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_the_change_of_the_loss_by_all_that_is_removed_with_a_channel(name: str) -> None:
    model, data = network(name), batches(2)
    found = build_graph(model, data[0][0])
    scores = prunegraph.score(found, "taylor", data=data, loss=F.mse_loss)
    products = [
        {n: (model.get_parameter(n).detach() * g.conj()).real.numpy() for n, g in own_gradients(model, pair).items()}
        for pair in data
    ]
    assert found.groups
    for each in found.groups:
        for channel in range(each.width):
            gone = what_goes(found, each.name, each.width, channel)
            changes = [sum(p[n][mask].sum() for n, mask in gone.items() if n in p) for p in products]
            expected = np.abs(changes).mean()
            assert float(scores[each.name][channel]) == pytest.approx(expected, rel=1e-3, abs=1e-5), each.name


@pytest.mark.parametrize("name", ["Normed", "Recurrent", "Shared"])
def test_scores_predict_the_loss_when_a_channel_fades(name: str) -> None:
    """Without any gradient: the loss when all weights of a channel shrink by a ten-thousandth, in float64."""
    model, data = network(name).double().eval(), [tuple(x.double() for x in pair) for pair in batches(1)]
    found = build_graph(model, data[0][0])
    scores = prunegraph.score(found, "taylor", data=data, loss=F.mse_loss)  # type: ignore[arg-type]
    each = max(found.groups, key=lambda group: len(group.members))
    for channel in range(each.width):
        losses = [
            faded_loss(model, what_goes(found, each.name, each.width, channel), data[0], s) for s in (-1e-4, 1e-4)
        ]
        assert float(scores[each.name][channel]) == pytest.approx(abs(losses[1] - losses[0]) / 2e-4, rel=1e-4, abs=1e-8)


def faded_loss(model: nn.Module, gone: dict[str, np.ndarray], pair: tuple, share: float) -> float:
    faded = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in faded.named_parameters():
            if name in gone:
                parameter[torch.from_numpy(gone[name])] *= 1 - share
        return float(F.mse_loss(faded(pair[0]), pair[1]))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_scores_are_at_least_single_precision(dtype: torch.dtype, expected: torch.dtype) -> None:
    weights = {name: weight.to(dtype) for name, weight in WEIGHTS.items()}
    context = CriterionContext(gradients=[{name: gradient.to(dtype) for name, gradient in ONES.items()}])
    scores = run_criterion(Taylor(), graph(), weights, context)["first"]
    assert scores.dtype == expected
    assert scores.tolist() == pytest.approx([abs(value) for value in SUMS])


def test_a_group_without_parameters_scores_zero() -> None:
    buffers = group("state", member("norm.running_mean", 0, [[0], [1], [2]]))
    context = CriterionContext(gradients=[ONES])
    assert run_criterion(Taylor(), graph(buffers), WEIGHTS, context)["state"].tolist() == [0, 0, 0]


@needs_cuda
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_on_cuda_equal_those_on_the_cpu(name: str) -> None:
    def scores(device: str) -> dict[str, Tensor]:
        data = exact_batches(2, device)
        return dict(
            prunegraph.score(build_graph(exact_network(name, device), data[0][0]), "taylor", data=data, loss=F.mse_loss)
        )

    on_cpu, on_cuda = scores("cpu"), scores("cuda")
    for group_name, expected in on_cpu.items():
        assert on_cuda[group_name].is_cuda
        torch.testing.assert_close(on_cuda[group_name].cpu(), expected, rtol=1e-4, atol=1e-6)
