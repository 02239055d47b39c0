"""MACs, parameters and memory against values derived by hand, against torch's counter and against a recount."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunegraph import DependencyGraph, apply, build_graph
from tests.dependency.cases import CASES, random_plan


class Only(nn.Module):
    """One function of one input; a parameter that is never read makes it a network."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(modules)
        self.spare = nn.Parameter(torch.zeros(1))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*self.layers, *inputs)


def macs(function: Callable[..., Tensor], *modules: nn.Module, shapes: list[tuple[int, ...]]) -> int:
    inputs = tuple(torch.randn(shape) for shape in shapes)
    return build_graph(Only(function, *modules).eval(), inputs).cost().macs


def call(layer: nn.Module, *inputs: Tensor) -> Any:
    found = layer(*inputs)
    return found[0] if isinstance(found, tuple) else found


B, T = 3, 20

BY_HAND: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "linear": (nn.Linear(6, 4), (B, T, 6), B * T * 6 * 4),
    "conv": (nn.Conv1d(6, 4, 5, stride=2, padding=1), (B, 6, T), B * 4 * 6 * 5 * ((T + 2 - 5) // 2 + 1)),
    "conv dilated": (nn.Conv1d(6, 4, 5, dilation=3), (B, 6, T), B * 4 * 6 * 5 * (T - 12)),
    "conv without batch": (nn.Conv1d(6, 4, 5), (6, T), 4 * 6 * 5 * (T - 4)),
    "grouped": (nn.Conv1d(6, 4, 5, groups=2), (B, 6, T), B * 4 * 3 * 5 * (T - 4)),
    "depthwise": (nn.Conv1d(6, 6, 5, groups=6), (B, 6, T), B * 6 * 5 * (T - 4)),
    "depthwise times two": (nn.Conv1d(6, 12, 5, groups=6), (B, 6, T), B * 12 * 5 * (T - 4)),
    "conv in 2 dimensions": (nn.Conv2d(3, 4, (3, 5)), (B, 3, 9, T), B * 4 * 3 * 15 * 7 * (T - 4)),
    "conv in 3 dimensions": (nn.Conv3d(3, 4, 2), (B, 3, 4, 5, 6), B * 4 * 3 * 8 * 3 * 4 * 5),
    "transposed": (nn.ConvTranspose1d(6, 4, 8, stride=4), (B, 6, T), B * 6 * 4 * 8 * T),
    "transposed grouped": (nn.ConvTranspose1d(6, 4, 8, stride=4, groups=2), (B, 6, T), B * 6 * 2 * 8 * T),
    "transposed depthwise": (nn.ConvTranspose1d(6, 6, 8, stride=4, groups=6), (B, 6, T), B * 6 * 8 * T),
    "transposed in 2 dimensions": (nn.ConvTranspose2d(6, 4, (4, 2)), (B, 6, 5, T), B * 6 * 4 * 8 * 5 * T),
    "lstm": (nn.LSTM(6, 5, batch_first=True), (B, T, 6), B * T * 4 * 5 * (6 + 5)),
    "lstm deep": (
        nn.LSTM(6, 5, num_layers=2, bidirectional=True),
        (T, B, 6),
        B * T * 2 * 4 * 5 * ((6 + 5) + (10 + 5)),
    ),
    "lstm projected": (nn.LSTM(6, 5, proj_size=3), (T, B, 6), B * T * (4 * 5 * (6 + 3) + 3 * 5)),
    "lstm without batch": (nn.LSTM(6, 5), (T, 6), T * 4 * 5 * (6 + 5)),
    "gru": (nn.GRU(6, 5, bidirectional=True), (T, B, 6), B * T * 2 * 3 * 5 * (6 + 5)),
    "rnn": (nn.RNN(6, 5, num_layers=3), (T, B, 6), B * T * 5 * ((6 + 5) + 2 * (5 + 5))),
    "lstm cell": (nn.LSTMCell(6, 5), (B, 6), B * 4 * 5 * (6 + 5)),
    "gru cell": (nn.GRUCell(6, 5), (B, 6), B * 3 * 5 * (6 + 5)),
    "bilinear": (nn.Bilinear(6, 5, 4), (B, 6), 0),
    "embedding costs nothing": (nn.Embedding(9, 6), (B, T), 0),
    "norms cost nothing": (nn.GroupNorm(2, 6), (B, 6, T), 0),
    "pooling costs nothing": (nn.AvgPool1d(2), (B, 6, T), 0),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", [name for name in BY_HAND if name not in ("bilinear", "embedding costs nothing")])
def test_macs_of_a_layer_by_hand(name: str) -> None:
    layer, shape, expected = BY_HAND[name]
    assert macs(call, layer, shapes=[shape]) == expected


def test_macs_of_layers_with_other_inputs() -> None:
    assert macs(call, nn.Bilinear(6, 5, 4), shapes=[(B, 6), (B, 5)]) == B * 6 * 5 * 4
    tokens = torch.zeros(B, T, dtype=torch.long)
    assert build_graph(Only(call, nn.Embedding(9, 6)), (tokens,)).cost().macs == 0


def attention_macs(width: int, heads: int, targets: int, sources: int) -> int:
    """Projections of query, key, value and output, and the two products of each head."""
    return B * (width * width * (2 * targets + 2 * sources) + 2 * heads * (width // heads) * targets * sources)


@pytest.mark.parametrize("need_weights", [True, False])
def test_macs_of_multi_head_attention(need_weights: bool) -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def attend(layer: nn.Module, query: Tensor, memory: Tensor) -> Tensor:
        return layer(query, memory, memory, need_weights=need_weights)[0]

    assert macs(attend, layer, shapes=[(B, T, 8), (B, 7, 8)]) == attention_macs(8, 2, T, 7)


def test_macs_of_a_transformer_layer() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
    assert macs(call, layer, shapes=[(B, T, 8)]) == attention_macs(8, 2, T, T) + B * T * 2 * 8 * 32


@pytest.mark.parametrize(
    "product",
    [
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        lambda q, k, v: (q @ k.transpose(-1, -2)).softmax(-1) @ v,
        lambda q, k, v: torch.einsum("bhts,bhsd->bhtd", torch.einsum("bhtd,bhsd->bhts", q, k).softmax(-1), v),
        lambda q, k, v: torch.bmm(
            torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)).softmax(-1), v.flatten(0, 1)
        ),
    ],
    ids=["fused", "matmul", "einsum", "bmm"],
)
def test_macs_of_attention_products(product: Callable[..., Tensor]) -> None:
    shapes = [(B, 2, T, 4), (B, 2, 7, 4), (B, 2, 7, 5)]
    assert macs(product, shapes=shapes) == B * 2 * T * 7 * (4 + 5)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(4, 5), (5, 6)], 4 * 5 * 6),
        ([(B, 4, 5), (5, 6)], B * 4 * 5 * 6),
        ([(4, 5), (B, 5, 6)], B * 4 * 5 * 6),
        ([(1, 4, 5), (B, 5, 6)], B * 4 * 5 * 6),
        ([(B, 4, 5), (1, 5, 6)], B * 4 * 5 * 6),
        ([(B, 1, 4, 5), (2, 5, 6)], B * 2 * 4 * 5 * 6),
        ([(5,), (5,)], 5),
        ([(B, 4, 5), (5,)], B * 4 * 5),
        ([(5,), (B, 5, 6)], B * 5 * 6),
    ],
)
def test_macs_of_products_that_broadcast(shapes: list[tuple[int, ...]], expected: int) -> None:
    assert macs(torch.matmul, shapes=shapes) == expected


