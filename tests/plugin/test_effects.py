"""What errors in the outputs of layers do, against Jacobians."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph.contractions import LinearMap
from prunegraph.importance import effects, moments
from prunegraph.importance.moments import InputMoments
from prunegraph.plugin import LayerMoments

BATCHES = 400


def read(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> dict[str, LayerMoments]:
    graph = prunegraph.build_graph(model, data[0][0])
    return {layer.weight: layer for layer in InputMoments(graph=graph, data=data)}


def squares(layer: LayerMoments) -> Tensor:
    """``C R R^T C^T`` of each block."""
    return layer.effects @ layer.effects.mT


def noisy(monkeypatch: pytest.MonkeyPatch, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The same batch many times, so that the noise averages out."""
    monkeypatch.setattr(moments, "BATCHES", BATCHES)
    return [(x, torch.zeros(()))] * BATCHES


class Tail(nn.Module):
    """A layer that reads four channels, and a known way from its output to the network's."""

    def __init__(self, layer: nn.Module, tail: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.into, self.layer, self.tail = nn.Conv1d(2, 4, 1), layer, tail

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.into(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.layer(self.hidden(x)))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv1d(4, 3, 2),
    "grouped": lambda: nn.Conv1d(4, 6, 1, groups=2),
    "up": lambda: nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1),
}


def overwritten(y: Tensor) -> Tensor:
    """What autograd does not have to keep is written over."""
    y = y * 1
    y[:, :1] *= torch.tensor([[[3.0]]])
    return torch.relu_(y.sub_(0.1)).cumsum(-1)


