"""Small networks around one family of ops each: pruned at random, run, and compared with the exact masked program."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunegraph import apply, build_graph, verify


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.rnn = kind(6, 8, batch_first=True, **options)
        self.head = nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


class TimeFirst(nn.Module):
    """A convolution over (time, batch, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(8, 8, 1), nn.Linear(6, 2)
        self.weight, self.bias = nn.Parameter(torch.randn(3, 8, 6)), nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.conv_tbc(self.first(x).permute(2, 0, 1).contiguous(), self.weight, self.bias, 1))


class States(nn.Module):
    """Final states of one recurrence start another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(6, 8, batch_first=True), nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (h, c) = self.first(x)
        y, (_, d) = self.second(x, (h, c))
        return self.head(torch.cat([y, d.transpose(0, 1).expand_as(y)], -1))


class Stepwise(nn.Module):
    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.cell = kind(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(outputs, 1))


class Heads(nn.Module):
    """Written-out multi-head attention around the fused product."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.heads, self.width, self.scaled = 3, 4, scaled
        self.qkv = nn.Linear(6, 3 * self.heads * self.width)
        self.out = nn.Linear(self.heads * self.width, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.width**-0.5 if self.scaled else None)
        return self.out(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class Named(nn.Module):
    """Projections and attention written with einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Parameter(torch.randn(6, 3, 4)) for _ in range(3))
        self.out = nn.Parameter(torch.randn(3, 4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.einsum("btc,chd->bhtd", x, w) for w in (self.query, self.key, self.value))
        weights = torch.einsum("...td,...sd->...ts", q, k).softmax(-1)
        return torch.einsum("bhts,bhsd,hdc->btc", weights, v, self.out)


class Scaled(nn.Module):
    """Products with factors computed from a width, and a gate that is broadcast by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.gate = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key = self.query(x), self.key(x)
        bias, width = torch.ones_like(x[:, :, :1]), query.shape[-1]
        weights = torch.baddbmm(bias, query, key.mT, alpha=width**-0.5, beta=1 / width).softmax(-1)
        values, gate = torch.broadcast_tensors(weights @ key, self.gate(x).mean(1, keepdim=True))
        return self.out(values * gate.sigmoid())


class Spectral(nn.Module):
    """A mask from a spectrogram, and a filter in the frequency domain of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv1d(10, 8, 1), nn.Conv1d(8, 10, 1)
        self.register_buffer("window", torch.hann_window(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x.flatten(1), 8, 4, window=self.window.to(x), return_complex=True)
        pairs = torch.view_as_real(spectrum)
        hidden = torch.fft.irfft(
            torch.fft.rfft(self.into(pairs.permute(0, 3, 1, 2).flatten(1, 2))) * 1j, n=pairs.shape[2]
        )
        mask = torch.view_as_complex(self.out(hidden).unflatten(1, (2, -1)).permute(0, 2, 3, 1).contiguous())
        return torch.istft(spectrum * mask, 8, 4, window=self.window.to(x))


class Positions(nn.Module):
    """Embedded positions, gathered and scattered frames."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.place, self.out = nn.Linear(6, 8), nn.Embedding(20, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x) + self.place(torch.arange(x.shape[1]))
        order = torch.arange(x.shape[1]).flip(0)[None, :, None].expand(x.shape[0], -1, y.shape[-1])
        y = y.gather(1, order)
        y[y > 1] = 0.0
        y = y.index_add(1, torch.arange(2, 0, -1), y[:, torch.arange(1, 3)])
        return self.out(torch.zeros_like(y).scatter_add(1, order, y))


class Space(nn.Module):
    """Down and up again by pooling, resampling and sub-pixel rearrangement."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.mid, self.up = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 16, 1)
        self.merge, self.taps, self.out = nn.Conv2d(20, 6, 1), nn.Conv1d(54, 54, 1), nn.Conv2d(6, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, None]
        skip = self.into(x)
        y = F.channel_shuffle(self.mid(F.max_pool2d(skip, 2)), 3)
        fine = F.pixel_shuffle(self.up(y), 2)
        coarse = F.interpolate(y, size=skip.shape[-2:], mode="bilinear")
        merged = self.merge(torch.cat([fine, coarse, F.adaptive_avg_pool2d(fine, 1).expand_as(fine)], 1))
        return self.out(F.fold(self.taps(F.unfold(merged, 3)), merged.shape[-2:], 3))[:, 0]


class Covariance(nn.Module):
    """A covariance with a loaded diagonal, and a weight per channel written as a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 6)
        self.weight, self.mix = nn.Parameter(torch.rand(8)), nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x).mT
        covariance = y @ y.mT + 0.1 * torch.eye(y.size(1)).to(y)
        covariance.diagonal(dim1=1, dim2=2).add_(0.1)
        mix = self.mix - torch.diag(torch.diagonal(self.mix))
        y = torch.diag(self.weight) @ covariance @ mix @ torch.diag_embed(self.weight) @ y
        return self.out(y.mean(-1) @ torch.addbmm(self.mix, y, y.mT))