def test_macs_of_a_weight_without_rows() -> None:
    assert macs(F.linear, shapes=[(B, 6), (6,)]) == B * 6


def test_macs_of_a_short_time_fourier_transform() -> None:
    """Per frame the window, and a real FFT: ``n log2 n``; as much on the way back."""
    size, hop = 64, 16

    def spectrum(x: Tensor) -> Tensor:
        return torch.stft(x, size, hop, window=torch.hann_window(size), return_complex=True)

    frames = 1 + 320 // hop
    assert macs(spectrum, shapes=[(B, 320)]) == B * frames * (size + size * math.log2(size))
    assert macs(lambda x: torch.istft(spectrum(x), size, hop, window=torch.hann_window(size)), shapes=[(B, 320)]) == (
        2 * B * frames * (size + size * math.log2(size))
    )
    assert macs(lambda x: torch.fft.rfft(x).abs(), shapes=[(B, 64)]) == B * 64 * 6
    assert macs(lambda x: torch.fft.fft(x).abs(), shapes=[(B, 64)]) == B * 2 * 64 * 6


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        (lambda x, w: F.conv1d(x, w), B * 4 * 6 * 3 * (T - 2)),
        (lambda x, w: F.linear(x.transpose(1, 2), w[..., 0]), B * T * 4 * 6),
        (lambda x, w: w[..., 0] @ x, B * T * 4 * 6),
        (lambda x, w: torch.einsum("oi,bit->bot", w[..., 0], x), B * T * 4 * 6),
    ],
    ids=["conv", "linear", "matmul", "einsum"],
)
def test_a_complex_product_counts_as_four(product: Callable[..., Tensor], expected: int) -> None:
    weight = torch.randn(4, 6, 3, dtype=torch.complex64)
    assert macs(lambda x: product(torch.complex(x, x), weight).abs(), shapes=[(B, 6, T)]) == 4 * expected


@pytest.mark.parametrize("name", ["conv", "grouped", "transposed", "linear", "conv in 2 dimensions"])
def test_macs_are_half_the_flops_that_torch_counts(name: str) -> None:
    layer, shape, _ = BY_HAND[name]
    x = torch.randn(shape)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert 2 * build_graph(Only(call, layer), (x,)).cost().macs == counter.get_total_flops()


COUNTED = [name for name in CASES if name not in ("recurrent", "gated")]
"""Networks all of whose products torch's counter sees: it does not see those of recurrent layers."""


