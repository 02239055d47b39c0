"""Networks that sweep a time-frequency grid along both axes."""

import math

import torch
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import nn
from torch.nn import functional as F


class LayerNormalization4D(nn.Module):
    def __init__(self, input_dimension, eps=1e-5):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, input_dimension, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, input_dimension, 1, 1))
        self.eps = eps

    def forward(self, x):
        mu_ = x.mean(dim=(1,), keepdim=True)
        std_ = torch.sqrt(x.var(dim=(1,), unbiased=False, keepdim=True) + self.eps)
        return ((x - mu_) / std_) * self.gamma + self.beta


class LayerNormalization4DCF(nn.Module):
    def __init__(self, input_dimension, eps=1e-5):
        super().__init__()
        assert len(input_dimension) == 2
        param_size = [1, input_dimension[0], 1, input_dimension[1]]
        self.gamma = nn.Parameter(torch.ones(*param_size))
        self.beta = nn.Parameter(torch.zeros(*param_size))
        self.eps = eps

    def forward(self, x):
        mu_ = x.mean(dim=(1, 3), keepdim=True)
        std_ = torch.sqrt(x.var(dim=(1, 3), unbiased=False, keepdim=True) + self.eps)
        return ((x - mu_) / std_) * self.gamma + self.beta


class GridNetBlock(nn.Module):
    """Sub-band and full-band BLSTMs over unfolded frames, then full-band attention with one projection per head."""

    def __init__(self, emb_dim, emb_ks, emb_hs, n_freqs, hidden_channels, n_head=2, approx_qk_dim=34):
        super().__init__()
        in_channels = emb_dim * emb_ks
        self.emb_dim, self.emb_ks, self.emb_hs, self.n_head = emb_dim, emb_ks, emb_hs, n_head
        self.intra_norm = LayerNormalization4D(emb_dim)
        self.intra_rnn = nn.LSTM(in_channels, hidden_channels, 1, batch_first=True, bidirectional=True)
        self.intra_linear = nn.ConvTranspose1d(hidden_channels * 2, emb_dim, emb_ks, stride=emb_hs)
        self.inter_norm = LayerNormalization4D(emb_dim)
        self.inter_rnn = nn.LSTM(in_channels, hidden_channels, 1, batch_first=True, bidirectional=True)
        self.inter_linear = nn.ConvTranspose1d(hidden_channels * 2, emb_dim, emb_ks, stride=emb_hs)
        E = math.ceil(approx_qk_dim * 1.0 / n_freqs)
        for ii in range(n_head):
            for name, width in (("Q", E), ("K", E), ("V", emb_dim // n_head)):
                conv = nn.Conv2d(emb_dim, width, 1)
                norm = LayerNormalization4DCF((width, n_freqs))
                self.add_module(f"attn_conv_{name}_{ii}", nn.Sequential(conv, nn.PReLU(), norm))
        concat = nn.Sequential(nn.Conv2d(emb_dim, emb_dim, 1), nn.PReLU(), LayerNormalization4DCF((emb_dim, n_freqs)))
        self.add_module("attn_concat_proj", concat)

    def __getitem__(self, key):
        return getattr(self, key)

    def forward(self, x):
        B, C, old_T, old_Q = x.shape
        T = math.ceil((old_T - self.emb_ks) / self.emb_hs) * self.emb_hs + self.emb_ks
        Q = math.ceil((old_Q - self.emb_ks) / self.emb_hs) * self.emb_hs + self.emb_ks
        x = F.pad(x, (0, Q - old_Q, 0, T - old_T))
        input_ = x
        intra = self.intra_norm(input_).transpose(1, 2).contiguous().view(B * T, C, Q)
        intra = F.unfold(intra[..., None], (self.emb_ks, 1), stride=(self.emb_hs, 1)).transpose(1, 2)
        intra, _ = self.intra_rnn(intra)
        intra = self.intra_linear(intra.transpose(1, 2)).view([B, T, C, Q]).transpose(1, 2).contiguous()
        input_ = intra + input_
        inter = self.inter_norm(input_).permute(0, 3, 1, 2).contiguous().view(B * Q, C, T)
        inter = F.unfold(inter[..., None], (self.emb_ks, 1), stride=(self.emb_hs, 1)).transpose(1, 2)
        inter, _ = self.inter_rnn(inter)
        inter = self.inter_linear(inter.transpose(1, 2)).view([B, Q, C, T]).permute(0, 2, 3, 1).contiguous()
        inter = (inter + input_)[..., :old_T, :old_Q]
        all_Q = torch.cat([self[f"attn_conv_Q_{ii}"](inter) for ii in range(self.n_head)], dim=0)
        all_K = torch.cat([self[f"attn_conv_K_{ii}"](inter) for ii in range(self.n_head)], dim=0)
        V = torch.cat([self[f"attn_conv_V_{ii}"](inter) for ii in range(self.n_head)], dim=0)
        query = all_Q.transpose(1, 2).flatten(start_dim=2)
        key = all_K.transpose(1, 2).flatten(start_dim=2)
        V = V.transpose(1, 2)
        old_shape = V.shape
        V = V.flatten(start_dim=2)
        attn_mat = torch.matmul(query, key.transpose(1, 2)) / (query.shape[-1] ** 0.5)
        V = torch.matmul(F.softmax(attn_mat, dim=2), V).reshape(old_shape).transpose(1, 2)
        emb_dim = V.shape[1]
        batch = V.view([self.n_head, B, emb_dim, old_T, -1]).transpose(0, 1).contiguous()
        batch = batch.view([B, self.n_head * emb_dim, old_T, -1])
        return self["attn_concat_proj"](batch) + inter


class TFGridNet(nn.Module):
    """Complex spectral mapping; the mixture is normalised by its deviation."""

    def __init__(self, n_srcs=2, n_fft=32, stride=16, n_layers=2, lstm_hidden_units=16, emb_dim=12, emb_ks=4, emb_hs=2):
        super().__init__()
        self.n_srcs, self.n_layers, self.n_fft, self.stride = n_srcs, n_layers, n_fft, stride
        self.register_buffer("window", torch.hann_window(n_fft))
        self.conv = nn.Sequential(nn.Conv2d(2, emb_dim, (3, 3), padding=(1, 1)), nn.GroupNorm(1, emb_dim, eps=1e-5))
        self.blocks = nn.ModuleList(
            GridNetBlock(emb_dim, emb_ks, emb_hs, n_fft // 2 + 1, lstm_hidden_units) for _ in range(n_layers)
        )
        self.deconv = nn.ConvTranspose2d(emb_dim, n_srcs * 2, (3, 3), padding=(1, 1))

    def forward(self, mixture):
        n_samples = mixture.shape[1]
        mix_std_ = torch.std(mixture, dim=1, keepdim=True)
        spec = torch.stft(mixture / mix_std_, self.n_fft, self.stride, window=self.window, return_complex=True)
        spec = spec.transpose(1, 2)
        batch = self.conv(torch.stack((spec.real, spec.imag), dim=1))
        n_batch, _, n_frames, n_freqs = batch.shape
        for ii in range(self.n_layers):
            batch = self.blocks[ii](batch)
        batch = self.deconv(batch).view([n_batch, self.n_srcs, 2, n_frames, n_freqs])
        batch = torch.complex(batch[:, :, 0], batch[:, :, 1]).flatten(0, 1).transpose(1, 2)
        wav = torch.istft(batch, self.n_fft, self.stride, window=self.window, length=n_samples)
        return wav.view(n_batch, self.n_srcs, -1) * mix_std_[:, None]


class ResRNN(nn.Module):
    def __init__(self, input_size, hidden_size, bidirectional=True):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.eps = torch.finfo(torch.float32).eps
        self.norm = nn.GroupNorm(1, input_size, self.eps)
        self.rnn = nn.LSTM(input_size, hidden_size, 1, batch_first=True, bidirectional=bidirectional)
        self.proj = nn.Linear(hidden_size * (int(bidirectional) + 1), input_size)

    def forward(self, mixture):
        rnn_output, _ = self.rnn(self.norm(mixture).transpose(1, 2).contiguous())
        rnn_output = self.proj(rnn_output.contiguous().view(-1, rnn_output.shape[2]))
        rnn_output = rnn_output.view(mixture.shape[0], mixture.shape[2], mixture.shape[1])
        return mixture + rnn_output.transpose(1, 2).contiguous()


class BSNet(nn.Module):
    def __init__(self, in_channel, nband):
        super().__init__()
        self.nband = nband
        self.feature_dim = in_channel // nband
        self.band_rnn = ResRNN(self.feature_dim, self.feature_dim * 2)
        self.band_comm = ResRNN(self.feature_dim, self.feature_dim * 2)

    def forward(self, mixture):
        B, N, T = mixture.shape
        band_output = self.band_rnn(mixture.view(B * self.nband, self.feature_dim, -1)).view(B, self.nband, -1, T)
        band_output = band_output.permute(0, 3, 2, 1).contiguous().view(B * T, -1, self.nband)
        output = self.band_comm(band_output).view(B, T, -1, self.nband).permute(0, 3, 2, 1).contiguous()
        return output.view(B, N, T)


class BSRNN(nn.Module):
    """Band-split RNN: a norm and a projection per band, a gated mask estimator per band."""

    def __init__(self, win=64, stride=16, feature_dim=12, num_repeat=2, bands=(3, 5, 5, 10, 10)):
        super().__init__()
        self.win, self.stride = win, stride
        self.feature_dim = feature_dim
        self.band_width = list(bands)
        self.nband = len(self.band_width)
        self.eps = torch.finfo(torch.float32).eps
        self.BN = nn.ModuleList([])
        for width in self.band_width:
            self.BN.append(
                nn.Sequential(nn.GroupNorm(1, width * 2, self.eps), nn.Conv1d(width * 2, self.feature_dim, 1))
            )
        self.separator = nn.Sequential(*[BSNet(self.nband * self.feature_dim, self.nband) for _ in range(num_repeat)])
        self.mask = nn.ModuleList([])
        for width in self.band_width:
            self.mask.append(
                nn.Sequential(
                    nn.GroupNorm(1, self.feature_dim, self.eps),
                    nn.Conv1d(self.feature_dim, self.feature_dim * 4, 1),
                    nn.Tanh(),
                    nn.Conv1d(self.feature_dim * 4, self.feature_dim * 4, 1),
                    nn.Tanh(),
                    nn.Conv1d(self.feature_dim * 4, width * 4, 1),
                )
            )

    def forward(self, mixture):
        batch_size, nsample = mixture.shape
        window = torch.hann_window(self.win, dtype=mixture.dtype, device=mixture.device)
        spec = torch.stft(mixture, n_fft=self.win, hop_length=self.stride, window=window, return_complex=True)
        spec_RI = torch.stack([spec.real, spec.imag], 1)
        subband_spec, subband_mix_spec, band_idx = [], [], 0
        for width in self.band_width:
            subband_spec.append(spec_RI[:, :, band_idx : band_idx + width].contiguous())
            subband_mix_spec.append(spec[:, band_idx : band_idx + width])
            band_idx += width
        subband_feature = torch.stack(
            [self.BN[i](subband_spec[i].view(batch_size, self.band_width[i] * 2, -1)) for i in range(self.nband)], 1
        )
        sep_output = self.separator(subband_feature.view(batch_size, self.nband * self.feature_dim, -1))
        sep_output = sep_output.view(batch_size, self.nband, self.feature_dim, -1)
        sep_subband_spec = []
        for i in range(self.nband):
            this_output = self.mask[i](sep_output[:, i]).view(batch_size, 2, 2, self.band_width[i], -1)
            this_mask = this_output[:, 0] * torch.sigmoid(this_output[:, 1])
            mask_real, mask_imag = this_mask[:, 0], this_mask[:, 1]
            est_real = subband_mix_spec[i].real * mask_real - subband_mix_spec[i].imag * mask_imag
            est_imag = subband_mix_spec[i].real * mask_imag + subband_mix_spec[i].imag * mask_real
            sep_subband_spec.append(torch.complex(est_real, est_imag))
        est_spec = torch.cat(sep_subband_spec, 1)
        return torch.istft(est_spec, n_fft=self.win, hop_length=self.stride, window=window, length=nsample)


class RelativeAttention(nn.Module):
    """Multi-head attention with Shaw's relative positions."""

    def __init__(self, dim, heads=2, dim_head=8, max_pos_emb=32):
        super().__init__()
        inner_dim = dim_head * heads
        self.heads = heads
        self.scale = dim_head**-0.5
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, inner_dim * 2, bias=False)
        self.to_out = nn.Linear(inner_dim, dim)
        self.max_pos_emb = max_pos_emb
        self.rel_pos_emb = nn.Embedding(2 * max_pos_emb + 1, dim_head)

    def forward(self, x):
        n, h = x.shape[-2], self.heads
        q, k, v = (self.to_q(x), *self.to_kv(x).chunk(2, dim=-1))
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=h) for t in (q, k, v))
        dots = torch.einsum("b h i d, b h j d -> b h i j", q, k) * self.scale
        seq = torch.arange(n, device=x.device)
        dist = rearrange(seq, "i -> i ()") - rearrange(seq, "j -> () j")
        dist = dist.clamp(-self.max_pos_emb, self.max_pos_emb) + self.max_pos_emb
        rel_pos_emb = self.rel_pos_emb(dist).to(q)
        dots = dots + torch.einsum("b h n d, n r d -> b h n r", q, rel_pos_emb) * self.scale
        out = torch.einsum("b h i j, b h j d -> b h i d", dots.softmax(dim=-1), v)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class Swish(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()


class GLU(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        out, gate = x.chunk(2, dim=self.dim)
        return out * gate.sigmoid()


class Scale(nn.Module):
    def __init__(self, scale, fn):
        super().__init__()
        self.fn = fn
        self.scale = scale

    def forward(self, x):
        return self.fn(x) * self.scale


class ConformerBlock(nn.Module):
    def __init__(self, dim, ff_mult=2, expansion_factor=2, kernel_size=7):
        super().__init__()
        inner = dim * expansion_factor
        self.ff1 = Scale(0.5, self.feed_forward(dim, ff_mult))
        self.attn_norm = nn.LayerNorm(dim)
        self.attn = RelativeAttention(dim)
        self.conv = nn.Sequential(
            nn.LayerNorm(dim),
            Rearrange("b n c -> b c n"),
            nn.Conv1d(dim, inner * 2, 1),
            GLU(dim=1),
            nn.Conv1d(inner, inner, kernel_size, padding="same", groups=inner),
            nn.BatchNorm1d(inner),
            Swish(),
            nn.Conv1d(inner, dim, 1),
            Rearrange("b c n -> b n c"),
        )
        self.ff2 = Scale(0.5, self.feed_forward(dim, ff_mult))
        self.post_norm = nn.LayerNorm(dim)

    @staticmethod
    def feed_forward(dim, mult):
        return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim * mult), Swish(), nn.Linear(dim * mult, dim))

    def forward(self, x):
        x = self.ff1(x) + x
        x = self.attn(self.attn_norm(x)) + x
        x = self.conv(x) + x
        return self.post_norm(self.ff2(x) + x)


