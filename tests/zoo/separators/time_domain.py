"""Convolutional and recurrent networks on learned filterbanks."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def overlap_and_add(signal, frame_step):
    """Adds frames ``(..., frames, frame_length)`` at intervals of ``frame_step`` samples."""
    outer_dimensions = signal.size()[:-2]
    frames, frame_length = signal.size()[-2:]
    subframe_length = math.gcd(frame_length, frame_step)
    subframe_step = frame_step // subframe_length
    subframes_per_frame = frame_length // subframe_length
    output_size = frame_step * (frames - 1) + frame_length
    output_subframes = output_size // subframe_length
    subframe_signal = signal.contiguous().view(*outer_dimensions, -1, subframe_length)
    frame = torch.arange(0, output_subframes, device=signal.device).unfold(0, subframes_per_frame, subframe_step)
    frame = frame.contiguous().view(-1)
    result = signal.new_zeros(*outer_dimensions, output_subframes, subframe_length)
    result.index_add_(-2, frame, subframe_signal)
    return result.view(*outer_dimensions, -1)


class ChannelwiseLayerNorm(nn.Module):
    def __init__(self, channel_size):
        super().__init__()
        self.gamma = nn.Parameter(torch.Tensor(1, channel_size, 1).fill_(1))
        self.beta = nn.Parameter(torch.Tensor(1, channel_size, 1).zero_())

    def forward(self, y):
        mean = torch.mean(y, dim=1, keepdim=True)
        var = torch.var(y, dim=1, keepdim=True, unbiased=False)
        return self.gamma * (y - mean) / torch.pow(var + 1e-8, 0.5) + self.beta


class GlobalLayerNorm(nn.Module):
    def __init__(self, channel_size):
        super().__init__()
        self.gamma = nn.Parameter(torch.Tensor(1, channel_size, 1).fill_(1))
        self.beta = nn.Parameter(torch.Tensor(1, channel_size, 1).zero_())

    def forward(self, y):
        mean = y.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        var = (torch.pow(y - mean, 2)).mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        return self.gamma * (y - mean) / torch.pow(var + 1e-8, 0.5) + self.beta


class Chomp1d(nn.Module):
    def __init__(self, chomp_size):
        super().__init__()
        self.chomp_size = chomp_size

    def forward(self, x):
        return x[:, :, : -self.chomp_size].contiguous()


class TemporalBlock(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, dilation, causal):
        super().__init__()
        padding = (kernel_size - 1) * dilation if causal else (kernel_size - 1) * dilation // 2
        depthwise = nn.Conv1d(
            out_channels,
            out_channels,
            kernel_size,
            padding=padding,
            dilation=dilation,
            groups=out_channels,
            bias=False,
        )
        tail = [nn.PReLU(), GlobalLayerNorm(out_channels), nn.Conv1d(out_channels, in_channels, 1, bias=False)]
        dsconv = nn.Sequential(depthwise, *([Chomp1d(padding)] if causal else []), *tail)
        conv1x1 = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.net = nn.Sequential(conv1x1, nn.PReLU(), GlobalLayerNorm(out_channels), dsconv)

    def forward(self, x):
        return self.net(x) + x


class ConvTasNet(nn.Module):
    """Encoder, temporal convolutional network and decoder, with a linear decoder and overlap-add by hand."""

    def __init__(self, N=32, L=16, B=20, H=40, X=3, R=2, C=2, causal=False):
        super().__init__()
        self.N, self.L, self.C = N, L, C
        self.conv1d_U = nn.Conv1d(1, N, kernel_size=L, stride=L // 2, bias=False)
        repeats = [
            nn.Sequential(*[TemporalBlock(B, H, 3, dilation=2**x, causal=causal) for x in range(X)]) for _ in range(R)
        ]
        self.network = nn.Sequential(
            ChannelwiseLayerNorm(N), nn.Conv1d(N, B, 1, bias=False), *repeats, nn.Conv1d(B, C * N, 1, bias=False)
        )
        self.basis_signals = nn.Linear(N, L, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_normal_(p)

    def forward(self, mixture):
        mixture_w = F.relu(self.conv1d_U(torch.unsqueeze(mixture, 1)))
        M, N, K = mixture_w.size()
        score = self.network(mixture_w).view(M, self.C, N, K)
        est_mask = F.softmax(score, dim=1)
        source_w = torch.unsqueeze(mixture_w, 1) * est_mask
        source_w = torch.transpose(source_w, 2, 3)
        est_source = overlap_and_add(self.basis_signals(source_w), self.L // 2)
        return F.pad(est_source, (0, mixture.size(-1) - est_source.size(-1)))


class LSTMTasNet(nn.Module):
    """The first TasNet: normalised segments, a gated encoder, stacked BLSTMs with skips, a linear basis."""

    def __init__(self, L=20, N=32, hidden_size=24, num_layers=4, nspk=2):
        super().__init__()
        self.L, self.N, self.nspk = L, N, nspk
        self.U = nn.Conv1d(L, N, kernel_size=1, bias=False)
        self.V = nn.Conv1d(L, N, kernel_size=1, bias=False)
        self.layer_norm = nn.LayerNorm(N)
        self.rnn1 = nn.LSTM(N, hidden_size, num_layers // 2, batch_first=True, bidirectional=True)
        self.rnn2 = nn.LSTM(2 * hidden_size, hidden_size, num_layers // 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(hidden_size * 2, nspk * N)
        self.basis_signals = nn.Linear(N, L, bias=False)

    def forward(self, mixture):
        B, T = mixture.size()
        segments = mixture.view(B, T // self.L, self.L)
        norm_coef = torch.norm(segments, p=2, dim=2, keepdim=True)
        x = (segments / (norm_coef + 1e-8)).transpose(1, 2)
        weight = (F.relu(self.U(x)) * torch.sigmoid(self.V(x))).transpose(1, 2)
        y, _ = self.rnn1(self.layer_norm(weight))
        z, _ = self.rnn2(y)
        score = self.fc(y + z).view(B, -1, self.nspk, self.N)
        est_mask = F.softmax(score, dim=2)
        source_w = weight.unsqueeze(2) * est_mask
        est = self.basis_signals(source_w) * norm_coef.unsqueeze(2)
        return est.permute(0, 2, 1, 3).contiguous().view(B, self.nspk, -1)


class CausalNorm(nn.Module):
    """Normalises each channel of a frame by the channels of that frame."""

    def __init__(self, nOut):
        super().__init__()
        self.gain = nn.Parameter(torch.ones((1, nOut, 1)))
        self.bias = nn.Parameter(torch.zeros((1, nOut, 1)))

    def forward(self, x):
        std, mean = torch.std_mean(x, dim=1, keepdim=True, unbiased=False)
        return (x - mean) / (std + 1e-6) * self.gain + self.bias


class ScaledWSConv1d(nn.Conv1d):
    """A convolution whose weight is standardised over the fan-in, with a gain per output channel."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1))

    def get_weight(self):
        fan_in = self.weight.shape[1] * self.weight.shape[2]
        mean = torch.mean(self.weight, dim=[1, 2], keepdim=True)
        var = torch.var(self.weight, dim=[1, 2], keepdim=True)
        scale = torch.rsqrt(torch.maximum(var * fan_in, torch.tensor(1e-4).to(var))) * self.gain.view_as(var)
        return (self.weight - mean) * scale

    def forward(self, x):
        return F.conv1d(x, self.get_weight(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class UConvBlock(nn.Module):
    """Successive downsampling and resampling of depthwise features, causal, with skip-init scaling."""

    def __init__(self, out_channels=20, in_channels=32, upsampling_depth=3, alpha=1.0, beta=1.0):
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.skipinit_gain = nn.Parameter(torch.zeros(()))
        self.depth = upsampling_depth
        self.proj_1x1 = nn.Sequential(ScaledWSConv1d(out_channels, in_channels, 1), nn.PReLU())
        self.spp_dw = nn.ModuleList(
            ScaledWSConv1d(
                in_channels,
                in_channels,
                21 if i else 11,
                stride=2 if i else 1,
                padding=20 if i else 10,
                groups=in_channels,
            )
            for i in range(upsampling_depth)
        )
        self.upsampler = nn.Upsample(scale_factor=2)
        self.norm = CausalNorm(in_channels)
        self.final = nn.Sequential(nn.PReLU(), ScaledWSConv1d(in_channels, out_channels, 1))

    def forward(self, x):
        residual = x.clone()
        output1 = self.proj_1x1(x / self.beta)
        output = [self.spp_dw[0](output1)[..., : output1.shape[-1]]]
        for k in range(1, self.depth):
            frames = output[-1].shape[-1]
            output.append(self.spp_dw[k](output[-1])[..., : frames // 2])
        for _ in range(self.depth - 1):
            resampled = self.upsampler(output.pop(-1))
            output[-1] = output[-1] + resampled
        return self.final(self.norm(output[-1])) * self.skipinit_gain * self.alpha + residual


class CausalSuDORMRF(nn.Module):
    """Causal SuDoRM-RF: the mixture is padded to a multiple of what the U-convolutions need."""

    def __init__(self, out_channels=20, in_channels=32, num_blocks=3, depth=3, kernel=21, basis=32, num_sources=2):
        super().__init__()
        self.n_least_samples_req = kernel // 2 * 2**depth
        self.num_sources, self.enc_num_basis = num_sources, basis
        self.encoder = nn.Conv1d(1, basis, kernel, stride=kernel // 2, padding=kernel // 2, bias=False)
        self.bottleneck = ScaledWSConv1d(basis, out_channels, 1)
        self.sm = nn.Sequential(
            *[UConvBlock(out_channels, in_channels, depth, beta=1.0 + 0.1 * i) for i in range(num_blocks)]
        )
        self.mask_net = nn.Sequential(nn.PReLU(), ScaledWSConv1d(out_channels, num_sources * basis, 1))
        self.mask_nl_class = nn.ReLU()
        self.decoder = nn.ConvTranspose1d(
            basis * num_sources,
            num_sources,
            kernel,
            stride=kernel // 2,
            padding=kernel // 2,
            output_padding=kernel // 2 - 1,
            groups=num_sources,
            bias=False,
        )

    def pad_to_appropriate_length(self, x):
        remainder = x.shape[-1] % self.n_least_samples_req
        if remainder:
            padded = torch.zeros([*x.shape[:-1], x.shape[-1] + self.n_least_samples_req - remainder]).to(x)
            padded[..., : x.shape[-1]] = x
            return padded
        return x

    def forward(self, input_wav):
        s = self.encoder(self.pad_to_appropriate_length(input_wav))
        s = s[..., : s.shape[-1] // 8 * 8]
        x = self.mask_net(self.sm(self.bottleneck(s.clone())))
        x = self.mask_nl_class(x.view(x.shape[0], self.num_sources, self.enc_num_basis, -1)) * s.unsqueeze(1)
        return self.decoder(x.view(x.shape[0], -1, x.shape[-1]))[..., : input_wav.shape[-1]]


class DownBlock(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(n_in, n_out, kernel_size=15, padding=7), nn.BatchNorm1d(n_out), nn.LeakyReLU(0.1)
        )

    def forward(self, x):
        return self.main(x)


class WaveUNet(nn.Module):
    """Decimation by slicing, linear interpolation, cropped skips, the last source as the rest of the mixture."""

    def __init__(self, n_layers=3, channels_interval=6, sources=("vocals", "drums", "rest")):
        super().__init__()
        self.n_layers = n_layers
        self.sources = list(sources)
        sizes_in = [1] + [(i + 1) * channels_interval for i in range(n_layers - 1)]
        sizes_out = [(i + 1) * channels_interval for i in range(n_layers)]
        self.encoder = nn.ModuleList(DownBlock(i, o) for i, o in zip(sizes_in, sizes_out, strict=True))
        bottom = n_layers * channels_interval
        self.middle = nn.Sequential(nn.Conv1d(bottom, bottom, 15, padding=7), nn.BatchNorm1d(bottom), nn.LeakyReLU(0.1))
        self.decoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(bottom + o if n == 0 else sizes_out[::-1][n - 1] + o, o, 5, padding=2),
                nn.BatchNorm1d(o),
                nn.LeakyReLU(0.1, inplace=True),
            )
            for n, o in enumerate(sizes_out[::-1])
        )
        self.out = nn.ModuleDict(
            {name: nn.Sequential(nn.Conv1d(1 + channels_interval, 1, 1), nn.Tanh()) for name in self.sources[:-1]}
        )

    @staticmethod
    def center_crop(x, target):
        diff = x.shape[-1] - target.shape[-1]
        return x if diff == 0 else x[:, :, diff // 2 : -(diff - diff // 2)]

    def forward(self, mix):
        tmp = []
        o = mix
        for layer in self.encoder:
            o = layer(o)
            tmp.append(o)
            o = o[:, :, ::2]
        o = self.middle(o)
        for i in range(self.n_layers):
            o = F.interpolate(o, scale_factor=2, mode="linear", align_corners=True)
            o = torch.cat([o, self.center_crop(tmp[self.n_layers - i - 1], o)], dim=1)
            o = self.decoder[i](o)
        o = torch.cat([o, mix], dim=1)
        outputs = {name: layer(o) for name, layer in self.out.items()}
        outputs[self.sources[-1]] = mix - sum(outputs.values())
        return outputs
