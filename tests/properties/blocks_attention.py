"""Attention over time: written out in many ways, and torch's own modules."""

import math
import warnings
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONGEST = 64
"""Length of the masks and encodings kept in buffers."""


class WrittenAttention(nn.Module):
    """Multi-head attention as it is usually written; ``width`` is that of one head."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        heads: Literal[1, 2],
        project: Literal["three linear", "one linear", "view and unbind", "conv"],
        sizes: Literal["attribute", "shape", "minus one", "hard-coded"],
        product: Literal["matmul", "einsum", "bmm", "sdpa"],
        scale: Literal["attribute", "math", "shape", "numpy", "none"],
        mask: Literal["none", "causal buffer", "relative bias", "made causal"],
    ) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.inner = heads * width
        self.sizes, self.project, self.product, self.scaling, self.mask = sizes, project, product, scale, mask
        self.scale = width**-0.5
        self.constants = (lambda: (heads, width)) if sizes == "hard-coded" else None
        if project == "three linear":
            self.q, self.k, self.v = (nn.Linear(channels, self.inner) for _ in range(3))
        elif project == "conv":
            self.qkv = nn.Conv1d(channels, 3 * self.inner, 1)
        else:
            self.qkv = nn.Linear(channels, 3 * self.inner, bias=False)
        self.out = nn.Linear(self.inner, channels)
        self.bias = nn.Parameter(torch.randn(heads, 2 * LONGEST) * 0.3)
        self.register_buffer("causal", torch.tril(torch.ones(1, 1, LONGEST, LONGEST)))
        self.out_channels = channels

    def split(self, x: Tensor) -> Tensor:
        """``(batch, time, heads * width)`` to ``(batch, heads, time, width)``."""
        batch, time, inner = x.shape
        if self.sizes == "attribute":
            x = x.view(batch, time, self.heads, self.width)
        elif self.sizes == "shape":
            x = x.reshape(batch, time, self.heads, inner // self.heads)
        elif self.constants is not None:
            x = x.reshape(batch, time, *self.constants())
        else:
            x = x.reshape(batch, time, self.heads, -1)
        return x.transpose(1, 2)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.project == "conv":
            return tuple(self.split(part.transpose(1, 2)) for part in self.qkv(x).chunk(3, dim=1))
        x = x.transpose(1, 2)
        if self.project == "three linear":
            return tuple(self.split(layer(x)) for layer in (self.q, self.k, self.v))
        if self.project == "one linear":
            return tuple(self.split(part) for part in self.qkv(x).split(self.inner, dim=-1))
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        if self.scaling == "attribute":
            q = q * self.scale
        elif self.scaling == "math":
            q = q / math.sqrt(self.width)
        elif self.scaling == "numpy":
            q = q / float(np.sqrt(self.width))
        elif self.scaling == "shape":
            q = q * q.shape[-1] ** -0.5
        if self.product == "matmul":
            return q @ k.transpose(-2, -1)
        if self.product == "einsum":
            return torch.einsum("bhid,bhjd->bhij", q, k)
        return torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).unflatten(0, (-1, self.heads))

    def masked(self, scores: Tensor) -> Tensor:
        time = scores.shape[-1]
        if self.mask == "causal buffer":
            return scores.masked_fill(self.causal[:, :, :time, :time] == 0, float("-inf"))
        if self.mask == "made causal":
            return scores + torch.triu(torch.full((time, time), -1e4, dtype=scores.dtype, device=scores.device), 1)
        if self.mask == "relative bias":
            times = torch.arange(time, device=scores.device)
            return scores + self.bias[:, times[:, None] - times[None, :] + LONGEST]
        return scores

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        if self.product == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.mask != "none")
        else:
            weights = self.masked(self.scores(q, k)).softmax(dim=-1)
            y = torch.einsum("bhij,bhjd->bhid", weights, v) if self.product == "einsum" else torch.matmul(weights, v)
        if self.sizes == "attribute":
            y = y.transpose(1, 2).contiguous().view(x.shape[0], -1, self.inner)
        else:
            y = y.transpose(1, 2).flatten(2)
        return self.out(y).transpose(1, 2)


class OtherAttention(nn.Module):
    """Relatives: linear attention, one key for all heads, channel attention, attention with rotary positions."""

    def __init__(
        self, channels: int, width: int, *, kind: Literal["linear", "one key", "channels", "rotary", "cross", "pooled"]
    ) -> None:
        super().__init__()
        self.kind = kind
        self.heads = 2
        width += width % 2
        self.q = nn.Linear(channels, self.heads * width)
        self.k = nn.Linear(channels, width if kind == "one key" else self.heads * width)
        self.v = nn.Linear(channels, width if kind == "one key" else self.heads * width)
        self.out = nn.Linear(self.heads * width, channels)
        self.queries = nn.Parameter(torch.randn(3, channels))
        self.register_buffer("rates", 0.5 ** torch.arange(width // 2).double())
        self.out_channels = channels

    def heads_of(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype, device=x.device), self.rates)
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        source = self.queries.expand(x.shape[0], -1, -1) if self.kind == "cross" else x
        q, k, v = self.heads_of(self.q(x)), self.k(source), self.v(source)
        if self.kind == "one key":
            k, v = (t.unsqueeze(1).expand(-1, self.heads, -1, -1) for t in (k, v))
        else:
            k, v = self.heads_of(k), self.heads_of(v)
        if self.kind == "rotary":
            q, k = self.rotate(q), self.rotate(k)
        if self.kind == "linear":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            y = q @ (k.mT @ v) / (q @ k.sum(dim=2).unsqueeze(-1) + 1e-3)
        elif self.kind == "channels":
            weights = torch.softmax(F.normalize(q, dim=2, eps=1e-3).mT @ F.normalize(k, dim=2, eps=1e-3), dim=-1)
            y = v @ weights.mT
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        y = y.mean(dim=2, keepdim=True).expand_as(y) * y if self.kind == "pooled" else y
        return self.out(y.transpose(1, 2).flatten(2)).transpose(1, 2)


class Retention(nn.Module):
    """Attention over time whose values are wider than its keys: multiples of one attribute."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        keys: Literal[1, 2],
        values: Literal[2, 3],
        heads: Literal[1, 2],
        gate: Literal["none", "chunk", "slices"],
    ) -> None:
        super().__init__()
        self.heads, self.width, self.keys, self.values, self.gate = heads, width, keys, values, gate
        self.q, self.k = (nn.Conv1d(channels, heads * keys * width, 1) for _ in range(2))
        self.v = nn.Conv1d(channels, heads * values * width, 1)
        self.gates = nn.Conv1d(channels, 2 * width, 1)
        self.out_channels = heads * values * width + (0 if gate == "none" else width)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        q, k = (layer(x).view(batch, self.heads, self.keys * self.width, time) for layer in (self.q, self.k))
        v = self.v(x).view(batch, self.heads, self.values * self.width, time)
        y = (v @ (q.mT @ k).softmax(dim=-1).mT).reshape(batch, -1, time)
        if self.gate == "none":
            return y
        gates = self.gates(x).view(batch, 2 * self.width, time)
        if self.gate == "chunk":
            first, second = gates.chunk(2, dim=1)
        else:
            first, second = gates[:, : self.width], gates[:, self.width :]
        return torch.cat([y, first * torch.sigmoid(second)], dim=1)


