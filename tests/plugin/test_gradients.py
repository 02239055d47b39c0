"""The gradients that criteria get equal those of the network itself, and nothing is disturbed."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunegraph
from prunegraph.errors import CriterionError, InputError
from prunegraph.graph import build_graph
from prunegraph.importance.gradients import BatchGradients
from prunegraph.masked.program import MaskedNetwork
from tests.plugin.networks import NETWORKS, batches, network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


def own_gradients(model: nn.Module, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Gradients by backpropagation through a copy of the module, in eval mode."""
    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        if isinstance(module, nn.RNNBase) and next(module.parameters()).is_cuda:
            module.train()  # without dropout the mode changes nothing, but CuDNN asks for it
    F.mse_loss(copied(pair[0].clone()), pair[1]).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in copied.named_parameters()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_equal_those_of_the_network(name: str, device: str) -> None:
    model, data = network(name, device), batches(2, device)
    graph = build_graph(model, data[0][0])
    found = list(BatchGradients(graph=graph, data=data, loss=F.mse_loss))
    for gradients, pair in zip(found, data, strict=True):
        expected = own_gradients(model, pair)
        assert gradients.keys() == expected.keys()
        for parameter in expected:
            assert gradients[parameter].device.type == device
            torch.testing.assert_close(gradients[parameter], expected[parameter], rtol=1e-4, atol=1e-5, msg=parameter)


def test_batches_may_differ_in_length() -> None:
    model = network("Normed")
    data = [(torch.randn(size, *batches(1)[0][0].shape[1:-1], length), None) for size, length in ((2, 30), (3, 50))]
    data = [(inputs, torch.randn_like(model(inputs))) for inputs, _ in data]
    graph = build_graph(model, data[0][0])
    found = BatchGradients(graph=graph, data=data, loss=F.mse_loss, graph_of=MaskedNetwork(model, graph).graph_of)
    for gradients, pair in zip(found, data, strict=True):
        expected = own_gradients(model, pair)
        torch.testing.assert_close(dict(gradients), expected, rtol=1e-4, atol=1e-5)
    assert prunegraph.prune(
        model, data[0][0], criterion="taylor", budget=prunegraph.Budget(macs=0.7), data=data, loss=F.mse_loss
    ).plan.kept


def generators() -> tuple:
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), legacy


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_its_gradients_its_data_and_the_generators_stay_as_they_are(name: str) -> None:
    model, data = network(name), batches()
    F.mse_loss(model(data[0][0].clone()), data[0][1]).backward()
    graph = build_graph(model, data[0][0])
    before = copy.deepcopy((model.state_dict(), {n: p.grad for n, p in model.named_parameters()}, data))
    modes = [module.training for module in model.modules()]
    states = generators()
    prunegraph.score(graph, "taylor", data=data, loss=F.mse_loss)
    after = model.state_dict(), {n: p.grad for n, p in model.named_parameters()}, data
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert generators() == states


def test_frozen_parameters_have_gradients_too() -> None:
    model, data = network("Normed").requires_grad_(False), batches(1)
    (gradients,) = BatchGradients(graph=build_graph(model, data[0][0]), data=data, loss=F.mse_loss)
    assert all(bool(gradients[name].any()) for name in ("first.weight", "batch.bias", "last.weight"))


def test_a_seed_decides_about_a_loader_that_shuffles_and_a_loss_that_draws() -> None:
    model, data = network("Normed"), batches(4)
    graph = build_graph(model, data[0][0])

    def noisy(output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target + torch.randn_like(target))

    def first_group(seed: int) -> list[float]:
        loader = torch.utils.data.DataLoader(data, batch_size=None, shuffle=True)
        return next(iter(prunegraph.score(graph, "taylor", data=loader, loss=noisy, seed=seed).values())).tolist()

    torch.manual_seed(5)
    first = first_group(3)
    torch.manual_seed(6)
    assert first_group(3) == first
    assert first_group(4) != first


def changed(part: int, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    pairs = [list(pair) for pair in batches(2)]
    pairs[1][part] = value
    return [(inputs, targets) for inputs, targets in pairs]


@pytest.mark.parametrize(
    ("data", "loss", "error", "message"),
    [
        (changed(0, torch.zeros(1, 2, 9)), F.mse_loss, InputError, r"batch 1 .*\(1, 2, 9\) float32.*\(2, 2, 9\).*drop"),
        (changed(0, torch.zeros(2, 2, 9).double()), F.mse_loss, InputError, "float64.*example inputs"),
        (
            changed(0, torch.full((2, 2, 9), torch.nan)),
            F.mse_loss,
            CriterionError,
            "loss on batch 1 of the data is nan",
        ),
        (
            changed(1, torch.full((2, 2, 9), torch.inf)),
            F.mse_loss,
            CriterionError,
            "loss on batch 1 of the data is inf",
        ),
        ([], F.mse_loss, InputError, "no batch in the data"),
        (iter(()), F.mse_loss, InputError, "can be gone through only once"),
        ([torch.zeros(2, 2, 9)], F.mse_loss, InputError, "batch 0 of the data must be a pair"),
        (batches(1), lambda x, y: x - y, InputError, r"scalar tensor, got shape \(2, 2, 9\)"),
        (batches(1), lambda x, y: 1.0, InputError, "scalar tensor, got float"),
        (batches(1), lambda x, y: F.mse_loss(x.detach(), y), InputError, "without detaching"),
        (
            batches(1),
            lambda x, y: torch.igamma(x.abs() + 1, y.abs()).sum(),
            CriterionError,
            "batch 0 of the data cannot be differentiated.*igamma.*reconstruction",
        ),
        (
            batches(1),
            lambda x, y: (0 * x).abs().sqrt().sum(),
            CriterionError,
            "loss on batch 0 of the data has NaN or infinite derivatives by 'first.weight'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_told(data: list, loss: object, error: type, message: str) -> None:
    graph = build_graph(network("Normed"), batches(1)[0][0])
    with pytest.raises(error, match=message):
        prunegraph.score(graph, "taylor", data=data, loss=loss)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{}, {"data": batches(1)}, {"loss": F.mse_loss}], ids=["nothing", "data", "loss"])
def test_without_data_or_loss_there_are_no_gradients(given: dict) -> None:
    graph = build_graph(network("Normed"), batches(1)[0][0])
    with pytest.raises(CriterionError, match="'taylor' cannot serve this request: it needs gradients: give data and a"):
        prunegraph.score(graph, "taylor", **given)


def test_only_one_batch_is_held_at_a_time() -> None:
    """Batches are asked for one by one, each after the gradients of the one before."""
    asked: list[int] = []

    class Watched:
        def __iter__(self) -> object:
            for number, pair in enumerate(batches(3)):
                asked.append(number)
                yield pair

    graph = build_graph(network("Normed"), batches(1)[0][0])
    seen = [len(asked) for _ in BatchGradients(graph=graph, data=Watched(), loss=F.mse_loss)]  # type: ignore[arg-type]
    assert seen == [1, 2, 3]
