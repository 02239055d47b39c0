"""Attention layers in the ways people use them."""

import math

import torch
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import nn
from torch.nn import functional as F


class MHAMasker(nn.Module):
    """nn.MultiheadAttention between projections, its inputs and memory of possibly different widths."""

    def __init__(self, attention, kdim=None, vdim=None, n_freq=33, causal=False, padding=False):
        super().__init__()
        self.causal, self.padding = causal, padding
        self.inp = nn.Linear(n_freq, attention.embed_dim)
        self.key = nn.Linear(n_freq, kdim) if kdim else None
        self.value = nn.Linear(n_freq, vdim) if vdim else None
        self.attention = attention
        self.norm = nn.LayerNorm(attention.embed_dim)
        self.out = nn.Linear(attention.embed_dim, n_freq)

    def forward(self, spec):
        if not self.attention.batch_first:
            spec = spec.transpose(0, 1)
        x = self.inp(spec)
        k = x if self.key is None else self.key(spec)
        v = x if self.value is None else self.value(spec)
        y, _ = self.attention(x, k, v, **self.masks(spec))
        y = self.out(self.norm(x + y))
        return y if self.attention.batch_first else y.transpose(0, 1)

    def masks(self, spec):
        frames = spec.shape[1] if self.attention.batch_first else spec.shape[0]
        batch = spec.shape[0] if self.attention.batch_first else spec.shape[1]
        masks = {}
        if self.causal:
            masks["attn_mask"] = torch.triu(torch.ones(frames, frames, dtype=torch.bool, device=spec.device), 1)
        if self.padding:
            lengths = torch.full((batch,), frames - 2, device=spec.device)
            masks["key_padding_mask"] = torch.arange(frames, device=spec.device)[None, :] >= lengths[:, None]
        return masks


class TransformerMasker(nn.Module):
    """A stack of torch's own encoder layers with a sinusoidal positional encoding kept in a buffer."""

    def __init__(self, encoder, d_model, n_freq=33, max_len=200):
        super().__init__()
        self.d_model = d_model
        self.inp = nn.Linear(n_freq, d_model)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(1, max_len, d_model)
        pe[0, :, 0::2] = torch.sin(position * div_term)
        pe[0, :, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)
        self.encoder = encoder
        self.out = nn.Linear(d_model, n_freq)

    def forward(self, spec):
        x = self.inp(spec) * math.sqrt(self.d_model)
        x = x + self.pe[:, : x.size(1)]
        return torch.sigmoid(self.out(self.encoder(x))) * spec


class EncoderDecoder(nn.Module):
    """nn.TransformerDecoder with learned queries, one per source."""

    def __init__(self, n_freq=33, d_model=24, nhead=4, n_src=2):
        super().__init__()
        self.inp = nn.Linear(n_freq, d_model)
        self.queries = nn.Parameter(torch.randn(n_src, d_model))
        layer = nn.TransformerDecoderLayer(d_model, nhead, dim_feedforward=48, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, num_layers=2)
        self.out = nn.Linear(d_model, d_model)
        self.back = nn.Linear(d_model, n_freq)

    def forward(self, spec):
        memory = self.inp(spec)
        queries = self.queries.unsqueeze(0).expand(spec.size(0), -1, -1)
        sources = torch.sigmoid(self.out(self.decoder(queries, memory)))
        return self.back(memory.unsqueeze(1) * sources.unsqueeze(2))