class TorchAttention(nn.Module):
    """nn.MultiheadAttention."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        heads: Literal[1, 2],
        batch_first: Literal[True, False],
        bias: Literal[True, False],
        extra: Literal["none", "learnt key", "zero key"],
        source: Literal["self", "other width", "same width"],
        weights: Literal["none", "average", "used"],
        mask: Literal["none", "causal", "padding"],
    ) -> None:
        super().__init__()
        embedding = heads * width
        self.batch_first, self.source, self.mask, self.weights = batch_first, source, mask, weights
        self.enter = nn.Conv1d(channels, embedding, 1)
        key_width = embedding if source != "other width" else width + 1
        self.other = nn.Linear(channels, key_width)
        self.attention = nn.MultiheadAttention(
            embedding,
            heads,
            bias=bias,
            add_bias_kv=extra == "learnt key",
            add_zero_attn=extra == "zero key",
            kdim=key_width,
            vdim=key_width,
            batch_first=batch_first,
        )
        self.out_channels = embedding

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[-1]
        order = (0, 2, 1) if self.batch_first else (2, 0, 1)
        query = self.enter(x).permute(order)
        key = query if self.source == "self" else self.other(x.transpose(1, 2)).permute(0, 1, 2)
        if self.source != "self" and not self.batch_first:
            key = key.transpose(0, 1)
        mask = padding = None
        if self.mask == "causal":
            mask = nn.Transformer.generate_square_subsequent_mask(time, device=x.device, dtype=x.dtype)
        elif self.mask == "padding":
            padding = (torch.arange(time, device=x.device) >= time - 1).expand(x.shape[0], -1)
        y, weights = self.attention(
            query, key, key, attn_mask=mask, key_padding_mask=padding, need_weights=self.weights != "none"
        )
        if self.weights == "used":
            y = y * weights.amax(dim=-1).unsqueeze(-1).permute(0, 1, 2) if self.batch_first else y * 2
        return (query + y).permute((0, 2, 1) if self.batch_first else (1, 2, 0))


class TorchTransformer(nn.Module):
    """nn.TransformerEncoderLayer and its relatives."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal["layer", "encoder", "decoder layer", "transformer"],
        norm_first: Literal[False, True],
        batch_first: Literal[True, False],
        activation: Literal["relu", "gelu"],
        bias: Literal[True, False],
    ) -> None:
        super().__init__()
        size = 2 * max(width // 2, 2)
        options = {"norm_first": norm_first, "batch_first": batch_first, "activation": activation, "bias": bias}
        self.kind, self.batch_first = kind, batch_first
        self.enter = nn.Conv1d(channels, size, 1)
        if kind == "layer":
            self.layers = nn.TransformerEncoderLayer(size, 2, width, **options)
        elif kind == "encoder":
            layer = nn.TransformerEncoderLayer(size, 2, width, **options)
            self.layers = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(size), enable_nested_tensor=False)
        elif kind == "decoder layer":
            self.layers = nn.TransformerDecoderLayer(size, 2, width, **options)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torch tells that it will not make nested tensors
                self.layers = nn.Transformer(size, 2, 1, 1, width, **options)
        self.out_channels = size

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).permute((0, 2, 1) if self.batch_first else (2, 0, 1))
        x = self.layers(x) if self.kind in ("layer", "encoder") else self.layers(x, torch.tanh(x))
        return x.permute((0, 2, 1) if self.batch_first else (1, 2, 0))


