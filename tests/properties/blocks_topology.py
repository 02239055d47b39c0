"""How blocks are joined: a part makes the module for a number of channels, and every module tells ``out_channels``."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Part = Callable[[int], nn.Module]


def width_of(module: nn.Module) -> int:
    width = module.out_channels
    assert isinstance(width, int)
    return width


class Chain(nn.Module):
    def __init__(self, channels: int, parts: Sequence[Part]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for part in parts:
            self.blocks.append(part(channels))
            channels = width_of(self.blocks[-1])
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Residual(nn.Module):
    def __init__(
        self,
        channels: int,
        parts: Sequence[Part],
        *,
        skip: Literal["add", "+=", "scaled", "concat", "highway", "fused add"],
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(part(channels) for part in parts)
        inputs = [width_of(block) + (channels if skip == "concat" else 0) for block in self.blocks]
        # A projection only where it is needed, as ResNets do.
        self.fits = nn.ModuleList(
            nn.Identity() if width == channels else nn.Conv1d(width, channels, 1) for width in inputs
        )
        self.scale = nn.Parameter(torch.full((channels, 1), 0.5))
        self.gate = nn.Conv1d(channels, channels, 1)
        self.skip = skip
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        for block, fit in zip(self.blocks, self.fits, strict=True):
            y = block(x)
            if self.skip == "concat":
                x = fit(torch.cat([x, y], dim=1))
                continue
            y = fit(y)
            if self.skip == "+=":
                x = x.clone()
                x += y
            elif self.skip == "scaled":
                x = x + self.scale * y
            elif self.skip == "highway":
                gate = torch.sigmoid(self.gate(x))
                x = gate * y + (1 - gate) * x
            elif self.skip == "fused add":
                x = torch.add(x, y, alpha=0.5)
            else:
                x = x + y
        return x


class SkipConnections(nn.Module):
    """Temporal convolutional networks: each block has a residual and a skip output, and the skips are summed."""

    def __init__(
        self, channels: int, parts: Sequence[Part], *, total: Literal["from none", "from zeros", "stack"]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(part(channels) for part in parts)
        self.residuals = nn.ModuleList(nn.Conv1d(width_of(block), channels, 1) for block in self.blocks)
        self.skips = nn.ModuleList(nn.Conv1d(width_of(block), channels + 1, 1) for block in self.blocks)
        self.total = total
        self.out_channels = channels + 1

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block, residual, skip in zip(self.blocks, self.residuals, self.skips, strict=True):
            y = block(x)
            skips.append(skip(y))
            x = x + residual(y)
        if self.total == "stack":
            return torch.stack(skips).sum(0)
        total = torch.zeros_like(skips[0]) if self.total == "from zeros" else skips.pop(0)
        for skip in skips:
            total = total + skip
        return F.relu(total)


class Dense(nn.Module):
    """Each block sees the outputs of all before it."""

    def __init__(self, channels: int, parts: Sequence[Part], *, order: Literal["append", "prepend"]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.prepend = order == "prepend"
        for part in parts:
            self.blocks.append(part(channels))
            channels += width_of(self.blocks[-1])
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            y = block(x)
            x = torch.cat([y, x] if self.prepend else [x, y], dim=1)
        return x


class UNet(nn.Module):
    """The last part at the lowest rate, the others on the way down; features of each rate are joined on the way up."""

    def __init__(
        self,
        channels: int,
        parts: Sequence[Part],
        *,
        down: Literal["strided", "avg_pool", "slice"],
        up: Literal["transposed", "nearest", "linear"],
        join: Literal["add", "cat"],
    ) -> None:
        super().__init__()
        *descent, bottom = parts[:3]
        self.down, self.up, self.join = down, up, join
        self.encoders, self.downs, self.ups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        widths = []
        for part in descent:
            self.encoders.append(part(channels))
            channels = width_of(self.encoders[-1])
            widths.append(channels)
            stride = 2 if down == "strided" else 1
            self.downs.append(nn.Conv1d(channels, channels, 3, stride=stride, padding=1))
        self.bottom = bottom(channels)
        channels = width_of(self.bottom)
        for width in reversed(widths):
            if up == "transposed":
                self.ups.append(nn.ConvTranspose1d(channels, width, 4, stride=2, padding=1))
            else:
                self.ups.append(nn.Conv1d(channels, width, 3, padding="same"))
            channels = 2 * width if join == "cat" else width
        self.out_channels = channels

    def halve(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, max(x.shape[-1] % 2, 8 - x.shape[-1])))
        return {"strided": lambda: x, "avg_pool": lambda: F.avg_pool1d(x, 2), "slice": lambda: x[..., ::2]}[self.down]()

    def double(self, x: Tensor, layer: nn.Module) -> Tensor:
        return layer(x if self.up == "transposed" else F.interpolate(x, scale_factor=2, mode=self.up))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for encoder, layer in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = torch.relu(layer(self.halve(x)))
        x = self.bottom(x)
        for layer in self.ups:
            skip = skips.pop()
            x = self.double(x, layer)[..., : skip.shape[-1]]
            x = torch.cat([x, skip], dim=1) if self.join == "cat" else x + skip
        return x


class DualPath(nn.Module):
    """Overlapping chunks; the first part runs within each chunk, the last one across chunks."""

    def __init__(
        self,
        channels: int,
        parts: Sequence[Part],
        *,
        cut: Literal["unfold", "im2col", "stack"],
        norm: Literal["none", "group", "layer"],
    ) -> None:
        super().__init__()
        self.chunk, self.hop = 4, 2
        self.channels = channels
        self.cut = cut
        self.intra, self.inter = parts[0](channels), parts[-1](channels)
        self.linears = nn.ModuleList(nn.Linear(width_of(path), channels) for path in (self.intra, self.inter))
        kinds = {
            "none": nn.Identity,
            "group": lambda: nn.GroupNorm(1, channels),
            "layer": lambda: nn.LayerNorm(channels),
        }
        self.norms = nn.ModuleList(kinds[norm]() for _ in range(2))
        self.channels_last = norm == "layer"
        self.out_channels = channels

    def segments(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` to ``(batch, channels, chunk, chunks)``."""
        if self.cut == "unfold":
            return x.unfold(2, self.chunk, self.hop).transpose(2, 3)
        if self.cut == "im2col":
            columns = F.unfold(x.unsqueeze(-1), (self.chunk, 1), stride=(self.hop, 1))
            return columns.view(x.shape[0], self.channels, self.chunk, -1)
        starts = range(0, x.shape[-1] - self.chunk + 1, self.hop)
        return torch.stack([x[..., start : start + self.chunk] for start in starts], dim=-1)

    def along(self, index: int, x: Tensor) -> Tensor:
        """One path along the last axis of ``(batch, channels, other, time)``, with its residual."""
        batch, channels, other, time = x.shape
        path, linear, norm = (self.intra, self.inter)[index], self.linears[index], self.norms[index]
        y = path(x.permute(0, 2, 1, 3).reshape(batch * other, channels, time))
        y = linear(y.transpose(1, 2)).view(batch, other, time, channels)
        y = norm(y).permute(0, 3, 1, 2) if self.channels_last else norm(y.permute(0, 3, 1, 2))
        return x + y

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        x = F.pad(x, (0, max(time % self.hop, 10 - time)))
        y = self.segments(x)
        y = self.along(0, y.transpose(2, 3)).transpose(2, 3)
        y = self.along(1, y)
        columns = y.reshape(batch, channels * self.chunk, -1)
        return F.fold(columns, (x.shape[-1], 1), (self.chunk, 1), stride=(self.hop, 1)).squeeze(-1)[..., :time]


