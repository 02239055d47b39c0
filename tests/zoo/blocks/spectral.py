"""Building blocks that work on spectra: complex layers, bands, filterbanks."""

import torch
from torch import nn
from torch.nn import functional as F


class ComplexConv2d(nn.Module):
    """Two real convolutions that act as one complex convolution on (real, imaginary) halves of the channels."""

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding):
        super().__init__()
        self.real_conv = nn.Conv2d(in_channels // 2, out_channels // 2, kernel_size, stride, padding)
        self.imag_conv = nn.Conv2d(in_channels // 2, out_channels // 2, kernel_size, stride, padding)

    def forward(self, x):
        real, imag = torch.chunk(x, 2, 1)
        out_real = self.real_conv(real) - self.imag_conv(imag)
        out_imag = self.imag_conv(real) + self.real_conv(imag)
        return torch.cat([out_real, out_imag], 1)


class ComplexEncoderDecoder(nn.Module):
    """STFT, complex convolutions, complex ratio mask in polar form, inverse STFT."""

    def __init__(self, n_fft=64, hop=16, channels=16):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft))
        self.conv1 = ComplexConv2d(2, channels, (5, 3), (1, 1), (2, 1))
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = ComplexConv2d(channels, channels, (3, 3), (1, 1), (1, 1))
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = ComplexConv2d(channels, 2, (3, 3), (1, 1), (1, 1))

    def forward(self, wav):
        spec = torch.stft(wav, self.n_fft, self.hop, window=self.window, return_complex=True)
        x = torch.stack([spec.real, spec.imag], dim=1)
        x = F.leaky_relu(self.norm1(self.conv1(x)))
        x = x + F.leaky_relu(self.norm2(self.conv2(x)))
        mask_real, mask_imag = self.conv3(x).unbind(1)
        magnitude = torch.tanh(torch.sqrt(mask_real**2 + mask_imag**2 + 1e-8))
        phase = torch.atan2(mask_imag, mask_real) + torch.angle(spec)
        estimate = torch.polar(spec.abs() * magnitude, phase)
        return torch.istft(estimate, self.n_fft, self.hop, window=self.window, length=wav.shape[-1])


class NativeComplexLinear(nn.Module):
    """Parameters that are complex numbers."""

    def __init__(self, n_fft=64, hidden=24):
        super().__init__()
        self.n_fft = n_fft
        bins = n_fft // 2 + 1
        self.w1 = nn.Parameter(torch.randn(bins, hidden, dtype=torch.cfloat) * 0.1)
        self.w2 = nn.Parameter(torch.randn(hidden, bins, dtype=torch.cfloat) * 0.1)
        self.scale = nn.Parameter(torch.ones(hidden))

    def forward(self, frames):
        spec = torch.fft.rfft(frames, n=self.n_fft)
        x = torch.einsum("btf,fh->bth", spec, self.w1.to(spec.dtype))
        x = torch.complex(F.relu(x.real), F.relu(x.imag)) * self.scale
        return torch.fft.irfft(x @ self.w2.to(spec.dtype), n=self.n_fft)


class BandSplit(nn.Module):
    """One norm and linear layer per band, RNNs along time and along bands, one small MLP per band."""

    def __init__(self, bands=(4, 4, 8, 8, 9), feature_dim=16):
        super().__init__()
        self.bands = bands
        self.splits = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, 2 * band, 1e-8), nn.Conv1d(2 * band, feature_dim, 1)) for band in bands
        )
        self.time = nn.LSTM(feature_dim, feature_dim, batch_first=True, bidirectional=True)
        self.time_proj = nn.Linear(2 * feature_dim, feature_dim)
        self.band = nn.LSTM(feature_dim, feature_dim, batch_first=True, bidirectional=True)
        self.band_proj = nn.Linear(2 * feature_dim, feature_dim)
        self.masks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, feature_dim),
                nn.Conv1d(feature_dim, 2 * feature_dim, 1),
                nn.Tanh(),
                nn.Conv1d(2 * feature_dim, 4 * band, 1),
                nn.GLU(dim=1),
            )
            for band in bands
        )

    def forward(self, spec):
        batch, _, _, frames = spec.shape
        subbands, start = [], 0
        for band, split in zip(self.bands, self.splits, strict=True):
            subband = spec[:, :, start : start + band].contiguous()
            subbands.append(split(subband.view(batch, 2 * band, -1)))
            start += band
        x = torch.stack(subbands, 1)
        b, k, n, t = x.shape
        y = x.permute(0, 1, 3, 2).reshape(b * k, t, n)
        x = x + self.time_proj(self.time(y)[0]).view(b, k, t, n).permute(0, 1, 3, 2)
        y = x.permute(0, 3, 1, 2).contiguous().view(b * t, k, n)
        x = x + self.band_proj(self.band(y)[0]).view(b, t, k, n).permute(0, 2, 3, 1)
        masks = [
            mask(x[:, i]).view(batch, 2, band, frames)
            for i, (mask, band) in enumerate(zip(self.masks, self.bands, strict=True))
        ]
        return torch.cat(masks, dim=2) * spec


