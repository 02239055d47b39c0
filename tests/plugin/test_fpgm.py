"""The criterion of the geometric median against values worked out by hand."""

from math import dist, sqrt

import pytest
import torch
from torch import nn

import prunegraph
from prunegraph.graph import build_graph
from prunegraph.plugin import CriterionContext, run_criterion
from prunegraph_fpgm import GeometricMedian
from tests.plugin.graphs import WEIGHTS, graph, group, member
from tests.plugin.networks import exact_batches, exact_network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CONTEXT = CriterionContext()


def scores_of(hidden: object, weights: dict) -> list[float]:
    return run_criterion(GeometricMedian(), graph(hidden), weights, CONTEXT)["filters"].tolist()  # type: ignore[arg-type]


def test_scores_are_sums_of_distances_between_filters() -> None:
    filters = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    hidden = group("filters", member("filters", 0, [[0], [1], [2]]))
    assert scores_of(hidden, {"filters": filters}) == pytest.approx([5 + 1, 5 + sqrt(18), 1 + sqrt(18)])


def test_layers_of_a_group_are_averaged_without_biases_and_norms() -> None:
    """Two channels: both score their one distance, in each layer."""
    distances = dist((3, -4), (0, 2)), dist((1, -2, 2, 0), (2, 4, 1, -3))
    scores = run_criterion(GeometricMedian(), graph(), WEIGHTS, CONTEXT)["first"]
    assert scores.tolist() == pytest.approx([sum(distances) / 2] * 2)


def test_a_group_of_nothing_but_vectors_is_scored_by_them() -> None:
    hidden = group("filters", member("scale", 0, [[0], [1], [2]]), member("state", 0, [[0], [1], [2]]))
    assert scores_of(hidden, {"scale": torch.tensor([1.0, -1.0, 2.0])}) == [3, 5, 4]


def test_a_group_without_parameters_scores_zero() -> None:
    assert scores_of(group("filters", member("state", 0, [[0], [1]])), WEIGHTS) == [0, 0]


def test_an_lstm_unit_is_one_point_of_all_of_its_gates() -> None:
    torch.manual_seed(0)
    weight = nn.LSTM(3, 4).weight_ih_l0.detach()
    hidden = group("filters", member("weight_ih_l0", 0, [[unit, unit + 4, unit + 8, unit + 12] for unit in range(4)]))
    units = [torch.cat([block[unit] for block in weight.chunk(4)]).tolist() for unit in range(4)]
    expected = [sum(dist(unit, other) for other in units) for unit in units]
    assert scores_of(hidden, {"weight_ih_l0": weight}) == pytest.approx(expected)


def test_near_filters_with_large_weights_are_told_apart() -> None:
    """Distances by a matrix product, which is what torch prefers here, would cancel."""
    filters = (1000 + torch.arange(30) / 16)[:, None].expand(30, 9)
    hidden = group("filters", member("filters", 0, [[channel] for channel in range(30)]))
    expected = [sum(3 * abs(one - other) / 16 for other in range(30)) for one in range(30)]
    assert scores_of(hidden, {"filters": filters}) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_scores_are_real_and_at_least_single_precision(dtype: torch.dtype) -> None:
    weights = {name: weight.to(dtype) for name, weight in WEIGHTS.items()}
    scores = run_criterion(GeometricMedian(), graph(), weights, CONTEXT)["first"]
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(scores[0]) == pytest.approx((dist((3, -4), (0, 2)) + dist((1, -2, 2, 0), (2, 4, 1, -3))) / 2)


@needs_cuda
@pytest.mark.parametrize("name", ["Normed", "Grouped", "Recurrent", "Shared", "Attentive"])
def test_scores_on_cuda_equal_those_on_the_cpu(name: str) -> None:
    on_cpu, on_cuda = (
        prunegraph.score(build_graph(exact_network(name, device), exact_batches(1, device)[0][0]), "fpgm")
        for device in ("cpu", "cuda")
    )
    for group_name, expected in on_cpu.items():
        assert on_cuda[group_name].is_cuda
        torch.testing.assert_close(on_cuda[group_name].cpu(), expected, rtol=1e-4, atol=1e-6)
