"""The table of rounded widths shows what the device likes."""

import pytest
import torch
from torch import nn

from prunegraph import UnsupportedModelError, measure_rounding
from tests.latency.clocks import Clockwork
from tests.latency.networks import separator


@pytest.mark.parametrize("block", [8, 32])
def test_multiples_of_the_devices_block_are_the_best(graph, block: int) -> None:
    found = measure_rounding(*separator(), graph, measure_for=1e-9, stopwatch=Clockwork(block=block))
    assert (found.op, found.module, found.group) == ("aten.conv1d.default", "wide", "wide.weight[0]")
    fast = {row.round_to for row in found.widths if row.per_channel < 1.02 * found.best.per_channel}
    assert fast == {step for step in (1, 2, 4, 8, 16, 32) if step >= block}


def test_widths_are_multiples_of_nothing_rounder(graph) -> None:
    found = measure_rounding(*separator(), graph, measure_for=1e-9, stopwatch=Clockwork())
    assert [(row.round_to, row.width) for row in found.widths] == [
        (1, 39),
        (2, 38),
        (4, 36),
        (8, 40),
        (16, 48),
        (32, 32),
    ]
    assert all(row.per_channel == pytest.approx(row.seconds / row.width) for row in found.widths)


def test_a_network_without_prunable_products_is_refused() -> None:
    network = nn.Sequential(nn.Conv1d(1, 1, 4), nn.Tanh()).eval()
    with pytest.raises(UnsupportedModelError, match="no op of this network"):
        measure_rounding(network, torch.randn(1, 1, 16), measure_for=1e-9, stopwatch=Clockwork())
