"""Networks on short-time spectra: U-Nets, bands, complex layers."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F


class UniDeepFsmn(nn.Module):
    """Linear, projection and a symmetric depthwise memory with a skip."""

    def __init__(self, input_dim, output_dim, lorder, hidden_size):
        super().__init__()
        self.lorder = lorder
        self.linear = nn.Linear(input_dim, hidden_size)
        self.project = nn.Linear(hidden_size, output_dim, bias=False)
        self.conv1 = nn.Conv2d(output_dim, output_dim, [lorder, 1], [1, 1], groups=output_dim, bias=False)

    def forward(self, x):
        p1 = self.project(F.relu(self.linear(x)))
        x_per = torch.unsqueeze(p1, 1).permute(0, 3, 2, 1)
        y = F.pad(x_per, [0, 0, self.lorder - 1, 0])
        out = (x_per + self.conv1(y)).permute(0, 3, 2, 1)
        return x + out.squeeze(1)


class ComplexUniDeepFsmn(nn.Module):
    """Two real memories combined as one complex one, over (batch, channels, freq, time, 2)."""

    def __init__(self, nIn, nHidden, lorder=5):
        super().__init__()
        self.fsmn_re = UniDeepFsmn(nIn, nIn, lorder, nHidden)
        self.fsmn_im = UniDeepFsmn(nIn, nIn, lorder, nHidden)

    def forward(self, x):
        b, c, h, t, d = x.size()
        x = torch.reshape(x, (b, c * h, t, d)).transpose(1, 2)
        real = self.fsmn_re(x[..., 0]) - self.fsmn_im(x[..., 1])
        imaginary = self.fsmn_re(x[..., 1]) + self.fsmn_im(x[..., 0])
        output = torch.stack((real, imaginary), dim=-1)
        return output.transpose(1, 2).reshape(b, c, h, t, d)


class ComplexConv2d(nn.Module):
    def __init__(self, in_channel, out_channel, kernel_size, stride=1, padding=0, transposed=False):
        super().__init__()
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.conv_re = kind(in_channel, out_channel, kernel_size, stride=stride, padding=padding)
        self.conv_im = kind(in_channel, out_channel, kernel_size, stride=stride, padding=padding)

    def forward(self, x):
        real = self.conv_re(x[..., 0]) - self.conv_im(x[..., 1])
        imaginary = self.conv_re(x[..., 1]) + self.conv_im(x[..., 0])
        return torch.stack((real, imaginary), dim=-1)


class ComplexBatchNorm2d(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.bn_re = nn.BatchNorm2d(num_features)
        self.bn_im = nn.BatchNorm2d(num_features)

    def forward(self, x):
        return torch.stack((self.bn_re(x[..., 0]), self.bn_im(x[..., 1])), dim=-1)


class SELayer(nn.Module):
    """Squeeze and excitation with complex gates."""

    def __init__(self, channel, reduction=4):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc_r = nn.Sequential(
            nn.Linear(channel, channel // reduction), nn.ReLU(inplace=True), nn.Linear(channel // reduction, channel)
        )
        self.fc_i = nn.Sequential(
            nn.Linear(channel, channel // reduction), nn.ReLU(inplace=True), nn.Linear(channel // reduction, channel)
        )

    def forward(self, x):
        b, c, _, _, _ = x.size()
        x_r = self.avg_pool(x[:, :, :, :, 0]).view(b, c)
        x_i = self.avg_pool(x[:, :, :, :, 1]).view(b, c)
        y_r = torch.sigmoid(self.fc_r(x_r) - self.fc_i(x_i)).view(b, c, 1, 1, 1)
        y_i = torch.sigmoid(self.fc_r(x_i) + self.fc_i(x_r)).view(b, c, 1, 1, 1)
        return x * torch.cat([y_r, y_i], 4)


class FRCRN(nn.Module):
    """Complex U-Net with a complex memory after each convolution and gated skips; a bounded complex mask."""

    def __init__(self, n_fft=64, hop=32, channels=8, depth=3):
        super().__init__()
        self.n_fft, self.hop, self.depth = n_fft, hop, depth
        self.register_buffer("window", torch.hann_window(n_fft))
        widths = [1] + [channels] * depth
        heights = [n_fft // 2 // 2**i for i in range(depth + 1)]
        self.encoders = nn.ModuleList(
            nn.ModuleList([ComplexConv2d(widths[i], channels, (4, 3), (2, 1), (1, 1)), ComplexBatchNorm2d(channels)])
            for i in range(depth)
        )
        self.enc_fsmn = nn.ModuleList(ComplexUniDeepFsmn(channels * heights[i + 1], 24) for i in range(depth))
        self.se = nn.ModuleList(SELayer(channels) for _ in range(depth))
        self.bottom = ComplexUniDeepFsmn(channels * heights[depth], 24)
        self.decoders = nn.ModuleList(
            ComplexConv2d(2 * channels, channels if i < depth - 1 else 1, (4, 3), (2, 1), (1, 1), transposed=True)
            for i in range(depth)
        )

    def forward(self, wav):
        spec = torch.stft(wav, self.n_fft, self.hop, window=self.window, return_complex=True)
        x = torch.view_as_real(spec[:, :-1]).unsqueeze(1)
        skips = []
        for (conv, norm), fsmn, se in zip(self.encoders, self.enc_fsmn, self.se, strict=True):
            x = fsmn(F.leaky_relu(norm(conv(x))))
            skips.append(se(x))
        x = self.bottom(x)
        for i, decoder in enumerate(self.decoders):
            x = decoder(torch.cat([x, skips[self.depth - 1 - i]], 1))
            if i < self.depth - 1:
                x = F.leaky_relu(x)
        mask = torch.tanh(x.squeeze(1))
        mask = F.pad(mask, (0, 0, 0, 0, 0, 1))
        real = spec.real * mask[..., 0] - spec.imag * mask[..., 1]
        imag = spec.real * mask[..., 1] + spec.imag * mask[..., 0]
        return torch.istft(torch.complex(real, imag), self.n_fft, self.hop, window=self.window, length=wav.size(-1))


class SpleeterUNet(nn.Module):
    """Six-layer 2-D U-Net of one instrument; here three."""

    def __init__(self, n_channels=2, width=8, layers=3):
        super().__init__()
        sizes = [n_channels] + [width * 2**i for i in range(layers)]
        self.down = nn.ModuleList(
            nn.Conv2d(i, o, kernel_size=5, stride=2, padding=2) for i, o in itertools.pairwise(sizes)
        )
        self.down_norm = nn.ModuleList(nn.BatchNorm2d(o, eps=1e-3, momentum=0.01) for o in sizes[1:])
        ups = [(sizes[-1], sizes[-2])] + [(2 * sizes[i], sizes[i - 1]) for i in range(layers - 1, 1, -1)]
        ups.append((2 * sizes[1], 1))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(i, o, kernel_size=5, stride=2, padding=2, output_padding=1) for i, o in ups
        )
        self.up_norm = nn.ModuleList(nn.BatchNorm2d(o, eps=1e-3, momentum=0.01) for _, o in ups)
        self.final = nn.Conv2d(1, n_channels, kernel_size=4, dilation=2, padding=3)

    def forward(self, x):
        skips = []
        for conv, norm in zip(self.down, self.down_norm, strict=True):
            skips.append(conv(x))
            x = F.leaky_relu(norm(skips[-1]), 0.2)
        x = skips.pop()
        for i, (deconv, norm) in enumerate(zip(self.up, self.up_norm, strict=True)):
            x = norm(F.relu(deconv(x)))
            if skips:
                x = torch.cat([skips.pop(), x], 1)
            if i == 0:
                x = F.dropout2d(x, 0.5, training=self.training)
        return torch.sigmoid(self.final(x))


class Spleeter(nn.Module):
    """One U-Net per instrument; the masks are made to sum to one; stereo STFT cut to a multiple of the stride."""

    def __init__(self, instruments=("vocals", "accompaniment"), win_length=64, hop=16, F_bins=32, T_frames=16):
        super().__init__()
        self.F, self.T = F_bins, T_frames
        self.win_length, self.hop_length = win_length, hop
        self.win = nn.Parameter(torch.hann_window(win_length), requires_grad=False)
        self.stems = nn.ModuleDict({name: SpleeterUNet() for name in instruments})

    def compute_stft(self, wav):
        stft = torch.stft(wav, self.win_length, self.hop_length, window=self.win, return_complex=True, center=True)
        stft = stft[:, : self.F, :]
        return torch.view_as_real(stft), stft.abs()

    def forward(self, wav):
        real_imag, mag = self.compute_stft(wav)
        frames = mag.size(-1)
        pad = (-frames) % self.T
        mag = F.pad(mag, (0, pad)).unsqueeze(0).transpose(2, 3)
        b, c, t, f = mag.shape
        mag = mag.reshape(b, c, t // self.T, self.T, f).permute(0, 2, 1, 3, 4).reshape(-1, c, self.T, f)
        masks = [net(mag) * mag for net in self.stems.values()]
        total = sum(m**2 for m in masks) + 1e-10
        waves = {}
        for name, m in zip(self.stems, masks, strict=True):
            mask = ((m**2 + 1e-10 / 2) / total).view(b, -1, c, self.T, f).permute(0, 2, 1, 3, 4).reshape(c, -1, f)
            mask = mask[:, :frames].transpose(1, 2)
            mask = F.pad(mask, (0, 0, 0, self.win_length // 2 + 1 - self.F)).unsqueeze(-1)
            spec = F.pad(real_imag, (0, 0, 0, 0, 0, self.win_length // 2 + 1 - self.F)) * mask
            spec = torch.view_as_complex(spec.contiguous())
            waves[name] = torch.istft(spec, self.win_length, self.hop_length, window=self.win, length=wav.size(-1))
        return waves


class ERBBands(nn.Module):
    """Fixed linear layers from bins to bands and back for the upper part of the spectrum."""

    def __init__(self, low=9, bands=8, bins=33):
        super().__init__()
        filters = torch.rand(bands, bins - low).softmax(dim=1)
        self.low = low
        self.erb_fc = nn.Linear(bins - low, bands, bias=False)
        self.ierb_fc = nn.Linear(bands, bins - low, bias=False)
        self.erb_fc.weight = nn.Parameter(filters, requires_grad=False)
        self.ierb_fc.weight = nn.Parameter(filters.T.clone(), requires_grad=False)

    def bm(self, x):
        return torch.cat([x[..., : self.low], self.erb_fc(x[..., self.low :])], dim=-1)

    def bs(self, x):
        return torch.cat([x[..., : self.low], self.ierb_fc(x[..., self.low :])], dim=-1)


class TRA(nn.Module):
    """Temporal recurrent attention."""

    def __init__(self, channels):
        super().__init__()
        self.att_gru = nn.GRU(channels, channels * 2, 1, batch_first=True)
        self.att_fc = nn.Linear(channels * 2, channels)
        self.att_act = nn.Sigmoid()

    def forward(self, x):
        zt = torch.mean(x.pow(2), dim=-1)
        at = self.att_gru(zt.transpose(1, 2))[0]
        at = self.att_act(self.att_fc(at).transpose(1, 2))
        return x * at[..., None]


class GTConvBlock(nn.Module):
    """Half of the channels pass; the other half go through sub-band features, depthwise and attention; shuffled."""

    def __init__(self, channels, hidden, dilation):
        super().__init__()
        self.pad_size = 2 * dilation
        self.unfold = nn.Unfold(kernel_size=(1, 3), padding=(0, 1))
        self.point_conv1 = nn.Conv2d(channels // 2 * 3, hidden, 1)
        self.point_bn1 = nn.BatchNorm2d(hidden)
        self.point_act = nn.PReLU()
        self.depth_conv = nn.Conv2d(hidden, hidden, (3, 3), padding=(0, 1), dilation=(dilation, 1), groups=hidden)
        self.depth_bn = nn.BatchNorm2d(hidden)
        self.point_conv2 = nn.Conv2d(hidden, channels // 2, 1)
        self.point_bn2 = nn.BatchNorm2d(channels // 2)
        self.tra = TRA(channels // 2)

    def sfe(self, x):
        b, c, t, f = x.shape
        return self.unfold(x).reshape(b, c * 3, t, f)

    def shuffle(self, x1, x2):
        x = torch.stack([x1, x2], dim=1).transpose(1, 2).contiguous()
        b, c, g, t, f = x.shape
        return x.view(b, c * g, t, f)

    def forward(self, x):
        x1, x2 = torch.chunk(x, chunks=2, dim=1)
        h1 = self.point_act(self.point_bn1(self.point_conv1(self.sfe(x1))))
        h1 = F.pad(h1, [0, 0, self.pad_size, 0])
        h1 = F.prelu(self.depth_bn(self.depth_conv(h1)), self.point_act.weight)
        h1 = self.tra(self.point_bn2(self.point_conv2(h1)))
        return self.shuffle(h1, x2)


class GRNN(nn.Module):
    """A GRU in two groups."""

    def __init__(self, input_size, hidden_size, bidirectional=False):
        super().__init__()
        self.hidden_size = hidden_size
        self.bidirectional = bidirectional
        self.rnn1 = nn.GRU(input_size // 2, hidden_size // 2, batch_first=True, bidirectional=bidirectional)
        self.rnn2 = nn.GRU(input_size // 2, hidden_size // 2, batch_first=True, bidirectional=bidirectional)

    def forward(self, x):
        h = torch.zeros(2 if self.bidirectional else 1, x.shape[0], self.hidden_size, device=x.device, dtype=x.dtype)
        x1, x2 = torch.chunk(x, chunks=2, dim=-1)
        h1, h2 = torch.chunk(h, chunks=2, dim=-1)
        y1, _ = self.rnn1(x1, h1.contiguous())
        y2, _ = self.rnn2(x2, h2.contiguous())
        return torch.cat([y1, y2], dim=-1)


class DPGRNN(nn.Module):
    """Grouped dual-path RNN with layer norm over (width, channels)."""

    def __init__(self, input_size, width, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.width = width
        self.intra_rnn = GRNN(input_size, hidden_size // 2, bidirectional=True)
        self.intra_fc = nn.Linear(hidden_size, hidden_size)
        self.intra_ln = nn.LayerNorm((width, hidden_size), eps=1e-8)
        self.inter_rnn = GRNN(input_size, hidden_size)
        self.inter_fc = nn.Linear(hidden_size, hidden_size)
        self.inter_ln = nn.LayerNorm((width, hidden_size), eps=1e-8)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        intra_x = x.reshape(x.shape[0] * x.shape[1], x.shape[2], x.shape[3])
        intra_x = self.intra_fc(self.intra_rnn(intra_x))
        intra_x = intra_x.reshape(x.shape[0], -1, self.width, self.hidden_size)
        intra_out = torch.add(x, self.intra_ln(intra_x))
        x = intra_out.permute(0, 2, 1, 3)
        inter_x = x.reshape(x.shape[0] * x.shape[1], x.shape[2], x.shape[3])
        inter_x = self.inter_fc(self.inter_rnn(inter_x))
        inter_x = inter_x.reshape(x.shape[0], self.width, -1, self.hidden_size).permute(0, 2, 1, 3)
        return torch.add(intra_out, self.inter_ln(inter_x)).permute(0, 3, 1, 2)


class GTCRN(nn.Module):
    """ERB bands, grouped temporal convolutions, grouped dual-path RNN, complex ratio mask."""

    def __init__(self, channels=16, hidden=12):
        super().__init__()
        self.erb = ERBBands()
        self.conv0 = nn.Sequential(
            nn.Conv2d(3, channels, (1, 5), stride=(1, 2), padding=(0, 2)), nn.BatchNorm2d(channels), nn.PReLU()
        )
        self.en = nn.ModuleList(GTConvBlock(channels, hidden, d) for d in (1, 2))
        self.dpgrnn1 = DPGRNN(channels, 9, channels)
        self.dpgrnn2 = DPGRNN(channels, 9, channels)
        self.de = nn.ModuleList(GTConvBlock(channels, hidden, d) for d in (2, 1))
        self.deconv = nn.ConvTranspose2d(channels, 2, (1, 5), stride=(1, 2), padding=(0, 2))
        self.norm = nn.BatchNorm2d(2)

    def forward(self, spec):
        spec_real, spec_imag = spec[..., 0].permute(0, 2, 1), spec[..., 1].permute(0, 2, 1)
        spec_mag = torch.sqrt(spec_real**2 + spec_imag**2 + 1e-12)
        feat = self.erb.bm(torch.stack([spec_mag, spec_real, spec_imag], dim=1))
        feat = skip = self.conv0(feat)
        skips = []
        for block in self.en:
            feat = block(feat)
            skips.append(feat)
        feat = self.dpgrnn2(self.dpgrnn1(feat))
        for block in self.de:
            feat = block(feat + skips.pop())
        m = self.erb.bs(torch.tanh(self.norm(self.deconv(feat + skip))))
        s_real = spec_real * m[:, 0] - spec_imag * m[:, 1]
        s_imag = spec_imag * m[:, 0] + spec_real * m[:, 1]
        return torch.stack([s_real, s_imag], dim=1).permute(0, 3, 2, 1)