class SubBand(nn.Module):
    """Each frequency with its neighbours is one sequence of a shared LSTM, after a full-band LSTM."""

    def __init__(self, num_freqs=33, neighbors=3, hidden=20):
        super().__init__()
        self.neighbors = neighbors
        self.full = nn.LSTM(num_freqs, hidden, batch_first=True)
        self.full_fc = nn.Linear(hidden, num_freqs)
        self.sub = nn.LSTM(2 * neighbors + 2, hidden, 2, batch_first=True)
        self.sub_fc = nn.Linear(hidden, 2)

    def unfold(self, x):
        b, c, f, t = x.shape
        padded = F.pad(x, [0, 0, self.neighbors, self.neighbors], mode="reflect")
        windows = F.unfold(padded.reshape(b * c, 1, f + 2 * self.neighbors, t), (2 * self.neighbors + 1, t))
        return windows.reshape(b, 2 * self.neighbors + 1, t, f).permute(0, 3, 1, 2).contiguous()

    def forward(self, magnitude):
        b, _, f, t = magnitude.shape
        full = self.full_fc(self.full(magnitude.view(b, f, t).transpose(1, 2))[0]).relu()
        full = full.transpose(1, 2).reshape(b, f, 1, t)
        x = torch.cat([self.unfold(magnitude), full], dim=2)
        x = x.reshape(b * f, 2 * self.neighbors + 2, t).transpose(1, 2)
        mask = self.sub_fc(self.sub(x)[0])
        return mask.reshape(b, f, t, 2).permute(0, 3, 1, 2)