class DilatedDenseNet(nn.Module):
    """Each layer sees all before it, newest first; dilation doubles in time."""

    def __init__(self, depth=3, in_channels=12):
        super().__init__()
        self.depth = depth
        for i in range(depth):
            dil = 2**i
            setattr(self, f"pad{i + 1}", nn.ConstantPad2d((1, 1, dil, 0), value=0.0))
            setattr(self, f"conv{i + 1}", nn.Conv2d(in_channels * (i + 1), in_channels, (2, 3), dilation=(dil, 1)))
            setattr(self, f"norm{i + 1}", nn.InstanceNorm2d(in_channels, affine=True))
            setattr(self, f"prelu{i + 1}", nn.PReLU(in_channels))

    def forward(self, x):
        skip = out = x
        for i in range(self.depth):
            out = getattr(self, f"conv{i + 1}")(getattr(self, f"pad{i + 1}")(skip))
            out = getattr(self, f"prelu{i + 1}")(getattr(self, f"norm{i + 1}")(out))
            skip = torch.cat([out, skip], dim=1)
        return out


class TSCB(nn.Module):
    """Conformers along time, then along frequency."""

    def __init__(self, num_channel):
        super().__init__()
        self.time_conformer = ConformerBlock(num_channel)
        self.freq_conformer = ConformerBlock(num_channel)

    def forward(self, x_in):
        b, c, t, f = x_in.size()
        x_t = x_in.permute(0, 3, 2, 1).contiguous().view(b * f, t, c)
        x_t = self.time_conformer(x_t) + x_t
        x_f = x_t.view(b, f, t, c).permute(0, 2, 1, 3).contiguous().view(b * t, f, c)
        x_f = self.freq_conformer(x_f) + x_f
        return x_f.view(b, t, f, c).permute(0, 3, 1, 2)


