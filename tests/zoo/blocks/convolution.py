"""Convolutions and norms of every kind, waveform to waveform."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class ConvCodec(nn.Module):
    """A strided encoder, a stack of residual middle layers and a transposed decoder."""

    def __init__(self, middle, channels=24, kernel_size=16, stride=8):
        super().__init__()
        self.encoder = nn.Conv1d(1, channels, kernel_size, stride=stride, bias=False)
        self.middle = middle
        self.decoder = nn.ConvTranspose1d(channels, 1, kernel_size, stride=stride, bias=False)

    def forward(self, wav):
        x = F.relu(self.encoder(wav))
        return self.decoder(x * torch.sigmoid(self.middle(x)))[..., : wav.shape[-1]]


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def grouped_convs():
    """Grouped with several inputs per group, depthwise, depthwise with a multiplier, dilated, reflected."""
    return nn.Sequential(
        Residual(
            nn.Sequential(
                nn.Conv1d(24, 48, 3, padding=1, groups=4),
                nn.PReLU(48),
                nn.Conv1d(48, 48, 3, padding=4, dilation=4, groups=48),
                nn.Conv1d(48, 24, 1),
            )
        ),
        nn.Conv1d(24, 48, 3, padding="same", groups=24),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv1d(48, 24, 5, padding=2, padding_mode="reflect"),
    )


def normed_convs():
    """Every stock norm over channels."""
    return nn.Sequential(
        nn.Conv1d(24, 32, 3, padding=1),
        nn.BatchNorm1d(32),
        nn.ReLU(inplace=True),
        nn.Conv1d(32, 24, 3, padding=1, bias=False),
        nn.GroupNorm(1, 24),
        nn.PReLU(),
        nn.Conv1d(24, 32, 1),
        nn.GroupNorm(4, 32),
        nn.ELU(),
        nn.Conv1d(32, 20, 1),
        nn.InstanceNorm1d(20, affine=True),
        nn.Conv1d(20, 28, 1),
        nn.InstanceNorm1d(28, affine=True, track_running_stats=True),
        nn.Hardswish(),
        nn.Conv1d(28, 24, 1),
        nn.BatchNorm1d(24, affine=False),
    )


def weight_normed_convs():
    """weight_norm as it was and as a parametrization, and spectral_norm both ways."""
    return nn.Sequential(
        nn.utils.weight_norm(nn.Conv1d(24, 32, 3, padding=1)),
        nn.ReLU(),
        parametrizations.weight_norm(nn.Conv1d(32, 28, 3, padding=1)),
        nn.Tanh(),
        nn.utils.spectral_norm(nn.Conv1d(28, 32, 1)),
        nn.SiLU(),
        parametrizations.spectral_norm(nn.Conv1d(32, 24, 1)),
    )


class UNet1d(nn.Module):
    """Concatenated skips, pooling, upsampling of three kinds and squeeze-excitation."""

    def __init__(self, width=12):
        super().__init__()
        self.down1 = nn.Conv1d(1, width, 5, padding=2)
        self.down2 = nn.Conv1d(width, 2 * width, 5, padding=2)
        self.bottom = nn.Conv1d(2 * width, 2 * width, 3, padding=1)
        self.squeeze = nn.Sequential(nn.Linear(2 * width, width // 2), nn.ReLU(), nn.Linear(width // 2, 2 * width))
        self.up = nn.ConvTranspose1d(2 * width, 2 * width, 2, stride=2)
        self.fuse2 = nn.Conv1d(4 * width, width, 5, padding=2)
        self.fuse1 = nn.Conv1d(2 * width, width, 5, padding=2)
        self.out = nn.Conv1d(width + 1, 2, 1)

    def forward(self, wav):
        d1 = F.relu(self.down1(wav))
        d2 = F.relu(self.down2(F.max_pool1d(d1, 2)))
        b = self.bottom(F.avg_pool1d(d2, 2))
        b = b * torch.sigmoid(self.squeeze(b.mean(dim=-1))).unsqueeze(-1)
        u2 = self.fuse2(torch.cat([self.up(b), d2], dim=1))
        u2 = F.interpolate(u2, scale_factor=2, mode="linear", align_corners=False)
        u1 = F.leaky_relu(self.fuse1(torch.cat((u2, d1), 1)), 0.2)
        return torch.tanh(self.out(torch.cat((u1, wav), dim=1)))


class SubPixel2d(nn.Module):
    """2-D convolutions over a spectrogram with sub-pixel upsampling in frequency."""

    def __init__(self, channels=12, scale=2):
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(1, channels, (5, 3), stride=(scale, 1), padding=(2, 1))
        self.norm = nn.BatchNorm2d(channels)
        self.depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.point = nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, channels * scale, (3, 3), padding=(1, 1))
        self.out = nn.Conv2d(channels, 1, 1)

    def forward(self, spec):
        x = F.elu(self.norm(self.conv1(spec)))
        x = x + self.point(self.depth(x))
        x = self.conv2(x)
        b, c, f, t = x.shape
        x = x.view(b, self.scale, c // self.scale, f, t).permute(0, 2, 3, 1, 4)
        x = x.reshape(b, c // self.scale, f * self.scale, t)
        return self.out(F.elu(x)) * spec


class Volume3d(nn.Module):
    """3-D convolutions over (microphone, frequency, time)."""

    def __init__(self, channels=8):
        super().__init__()
        self.conv1 = nn.Conv3d(1, channels, (2, 3, 3), padding=(0, 1, 1))
        self.norm = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, 2 * channels, (1, 3, 3), padding=(0, 1, 1), groups=2)
        self.up = nn.ConvTranspose3d(2 * channels, channels, (2, 1, 1))
        self.out = nn.Conv3d(channels, 1, 1)

    def forward(self, x):
        y = F.relu(self.norm(self.conv1(x)))
        return self.out(self.up(F.gelu(self.conv2(y)))) + x


class HandWrittenNorms(nn.Module):
    """Global and cumulative layer norm written out in means and variances, with dense connections."""

    def __init__(self, channels=20, layers=3):
        super().__init__()
        self.inp = nn.Conv1d(1, channels, 8, stride=4)
        self.convs = nn.ModuleList(nn.Conv1d(channels * (i + 1), channels, 3, padding=1) for i in range(layers))
        self.gamma = nn.ParameterList(nn.Parameter(torch.rand(1, channels, 1)) for _ in range(layers))
        self.beta = nn.ParameterList(nn.Parameter(torch.rand(1, channels, 1)) for _ in range(layers))
        self.out = nn.ConvTranspose1d(channels, 1, 8, stride=4)

    def global_norm(self, x):
        mean = torch.mean(x, dim=(1, 2), keepdim=True)
        var = torch.mean((x - mean) ** 2, dim=(1, 2), keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-8)

    def cumulative_norm(self, x):
        step_sum = x.sum(1)
        step_pow_sum = x.pow(2).sum(1)
        count = torch.arange(x.size(1), x.size(1) * (x.size(2) + 1), x.size(1), device=x.device, dtype=x.dtype)
        mean = torch.cumsum(step_sum, dim=1) / count
        var = torch.cumsum(step_pow_sum, dim=1) / count - mean.pow(2)
        return (x - mean.unsqueeze(1)) / (var.unsqueeze(1) + 1e-5).sqrt()

    def forward(self, wav):
        skip = self.inp(wav)
        for i, conv in enumerate(self.convs):
            x = conv(skip)
            x = self.global_norm(x) if i % 2 == 0 else self.cumulative_norm(x)
            x = F.relu(x * self.gamma[i] + self.beta[i])
            skip = torch.cat([x, skip], dim=1)
        return self.out(x)


class Maxout(nn.Module):
    """Channels in pairs: maxout, channel shuffle, flip and roll."""

    def __init__(self, channels=16):
        super().__init__()
        self.channels = channels
        self.inp = nn.Conv1d(1, channels * 2, 8, stride=4)
        self.mid = nn.Conv1d(channels, channels, 3, padding=1, groups=2)
        self.out = nn.ConvTranspose1d(channels, 1, 8, stride=4)

    def shuffle(self, x, groups=2):
        b, c, t = x.size()
        return x.view(b, groups, c // groups, t).transpose(1, 2).contiguous().view(b, -1, t)

    def forward(self, wav):
        x = self.inp(wav)
        x, _ = x.view(x.size(0), self.channels, 2, -1).max(dim=2)
        x = self.shuffle(self.mid(x))
        return self.out(x + torch.flip(x, dims=[-1]) + torch.roll(x, 1, dims=2))


class SharedUnrolled(nn.Module):
    """One block applied many times, with a scaled skip from the input each time."""

    def __init__(self, channels=20, hidden=32, repeats=4):
        super().__init__()
        self.repeats = repeats
        self.inp = nn.Conv1d(1, channels, 8, stride=4)
        self.block = nn.Sequential(
            nn.Conv1d(channels, hidden, 1),
            nn.PReLU(),
            nn.GroupNorm(1, hidden),
            nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.Conv1d(hidden, channels, 1),
        )
        self.concat = nn.Sequential(nn.Conv1d(channels, channels, 1, groups=channels), nn.PReLU())
        self.out = nn.ConvTranspose1d(channels, 1, 8, stride=4)

    def forward(self, wav):
        mixture = self.inp(wav)
        x = self.block(mixture)
        for _ in range(self.repeats):
            x = self.block(self.concat(mixture + x))
        return self.out(x * mixture)


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's filters, transposed."""

    def __init__(self, channels=24, win=16):
        super().__init__()
        self.win = win
        self.filters = nn.Parameter(torch.randn(channels, 1, win) * 0.2)
        self.mask = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, wav):
        x = F.conv1d(wav, self.filters, stride=self.win // 2)
        return F.conv_transpose1d(x * torch.sigmoid(self.mask(x)), self.filters, stride=self.win // 2)


class StreamingTCN(nn.Module):
    """Causal convolutions whose left context comes in and goes out as caches."""

    def __init__(self, channels=20, hidden=32, kernel_size=3, dilations=(1, 2, 4)):
        super().__init__()
        self.contexts = [(kernel_size - 1) * d for d in dilations]
        self.inp = nn.Conv1d(16, channels, 1)
        self.depthwise = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, dilation=d, groups=channels) for d in dilations
        )
        self.pointwise = nn.ModuleList(
            nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.PReLU(), nn.Conv1d(hidden, channels, 1)) for _ in dilations
        )
        self.out = nn.Conv1d(channels, 16, 1)

    def forward(self, x, cache):
        y = self.inp(x)
        new_caches = []
        start = 0
        for context, depth, point in zip(self.contexts, self.depthwise, self.pointwise, strict=True):
            padded = torch.cat([cache[:, :, start : start + context], y], dim=2)
            start += context
            new_caches.append(padded[:, :, -context:])
            y = y + point(F.relu(depth(padded)))
        return self.out(y), torch.cat(new_caches, dim=2)
