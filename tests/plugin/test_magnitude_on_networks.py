"""Magnitudes on real groups: norms, recurrent gates, grouped and depthwise convolutions, weights used twice."""

import pytest
import torch

import prunegraph
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.ir.channels import ChannelGroup
from tests.plugin.networks import NETWORKS, batches, exact_batches, exact_network, network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def norms_of_what_goes(
    graph: DependencyGraph, weights: dict[str, torch.Tensor], group: ChannelGroup, channel: int, order: int
) -> list[float]:
    """Per tensor and dimension the norm of the slices that a plan without the channel leaves out."""
    plan = graph.plan({group.name: [other for other in range(group.width) if other != channel]})
    return [
        float(
            weights[name]
            .index_select(dim, torch.tensor(sorted({*range(plan.shapes[name][dim])} - {*kept})))
            .norm(order)
        )
        for name, dims in plan.tensors.items()
        for dim, kept in dims.items()
        if name in weights
    ]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_means_of_the_norms_of_all_that_is_removed_with_a_channel(name: str, order: int) -> None:
    model = network(name)
    graph = build_graph(model, batches(1)[0][0])
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    scores = prunegraph.score(graph, f"l{order}")
    assert graph.groups
    for group in graph.groups:
        for channel in range(group.width):
            norms = norms_of_what_goes(graph, weights, group, channel, order)
            assert float(scores[group.name][channel]) == pytest.approx(sum(norms) / len(norms), rel=1e-5), group.name


@needs_cuda
@pytest.mark.parametrize("criterion", ["l1", "l2", "random"])
def test_scores_on_cuda_equal_those_on_the_cpu(criterion: str) -> None:
    on_cpu, on_cuda = (
        prunegraph.score(build_graph(exact_network("Recurrent", device), exact_batches(1, device)[0][0]), criterion)
        for device in ("cpu", "cuda")
    )
    for group_name, expected in on_cpu.items():
        assert on_cuda[group_name].is_cuda
        torch.testing.assert_close(on_cuda[group_name].cpu(), expected)