class WrittenOutAttention(nn.Module):
    """Attention with view and transpose, fixed head width, and a learned relative position bias."""

    def __init__(self, n_freq=33, dim=32, heads=4, max_len=64):
        super().__init__()
        self.h = heads
        self.d_k = dim // heads
        self.inp = nn.Linear(n_freq, dim)
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim)
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)
        self.bias = nn.Embedding(2 * max_len - 1, heads)
        self.max_len = max_len
        self.out = nn.Linear(dim, n_freq)

    def forward(self, spec):
        x = self.inp(spec)
        batch, frames, _ = x.size()
        q = self.linear_q(x).view(batch, -1, self.h, self.d_k).transpose(1, 2)
        k = self.linear_k(x).view(batch, -1, self.h, self.d_k).transpose(1, 2)
        v = self.linear_v(x).view(batch, -1, self.h, self.d_k).transpose(1, 2)
        where = torch.arange(frames, device=x.device)
        bias = self.bias(where[:, None] - where[None, :] + self.max_len - 1).permute(2, 0, 1)
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.d_k) + bias
        y = torch.matmul(torch.softmax(scores, dim=-1), v)
        y = y.transpose(1, 2).contiguous().view(batch, -1, self.h * self.d_k)
        return self.out(x + self.linear_out(y))


class EinsumAttention(nn.Module):
    """One projection to queries, keys and values; einops and einsum do the rest."""

    def __init__(self, n_freq=33, dim=24, heads=3, dim_head=8):
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.scale = dim_head**-0.5
        self.inp = nn.Linear(n_freq, dim)
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, inner * 3, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(0.1))
        self.out = nn.Linear(dim, n_freq)

    def forward(self, spec):
        x = self.inp(spec)
        q, k, v = self.to_qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=self.heads) for t in (q, k, v))
        attn = torch.einsum("bhid,bhjd->bhij", q, k) * self.scale
        y = torch.einsum("bhij,bhjd->bhid", attn.softmax(dim=-1), v)
        return self.out(x + self.to_out(rearrange(y, "b h n d -> b n (h d)")))


class RotaryAttention(nn.Module):
    """Queries and keys turned by position before scaled_dot_product_attention."""

    def __init__(self, n_freq=33, dim=32, num_heads=4):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.inp = nn.Linear(n_freq, dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        inv_freq = 1.0 / (10000 ** (torch.arange(0, self.head_dim, 2).float() / self.head_dim))
        self.register_buffer("inv_freq", inv_freq)
        self.out = nn.Linear(dim, n_freq)

    def rotate_half(self, x):
        x1, x2 = x.chunk(2, dim=-1)
        return torch.cat((-x2, x1), dim=-1)

    def rotary(self, x):
        angles = torch.outer(torch.arange(x.shape[-2], device=x.device, dtype=self.inv_freq.dtype), self.inv_freq)
        angles = torch.cat([angles, angles], dim=-1)
        return x * angles.cos() + self.rotate_half(x) * angles.sin()

    def forward(self, spec):
        x = self.inp(spec)
        b, t, c = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        y = F.scaled_dot_product_attention(self.rotary(q), self.rotary(k), v, is_causal=True)
        return self.out(x + self.proj(y.transpose(1, 2).reshape(b, t, c)))


class EinopsMixer(nn.Module):
    """A convolution and a linear layer per block with the axes moved by einops layers."""

    def __init__(self, n_freq=33, dim=24):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_freq, dim),
            Rearrange("b t c -> b c t"),
            nn.Conv1d(dim, dim * 2, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(dim * 2, dim, 1),
            Rearrange("b c t -> b t c"),
            nn.LayerNorm(dim),
            nn.Linear(dim, n_freq),
        )

    def forward(self, spec):
        return self.net(spec)


class GatedFeedForward(nn.Module):
    """GLU, SwiGLU with a doubled projection, and a multiplicative gate, one after the other."""

    def __init__(self, n_freq=33, dim=20, hidden=30):
        super().__init__()
        self.inp = nn.Linear(n_freq, dim)
        self.glu = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GLU(dim=-1))
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)
        self.gate = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, n_freq)

    def forward(self, spec):
        x = self.glu(self.inp(spec))
        x1, x2 = self.w12(x).chunk(2, dim=-1)
        x = x + self.w3(F.silu(x1) * x2)
        return self.out(x * torch.sigmoid(self.gate(x)))
