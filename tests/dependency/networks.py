"""Small networks of one topology each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.act, self.b = nn.Conv1d(1, 6, 3), nn.BatchNorm1d(6), nn.PReLU(6), nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.norm(self.a(x))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.into, self.out = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 4, 1), nn.Conv1d(4, 6, 3, padding=1)
        self.b = nn.Conv1d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x + self.out(self.into(x).relu()))


class Cat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(1, 4, 1), nn.Conv1d(1, 6, 1), nn.Conv1d(10, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), self.b(x)], dim=1).tanh())


class Split(nn.Module):
    """The sizes of the parts are attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = 4, 6
        self.a = nn.Conv1d(1, self.left + self.right, 1)
        self.b, self.c, self.d = nn.Conv1d(4, 3, 1), nn.Conv1d(6, 3, 1), nn.Conv1d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.a(x).split([self.left, self.right], dim=1)
        return self.d((self.b(left) + self.c(right)).relu())


class Chunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 8, 1), nn.Conv1d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.a(x).chunk(2, dim=1)
        return self.b(value.tanh() * gate.sigmoid())


class Glu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 8, 1), nn.Conv1d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.glu(self.a(x), dim=1))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 12, 3, groups=2), nn.Conv1d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)).relu())


class Depthwise(nn.Module):
    """Depthwise with one and with two outputs for each input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 4, 1), nn.Conv1d(4, 4, 3, groups=4)
        self.c, self.d = nn.Conv1d(4, 8, 3, groups=4), nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.a(x)).relu()).relu())


class Transposed(nn.Module):
    """Transposed convolutions: dense, grouped and depthwise; their weights are (in, out per group, taps)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(1, 6, 1)
        self.b = nn.ConvTranspose1d(6, 8, 4, stride=2)
        self.c = nn.ConvTranspose1d(8, 12, 4, stride=2, groups=2)
        self.d = nn.ConvTranspose1d(12, 12, 4, stride=2, groups=12)
        self.e = nn.Conv1d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b, self.c, self.d):
            x = layer(x).relu()
        return self.e(x)


class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.pixel_shuffle(self.a(x), 2))


class Heads(nn.Module):
    """Attention written out; head count and head width are attributes, and heads stay."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 2, 4
        self.qkv, self.out = nn.Linear(3, 24), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-1, -2) / self.width**0.5).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, time, self.heads * self.width))


class Flatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(1, 4, 1), nn.Linear(64, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu().flatten(1)).relu())


class Shared(nn.Module):
    """One block, applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.block, self.b = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 6, 3, padding=1), nn.Conv1d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(3):
            x = self.block(x).tanh()
        return self.b(x)


class Tied(nn.Module):
    """The last layer reads the embedding's table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.b = nn.Embedding(10, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.last = nn.Linear(6, 10)
        self.last.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.b(self.a(self.table(tokens)).relu()))


class Recurrent(nn.Module):
    """Stacked, bidirectional and projected from 7 units to 3, of which there must always be fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 7, num_layers=2, bidirectional=True, proj_size=3, batch_first=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


class Gated(nn.Module):
    """A GRU between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.rnn, self.out = nn.Linear(3, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.a(x))[0])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.out(self.attention(x, x, x, need_weights=False)[0])


class ChannelsLast(nn.Module):
    """Convolution, then layer norm and linear layers on the transposed value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Conv1d(1, 6, 1), nn.LayerNorm(6), nn.Linear(6, 5), nn.Conv1d(5, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.norm(self.a(x).transpose(1, 2))).transpose(1, 2))


class Excite(nn.Module):
    """Channels are scaled by a bottleneck of their own means."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down, self.up, self.b = nn.Conv1d(1, 6, 1), nn.Linear(6, 3), nn.Linear(3, 6), nn.Conv1d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        scale = self.up(self.down(x.mean(dim=-1)).relu()).sigmoid()
        return self.b(x * scale[:, :, None])


class GroupNormed(nn.Module):
    """Statistics over halves of the channels: a channel leaves both halves at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv1d(1, 8, 1), nn.GroupNorm(2, 8), nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)).relu())


class GlobalNorm(nn.Module):
    """Global layer norm, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 1, 1)
        self.gain, self.shift = nn.Parameter(torch.rand(1, 6, 1)), nn.Parameter(torch.rand(1, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        mean = x.mean(dim=(1, 2), keepdim=True)
        var = ((x - mean) ** 2).mean(dim=(1, 2), keepdim=True)
        return self.b(self.gain * (x - mean) / (var + 1e-8).sqrt() + self.shift)


class Normed(nn.Module):
    """Weight norm by parametrization: the weight is made of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = weight_norm(nn.Conv1d(1, 6, 3)), weight_norm(nn.Conv1d(6, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class LoadedDiagonal(nn.Module):
    """A covariance of the channels with an identity added, and gains written as a diagonal matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 6, 3), nn.Conv1d(6, 1, 1)
        self.gain = nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        covariance = x @ x.transpose(1, 2) / x.shape[-1] + torch.eye(x.shape[1]).to(x)
        return self.b(torch.diag(self.gain) @ covariance @ x)


class UNet(nn.Module):
    """A skip connection joins by cat; the way down and the way up have widths of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 6, 4, stride=2, padding=1)
        self.up, self.b = nn.ConvTranspose1d(6, 5, 4, stride=2, padding=1), nn.Conv1d(9, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.a(x)
        return self.b(torch.cat([self.up(self.down(skip).relu()), skip], dim=1))


class DualPath(nn.Module):
    """Along chunks, then across them; sizes come from the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 1, 1)
        self.within, self.across = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        batch, channels, time = x.shape
        y = x.view(batch, channels, 4, time // 4).permute(0, 2, 3, 1).reshape(batch * 4, -1, channels)
        y = self.within(y).view(batch, 4, -1, channels).transpose(1, 2)
        y = self.across(y.reshape(-1, 4, channels)).tanh()
        return self.b(y.view(batch, -1, 4, channels).permute(0, 3, 2, 1).reshape(batch, channels, time))


class Masking(nn.Module):
    """Masks for two speakers on the encoded mixture, as separators make them; the width is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.speakers, self.width = 2, 6
        self.encoder, self.masks = nn.Conv1d(1, 6, 4, stride=2), nn.Conv1d(6, 12, 1)
        self.decoder = nn.ConvTranspose1d(6, 1, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        coded = self.encoder(x).relu()
        masks = self.masks(coded).view(-1, self.speakers, self.width, coded.shape[-1]).sigmoid()
        sources = (masks * coded[:, None]).flatten(0, 1)
        return self.decoder(sources).view(-1, self.speakers, x.shape[-1])