class Positions(nn.Module):
    """Encodings of time added to the features."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal["sinusoids", "learnt", "attribute", "in a list", "embedding", "made", "speaker", "speaker cat"],
    ) -> None:
        super().__init__()
        self.kind = kind
        self.channels = channels
        times = torch.arange(LONGEST).double().unsqueeze(1)
        rates = torch.exp(-torch.arange(channels).double() / channels)
        self.register_buffer("sinusoids", torch.sin(times * rates).unsqueeze(0))
        self.register_buffer("speakers", torch.tensor([3]))
        self.plain = torch.randn(channels, LONGEST) * 0.3
        self.listed = [{"table": torch.randn(channels, LONGEST) * 0.3}]
        self.learnt = nn.Parameter(torch.randn(1, channels, LONGEST) * 0.3)
        self.embedding = nn.Embedding(LONGEST, channels)
        self.out_channels = 2 * channels if kind == "speaker cat" else channels

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[-1]
        if self.kind == "sinusoids":
            return (x.transpose(1, 2) + self.sinusoids[:, :time]).transpose(1, 2)
        if self.kind == "learnt":
            return x + self.learnt[..., :time]
        if self.kind == "attribute":
            return x + self.plain[:, :time].to(x)
        if self.kind == "in a list":
            return x + self.listed[0]["table"][:, :time].to(x)
        if self.kind == "embedding":
            return x + self.embedding(torch.arange(time, device=x.device)).T
        if self.kind == "speaker":
            return x * self.embedding(self.speakers).unsqueeze(-1)
        if self.kind == "speaker cat":
            return torch.cat([x, self.embedding(self.speakers)[..., None].expand(x.shape[0], -1, time)], dim=1)
        rates = torch.exp(-torch.arange(self.channels, dtype=x.dtype, device=x.device) / self.channels)
        return x + torch.sin(rates.unsqueeze(1) * torch.arange(time, dtype=x.dtype, device=x.device))


BLOCKS = (WrittenAttention, OtherAttention, Retention, TorchAttention, TorchTransformer, Positions)
