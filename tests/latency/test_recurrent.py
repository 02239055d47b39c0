"""Recurrent layers with threads of their own compute what torch's do."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from prunegraph import deployment, optimize
from prunegraph.capture.example import Nested
from prunegraph.modules.recurrent import ConcurrentGRU, ConcurrentLSTM

SETTINGS = [
    {},
    {"bidirectional": True},
    {"bidirectional": True, "num_layers": 3, "batch_first": True},
    {"num_layers": 2, "bias": False, "batch_first": True},
]
PAIRS = [(nn.LSTM, ConcurrentLSTM), (nn.GRU, ConcurrentGRU)]


@pytest.fixture(params=[2, 5], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def made_concurrent(layer: Any, kind: type[nn.Module]) -> None:
    layer.__class__, layer.threads = kind, torch.get_num_threads()


def check_the_same(layer: nn.RNNBase, kind: type[nn.Module], *inputs: Any) -> None:
    with torch.inference_mode():
        expected = Nested.of(layer(*inputs)).tensors
        made_concurrent(layer, kind)
        found = Nested.of(layer(*inputs)).tensors
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("usual", "concurrent"), PAIRS)
@pytest.mark.parametrize("shape", [(5, 9, 3), (1, 9, 3), (9, 1, 3), (9, 3)])
def test_the_values_and_states_are_those_of_torch(settings, usual, concurrent, shape, threads: int) -> None:
    layer = usual(3, 4, dtype=torch.float64, **settings).eval()
    assert concurrent.fits(layer)
    check_the_same(layer, concurrent, torch.randn(shape, dtype=torch.float64))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("projected", [0, 2])
def test_recurrence_goes_on_from_given_states(settings, projected: int) -> None:
    layer = nn.LSTM(3, 4, proj_size=projected, dtype=torch.float64, **settings).eval()
    count, sequences = len(layer.all_weights), 5 if layer.batch_first else 9
    states = [torch.randn(count, sequences, width, dtype=torch.float64) for width in (projected or 4, 4)]
    check_the_same(layer, ConcurrentLSTM, torch.randn(5, 9, 3, dtype=torch.float64), tuple(states))
    check_the_same(layer, ConcurrentLSTM, torch.randn(5, 9, 3, dtype=torch.float64))
    gru = nn.GRU(3, 4, dtype=torch.float64, **settings).eval()
    check_the_same(gru, ConcurrentGRU, torch.randn(5, 9, 3, dtype=torch.float64), states[1])


@pytest.mark.parametrize(("usual", "concurrent"), PAIRS)
def test_packed_sequences_run_as_in_torch(usual, concurrent) -> None:
    packed = pack_padded_sequence(torch.randn(9, 2, 3), torch.tensor([9, 4]))
    check_the_same(usual(3, 4, bidirectional=True).eval(), concurrent, packed)


@pytest.mark.parametrize(("usual", "concurrent"), PAIRS)
def test_gradients_flow_as_in_torch(usual, concurrent) -> None:
    layer, x = usual(3, 4, bidirectional=True), torch.randn(9, 2, 3)
    made_concurrent(layer, concurrent)
    layer(x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize(("usual", "concurrent"), PAIRS)
def test_wrong_inputs_are_refused_as_in_torch(usual, concurrent, threads: int) -> None:
    layer = usual(3, 4).eval()
    made_concurrent(layer, concurrent)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="Expected 3, got 7"):
        layer(torch.randn(9, 2, 7))
    assert torch.get_num_threads() == threads


def test_other_threads_keep_their_number(threads: int) -> None:
    layer, found = nn.LSTM(3, 4, bidirectional=True).eval(), []
    made_concurrent(layer, ConcurrentLSTM)
    with torch.inference_mode():
        layer(torch.randn(9, 2, 3))
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [threads]


class Wider(nn.LSTM):
    pass


@pytest.mark.parametrize("other", [nn.RNN(3, 4), Wider(3, 4), nn.LSTMCell(3, 4)])
def test_other_modules_stay_what_they_are(other: nn.Module) -> None:
    assert not ConcurrentLSTM.fits(other)
    assert not ConcurrentGRU.fits(other)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, bidirectional=True)
        self.gru = nn.GRU(8, 3)

    def forward(self, x):
        return self.gru(self.lstm(x)[0])[0]


@pytest.mark.parametrize(("times", "kinds"), [((2, 1), [ConcurrentLSTM, ConcurrentGRU]), ((1, 2), [nn.LSTM, nn.GRU])])
def test_optimize_takes_what_is_faster(times, kinds, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(calls, device, measure_for):
        for call in calls:
            call()
        return [[time] for time in (*times, 3)[: len(calls)]]

    monkeypatch.setattr(deployment, "interleaved", timed)
    model, x = Recurrent().eval(), torch.randn(9, 2, 3)
    fast = optimize(model, x, compiled=False)
    assert [type(module) for module in fast.network.children()] == kinds
    assert [type(module) for module in model.children()] == [nn.LSTM, nn.GRU]
    torch.testing.assert_close(fast(x), model(x).detach())
