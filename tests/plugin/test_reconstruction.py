"""Removal at the least cost against fits solved anew."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunegraph
from prunegraph.errors import CriterionError
from prunegraph.importance.moments import InputMoments
from prunegraph.plugin import LayerMoments
from prunegraph_magnitude.relative import log_magnitudes
from prunegraph_reconstruction import removal_scores
from prunegraph_reconstruction.removal import _RIDGE, removal
from tests.plugin.graphs import group, member
from tests.plugin.networks import NETWORKS, batches, exact_batches, exact_network, network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
WIDTH = 7


def layer(seed: int, blocks: int, taps: int, others: int = 3) -> LayerMoments:
    """A layer that reads the group's channels, in no order, beside features of other groups."""
    generator = torch.Generator().manual_seed(seed)
    features = WIDTH * taps + others
    inputs = torch.randn(blocks, 50, features, generator=generator, dtype=torch.float64)
    inputs = inputs @ torch.randn(features, features, generator=generator, dtype=torch.float64)
    places = torch.randperm(features, generator=generator)[: WIDTH * taps].reshape(WIDTH, taps)
    return LayerMoments(
        weight="w",
        moments=inputs.mT @ inputs / 50,
        coefficients=torch.zeros(blocks, features, 4, dtype=torch.float64),
        effects=torch.randn(blocks, features, 4, generator=generator, dtype=torch.float64),
        features={"w": places.numpy()},
    )


def error_without(found: LayerMoments, gone: list[int]) -> float:
    """Squared error of the ridge regression on all features but those of channels."""
    size = found.moments.shape[1]
    ridge = _RIDGE * found.moments.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(size).double()
    damped, target = found.moments + ridge, found.effects
    keep = torch.tensor([f for f in range(size) if f not in found.features["w"][gone].flatten()])
    fitted = torch.zeros_like(target)
    fitted[:, keep] = torch.linalg.solve(damped[:, keep][:, :, keep], (damped @ target)[:, keep])
    missing = target - fitted
    return float((missing * (damped @ missing)).sum())


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_channel_that_goes_is_the_one_that_costs_least(seed: int, blocks: int, taps: int) -> None:
    layers = [layer(seed, blocks, taps), layer(seed + 10, 1, 1)]
    hidden = group("w", member("w", 0, [[channel] for channel in range(WIDTH)]))
    gone: list[int] = []
    total = 0.0
    order, added = removal(hidden, layers)
    for channel, error in zip(order.tolist(), added.tolist(), strict=True):
        left = [c for c in range(WIDTH) if c not in gone]
        costs = {c: sum(error_without(found, [*gone, c]) for found in layers) for c in left}
        assert costs[channel] == pytest.approx(min(costs.values()), rel=1e-6)
        total += error
        assert total == pytest.approx(costs[channel], rel=1e-6)
        gone.append(channel)
    assert sorted(gone) == list(range(WIDTH))


def copies() -> nn.Module:
    """Eight channels, of which the last four, much stronger, are those of the first four again."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.LeakyReLU(0.5), nn.Conv1d(8, 2, 1))
    with torch.no_grad():
        model[0].weight[4:], model[0].bias[4:] = 10 * model[0].weight[:4], 10 * model[0].bias[:4]
    return model


def test_copies_go_first_whatever_their_size() -> None:
    model = copies()
    data = [(torch.randn(4, 2, 50), torch.zeros(())) for _ in range(3)]
    result = prunegraph.prune(
        model, data[0][0], criterion="reconstruction", budget=prunegraph.Budget(ratio=0.5), data=data
    )
    kept = result.plan.kept["0.weight[0]"]
    assert sorted(channel % 4 for channel in kept) == [0, 1, 2, 3]
    fitted = prunegraph.compensate(model, result.model, result.plan, [x for x, _ in data]).model
    torch.testing.assert_close(fitted(data[0][0]), model(data[0][0]), rtol=1e-2, atol=1e-2)


class Multiplied(nn.Module):
    """Channels that no layer reads: they are multiplied and summed."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(2, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.into(x).square().sum(1)


def test_what_no_layer_reads_is_ranked_by_its_norms() -> None:
    torch.manual_seed(0)
    data = [(torch.randn(1, 2, 5), torch.zeros(()))]
    graph = prunegraph.build_graph(Multiplied(), data[0][0])
    scores = prunegraph.score(graph, "reconstruction", data=data)["into.weight[0]"]
    norms = log_magnitudes(graph, graph.weights)["into.weight[0]"]
    assert scores.argsort().tolist() == norms.argsort().tolist()
    assert (float(scores.min()), float(scores.max())) == (0, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_rise_in_the_order_of_removal_within_each_group(name: str) -> None:
    data = batches(2)
    graph = prunegraph.build_graph(network(name), data[0][0])
    layers = list(InputMoments(graph=graph, data=data))
    scores = removal_scores(graph, graph.weights, layers)
    for found in graph.groups:
        readers = [layer for layer in layers if found.name in layer.features]
        if readers:
            assert scores[found.name].argsort().tolist() == removal(found, readers)[0].tolist()
        assert 0 <= float(scores[found.name].min()) <= float(scores[found.name].max()) <= 1


class Branches(nn.Module):
    """Two equal branches, of which the second is hardly heard."""

    def __init__(self, loud: float, quiet: float) -> None:
        super().__init__()
        self.loud, self.quiet = loud, quiet
        self.first, self.second = (nn.Sequential(nn.Conv1d(2, 12, 1), nn.Tanh(), nn.Conv1d(12, 3, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.loud * self.first(x) + self.quiet * self.second(x)
        return total


@pytest.mark.parametrize(("loud", "quiet", "narrower"), [(1.0, 0.01, "second"), (0.01, 1.0, "first")])
def test_what_is_hardly_heard_loses_more(loud: float, quiet: float, narrower: str) -> None:
    torch.manual_seed(0)
    model = Branches(loud, quiet)
    data = [(torch.randn(2, 2, 50), torch.zeros(()))]
    graph = prunegraph.build_graph(model, data[0][0])
    scores = prunegraph.score(graph, "reconstruction", data=data)
    kept = {
        name.split(".")[0]: len(left)
        for name, left in prunegraph.select(graph, scores, prunegraph.Budget(macs=0.5)).kept.items()
    }
    wider = "first" if narrower == "second" else "second"
    assert kept[narrower] < kept.get(wider, 12)


def test_it_needs_data() -> None:
    graph = prunegraph.build_graph(copies(), torch.randn(1, 2, 5))
    with pytest.raises(CriterionError, match="moments: give data"):
        prunegraph.score(graph, "reconstruction")


@needs_cuda
@pytest.mark.parametrize("name", ["Normed", "Grouped", "Recurrent", "Shared", "Attentive"])
def test_the_order_on_cuda_is_that_on_the_cpu(name: str) -> None:
    scores = [
        prunegraph.score(
            prunegraph.build_graph(exact_network(name, device), exact_batches(1, device)[0][0]),
            "reconstruction",
            data=exact_batches(2, device),
            loss=F.mse_loss,
        )
        for device in ("cpu", "cuda")
    ]
    for key, expected in scores[0].items():
        torch.testing.assert_close(scores[1][key].cpu(), expected)
