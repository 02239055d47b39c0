"""The network of the scale benchmark is prunable as a whole, and surgery on a GPU stays on the GPU."""

import pytest
import torch

import prunegraph
from benchmarks.large_separator import STRIDE, LargeSeparator
from benchmarks.memory import HostCopies
from benchmarks.scale import plan_for, surgery_on_gpu

MIXTURE = torch.randn(1, 1, 8 * STRIDE)


def test_a_large_separator_is_prunable_as_a_whole() -> None:
    model = LargeSeparator(blocks=2, width=128).eval()
    graph = prunegraph.build_graph(model, MIXTURE)
    assert graph.coverage > 0.999
    assert not graph.without_rule
    assert len(graph.groups) == 1 + 5 * 2
    result = prunegraph.prune(model, MIXTURE, budget=prunegraph.Budget(macs=0.5))
    assert result.model(MIXTURE).shape == model(MIXTURE).shape == (1, 2, 8 * STRIDE)


def test_what_is_made_on_the_host_out_of_a_device_is_counted() -> None:
    elsewhere, here = torch.empty(3, device="meta"), torch.zeros(3)
    copies = HostCopies()
    copies.__torch_dispatch__(lambda tensor: (here, 1.0), (), (elsewhere,))
    assert copies.bytes == 3 * 4 + 8
    with copies:
        torch.empty_like(elsewhere)
        torch.empty(3).copy_(here)
    assert copies.bytes == 3 * 4 + 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore")
def test_surgery_on_a_gpu_makes_no_host_copy_and_at_most_one_on_the_gpu() -> None:
    before = torch.cuda.memory_allocated()
    model = LargeSeparator(blocks=5, width=512).eval().cuda()
    found = surgery_on_gpu(model, plan_for(model, MIXTURE.cuda()))
    assert found.weights > 2e8
    assert found.peak - before < 2.2 * found.weights
    assert found.to_host == 0
