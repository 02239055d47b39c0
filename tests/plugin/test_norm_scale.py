"""The criterion of norm scales against values worked out by hand."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph.errors import CriterionError
from prunegraph.graph import build_graph
from prunegraph.plugin import CriterionContext, NetworkScores, run_criterion
from prunegraph_magnitude import Magnitude
from prunegraph_norm_scale import NormScale
from tests.plugin.graphs import KINDS, WEIGHTS, graph, group, member
from tests.plugin.networks import batches, exact_batches, exact_network, network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CONTEXT = CriterionContext()


def scores_of(*groups: object, weights: Mapping[str, Tensor] = WEIGHTS, kinds: Mapping[str, type] = KINDS) -> dict:
    return dict(run_criterion(NormScale(), graph(*groups, kinds=kinds), weights, CONTEXT))  # type: ignore[arg-type]


def test_scores_are_the_absolute_scales_and_nothing_else() -> None:
    assert scores_of()["first"].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "kind", [nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm]
)
def test_scales_of_every_norm_of_torch_count(kind: type) -> None:
    assert scores_of(kinds=KINDS | {"norm": kind})["first"].tolist() == [1.0, 0.5]


def test_what_is_called_gamma_counts_in_a_norm_of_the_networks_own() -> None:
    rows = [[0], [1]]
    own = group("first", member("first.weight", 0, rows), member("gln.gamma", 1, rows), member("gln.beta", 1, rows))
    weights = WEIGHTS | {"gln.gamma": torch.tensor([[[-3.0], [2.0]]]), "gln.beta": torch.tensor([[[7.0], [8.0]]])}
    assert scores_of(own, weights=weights, kinds={"gln": nn.Module})["first"].tolist() == [3.0, 2.0]


def test_scales_of_several_norms_are_averaged_and_so_are_a_channels_indices() -> None:
    normed = group("a", member("norm.weight", 0, [[0], [1]]), member("late.weight", 0, [[0, 1], [2, 3]]))
    weights = WEIGHTS | {"late.weight": torch.tensor([1.0, -2.0, 5.0, 0.0])}
    scores = scores_of(normed, weights=weights, kinds=KINDS | {"late": nn.LayerNorm})
    assert scores["a"].tolist() == [(1 + 1.5) / 2, (0.5 + 2.5) / 2]


def test_a_group_without_a_norm_gets_its_magnitudes_on_the_level_of_the_scales() -> None:
    normed = group("normed", member("norm.weight", 0, [[0], [1]]))
    bare = group("bare", member("first.weight", 0, [[0], [1]]))
    state = group("state", member("norm.running_mean", 0, [[0], [1]]))
    scores = scores_of(normed, bare, state)
    magnitudes = run_criterion(Magnitude(order=1), graph(bare), WEIGHTS, CONTEXT)["bare"]
    assert scores["bare"].mean() == pytest.approx(0.75)
    assert (scores["bare"] / scores["bare"].sum()).tolist() == pytest.approx((magnitudes / magnitudes.sum()).tolist())
    assert scores["state"].tolist() == [0.75, 0.75]


def test_scales_are_compared_over_the_whole_network() -> None:
    found = run_criterion(NormScale(), graph(), WEIGHTS, CONTEXT)
    assert isinstance(found, NetworkScores)


def test_a_network_without_norms_is_refused() -> None:
    with pytest.raises(CriterionError, match=r"'bn-scale' cannot serve this request: no channel group.*norm.*use 'l1'"):
        prunegraph.score(build_graph(network("Grouped"), batches(1)[0][0]), "bn-scale")


def test_norms_of_a_real_network_are_found() -> None:
    model = network("Normed")
    scores = prunegraph.score(build_graph(model, batches(1)[0][0]), "bn-scale")
    per_group = [values for values in scores.values() if len(values) == 3]
    expected = (model.batch.weight.abs() + model.group.weight.abs()).detach() / 2
    # The two groups of the group norm lose the same channels: channel c and c + 3 go together.
    assert per_group[0].tolist() == pytest.approx(((expected[:3] + expected[3:]) / 2).tolist())


@needs_cuda
def test_scores_on_cuda_equal_those_on_the_cpu() -> None:
    for name in ("Normed", "Recurrent", "Shared"):
        on_cpu, on_cuda = (
            prunegraph.score(build_graph(exact_network(name, device), exact_batches(1, device)[0][0]), "bn-scale")
            for device in ("cpu", "cuda")
        )
        for group_name, expected in on_cpu.items():
            assert on_cuda[group_name].is_cuda
            torch.testing.assert_close(on_cuda[group_name].cpu(), expected)
