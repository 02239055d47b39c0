"""What layers read, against their inputs laid out by hand."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunegraph
from prunegraph.errors import CriterionError, InputError
from prunegraph.importance import moments
from prunegraph.importance.moments import InputMoments
from prunegraph.plugin import LayerMoments
from tests.plugin.networks import NETWORKS, batches, network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Reading(nn.Module):
    """Six channels, read by each kind of layer; all outputs are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(2, 6, 1)
        self.conv = nn.Conv1d(6, 1, 3, dilation=2, padding=2, bias=False)
        self.linear = nn.Linear(6, 1)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 1))
        self.up = nn.ConvTranspose1d(6, 1, 3, stride=2, padding=1, bias=False)
        self.rnn = nn.GRU(6, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.into(x))
        steps = hidden.transpose(1, 2)
        total: Tensor = self.conv(hidden).sum() + self.linear(steps).sum() + self.linear(steps * 2).sum()
        return total + self.normed(steps).sum() + self.up(hidden).sum() + self.rnn(steps)[0].sum()


def read(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> dict[str, LayerMoments]:
    graph = prunegraph.build_graph(model, data[0][0])
    return {layer.weight: layer for layer in InputMoments(graph=graph, data=data)}


@pytest.fixture(scope="module")
def reading() -> tuple[Reading, Tensor, dict[str, LayerMoments]]:
    """The network, what its six channels are in all batches, ``(batch, channels, time)``, and the moments of it."""
    torch.manual_seed(0)
    model = Reading()
    data = [(torch.randn(2, 2, 9), torch.zeros(())) for _ in range(3)]
    with torch.no_grad():
        hidden = torch.tanh(model.into(torch.cat([x for x, _ in data]))).double()
    return model, hidden, read(model, data)


def second(rows: Tensor) -> Tensor:
    return rows.mT @ rows / len(rows)


def test_a_linear_layer_reads_all_of_its_uses_less_their_mean(
    reading: tuple[Reading, Tensor, dict[str, LayerMoments]],
) -> None:
    model, hidden, layers = reading
    rows = hidden.transpose(1, 2).reshape(-1, 6)
    rows = torch.cat([rows, 2 * rows])
    found = layers["linear.weight"]
    torch.testing.assert_close(found.moments[0], second(rows - rows.mean(0)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.coefficients[0], model.linear.weight.detach().double().mT)
    assert [features.tolist() for features in found.features.values()] == [[[0], [1], [2], [3], [4], [5]]]


def test_a_convolution_reads_every_tap_of_a_channel(reading: tuple[Reading, Tensor, dict[str, LayerMoments]]) -> None:
    model, hidden, layers = reading
    windows = F.pad(hidden, (2, 2)).unfold(2, 5, 1)[..., ::2].transpose(1, 2).reshape(-1, 18)
    found = layers["conv.weight"]
    torch.testing.assert_close(found.moments[0], second(windows), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.coefficients[0, :, 0], model.conv.weight.detach().double().flatten())
    assert next(iter(found.features.values())).tolist() == [[3 * c, 3 * c + 1, 3 * c + 2] for c in range(6)]


def test_a_transposed_convolution_is_one_block_with_the_outputs_of_all_phases(
    reading: tuple[Reading, Tensor, dict[str, LayerMoments]],
) -> None:
    """Output 2 q - 1 meets taps 2 and 0, with q - 1 and q; output 2 q meets tap 1, with q."""
    model, hidden, layers = reading
    found, weight = layers["up.weight"], model.up.weight.detach().double()[:, 0]
    windows = torch.stack([hidden[..., :-1], hidden[..., 1:]], dim=-1).transpose(1, 2).reshape(-1, 12)
    torch.testing.assert_close(found.moments[0], second(windows), rtol=1e-5, atol=1e-6)
    phases = torch.stack([weight[:, [2, 0]], F.pad(weight[:, [1]], (1, 0))], dim=2)
    torch.testing.assert_close(found.coefficients[0], phases.reshape(12, 2))


def test_a_computed_weight_and_the_input_of_a_recurrent_layer_are_read(
    reading: tuple[Reading, Tensor, dict[str, LayerMoments]],
) -> None:
    model, _, layers = reading
    computed = [layer for name, layer in layers.items() if name not in dict(model.named_parameters())]
    assert [layer.coefficients.shape for layer in computed] == [(1, 6, 1)]
    torch.testing.assert_close(computed[0].coefficients[0], model.normed.weight.detach().double().mT)
    assert layers["rnn.weight_ih_l0"].coefficients.shape == (1, 6, 3)
    assert set(layers) - {computed[0].weight} == {"conv.weight", "linear.weight", "up.weight", "rnn.weight_ih_l0"}


def test_channels_of_a_grouped_convolution_are_read_in_their_block() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 8, 1), nn.ReLU(), nn.Conv1d(8, 4, 1, groups=2), nn.Conv1d(4, 2, 1))
    layers = read(model, [(torch.randn(2, 2, 9), torch.zeros(()))])
    found = layers["2.weight"]
    assert found.coefficients.shape == (2, 4, 2)
    assert all(features.shape[0] == 4 for features in found.features.values())


