"""Networks that work within and across segments of a long sequence."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class ImprovedTransformer(nn.Module):
    """Self-attention, then a BLSTM in place of the first feed-forward layer."""

    def __init__(self, input_size, hidden_size, num_heads=4, dropout=0.0):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(input_size, num_heads, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(input_size)
        self.rnn = nn.LSTM(input_size, hidden_size, bidirectional=True)
        self.linear = nn.Linear(hidden_size * 2, input_size)
        self.norm2 = nn.LayerNorm(input_size)

    def forward(self, src):
        src2 = self.self_attn(src, src, src, attn_mask=None, key_padding_mask=None)[0]
        src = self.norm1(src + self.dropout(src2))
        src2 = self.linear(self.dropout(F.relu(self.rnn(src)[0])))
        return self.norm2(src + self.dropout(src2))


class SingleTransformer(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.transformer = ImprovedTransformer(input_size, hidden_size)

    def forward(self, x):
        return self.transformer(x.permute(1, 0, 2).contiguous()).permute(1, 0, 2).contiguous()


class DPT(nn.Module):
    """Alternates transformers along rows and columns of the segmented features."""

    def __init__(self, input_size, hidden_size, output_size, num_layers=2):
        super().__init__()
        self.input_size = input_size
        self.output_size = output_size
        self.row = nn.ModuleList(SingleTransformer(input_size, hidden_size) for _ in range(num_layers))
        self.col = nn.ModuleList(SingleTransformer(input_size, hidden_size) for _ in range(num_layers))
        self.row_norm = nn.ModuleList(nn.GroupNorm(1, input_size, eps=1e-8) for _ in range(num_layers))
        self.col_norm = nn.ModuleList(nn.GroupNorm(1, input_size, eps=1e-8) for _ in range(num_layers))
        self.output = nn.Sequential(nn.PReLU(), nn.Conv2d(input_size, output_size, 1))

    def forward(self, output):
        batch_size, _, dim1, dim2 = output.shape
        for i in range(len(self.row)):
            row = output.permute(0, 3, 2, 1).contiguous().view(batch_size * dim2, dim1, -1)
            row = self.row[i](row).view(batch_size, dim2, dim1, -1).permute(0, 3, 2, 1).contiguous()
            output = output + self.row_norm[i](row)
            col = output.permute(0, 2, 3, 1).contiguous().view(batch_size * dim1, dim2, -1)
            col = self.col[i](col).view(batch_size, dim1, dim2, -1).permute(0, 3, 1, 2).contiguous()
            output = output + self.col_norm[i](col)
        return self.output(output)


class DPTNet(nn.Module):
    """Encoder, segmentation, DPT, merging with gated output, mask and decoder."""

    def __init__(self, enc_dim=24, feature_dim=16, hidden_dim=12, segment_size=20, win_len=4, num_spk=2):
        super().__init__()
        self.segment_size, self.win_len, self.num_spk = segment_size, win_len, num_spk
        self.feature_dim = feature_dim
        self.encoder = nn.Conv1d(1, enc_dim, win_len, bias=False, stride=win_len // 2)
        self.enc_LN = nn.GroupNorm(1, enc_dim, eps=1e-8)
        self.BN = nn.Conv1d(enc_dim, feature_dim, 1, bias=False)
        self.DPT = DPT(feature_dim, hidden_dim, feature_dim * num_spk)
        self.output = nn.Sequential(nn.Conv1d(feature_dim, feature_dim, 1), nn.Tanh())
        self.output_gate = nn.Sequential(nn.Conv1d(feature_dim, feature_dim, 1), nn.Sigmoid())
        self.mask = nn.Conv1d(feature_dim, enc_dim, 1, bias=False)
        self.decoder = nn.ConvTranspose1d(enc_dim, 1, win_len, stride=win_len // 2, bias=False)

    def split_feature(self, x):
        batch_size, dim, seq_len = x.shape
        stride = self.segment_size // 2
        rest = self.segment_size - (stride + seq_len % self.segment_size) % self.segment_size
        if rest > 0:
            x = torch.cat([x, torch.zeros(batch_size, dim, rest, device=x.device, dtype=x.dtype)], 2)
        aux = torch.zeros(batch_size, dim, stride, dtype=x.dtype, device=x.device)
        x = torch.cat([aux, x, aux], 2)
        segments1 = x[:, :, :-stride].contiguous().view(batch_size, dim, -1, self.segment_size)
        segments2 = x[:, :, stride:].contiguous().view(batch_size, dim, -1, self.segment_size)
        segments = torch.cat([segments1, segments2], 3).view(batch_size, dim, -1, self.segment_size)
        return segments.transpose(2, 3).contiguous(), rest

    def merge_feature(self, x, rest):
        batch_size, dim, segment_size, _ = x.shape
        stride = segment_size // 2
        x = x.transpose(2, 3).contiguous().view(batch_size, dim, -1, segment_size * 2)
        input1 = x[:, :, :, :segment_size].contiguous().view(batch_size, dim, -1)[:, :, stride:]
        input2 = x[:, :, :, segment_size:].contiguous().view(batch_size, dim, -1)[:, :, :-stride]
        output = input1 + input2
        return output[:, :, :-rest].contiguous() if rest > 0 else output.contiguous()

    def forward(self, mixture):
        batch, length = mixture.shape
        features = F.relu(self.encoder(mixture.unsqueeze(1)))
        segments, rest = self.split_feature(self.BN(self.enc_LN(features)))
        x = self.DPT(segments).view(batch * self.num_spk, self.feature_dim, self.segment_size, -1)
        x = self.merge_feature(x, rest)
        x = self.output(x) * self.output_gate(x)
        masks = F.relu(self.mask(x)).view(batch, self.num_spk, features.shape[1], -1)
        sources = (features.unsqueeze(1) * masks).flatten(0, 1)
        return self.decoder(sources).view(batch, self.num_spk, -1)[..., :length]


class MemLSTM(nn.Module):
    """Passes the states of all segments through LSTMs that run across segments."""

    def __init__(self, hidden_size):
        super().__init__()
        self.h_net = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.c_net = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.h_proj = nn.Linear(hidden_size, hidden_size)
        self.c_proj = nn.Linear(hidden_size, hidden_size)
        self.h_norm = nn.LayerNorm(hidden_size)
        self.c_norm = nn.LayerNorm(hidden_size)

    def forward(self, hc, S):
        h, c = hc
        d, BS, H = h.shape
        B = BS // S
        h = h.transpose(1, 0).contiguous().view(B, S, d * H)
        c = c.transpose(1, 0).contiguous().view(B, S, d * H)
        h = h + self.h_norm(self.h_proj(self.h_net(h)[0]))
        c = c + self.c_norm(self.c_proj(self.c_net(c)[0]))
        h = h.view(B * S, d, H).transpose(1, 0).contiguous()
        c = c.view(B * S, d, H).transpose(1, 0).contiguous()
        # Causal: segment s starts from the memory of segment s - 1.
        h_, c_ = torch.zeros_like(h), torch.zeros_like(c)
        h_[:, 1:, :] = h[:, :-1, :]
        c_[:, 1:, :] = c[:, :-1, :]
        return h_, c_


class SegLSTM(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.lstm = nn.LSTM(input_size, hidden_size, 1, batch_first=True)
        self.proj = nn.Linear(hidden_size, input_size)
        self.norm = nn.LayerNorm(input_size)

    def forward(self, x, hc):
        if hc is None:
            h = torch.zeros(1, x.size(0), self.hidden_size).to(x)
            c = torch.zeros(1, x.size(0), self.hidden_size).to(x)
        else:
            h, c = hc
        output, (h, c) = self.lstm(x, (h, c))
        output = self.proj(output.contiguous().view(-1, output.shape[2])).view(x.shape)
        return x + self.norm(output), (h, c)


class SkiM(nn.Module):
    """Skipping memory: segment LSTMs whose states are carried to the next segment by a memory LSTM."""

    def __init__(self, win=16, enc=24, hidden=20, num_blocks=3, segment_size=10, num_spk=2):
        super().__init__()
        self.segment_size, self.num_spk, self.num_blocks = segment_size, num_spk, num_blocks
        self.encoder = nn.Conv1d(1, enc, win, stride=win // 2)
        self.seg_lstms = nn.ModuleList(SegLSTM(enc, hidden) for _ in range(num_blocks))
        self.mem_lstms = nn.ModuleList(MemLSTM(hidden) for _ in range(num_blocks - 1))
        self.output_fc = nn.Sequential(nn.PReLU(), nn.Conv1d(enc, enc * num_spk, 1))
        self.decoder = nn.ConvTranspose1d(enc, 1, win, stride=win // 2)

    def forward(self, wav):
        feature = self.encoder(wav.unsqueeze(1))
        x = feature.transpose(1, 2)
        B, T, D = x.shape
        rest = self.segment_size - T % self.segment_size
        x = F.pad(x, (0, 0, 0, rest)).view(B, -1, self.segment_size, D)
        B, S, K, D = x.shape
        output, hc = x.reshape(B * S, K, D), None
        for i in range(self.num_blocks):
            output, hc = self.seg_lstms[i](output, hc)
            if i < self.num_blocks - 1:
                hc = self.mem_lstms[i](hc, S)
        output = output.reshape(B, S * K, D)[:, :T, :]
        masks = F.relu(self.output_fc(output.transpose(1, 2))).chunk(self.num_spk, dim=1)
        return [self.decoder(feature * mask).squeeze(1) for mask in masks]


class OffsetScale(nn.Module):
    def __init__(self, dim, heads=1):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, dim))
        self.beta = nn.Parameter(torch.zeros(heads, dim))
        nn.init.normal_(self.gamma, std=0.02)

    def forward(self, x):
        out = torch.einsum("...d,hd->...hd", x, self.gamma) + self.beta
        return out.unbind(dim=-2)


class FFConvM(nn.Module):
    """Norm, linear, activation, and a residual depthwise convolution over time."""

    def __init__(self, dim_in, dim_out, kernel=5):
        super().__init__()
        self.mdl = nn.Sequential(nn.LayerNorm(dim_in), nn.Linear(dim_in, dim_out), nn.SiLU())
        self.conv = nn.Conv1d(dim_out, dim_out, kernel, padding=kernel // 2, groups=dim_out, bias=False)

    def forward(self, x):
        x = self.mdl(x)
        return x + self.conv(x.transpose(1, 2)).transpose(1, 2)


def apply_rotary(x, rot_dim):
    """Turns the first ``rot_dim`` features by their position, in interleaved pairs."""
    t = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
    freqs = 1.0 / (10000 ** (torch.arange(0, rot_dim, 2, device=x.device, dtype=x.dtype) / rot_dim))
    freqs = torch.einsum("i,j->ij", t, freqs).repeat_interleave(2, dim=-1)
    turned, rest = x[..., :rot_dim], x[..., rot_dim:]
    pairs = turned.reshape(*turned.shape[:-1], -1, 2)
    x1, x2 = pairs.unbind(dim=-1)
    rotated = torch.stack((-x2, x1), dim=-1).flatten(-2)
    return torch.cat((turned * freqs.cos() + rotated * freqs.sin(), rest), dim=-1)


class FLASH(nn.Module):
    """Gated attention: quadratic within groups of frames, linear across them, heads share one projection."""

    def __init__(self, dim=24, group_size=16, query_key_dim=16, expansion_factor=2.0, rot_dim=8):
        super().__init__()
        hidden_dim = int(dim * expansion_factor)
        self.group_size, self.rot_dim = group_size, rot_dim
        self.to_hidden = FFConvM(dim, hidden_dim)
        self.to_qk = FFConvM(dim, query_key_dim)
        self.qk_offset_scale = OffsetScale(query_key_dim, heads=4)
        self.to_out = FFConvM(hidden_dim // 2, dim)
        self.gate = nn.Sigmoid()

    def forward(self, x):
        residual = x
        x_shift, x_pass = x.chunk(2, dim=-1)
        x_shift = F.pad(x_shift, (0, 0, 1, -1), value=0.0)
        normed = torch.cat((x_shift, x_pass), dim=-1)
        v, u = self.to_hidden(normed).chunk(2, dim=-1)
        quad_q, lin_q, quad_k, lin_k = self.qk_offset_scale(self.to_qk(normed))
        att_v, att_u = self.cal_attention(quad_q, lin_q, quad_k, lin_k, v, u)
        return residual + self.to_out((att_u * v) * self.gate(att_v * u))

    def cal_attention(self, quad_q, lin_q, quad_k, lin_k, v, u):
        b, n = quad_q.shape[0], quad_q.shape[1]
        g = self.group_size
        quad_q, lin_q, quad_k, lin_k = (apply_rotary(t, self.rot_dim) for t in (quad_q, lin_q, quad_k, lin_k))
        padding = math.ceil(n / g) * g - n
        if padding:
            quad_q, quad_k, lin_q, lin_k, v, u = (
                F.pad(t, (0, 0, 0, padding)) for t in (quad_q, quad_k, lin_q, lin_k, v, u)
            )
        quad_q, quad_k, lin_q, lin_k, v, u = (
            t.reshape(b, t.shape[1] // g, g, t.shape[2]) for t in (quad_q, quad_k, lin_q, lin_k, v, u)
        )
        sim = torch.einsum("...id,...jd->...ij", quad_q, quad_k) / g
        attn = F.relu(sim) ** 2
        quad_v = torch.einsum("...ij,...jd->...id", attn, v)
        quad_u = torch.einsum("...ij,...jd->...id", attn, u)
        lin_v = torch.einsum("bgnd,bde->bgne", lin_q, torch.einsum("bgnd,bgne->bde", lin_k, v) / n)
        lin_u = torch.einsum("bgnd,bde->bgne", lin_q, torch.einsum("bgnd,bgne->bde", lin_k, u) / n)
        return tuple(t.reshape(b, -1, t.shape[-1])[:, :n] for t in (quad_v + lin_v, quad_u + lin_u))


class ScaledSinuEmbedding(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, dim, 2).float() / dim)))

    def forward(self, x):
        t = torch.arange(x.shape[1], device=x.device).type_as(self.inv_freq)
        sinu = torch.einsum("i,j->ij", t, self.inv_freq)
        return torch.cat((sinu.sin(), sinu.cos()), dim=-1) * self.scale


class MossFormer(nn.Module):
    """A mask network of gated single-head attention blocks on a learned filterbank."""

    def __init__(self, channels=32, dim=24, num_blocks=2, num_spks=2, kernel=16):
        super().__init__()
        self.num_spks = num_spks
        self.encoder = nn.Conv1d(1, channels, kernel, stride=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(1, channels, eps=1e-8)
        self.conv1d_encoder = nn.Conv1d(channels, dim, 1, bias=False)
        self.pos_enc = ScaledSinuEmbedding(dim)
        self.layers = nn.ModuleList(FLASH(dim) for _ in range(num_blocks))
        self.intra_norm = nn.LayerNorm(dim)
        self.conv1d_out = nn.Conv1d(dim, dim * num_spks, 1)
        self.output = nn.Sequential(nn.Conv1d(dim, dim, 1), nn.Tanh())
        self.output_gate = nn.Sequential(nn.Conv1d(dim, dim, 1), nn.Sigmoid())
        self.conv1_decoder = nn.Conv1d(dim, channels, 1, bias=False)
        self.decoder = nn.ConvTranspose1d(channels, 1, kernel, stride=kernel // 2, bias=False)

    def forward(self, wav):
        mix_w = F.relu(self.encoder(wav.unsqueeze(1)))
        base = self.conv1d_encoder(self.norm(mix_w)).transpose(1, -1)
        x = base + self.pos_enc(base)
        for layer in self.layers:
            x = layer(x)
        x = self.conv1d_out((self.intra_norm(x) + base).transpose(1, -1))
        B, _, S = x.shape
        x = x.view(B * self.num_spks, -1, S)
        x = self.conv1_decoder(self.output(x) * self.output_gate(x))
        _, N, L = x.shape
        mask = F.relu(x.view(B, self.num_spks, N, L)).transpose(0, 1)
        sep_h = torch.stack([mix_w] * self.num_spks) * mask
        est = torch.cat([self.decoder(sep_h[i]).squeeze(1).unsqueeze(-1) for i in range(self.num_spks)], dim=-1)
        return F.pad(est, (0, 0, 0, wav.size(1) - est.size(1)))