class Series(nn.Module):
    """Differences, integrals, quantiles and distances along time, and across channels where that can be done."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv1d(8, 8, 1), nn.Conv1d(8, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x)
        y = torch.diff(y, dim=2, prepend=y[..., :1]) - torch.quantile(y, 0.5, dim=2, keepdim=True)
        y = y + torch.trapezoid(y, dim=2).unsqueeze(-1) + torch.rot90(y, 2, (0, 2))
        distance = F.pairwise_distance(y.mT, y.mean(2)[:, None], eps=0.1)
        return self.out(torch.renorm(y, 2, 0, 1.0) * distance.unsqueeze(1))


class Constants(nn.Module):
    """Positions written in the code as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.into(x)[:, torch.tensor([3, 0, 1])])


class Applied(nn.Module):
    """A function of two values; what it returns beside the first result is an output."""

    def __init__(self, function: Callable[..., tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        self.function = function
        self.first, self.second, self.out = nn.Conv1d(8, 8, 1), nn.Conv1d(8, 8, 1), nn.LazyConv1d(6, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        value, *others = self.function(self.first(x), self.second(x).abs())
        return (self.out(value), *others)


class Likened(nn.Module):
    """A gate over rows, put back into the shape of its input, which has other channels than its state."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.into, self.state = nn.Linear(6, 8), nn.Linear(6, 8)
        self.gate, self.out = nn.GRUCell(8, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x)
        gated = self.gate(y.flatten(0, 1), self.state(x).flatten(0, 1))
        return self.out(getattr(gated, self.way)(y))


class GroupedQueries(nn.Module):
    """More heads of queries than of keys, and more than each is wide; the normalisation sees the width."""

    def __init__(self, heads: int, groups: int, width: int) -> None:
        super().__init__()
        self.heads, self.groups, self.width = heads, groups, width
        self.normalised = nn.RMSNorm(width)
        self.q, self.k = nn.Linear(6, heads * width), nn.Linear(6, groups * width)
        self.v, self.out = nn.Linear(6, groups * width), nn.Linear(heads * width, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = [(*x.shape[:2], heads, self.width) for heads in (self.heads, self.groups, self.groups)]
        q, k, v = (layer(x).view(size) for layer, size in zip((self.q, self.k, self.v), sizes, strict=True))
        q, k = self.normalised(q), self.normalised(k)
        y = nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), enable_gqa=True
        )
        return self.out(y.transpose(1, 2).flatten(2))


class PartlyTurned(nn.Module):
    """Some channels are taken for complex numbers, as rotary positions do with a part of each head."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.rotary = 6, 4
        self.into, self.out = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain, rotary = self.into(x).split([self.plain, self.rotary], -1)
        turned = torch.view_as_complex(rotary.view(*rotary.shape[:-1], -1, 2)) * 1j
        return self.out(torch.cat([plain, torch.view_as_real(turned).flatten(2)], -1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[int]]] = {
    "lstm": (lambda: Recurrent(nn.LSTM), [8]),
    "lstm-deep": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), [8]),
    "lstm-projected": (lambda: Recurrent(nn.LSTM, num_layers=2, proj_size=5, bidirectional=True), [2, 5]),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True, bias=False), [8]),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), [8]),
    "states": (States, [8]),
    "lstm-cell": (lambda: Stepwise(nn.LSTMCell), [8]),
    "gru-cell": (lambda: Stepwise(nn.GRUCell), [8]),
    "rnn-cell": (lambda: Stepwise(nn.RNNCell), [8]),
    "heads": (lambda: Heads(False), [4]),
    "heads-scaled": (lambda: Heads(True), [4]),
    "scaled": (Scaled, [8]),
    "grouped-inputs": (lambda: nn.Sequential(nn.Conv1d(8, 24, 3, groups=8), nn.ReLU(), nn.Conv1d(24, 2, 1)), [3]),
    "einsum": (Named, [3, 4, 4]),
    "spectral": (Spectral, [8]),
    "positions": (Positions, [8]),
    "constants": (Constants, [8]),
    "covariance": (Covariance, [8]),
    "series": (Series, [8]),
    "reshape-as": (lambda: Likened("reshape_as"), [8]),
    "view-as": (lambda: Likened("view_as"), [8]),
    "joined-channels": (lambda: Applied(lambda y, z: (torch.hstack([y, torch.fliplr(z)]),)), [8, 8]),
    "joined-batches": (lambda: Applied(lambda y, z: (torch.vstack([y, torch.flipud(z)]),)), [8]),
    "joined-times": (lambda: Applied(lambda y, z: (torch.dstack([torch.absolute(y), z]),)), [8]),
    "loss-of-each": (lambda: Applied(lambda y, z: (y, F.mse_loss(y, z, reduction="none").mean((1, 2)))), [8]),
    "bounds-for-each": (lambda: Applied(lambda y, z: (y.clamp(min=z.mean((0, 2))[:, None]),)), [8]),
    "bounds-of-a-scalar": (lambda: Applied(lambda y, z: (y * torch.clamp(y.mean(), z.mean((0, 2))[:, None]),)), [8]),
    "highest-of-some": (
        lambda: Applied(lambda y, z: (z - y.masked_fill(y < 0, -math.inf).amax(1, keepdim=True).clamp(-9, 9),)),
        [8, 8],
    ),
    "losses": (
        lambda: Applied(lambda y, z: (y, F.mse_loss(y, z), F.l1_loss(y, z, reduction="sum"), F.huber_loss(y, z))),
        [8],
    ),
    "loss-of-logits": (
        lambda: Applied(
            lambda y, z: (y, F.binary_cross_entropy_with_logits(y, z, pos_weight=z.detach().mean(-1, keepdim=True)))
        ),
        [8],
    ),
    "windows-of-the-memory": (lambda: nn.Sequential(nn.Conv1d(8, 8, 1), Windowed(), nn.Conv1d(8, 2, 1)), [8]),
    "complex-as-real": (
        lambda: Applied(lambda y, z: (torch.complex(y, z).view(y.dtype)[..., ::2] + z,)),
        [8],
    ),
    "flattened-and-back": (
        lambda: nn.Sequential(nn.Conv1d(8, 6, 1), nn.Flatten(), nn.Unflatten(1, (6, -1)), nn.Conv1d(6, 2, 1)),
        [6],
    ),
    "masks-in-place": (lambda: Applied(lambda y, z: (y * (y > 0).__iand__(z > 1),)), [8]),
    "inverted-covariance": (
        lambda: Applied(lambda y, z: (y @ torch.linalg.inv(torch.eye(6, dtype=y.dtype) + y.mT @ y) + z,)),
        [8],
    ),
    "space": (Space, [4, 4, 6, 6, 8]),
    "split-by-axis": (lambda: Applied(lambda y, z: (torch.cat(torch.hsplit(y, 2)[::-1], 1) * z,)), [4]),
    "gradient-over-time": (lambda: Applied(lambda y, z: (torch.gradient(y, dim=2)[0] * z,)), [8]),
    "time-first-convolution": (TimeFirst, [6, 8]),
    "nothing-dropped": (lambda: Applied(lambda y, z: (F.dropout(y, 0.0, training=True) * z,)), [8]),
    "joined-with-nothing": (
        lambda: Applied(lambda y, z: (torch.cat([y, torch.cat([y.new_empty(0)] * 2)], 1) * z,)),
        [8],
    ),
    "product-of-several": (
        lambda: Applied(
            lambda y, z: (torch.stack([torch.linalg.multi_dot([v, v.T, w]) for v, w in zip(y, z, strict=True)]),)
        ),
        [8],
    ),
    "products-of-vectors": (
        lambda: Applied(
            lambda y, z: (
                torch.stack([v.addr(w.mean(1), w.mean(0)) for v, w in zip(y, z, strict=True)]),
                torch.linalg.vecdot(y, z, dim=1),
            )
        ),
        [8],
    ),
    "norm-of-a-matrix": (lambda: Applied(lambda y, z: (y / torch.linalg.matrix_norm(z, keepdim=True),)), [8, 8]),
    "distance": (lambda: Applied(lambda y, z: (y / torch.dist(y, z, 3),)), [8]),
    "scattered-into-a-copy": (
        lambda: Applied(lambda y, z: (y.select_scatter(z[..., 0], 2, 1).slice_scatter(z[..., :2], 2, -3, -1),)),
        [8],
    ),
    "padded-to-the-longest": (
        lambda: Applied(lambda y, z: (nn.utils.rnn.pad_sequence([y[0].T, z[1, :, :-2].T], batch_first=True).mT,)),
        [8],
    ),
    "grid": (
        lambda: Applied(
            lambda y, z: (
                torch.stack(
                    [sum(torch.meshgrid(v.mean(1), w.mean(0), indexing="ij")) for v, w in zip(y, z, strict=True)]
                ),
                torch.meshgrid(y.mean((0, 1)), z.mean((0, 2)), indexing="xy")[0].mul(z[0]),
            )
        ),
        [8],
    ),
    "complex-pairs-cut-out": (PartlyTurned, [2, 3]),
    "grouped-queries-of-narrow-heads": (lambda: GroupedQueries(heads=8, groups=2, width=6), [6]),
    "blocks-on-the-diagonal": (
        lambda: Applied(
            lambda y, z: (
                torch.block_diag(*(v @ w.T for v, w in zip(y, z, strict=True)))[: y.shape[1]][None] @ y.repeat(1, 2, 1),
            )
        ),
        [8],
    ),
    "quantised-for-training": (
        lambda: Applied(
            lambda y, z: (
                torch.fake_quantize_per_tensor_affine(y, 0.1, 0, -128, 127)
                + torch.fake_quantize_per_channel_affine(
                    z, z.mean((0, 2)).detach().float(), z.mean((0, 2)).detach().int(), 1, -128, 127
                ),
            )
        ),
        [8],
    ),
    "repeated-to-a-size": (
        lambda: Applied(
            lambda y, z: (y.repeat_interleave(2, 1, output_size=2 * y.shape[1]) / z.new_full((1,), z.shape[1]),)
        ),
        [8, 8],
    ),
    "padded-by-name": (
        lambda: Applied(
            lambda y, z: (torch._C._nn.reflection_pad1d(y, (2, 1)) + torch._C._nn.replication_pad1d(z, (2, 1)),)
        ),
        [8],
    ),
    "compared": (lambda: Applied(lambda y, z: (y + z if torch.equal(y, y) and not torch.allclose(y, z) else y,)), [8]),
    "repeated-over-channels": (
        lambda: Applied(lambda y, z: (y + z.mean(1, keepdim=True).repeat_interleave(y.shape[1], 1),)),
        [8, 8],
    ),
    "as-often-as-a-tensor-says": (
        lambda: Applied(
            lambda y, z: (y.repeat_interleave(torch.arange(6), 2) + z.repeat_interleave(15 // 6, 2)[..., :1],)
        ),
        [8],
    ),
    "each-twice": (
        lambda: Applied(lambda y, z: (y * z.mean((0, 2)).repeat_interleave(2).unflatten(0, (-1, 2)).sum(-1, True),)),
        [8],
    ),
}


class Windowed(nn.Module):
    """Overlapping windows by the strides of the memory, as Demucs cuts them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channel, time = x.contiguous().stride()
        return x.contiguous().as_strided((*x.shape[:2], 2, 4), (batch, channel, 2 * time, time)).mean(-1)


class Pieces(nn.Module):
    """Cuts the channels, treats the pieces differently and puts them together in another order."""

    def __init__(self, cut: Callable[[torch.Tensor], Sequence[torch.Tensor]]) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = self.cut(x)
        return torch.cat([*others[::-1], first.sigmoid()], 1)


CUTS: dict[str, tuple[int, int, Callable[[torch.Tensor], Sequence[torch.Tensor]]]] = {
    "chunks": (16, 4, lambda x: x.chunk(3, 1)),
    "fewer chunks than asked for": (10, 2, lambda x: x.chunk(7, 1)),
    "fewer chunks, the last one shorter": (14, 2, lambda x: x.chunk(6, 1)),
    "sections": (16, 5, lambda x: x.tensor_split(3, 1)),
    "places counted from the end": (16, 0, lambda x: x.tensor_split((-6,), 1)),
}


@pytest.mark.parametrize("way", CUTS)
def test_unequal_pieces_are_still_cut_at_their_places(way: str) -> None:
    channels, common, cut = CUTS[way]
    model = nn.Sequential(nn.Conv1d(8, channels, 1), Pieces(cut), nn.Conv1d(channels, 2, 1)).double()
    graph = build_graph(model, x := torch.randn(2, 8, 6).double())
    assert [group.width for group in graph.groups] == [common] * (common > 0)
    for kept in range(1, common):
        plan = graph.plan({group.name: range(kept) for group in graph.groups})
        assert verify(model, apply(model, plan), plan, x, graph=graph).difference <= 1e-10


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_pruned_networks_equal_their_masked_programs(name: str) -> None:
    build, widths = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6)
    model = build()
    model(x)
    model, x = model.double().eval(), x.double()
    graph = build_graph(model, x)
    assert dict(graph.without_rule) == {}
    assert sorted(group.width for group in graph.groups) == widths
    rng = np.random.default_rng(0)
    kept = {g.name: sorted(rng.choice(g.width, max(1, g.width // 2), replace=False).tolist()) for g in graph.groups}
    plan = graph.plan(kept)
    report = verify(model, apply(model, plan), plan, x, graph=graph)
    assert report.difference <= 1e-10
    assert graph.cost(plan).parameters < graph.cost().parameters
