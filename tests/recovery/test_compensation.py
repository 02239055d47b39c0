"""Closed-form compensation against explicit least squares, and exact where exactness is possible."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import prunegraph
from prunegraph.contractions import contractions
from prunegraph.errors import InputError, PlanError, UnsupportedModelError
from prunegraph.recovery.compensation import compensate


def _inputs(*shape: int, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def _tie_last_channels(first: nn.Module, kept: int, dim: int = 0) -> None:
    """Makes the channels from ``kept`` on linear combinations of those before."""
    mixing = torch.randn(first.weight.shape[dim] - kept, kept, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for tensor, along in ((first.weight, dim), (first.bias, 0)):
            rows = tensor.movedim(along, 0)
            rows[kept:] = torch.tensordot(mixing, rows[:kept], 1)


class _Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.cell = nn.Linear(3, 8), nn.LSTMCell(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.cell(self.first(x))
        return hidden


class _Recurrent(nn.Module):
    def __init__(self, kind: type, packed: bool = False, **options: bool) -> None:
        super().__init__()
        self.first, self.rnn, self.packed = nn.Linear(3, 8), kind(8, 4, batch_first=True, **options), packed

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 5]), batch_first=True)
            return nn.utils.rnn.pad_packed_sequence(self.rnn(x)[0])[0]
        return self.rnn(x)[0]


class _Functional(nn.Module):
    """Calls the ops by itself, one layer twice, and changes an input of a layer afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Conv1d(2, 8, 3), nn.Conv1d(8, 8, 1)
        self.last = nn.Parameter(torch.randn(2, 8, 3) / 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.shared(self.shared(x))
        return F.conv1d(input=y, weight=self.last, padding="same")


def _old_weight_norm(module: nn.Module, **options: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, **options)


NETWORKS = {
    "weight norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 8, 3), weight_norm(nn.Conv1d(8, 4, 5, padding=2))),
        (2, 2, 40),
    ),
    "old weight norm": (
        lambda: nn.Sequential(nn.Linear(3, 8), _old_weight_norm(nn.Linear(8, 4))),
        (2, 20, 3),
    ),
    "transposed, old weight norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 8, 3), _old_weight_norm(nn.ConvTranspose1d(8, 2, 4, 2), dim=1)),
        (2, 2, 30),
    ),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 8, 3), nn.Conv1d(8, 4, 5, stride=2, padding=2, dilation=2)),
        (2, 2, 40),
    ),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 4, (3, 1), padding=(1, 0))), (2, 2, 12, 13)),
    "linear": (lambda: nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 4)), (2, 20, 3)),
    "transposed": (lambda: nn.Sequential(nn.Conv1d(2, 8, 3), nn.ConvTranspose1d(8, 2, 7, 3, 2, 1)), (2, 2, 30)),
    "transposed2d": (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 2, (4, 3), (2, 3))), (1, 1, 9, 8)),
    "lstm": (lambda: _Recurrent(nn.LSTM, bidirectional=True), (2, 9, 3)),
    "gru": (lambda: _Recurrent(nn.GRU, bias=False), (2, 9, 3)),
    "packed": (lambda: _Recurrent(nn.LSTM, packed=True), (2, 7, 3)),
    "cell": (_Cells, (16, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_that_others_can_replace_cost_nothing(name: str) -> None:
    """Dropped channels are exact linear combinations of the kept ones, so nothing need be lost."""
    factory, shape = NETWORKS[name]
    torch.manual_seed(0)
    dense = factory().eval()
    first = next(module for module in dense.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear))
    _tie_last_channels(first, 5)
    inputs = _inputs(*shape)
    graph = prunegraph.build_graph(dense, inputs[0])
    plan = graph.plan({next(g.name for g in graph.groups if g.width == 8): range(5)})
    pruned = prunegraph.apply(dense, plan)
    before = {key: tensor.clone() for key, tensor in pruned.state_dict().items()}
    found = compensate(dense, pruned, plan, inputs, ridge=1e-10)
    fresh = torch.randn(*shape)
    error = (found.model(fresh) - dense(fresh)).norm() / dense(fresh).norm()
    assert error < 1e-5
    assert (pruned(fresh) - dense(fresh)).norm() / dense(fresh).norm() > 0.05
    assert found.layers
    assert all(layer.before > 0.05 and layer.after < 1e-5 for layer in found.layers)
    assert all(torch.equal(before[key], tensor) for key, tensor in pruned.state_dict().items())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("ridge", [1e-12, 0.1])
def test_the_solution_is_that_of_explicit_least_squares(bias: bool, ridge: float) -> None:
    """The rows of the ridge problem, written out: windows, and below them the penalty on the change of the weights."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Conv1d(4, 2, 2, bias=bias)).double()
    inputs = [tensor.double() for tensor in _inputs(2, 1, 15)]
    graph = prunegraph.build_graph(dense, inputs[0])
    plan = graph.plan({graph.groups[0].name: [0, 2]})
    pruned = prunegraph.apply(dense, plan)
    found = compensate(dense, pruned, plan, inputs, ridge=ridge)
    rows, targets = [], []
    for x in inputs:
        with torch.no_grad():
            hidden, wanted = pruned[:2](x).numpy(), dense(x).numpy()
        for sample, output in zip(hidden, wanted, strict=True):
            rows += [np.append(sample[:, t : t + 2].ravel(), float(bias)) for t in range(output.shape[1])]
            targets += list(output.T)
    a, y = np.array(rows), np.array(targets)
    old = np.append(pruned[2].weight.detach().numpy().reshape(2, -1), np.zeros((2, 1)), 1).T
    if bias:
        old[-1] = pruned[2].bias.detach().numpy()
    features = a[:, :-1]
    spread = features - features.mean(0) if bias else features
    weight = np.sqrt(ridge * np.square(spread).sum(0).mean())
    penalty = np.append(weight * np.eye(4), np.zeros((4, 1)), 1)
    change = np.linalg.lstsq(np.append(a, penalty, 0), np.append(y - a @ old, np.zeros((4, 2)), 0))[0]
    solution = old + change
    assert np.allclose(found.model[2].weight.detach().numpy().reshape(2, -1).T, solution[:-1], atol=1e-9)
    if bias:
        assert np.allclose(found.model[2].bias.detach().numpy(), solution[-1], atol=1e-9)
    (layer,) = found.layers
    assert layer.weight == "2.weight"
    assert layer.before == pytest.approx(np.linalg.norm(y - a @ old) / np.linalg.norm(y), abs=1e-9)
    assert layer.after == pytest.approx(np.linalg.norm(y - a @ solution) / np.linalg.norm(y), abs=1e-7)


CALLS = {
    "conv1d": (F.conv1d, (2, 4, 11), (6, 4, 3), {"stride": 2, "padding": 1, "dilation": 2}),
    "grouped": (F.conv1d, (2, 4, 11), (6, 2, 3), {"groups": 2, "padding": "same"}),
    "conv2d": (F.conv2d, (4, 9, 8), (6, 4, 3, 2), {"stride": (2, 1), "padding": (0, 1)}),
    "conv3d": (F.conv3d, (1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {}),
    "transposed": (F.conv_transpose1d, (2, 4, 5), (4, 3, 7), {"stride": 3, "padding": 2, "output_padding": 2}),
    "transposed short": (F.conv_transpose1d, (2, 4, 5), (4, 3, 2), {"stride": 3}),
    "transposed2d": (F.conv_transpose2d, (4, 5, 4), (4, 3, 4, 3), {"stride": (2, 3), "padding": (3, 0)}),
    "linear": (F.linear, (2, 3, 4), (6, 4), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_windows_times_coefficients_are_the_output(name: str) -> None:
    """The problem is put rightly: solved for the weights that made the output, it gives those weights."""
    function, input_shape, weight_shape, options = CALLS[name]
    torch.manual_seed(0)
    x, weight = torch.randn(input_shape).double(), torch.randn(weight_shape).double()
    (call,) = contractions(function, (x, weight), options)
    gram, cross = {}, {}
    for chunk in call.chunks(call.output()):
        for block, (windows, outputs) in enumerate(zip(chunk.windows, chunk.outputs, strict=True)):
            at = block + (chunk.blocks.start or 0)
            gram[at] = gram.get(at, 0) + windows.T @ windows
            cross[at] = cross.get(at, 0) + windows.T @ outputs
    solved = torch.stack([torch.linalg.pinv(gram[at], hermitian=True) @ cross[at] for at in range(call.blocks)])
    (same,) = contractions(function, (x, call.as_weight(solved)), options)
    assert torch.allclose(same.output(), function(x, weight, **options), atol=1e-9)
    assert sum(float(c.outputs.sum()) for c in call.chunks(call.output())) == pytest.approx(float(call.output().sum()))


def test_shared_layers_and_functional_calls_are_fitted_over_all_uses() -> None:
    torch.manual_seed(0)
    dense, inputs = _Functional().eval(), _inputs(2, 2, 30)
    graph = prunegraph.build_graph(dense, inputs[0])
    (group,) = graph.groups
    plan = graph.plan({group.name: range(6)})
    found = compensate(dense, prunegraph.apply(dense, plan), plan, inputs)
    assert [layer.weight for layer in found.layers] == ["shared.weight", "last"]
    assert all(layer.after < layer.before for layer in found.layers)


class _WrittenOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rnn, self.last = nn.Linear(3, 8), nn.LSTM(8, 6, num_layers=2), nn.Parameter(torch.randn(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("tbc,co->tbo", self.rnn(self.first(x))[0], self.last)


def test_what_cannot_be_fitted_is_listed() -> None:
    torch.manual_seed(0)
    dense, inputs = _WrittenOut().eval(), _inputs(5, 2, 3)
    graph = prunegraph.build_graph(dense, inputs[0])
    plan = graph.plan({group.name: range(group.width // 2) for group in graph.groups})
    found = compensate(dense, prunegraph.apply(dense, plan), plan, inputs)
    assert [layer.weight for layer in found.layers] == ["rnn.weight_ih_l0"]
    assert set(found.skipped) == {"rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1", "last"}


def test_weights_that_cannot_be_set_are_listed() -> None:
    torch.manual_seed(0)
    dense, inputs = (
        nn.Sequential(nn.Linear(3, 8), spectral_norm(nn.Linear(8, 4)), nn.Linear(4, 2)).eval(),
        _inputs(5, 3),
    )
    graph = prunegraph.build_graph(dense, inputs[0])
    plan = graph.plan({group.name: range(group.width // 2) for group in graph.groups})
    found = compensate(dense, prunegraph.apply(dense, plan), plan, inputs)
    assert [layer.weight for layer in found.layers] == ["2.weight"]
    assert found.skipped == ("1.parametrizations.weight.original",)


def test_later_layers_make_good_for_earlier_ones() -> None:
    """On a network in which nothing is redundant the whole output still gets nearer to the dense one."""
    torch.manual_seed(0)
    layers = [nn.Conv1d(1, 16, 5), nn.ReLU(), nn.Conv1d(16, 16, 3), nn.GroupNorm(1, 16), nn.ReLU(), nn.Conv1d(16, 2, 1)]
    dense, inputs = nn.Sequential(*layers), _inputs(4, 1, 200)
    result = prunegraph.prune(dense, inputs[0], budget=prunegraph.Budget(ratio=0.3))
    found = compensate(dense, result.model, result.plan, inputs)
    fresh = torch.randn(4, 1, 200)
    with torch.no_grad():
        errors = [float((model(fresh) - dense(fresh)).norm()) for model in (result.model, found.model)]
    assert errors[1] < 0.7 * errors[0]
    assert found.model.training
    assert dense.training


class _Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(x, x, x, need_weights=False)[0])


def test_attention_is_looked_into() -> None:
    torch.manual_seed(0)
    dense, inputs = _Attending(), _inputs(2, 12, 8)
    result = prunegraph.prune(dense, inputs[0], budget=prunegraph.Budget(macs=0.6))
    found = compensate(dense, result.model, result.plan, inputs)
    assert "attention.out_proj.weight" in [layer.weight for layer in found.layers]
    assert all(layer.after <= layer.before for layer in found.layers)


def _pruned() -> tuple[Any, ...]:
    torch.manual_seed(0)
    dense, inputs = nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 2, 1)), _inputs(1, 1, 30)
    result = prunegraph.prune(dense, inputs[0], budget=prunegraph.Budget(macs=0.5))
    return dense, result.model, result.plan, inputs


class Conditioned(nn.Module):
    """A linear map reads the same vector always."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 12, 8, 4), nn.Conv1d(12, 1, 1)
        self.condition, self.film = nn.Parameter(torch.randn(1, 10)), nn.Linear(10, 24)

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.film(self.condition)[..., None].chunk(2, 1)
        return self.last(torch.relu(self.first(x) * (1 + gain) + shift))


def test_what_is_always_the_same_is_made_up_for_by_the_bias() -> None:
    torch.manual_seed(0)
    dense, x = Conditioned().eval(), torch.randn(2, 1, 400)
    result = prunegraph.prune(dense, x, criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    errors = {layer.weight: layer for layer in compensate(dense, result.model, result.plan, [x]).layers}
    assert errors["film.weight"].before > 0.1
    assert errors["film.weight"].after < 1e-6


def test_wrong_input_is_refused() -> None:
    dense, pruned, plan, inputs = _pruned()
    with pytest.raises(InputError, match="some inputs"):
        compensate(dense, pruned, plan, [])
    with pytest.raises(InputError, match="ridge"):
        compensate(dense, pruned, plan, inputs, ridge=0.0)
    with pytest.raises(InputError, match=r"1\.weight meets values that are not finite"):
        compensate(dense, pruned, plan, [inputs[0] * float("nan")])
    with pytest.raises(PlanError, match="another network"):
        compensate(pruned, pruned, plan, inputs)
    with pytest.raises(PlanError, match="expected a PruningPlan, got NoneType"):
        compensate(dense, pruned, None, inputs)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError, match=r"expected a torch\.nn\.Module, got PruningPlan"):
        compensate(dense, plan, plan, inputs)  # type: ignore[arg-type]


def test_the_same_inputs_give_the_same_bits_and_leave_the_generators_alone() -> None:
    arguments = _pruned()
    state = torch.get_rng_state()
    first, second = (compensate(*arguments).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_it_works_where_the_network_is() -> None:
    dense, pruned, plan, inputs = _pruned()
    expected = compensate(dense, pruned, plan, inputs)
    found = compensate(dense.cuda(), pruned.cuda(), plan, [x.cuda() for x in inputs])
    for ours, theirs in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        assert ours.is_cuda
        assert torch.allclose(ours.cpu(), theirs.cpu(), atol=1e-4)


class _PerChannel(nn.Module):
    """Maps over frequency, channel by channel, as TFC-TDF networks do; the channels are pruned, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.narrow, self.widen = nn.Linear(10, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.widen(torch.relu(self.narrow(x))))


class _Picked(nn.Module):
    """Applies a layer where data say so."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        picked = x.mean(-1) > 0
        y = torch.zeros_like(x)
        y[picked] = self.middle(x[picked])
        return self.last(x + y)


@pytest.mark.parametrize(("network", "weight"), [(_PerChannel, "widen.weight"), (_Picked, "middle.weight")])
def test_layers_that_meet_other_positions_are_skipped(network: type[nn.Module], weight: str) -> None:
    torch.manual_seed(0)
    model, inputs = network().eval(), _inputs(2, 1, 12, 10)
    result = prunegraph.prune(model, inputs[0], criterion="l1", budget=prunegraph.Budget(ratio=0.4))
    compensated = compensate(model, result.model, result.plan, inputs)
    assert compensated.skipped == (weight,)
    assert weight not in {layer.weight for layer in compensated.layers}
    assert {layer.weight for layer in compensated.layers} >= {"last.weight"}