@pytest.mark.parametrize("name", COUNTED)
def test_macs_of_networks_are_half_the_flops_that_torch_counts(name: str) -> None:
    model, x = CASES[name].example()
    model = (
        model.train() if name == "attention" else model
    )  # in eval mode attention takes a path that it does not count
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x)
    assert 2 * build_graph(model, x).cost().macs == counter.get_total_flops()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_the_cost_of_a_plan_is_that_of_the_pruned_network(name: str, seed: int) -> None:
    model, x = CASES[name].example()
    graph = build_graph(model, x)
    plan = random_plan(graph, seed)
    pruned = apply(model, plan)
    planned, counted = graph.cost(plan), build_graph(pruned, x).cost()
    assert (planned.macs, planned.parameters) == (counted.macs, counted.parameters)
    assert planned.activation_bytes == counted.activation_bytes
    assert {m.module: (m.macs, m.parameters) for m in planned.modules} == {
        m.module: (m.macs, m.parameters) for m in counted.modules
    }
    assert planned.parameters == sum(p.numel() for p in pruned.parameters())
    assert planned.macs < graph.cost().macs or graph.cost().macs == 0


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_counted_exactly(name: str) -> None:
    model, x = CASES[name].example()
    assert build_graph(model, x).cost().parameters == sum(p.numel() for p in model.parameters())


def test_unused_parameters_count_as_they_are_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    model.register_parameter("spare", nn.Parameter(torch.zeros(100)))
    graph = build_graph(model, torch.randn(2, 3))
    assert graph.cost().parameters == 24 + 8 + 16 + 2 + 100
    assert graph.cost(graph.plan({"0.weight[0]": [0]})).parameters == 3 + 1 + 2 + 2 + 100


def memory_of(*layers: nn.Module) -> DependencyGraph:
    return build_graph(nn.Sequential(*layers), torch.randn(2, 1, 16))


def test_activation_memory_by_hand() -> None:
    """Conv 1 -> 6 (14 places), ReLU, conv 6 -> 2: most is held when the ReLU has read one value and made the other."""
    graph = memory_of(nn.Conv1d(1, 6, 3), nn.ReLU(), nn.Conv1d(6, 2, 1))
    value = 2 * 6 * 14 * 4
    assert graph.cost().activation_bytes == 2 * value
    assert graph.cost(graph.plan({"0.weight[0]": [0, 1]})).activation_bytes == 2 * value / 3


def test_an_op_in_place_takes_no_memory() -> None:
    graph = memory_of(nn.Conv1d(1, 6, 3), nn.ReLU(inplace=True), nn.Conv1d(6, 2, 1))
    assert graph.cost().activation_bytes == (2 * 6 * 14 + 2 * 2 * 14) * 4


def test_a_skip_connection_holds_its_value() -> None:
    graph = build_graph(*CASES["residual"].example())
    skip, narrow = 2 * 6 * 16 * 8, 2 * 4 * 16 * 8
    assert graph.cost().activation_bytes == max(skip + 2 * narrow, skip + narrow + skip, 3 * skip)


def test_a_view_takes_no_memory_and_holds_what_it_looks_at() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            view = y.transpose(0, 1)
            return self.b(y) + self.b(view).transpose(0, 1)

    graph = build_graph(Views(), torch.randn(3, 5, 4))
    wide, narrow = 15 * 6 * 4, 15 * 2 * 4
    assert graph.cost().activation_bytes == wide + 2 * narrow


@pytest.mark.parametrize("name", CASES)
def test_modules_and_stages_add_up(name: str) -> None:
    cost = build_graph(*CASES[name].example()).cost()
    for parts in (cost.modules, tuple(cost.by_stage().values())):
        assert sum(part.macs for part in parts) == cost.macs
        assert sum(part.parameters for part in parts) == cost.parameters


def test_each_module_pays_for_itself() -> None:
    class Separator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv1d(1, 8, 4, stride=2, bias=False)
            self.separator = nn.Sequential(nn.Conv1d(8, 6, 1), nn.Conv1d(6, 8, 1))
            self.decoder = nn.ConvTranspose1d(8, 1, 4, stride=2, bias=False)
            self.gain = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            coded = self.encoder(x)
            return self.decoder(coded * self.separator(coded)) * self.gain

    stages = build_graph(Separator(), torch.randn(1, 1, 22)).cost().by_stage()
    assert {name: (stage.macs, stage.parameters) for name, stage in stages.items()} == {
        "encoder": (8 * 4 * 10, 32),
        "separator": (2 * 48 * 10, 48 + 6 + 48 + 8),
        "decoder": (8 * 4 * 10, 32),
        "(network)": (0, 1),
    }


def test_a_shared_module_pays_for_each_run_and_keeps_its_weights_once() -> None:
    cost = build_graph(*CASES["shared"].example()).cost()
    block = next(module for module in cost.modules if module.module == "block")
    assert (block.macs, block.parameters) == (3 * 2 * 6 * 6 * 3 * 16, 6 * 6 * 3 + 6)