class TiedBanks(nn.Module):
    """One filter bank analyses and synthesises: each of its dimensions is read, one by each use."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(2, 5, 1)
        self.bank = nn.Parameter(torch.randn(6, 5, 3))
        self.out = nn.Conv1d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(F.conv1d(torch.tanh(self.into(x)), self.bank, stride=2))
        out: Tensor = self.out(F.conv_transpose1d(hidden, self.bank, stride=2))
        return out


def test_one_weight_in_two_kinds_of_ops_is_two_layers() -> None:
    torch.manual_seed(0)
    model = TiedBanks()
    data = [(torch.randn(2, 2, 9), torch.zeros(())) for _ in range(2)]
    graph = prunegraph.build_graph(model, data[0][0])
    found = [layer for layer in InputMoments(graph=graph, data=data) if layer.weight == "bank"]
    assert [layer.coefficients.shape for layer in found] == [(1, 15, 6), (1, 12, 10)]
    scores = prunegraph.score(graph, "reconstruction", data=data)
    assert {name: len(ranks) for name, ranks in scores.items()} == {group.name: group.width for group in graph.groups}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_and_data_stay_as_they_are(name: str) -> None:
    model, data = network(name), batches(2)
    graph = prunegraph.build_graph(model, data[0][0])
    before = copy.deepcopy((model.state_dict(), data))
    layers = list(InputMoments(graph=graph, data=data))
    assert layers
    assert all(torch.equal(tensor, before[0][key]) for key, tensor in model.state_dict().items())
    assert all(
        torch.equal(x, y) for now, then in zip(data, before[1], strict=True) for x, y in zip(now, then, strict=True)
    )
    for layer in layers:
        assert bool(torch.linalg.eigvalsh(layer.moments).min() > -1e-9)


def test_layers_that_read_too_much_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MOST_NUMBERS", 50)
    layers = read(Reading(), [(torch.randn(2, 2, 9), torch.zeros(()))])
    assert "linear.weight" in layers
    assert "conv.weight" not in layers


def test_wrong_data_are_named() -> None:
    model = Reading()
    graph = prunegraph.build_graph(model, torch.randn(2, 2, 9))
    for data, message in (
        ([], "no batch"),
        ([torch.zeros(3)], "pair"),
        ([(torch.randn(2, 2, 8), None)], "was recorded on"),
    ):
        with pytest.raises(InputError, match=message):
            list(InputMoments(graph=graph, data=data))  # type: ignore[arg-type]
    with pytest.raises(CriterionError, match=r"conv\.weight meets values that are not finite"):
        list(InputMoments(graph=graph, data=[(torch.full((2, 2, 9), torch.nan), None)]))


@needs_cuda
@pytest.mark.parametrize("name", NETWORKS)
def test_moments_on_cuda_equal_those_on_the_cpu(name: str) -> None:
    on_cpu, on_cuda = (read(network(name, device), batches(2, device)) for device in ("cpu", "cuda"))
    for weight, layer in on_cpu.items():
        assert on_cuda[weight].moments.is_cuda
        torch.testing.assert_close(on_cuda[weight].moments.cpu(), layer.moments, rtol=1e-3, atol=1e-4)