class ERB(nn.Module):
    """Compresses the upper bins with a fixed filterbank in a buffer, and expands the mask with its transpose."""

    def __init__(self, bins=33, low=9, bands=8, channels=12):
        super().__init__()
        self.low = low
        edges = torch.linspace(0, bins - low, bands + 2)
        where = torch.arange(bins - low)
        up = (where[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        down = (edges[2:, None] - where[None]) / (edges[2:] - edges[1:-1])[:, None]
        self.register_buffer("bank", torch.minimum(up, down).clamp(min=0))
        self.conv = nn.Conv2d(1, channels, (3, 3), padding=1)
        self.gru = nn.GRU(channels, channels, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * channels, channels)
        self.deconv = nn.ConvTranspose2d(channels, 1, (3, 3), padding=1)

    def forward(self, spec):
        erb = torch.matmul(spec[..., self.low :], self.bank.t())
        x = torch.cat([spec[..., : self.low], erb], dim=-1)
        x = F.relu(self.conv(x))
        b, c, t, f = x.shape
        y = x.permute(0, 2, 3, 1).reshape(b * t, f, c)
        y = self.fc(self.gru(y)[0]).reshape(b, t, f, c).permute(0, 3, 1, 2)
        mask = torch.sigmoid(self.deconv(x + y))
        low, high = mask.split([self.low, mask.shape[-1] - self.low], dim=-1)
        return torch.cat([low, high @ self.bank], dim=-1) * spec


class DeepFiltering(nn.Module):
    """Estimates a complex filter over several frames for each bin and applies it."""

    def __init__(self, bins=33, order=3, hidden=24):
        super().__init__()
        self.order = order
        self.bins = bins
        self.gru = nn.GRU(bins * 2, hidden, batch_first=True)
        self.skip = nn.Linear(bins * 2, hidden)
        self.coefs = nn.Linear(hidden, bins * order * 2)

    def forward(self, spec):
        b, t, _, _ = spec.shape
        x = spec.flatten(2)
        x = self.gru(x)[0] + self.skip(x)
        coefs = torch.tanh(self.coefs(x)).view(b, t, self.bins, self.order, 2)
        padded = F.pad(spec, (0, 0, 0, 0, self.order - 1, 0))
        windows = padded.unfold(1, self.order, 1).permute(0, 1, 2, 4, 3)
        filtered = torch.view_as_complex(windows.contiguous()) * torch.view_as_complex(coefs.contiguous())
        return torch.view_as_real(filtered.sum(dim=-1))


class GridBlock(nn.Module):
    """Unfold, BiLSTM and transposed convolution along one axis of a time-frequency grid."""

    def __init__(self, emb_dim=12, emb_ks=4, emb_hs=2, hidden=16, bins=17):
        super().__init__()
        self.emb_dim, self.emb_ks, self.emb_hs = emb_dim, emb_ks, emb_hs
        self.conv = nn.Conv2d(2, emb_dim, 3, padding=1)
        self.norm = nn.LayerNorm(emb_dim)
        self.rnn = nn.LSTM(emb_dim * emb_ks, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.ConvTranspose1d(hidden * 2, emb_dim, emb_ks, stride=emb_hs)
        self.gamma = nn.Parameter(torch.ones(1, emb_dim, 1, bins))
        self.beta = nn.Parameter(torch.zeros(1, emb_dim, 1, bins))
        self.deconv = nn.ConvTranspose2d(emb_dim, 2, 3, padding=1)

    def freq_norm(self, x):
        mean = x.mean((1, 3), keepdim=True)
        std = torch.sqrt(x.var((1, 3), unbiased=False, keepdim=True) + 1e-5)
        return (x - mean) / std * self.gamma + self.beta

    def forward(self, spec):
        x = self.conv(spec)
        b, c, t, q = x.shape
        padded = ((q - self.emb_ks) // self.emb_hs + 1) * self.emb_hs + self.emb_ks
        x = F.pad(x, (0, padded - q))
        y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 1, 3, 2).contiguous().view(b * t, c, padded)
        y = F.unfold(y[..., None], (self.emb_ks, 1), stride=(self.emb_hs, 1))
        y, _ = self.rnn(y.transpose(1, 2))
        y = self.linear(y.transpose(1, 2)).view(b, t, c, -1).transpose(1, 2)
        x = x + F.pad(y, (0, padded - y.shape[-1]))
        return self.deconv(self.freq_norm(x[..., :q]))


class LearnedOverlapAdd(nn.Module):
    """Frames by unfold, a linear analysis and synthesis, overlap-add by fold and by scatter."""

    def __init__(self, win=16, hop=8, channels=24):
        super().__init__()
        self.win, self.hop = win, hop
        self.analysis = nn.Linear(win, channels, bias=False)
        self.hidden = nn.Linear(channels, channels)
        self.synthesis = nn.Linear(channels, win, bias=False)

    def forward(self, wav):
        frames = wav.unfold(-1, self.win, self.hop)
        x = self.analysis(frames)
        frames = self.synthesis(x * torch.sigmoid(self.hidden(x)))
        length = (frames.size(1) - 1) * self.hop + self.win
        folded = F.fold(frames.transpose(1, 2), (1, length), (1, self.win), stride=(1, self.hop))
        starts = torch.arange(frames.size(1), device=wav.device)[:, None] * self.hop
        where = (starts + torch.arange(self.win, device=wav.device)).flatten().expand(wav.size(0), -1)
        added = wav.new_zeros(wav.size(0), length).scatter_add_(1, where, frames.flatten(1))
        return 0.5 * (folded.view(wav.size(0), -1) + added)
