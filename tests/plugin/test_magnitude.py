"""Magnitude criteria against values worked out by hand."""

from math import sqrt

import pytest
import torch
from torch import nn

from prunegraph.plugin import CriterionContext, run_criterion
from prunegraph_magnitude import Magnitude
from tests.plugin.graphs import WEIGHTS, graph, group, member

CONTEXT = CriterionContext()
# Norms per member: filter, bias, norm, two columns of the linear map. The running mean is no weight.
L1 = [(7 + 1 + 1 + (1 + 2 + 2 + 0)) / 4, (2 + 2 + 0.5 + (2 + 1 + 4 + 3)) / 4]
L2 = [(5 + 1 + 1 + sqrt(1 + 4 + 4 + 0)) / 4, (2 + 2 + 0.5 + sqrt(4 + 1 + 16 + 9)) / 4]


@pytest.mark.parametrize(("order", "expected"), [(1, L1), (2, L2)])
def test_scores_equal_the_formula(order: int, expected: list[float]) -> None:
    scores = run_criterion(Magnitude(order=order), graph(), WEIGHTS, CONTEXT)
    assert scores["first"].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_removing_a_layer_that_reads_the_channels_changes_their_scores(order: int) -> None:
    """Coupled layers count: with the reading layer, channel 1 overtakes channel 0."""
    alone = group("first", member("first.weight", 0, [[0], [1]]))
    without = run_criterion(Magnitude(order=order), graph(alone), WEIGHTS, CONTEXT)["first"]
    with_reader = group("first", *alone.members, member("second.weight", 1, [[0, 1], [2, 3]]))
    weights = WEIGHTS | {"second.weight": 10 * WEIGHTS["second.weight"]}
    scores = run_criterion(Magnitude(order=order), graph(with_reader), weights, CONTEXT)["first"]
    assert without.argmax() == 0
    assert scores.argmax() == 1


@pytest.mark.parametrize("order", [1, 2])
def test_lstm_unit_owns_its_row_of_every_gate(order: int) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4)
    rows = [[unit, unit + 4, unit + 8, unit + 12] for unit in range(4)]
    hidden = group("lstm", member("weight_ih_l0", 0, rows), member("weight_hh_l0", 1, [[unit] for unit in range(4)]))
    weights = {name: weight.detach() for name, weight in lstm.named_parameters()}
    scores = run_criterion(Magnitude(order=order), graph(hidden), weights, CONTEXT)["lstm"]
    for unit in range(4):
        gates = torch.cat([gate[unit] for gate in weights["weight_ih_l0"].chunk(4)])
        column = weights["weight_hh_l0"][:, unit]
        expected = (gates.norm(p=order) + column.norm(p=order)) / 2
        assert scores[unit] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
        (torch.complex64, torch.float32),
    ],
)
def test_scores_are_real_and_at_least_single_precision(dtype: torch.dtype, expected: torch.dtype) -> None:
    weights = {name: weight.to(dtype) for name, weight in WEIGHTS.items()}
    scores = run_criterion(Magnitude(order=1), graph(), weights, CONTEXT)["first"]
    assert scores.dtype == expected
    assert scores.tolist() == pytest.approx(L1, rel=1e-6)


def test_large_half_precision_weights_do_not_overflow() -> None:
    wide = group("wide", member("wide", 0, [[0], [1]]))
    scores = run_criterion(Magnitude(order=1), graph(wide), {"wide": torch.full((2, 64), 6e4).half()}, CONTEXT)["wide"]
    assert scores.tolist() == pytest.approx([64 * 6e4] * 2, rel=1e-3)


def test_a_group_without_parameters_scores_zero() -> None:
    buffers = group("state", member("norm.running_mean", 0, [[0], [1], [2]]))
    assert run_criterion(Magnitude(order=1), graph(buffers), WEIGHTS, CONTEXT)["state"].tolist() == [0, 0, 0]