class SPConvTranspose2d(nn.Module):
    """Sub-pixel convolution along frequency."""

    def __init__(self, in_channels, out_channels, kernel_size, r=1):
        super().__init__()
        self.pad1 = nn.ConstantPad2d((1, 1, 0, 0), value=0.0)
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, out_channels * r, kernel_size=kernel_size, stride=(1, 1))
        self.r = r

    def forward(self, x):
        out = self.conv(self.pad1(x))
        batch_size, nchannels, H, W = out.shape
        out = out.view((batch_size, self.r, nchannels // self.r, H, W)).permute(0, 2, 3, 4, 1)
        return out.contiguous().view((batch_size, nchannels // self.r, H, -1))


class CMGAN(nn.Module):
    """Dense encoder, two-stage conformers, a magnitude mask decoder and a complex decoder."""

    def __init__(self, num_channel=12, num_features=33):
        super().__init__()
        half = num_features // 2 + 1
        self.conv_1 = nn.Sequential(
            nn.Conv2d(3, num_channel, 1), nn.InstanceNorm2d(num_channel, affine=True), nn.PReLU()
        )
        self.dilated_dense = DilatedDenseNet(3, num_channel)
        self.conv_2 = nn.Conv2d(num_channel, num_channel, (1, 3), (1, 2), padding=(0, 1))
        self.TSCB_1 = TSCB(num_channel)
        self.TSCB_2 = TSCB(num_channel)
        self.mask_dense = DilatedDenseNet(3, num_channel)
        self.mask_up = SPConvTranspose2d(num_channel, num_channel, (1, 3), 2)
        self.mask_conv = nn.Conv2d(num_channel, 1, (1, 2))
        self.prelu_out = nn.PReLU(2 * half - 1, init=-0.25)
        self.complex_dense = DilatedDenseNet(3, num_channel)
        self.complex_up = SPConvTranspose2d(num_channel, num_channel, (1, 3), 2)
        self.complex_norm = nn.InstanceNorm2d(num_channel, affine=True)
        self.complex_conv = nn.Conv2d(num_channel, 2, (1, 2))

    def forward(self, x):
        mag = torch.sqrt(x[:, 0, :, :] ** 2 + x[:, 1, :, :] ** 2 + 1e-9).unsqueeze(1)
        noisy_phase = torch.angle(torch.complex(x[:, 0, :, :], x[:, 1, :, :])).unsqueeze(1)
        out = self.conv_2(self.dilated_dense(self.conv_1(torch.cat([mag, x], dim=1))))
        out = self.TSCB_2(self.TSCB_1(out))
        mask = self.mask_conv(self.mask_up(self.mask_dense(out))).squeeze(1).permute(0, 2, 1)
        mask = self.prelu_out(mask).permute(0, 2, 1).unsqueeze(1)
        complex_out = self.complex_conv(
            F.prelu(self.complex_norm(self.complex_up(self.complex_dense(out))), mask.new_tensor([0.2]))
        )
        out_mag = mask * mag
        final_real = out_mag * torch.cos(noisy_phase) + complex_out[:, 0, :, :].unsqueeze(1)
        final_imag = out_mag * torch.sin(noisy_phase) + complex_out[:, 1, :, :].unsqueeze(1)
        return final_real, final_imag