class Repeat(nn.Module):
    """The same blocks several times over, as recurrent separators do."""

    def __init__(
        self,
        channels: int,
        parts: Sequence[Part],
        *,
        times: Literal[2, 3],
        carry: Literal["alone", "add input", "cat input", "one norm each"],
    ) -> None:
        super().__init__()
        self.times, self.carry = times, carry
        self.blocks = Chain(channels, parts)
        self.fit = nn.Conv1d(width_of(self.blocks), channels, 1)
        self.join = nn.Conv1d(2 * channels, channels, 1, groups=channels)
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(times))
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for turn in range(self.times):
            if turn and self.carry == "add input":
                y = y + x
            elif turn and self.carry == "cat input":
                y = self.join(torch.cat([y, x], dim=1))
            elif self.carry == "one norm each":
                y = self.norms[turn](y)
            y = torch.tanh(self.fit(self.blocks(y)))
        return y


class Branches(nn.Module):
    """Parallel branches of one width each, joined."""

    def __init__(
        self, channels: int, parts: Sequence[Part], *, join: Literal["cat", "sum", "product", "max", "attention"]
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(part(channels) for part in parts)
        widths = [width_of(branch) for branch in self.branches]
        self.fits = nn.ModuleList(nn.Conv1d(width, widths[0], 1) for width in widths)
        self.score = nn.Linear(widths[0], 1)
        self.join = join
        self.out_channels = sum(widths) if join == "cat" else widths[0]

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        if self.join == "cat":
            return torch.cat(outputs, 1)
        outputs = [fit(output) for fit, output in zip(self.fits, outputs, strict=True)]
        if self.join == "sum":
            return sum(outputs)
        if self.join == "product":
            return torch.stack([torch.tanh(output) for output in outputs]).prod(dim=0)
        stacked = torch.stack(outputs, dim=1)
        if self.join == "max":
            return torch.amax(stacked, dim=1)
        weights = self.score(stacked.transpose(2, 3)).softmax(dim=1).transpose(2, 3)
        return (weights * stacked).sum(dim=1)


class Bands(nn.Module):
    """Chunks of the channels, each with a part of its own or all with the same one."""

    def __init__(
        self, channels: int, parts: Sequence[Part], *, manner: Literal["chunk", "split", "batch", "loop over one"]
    ) -> None:
        super().__init__()
        self.bands, self.width = 2, channels
        self.manner = manner
        self.spread = nn.Conv1d(channels, self.bands * channels, 1)
        shared = manner in ("batch", "loop over one")
        self.first = parts[0](channels)
        self.second = self.first if shared else parts[-1](channels)
        self.out_channels = width_of(self.first) + width_of(self.second)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        x = self.spread(x)
        if self.manner == "batch":
            return self.first(x.reshape(batch * self.bands, self.width, time)).reshape(batch, -1, time)
        low, high = x.split(self.width, dim=1) if self.manner == "split" else x.chunk(self.bands, dim=1)
        return torch.cat([self.first(low), self.second(high)], dim=1)


class Masking(nn.Module):
    """The parts estimate a mask for their own input."""

    def __init__(self, channels: int, parts: Sequence[Part], *, mask: Literal["sigmoid", "relu", "tanh gate"]) -> None:
        super().__init__()
        self.estimate = Chain(channels, parts)
        self.mask = nn.Conv1d(width_of(self.estimate), channels, 1)
        self.gate = nn.Sequential(nn.Conv1d(width_of(self.estimate), channels, 1), nn.Sigmoid())
        self.activation = mask
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.estimate(x)
        if self.activation == "tanh gate":
            return x * (torch.tanh(self.mask(y)) * self.gate(y))
        return x * getattr(torch, self.activation)(self.mask(y))


TOPOLOGIES = (Chain, Residual, SkipConnections, Dense, UNet, DualPath, Repeat, Branches, Bands, Masking)