@pytest.mark.parametrize("tail", [torch.sin, overwritten], ids=["sine", "overwritten"])
@pytest.mark.parametrize("kind", LAYERS)
def test_effects_are_those_of_the_jacobian(
    kind: str, tail: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Tail(LAYERS[kind](), tail)
    x = torch.randn(1, 2, 6)
    found = read(model, noisy(monkeypatch, x))["layer.weight"]
    with torch.no_grad():
        y = model.layer(model.hidden(x))
    jacobian = torch.autograd.functional.jacobian(tail, y)[0, :, :, 0].double() / tail(y).norm().double()
    per_output = torch.einsum("abot,abpt->op", jacobian, jacobian)  # summed over positions
    weight = model.layer.weight.detach().double()
    if kind == "conv":
        expected = torch.einsum("oi,op,pj->ij", weight.flatten(1), per_output, weight.flatten(1))[None]
    elif kind == "grouped":
        blocks = weight[..., 0].unflatten(0, (2, 3))
        expected = torch.stack(
            [b.mT @ per_output[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] @ b for i, b in enumerate(blocks)]
        )
    else:
        phases = [torch.einsum("abot,abpt->op", j, j) for j in (jacobian[..., phase::2] for phase in (1, 0))]
        taps = [
            weight[:, :, [2, 0]],
            weight[:, :, [3, 1]],
        ]  # output 2 q + r - 1 meets taps r + 2 j with q - j, backward
        read_by = [t.permute(0, 2, 1).reshape(8, 2) for t in taps]
        expected = sum(c @ p @ c.mT for c, p in zip(read_by, phases, strict=True))[None]  # type: ignore[index]
    scale = expected.abs().max()
    torch.testing.assert_close(squares(found) / BATCHES / scale, expected / scale, rtol=0, atol=0.15)


def test_pairs_of_outputs_are_left_out_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Tail(nn.Conv1d(4, 12, 1), torch.sin)
    monkeypatch.setattr(moments, "MOST_NUMBERS", 100)  # 25 of the inputs, 144 of the outputs
    layer = read(model, [(torch.randn(1, 2, 6), torch.zeros(()))])["layer.weight"]
    scales = layer.effects[0] / layer.coefficients[0]
    torch.testing.assert_close(scales, scales[:1].expand(4, 12))
    assert float(scales.min()) > 0


def test_the_diagonal_is_that_of_all_pairs() -> None:
    torch.manual_seed(0)
    call = LinearMap(torch.randn(2, 7, 4), torch.randn(3, 4))
    pairs, alone = (effects.Sensitivity(diagonal=diagonal) for diagonal in (False, True))
    for sensitivity in (pairs, alone):
        sensitivity.add(call, torch.ones(()), torch.arange(42.0).reshape(2, 7, 3))
    assert pairs.moments is not None
    assert alone.moments is not None
    torch.testing.assert_close(pairs.moments.diagonal(dim1=1, dim2=2), alone.moments)


class Recurrent(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.into, self.rnn, self.gain = nn.Conv1d(2, 4, 1), nn.LSTM(4, 3, batch_first=True), gain

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.rnn(torch.tanh(self.into(x)).mT)[0] * self.gain + x.mT.mean(-1, keepdim=True)
        return output


def test_gates_count_by_what_the_layers_output_does() -> None:
    layers = []
    for gain in (0.01, 1.0):
        torch.manual_seed(0)
        layers.append(read(Recurrent(gain), [(torch.randn(2, 2, 9), torch.zeros(()))])["rnn.weight_ih_l0"])
    quiet, loud = (layer.effects for layer in layers)
    torch.testing.assert_close(quiet / quiet.norm(), loud / loud.norm())
    assert float(quiet.norm()) < 0.05 * float(loud.norm())


class Unheard(nn.Module):
    """One of its layers does not reach the output by numbers that can be differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.heard, self.unheard = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 2, 1), nn.Conv1d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.into(x))
        output: Tensor = self.heard(hidden) + 0 * self.unheard(hidden)
        return output


def test_what_does_not_matter_has_no_effect() -> None:
    layers = read(Unheard(), [(torch.randn(1, 2, 9), torch.zeros(()))])
    assert float(layers["heard.weight"].effects.norm()) > 0.1
    assert float(layers["unheard.weight"].effects.norm()) < 1e-6


def test_errors_are_relative_where_nothing_can_be_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: effects.Probe, *arguments: object) -> None:
        raise RuntimeError("derivative for aten::this is not implemented")

    torch.manual_seed(0)
    model, data = Tail(nn.Conv1d(4, 3, 1), torch.sin), [(torch.randn(1, 2, 6), torch.zeros(()))]
    monkeypatch.setattr(effects.Probe, "add", refuse)
    layer = read(model, data)["layer.weight"]
    energy = (layer.effects * (layer.moments @ layer.effects)).sum()
    torch.testing.assert_close(energy, torch.ones_like(energy))
    scaled = layer.effects * (layer.coefficients.norm() / layer.effects.norm())
    torch.testing.assert_close(scaled, layer.coefficients)


class Magnitude(nn.Module):
    """Has no derivative where its input is silent."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.spread, self.out = (nn.Conv1d(n, m, 1, bias=False) for n, m in ((2, 6), (6, 4), (4, 2)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.spread(self.into(x))
        output: Tensor = self.out(torch.sqrt(hidden.square()))
        return output


def test_places_without_derivative_are_left_out() -> None:
    torch.manual_seed(0)
    model, x = Magnitude(), torch.randn(1, 2, 9)
    silent = torch.cat([x, torch.zeros(1, 2, 3)], -1)
    heard, padded = (read(model, [(signal, torch.zeros(()))]) for signal in (x, silent))
    for name in ("spread.weight", "out.weight"):
        assert bool(padded[name].effects.isfinite().all())
        assert float(padded[name].effects.norm()) == pytest.approx(float(heard[name].effects.norm()), rel=0.5)
    scores = prunegraph.score(prunegraph.build_graph(model, silent), "reconstruction", data=[(silent, torch.zeros(()))])
    assert all(bool(found.isfinite().all()) for found in scores.values())


class Counted(nn.Module):
    """Its input are numbers of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.out = nn.Embedding(5, 4), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.out(torch.relu(self.hidden(self.words(x))))
        return output


def test_inputs_without_derivatives_leave_relative_errors() -> None:
    torch.manual_seed(0)
    layer = read(Counted(), [(torch.arange(5)[None], torch.zeros(()))])["out.weight"]
    energy = (layer.effects * (layer.moments @ layer.effects)).sum()
    torch.testing.assert_close(energy, torch.ones_like(energy))
