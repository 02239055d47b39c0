"""Blocks that move, split and join channels."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sizes = Literal["attribute", "shape", "minus one", "hard-coded", "tuple attribute", "unflatten"]
"""Where the sizes of a view come from."""


def hard_coded_view(groups: int, width: int) -> Callable[[Tensor], Tensor]:
    """A view whose sizes are constants, as far as anybody can see."""
    return lambda x: x.view(x.shape[0], groups, width, -1)


class Shuffle(nn.Module):
    """Channels seen as groups and permuted: channel shuffle and its relatives."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        sizes: Sizes,
        op: Literal["transpose", "permute", "swapaxes", "movedim", "moveaxis", "rearranged twice"],
    ) -> None:
        super().__init__()
        self.groups, self.width = 2, width
        self.shape = (2, width)
        self.sizes = sizes
        self.hard_coded = hard_coded_view(2, width) if sizes == "hard-coded" else None
        self.op = op
        self.spread = nn.Conv1d(channels, 2 * width, 1)
        self.mix = nn.Conv1d(2 * width, 2 * width, 3, padding=1, groups=2)
        self.out_channels = 2 * width

    def split(self, x: Tensor) -> Tensor:
        batch, channels, time = x.size()
        if self.hard_coded is not None:
            return self.hard_coded(x)
        if self.sizes == "attribute":
            return x.view(batch, self.groups, self.width, time)
        if self.sizes == "shape":
            return x.view(batch, self.groups, channels // self.groups, time)
        if self.sizes == "tuple attribute":
            return x.reshape(batch, *self.shape, time)
        if self.sizes == "unflatten":
            return x.unflatten(1, (self.groups, -1))
        return x.view(batch, self.groups, -1, time)

    def forward(self, x: Tensor) -> Tensor:
        x = self.split(self.spread(x))
        if self.op == "transpose":
            x = x.transpose(1, 2).contiguous()
        elif self.op == "permute":
            x = torch.permute(x, (0, 2, 1, 3))
        elif self.op == "swapaxes":
            x = x.swapaxes(1, 2)
        elif self.op == "movedim":
            x = x.movedim(1, 2)
        elif self.op == "moveaxis":
            x = torch.moveaxis(x, 2, 1)
        else:
            x = x.permute(0, 3, 1, 2).flatten(2).transpose(1, 2).unflatten(1, (2, -1))
        return self.mix(x.reshape(x.shape[0], -1, x.shape[-1]))


class CatSplit(nn.Module):
    """Two features concatenated, split again at other places, and each part processed by itself."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        cut: Literal["same", "shifted", "chunk 3", "slices"],
        order: Literal["kept", "swapped"],
    ) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv1d(channels, width, 1)
        self.second = nn.Conv1d(channels, width + 2, 3, padding=1)
        self.sections = {"shifted": [width - 2, width + 4]}.get(cut, [width, width + 2])
        self.cut, self.order = cut, order
        self.mix = nn.Conv1d(2 * width + 2, width, 1)
        self.out_channels = 2 * width + 2

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.first(x), self.second(x)], dim=1)
        if self.cut == "chunk 3":
            parts = list(x.chunk(3, dim=1))
        elif self.cut == "slices":
            parts = [x[:, : self.width], x[:, self.width : -1], x[:, -1:]]
        else:
            parts = list(x.split(self.sections, dim=1))
        parts[0] = torch.tanh(parts[0])
        parts[-1] = torch.sigmoid(parts[-1])
        return torch.cat(parts if self.order == "kept" else parts[::-1], dim=1)


class StackUnbind(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        dim: Literal[1, 2, -1],
        join: Literal["sum", "max", "unbind", "select", "flatten", "weights"],
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv1d(channels, width, kernel, padding=kernel // 2) for kernel in (1, 3))
        self.dim, self.join = dim, join
        self.weights = nn.Parameter(torch.randn(2))
        self.out_channels = 2 * width if join == "flatten" else width

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([branch(x) for branch in self.branches], dim=self.dim)
        if self.join == "sum":
            return y.sum(dim=self.dim)
        if self.join == "max":
            return y.max(dim=self.dim).values
        if self.join == "unbind":
            first, second = y.unbind(self.dim)
            return first * torch.sigmoid(second)
        if self.join == "select":
            return y.select(self.dim, 0) - y.select(self.dim, 1)
        if self.join == "flatten":
            return y.movedim(self.dim, 2).flatten(1, 2)
        return torch.einsum("kbct,k->bct", y.movedim(self.dim, 0), self.weights.softmax(0))


class Hierarchical(nn.Module):
    """Slices of the channels processed one after the other, each with the result of the one before."""

    def __init__(self, channels: int, width: int, *, slices: Literal["chunk", "index", "split"]) -> None:
        super().__init__()
        self.width = width
        self.scales = 3
        self.spread = nn.Conv1d(channels, self.scales * width, 1)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(self.scales - 1))
        self.slices = slices
        self.out_channels = self.scales * width

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(x)
        if self.slices == "chunk":
            parts = x.chunk(self.scales, dim=1)
        elif self.slices == "split":
            parts = torch.split(x, self.width, dim=1)
        else:
            parts = tuple(x[:, i * self.width : (i + 1) * self.width] for i in range(self.scales))
        outputs = [parts[0]]
        for conv, part in zip(self.convs, parts[1:], strict=True):
            outputs.append(F.relu(conv(part + outputs[-1])))
        return torch.cat(outputs, 1)


class PixelShuffle(nn.Module):
    """Channels turned into time and back."""

    def __init__(
        self, channels: int, width: int, *, manner: Literal["view", "permute", "pixel_shuffle", "unshuffle first"]
    ) -> None:
        super().__init__()
        self.factor = 2
        self.manner = manner
        ratio = 4 if manner == "pixel_shuffle" else self.factor
        self.spread = nn.Conv1d(channels, ratio * width, 1)
        self.gather = nn.Conv1d(width, width, 2, stride=2)
        self.narrow = nn.Conv1d(self.factor * channels, self.factor * width, 1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        if self.manner == "unshuffle first":
            x = F.pad(x, (0, time % self.factor))
            x = x.unflatten(-1, (-1, self.factor)).transpose(2, 3).flatten(1, 2)
            x = torch.tanh(self.narrow(x))
            x = x.view(batch, -1, self.factor, x.shape[-1]).transpose(2, 3).flatten(2)
            return x[..., :time]
        x = self.spread(x)
        if self.manner == "pixel_shuffle":
            x = F.pixel_shuffle(x.unsqueeze(2), self.factor).mean(dim=2)
        elif self.manner == "view":
            x = x.view(batch, x.shape[1] // self.factor, self.factor, time).transpose(2, 3).reshape(batch, -1, 2 * time)
        else:
            x = x.view(batch, self.factor, -1, time).permute(0, 2, 3, 1).flatten(2)
        return self.gather(x)


class Reorder(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        op: Literal["flip channels", "flip time", "roll channels", "roll time", "index", "index_select", "interleave"],
    ) -> None:
        super().__init__()
        self.op = op
        self.register_buffer("order", torch.arange(channels).roll(1).flip(0))
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.op == "flip channels":
            return x + x.flip(1)
        if self.op == "flip time":
            return x - torch.flip(x, dims=[-1])
        if self.op == "roll channels":
            return x * torch.roll(x, 1, dims=1)
        if self.op == "roll time":
            return x.roll(shifts=2, dims=-1)
        if self.op == "index":
            return x[:, self.order]
        if self.op == "index_select":
            return torch.index_select(x, 1, self.order)
        half = x.shape[1] // 2
        pairs = torch.stack([x[:, :half], x[:, half : 2 * half]], dim=2).flatten(1, 2)
        return torch.cat([pairs, x[:, 2 * half :]], dim=1)


class Tile(nn.Module):
    def __init__(
        self, channels: int, width: int, *, op: Literal["expand", "repeat", "repeat_interleave", "tile", "cat"]
    ) -> None:
        super().__init__()
        self.op = op
        self.mix = nn.Conv1d(2 * channels, width, 1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        if self.op == "expand":
            x = x.unsqueeze(1).expand(-1, 2, -1, -1).reshape(batch, -1, time)
        elif self.op == "repeat":
            x = x.repeat(1, 2, 1)
        elif self.op == "repeat_interleave":
            x = x.repeat_interleave(2, dim=1)
        elif self.op == "tile":
            x = x.tile(2, 1)
        else:
            x = torch.cat((x, x), dim=1)
        return self.mix(x)


class Frames(nn.Module):
    """Overlapping frames, each mapped by a layer, added up again."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        cut: Literal["unfold", "im2col", "slices", "as_strided"],
        add: Literal["fold", "loop", "index_add"],
    ) -> None:
        super().__init__()
        self.size, self.hop = 4, 2
        self.cut, self.add = cut, add
        self.map = nn.Linear(channels * self.size, width * self.size)
        self.out_channels = width

    def frames(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` to ``(batch, frames, channels * size)``."""
        if self.cut == "unfold":
            return x.unfold(-1, self.size, self.hop).transpose(1, 2).flatten(2)
        if self.cut == "im2col":
            return F.unfold(x.unsqueeze(2), (1, self.size), stride=(1, self.hop)).transpose(1, 2)
        if self.cut == "as_strided":
            x = x.contiguous()
            count = (x.shape[-1] - self.size) // self.hop + 1
            batch, channel, time = x.stride()
            x = x.as_strided((*x.shape[:2], count, self.size), (batch, channel, time * self.hop, time))
            return x.transpose(1, 2).flatten(2)
        starts = range(0, x.shape[-1] - self.size + 1, self.hop)
        return torch.stack([x[..., start : start + self.size].flatten(1) for start in starts], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[-1]
        x = F.pad(x, (0, time % self.hop))
        frames = torch.tanh(self.map(self.frames(x)))
        if self.add == "fold":
            y = F.fold(frames.transpose(1, 2), (1, x.shape[-1]), (1, self.size), stride=(1, self.hop))
            return y.squeeze(2)[..., :time]
        frames = frames.unflatten(-1, (-1, self.size))
        y = x.new_zeros(x.shape[0], frames.shape[2], x.shape[-1])
        for index, start in enumerate(range(0, x.shape[-1] - self.size + 1, self.hop)):
            if self.add == "loop":
                y[..., start : start + self.size] += frames[:, index]
            else:
                y.index_add_(2, torch.arange(start, start + self.size, device=x.device), frames[:, index])
        return y[..., :time]


class Pad(nn.Module):
    def __init__(
        self, channels: int, width: int, *, mode: Literal["constant", "reflect", "replicate", "circular", "channels"]
    ) -> None:
        super().__init__()
        self.extra = 2
        self.mode = mode
        self.conv = nn.Conv1d(channels + self.extra if mode == "channels" else channels, width, 3, padding=0)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "channels":
            return self.conv(F.pad(x, (1, 1, 0, self.extra)))
        return self.conv(F.pad(x, (1, 1), mode=self.mode))


class MergeIntoBatch(nn.Module):
    """Channels or times merged into the batch, so that one small layer serves each."""

    def __init__(
        self, channels: int, width: int, *, axis: Literal["channels", "groups", "time"], join: Literal["sum", "flatten"]
    ) -> None:
        super().__init__()
        self.axis, self.join = axis, join
        self.groups, self.width = 2, width
        self.each = nn.Conv1d(1, 3, 3, padding=1)
        self.spread = nn.Conv1d(channels, 2 * width, 1)
        self.group = nn.Conv1d(width, width, 3, padding=1)
        self.frame = nn.Linear(channels, width)
        self.out_channels = {"channels": 3 if join == "sum" else 3 * channels, "time": width}.get(
            axis, width if join == "sum" else 2 * width
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        if self.axis == "channels":
            y = self.each(x.reshape(batch * channels, 1, time)).view(batch, channels, -1, time)
        elif self.axis == "groups":
            y = self.group(self.spread(x).view(batch * self.groups, self.width, time))
            y = y.view(batch, self.groups, self.width, time)
        else:
            return self.frame(x.transpose(1, 2).reshape(-1, channels)).reshape(batch, time, -1).transpose(1, 2)
        return torch.tanh(y).sum(dim=1) if self.join == "sum" else torch.tanh(y).flatten(1, 2)


class BandSplit(nn.Module):
    """The channels cut into bands of unequal width, with one small layer per band."""

    def __init__(self, channels: int, width: int, *, join: Literal["stack", "cat"], norm: Literal[True, False]) -> None:
        super().__init__()
        self.bands = [channels // 2, channels - channels // 2]
        self.norms = nn.ModuleList(nn.GroupNorm(1, band) if norm else nn.Identity() for band in self.bands)
        self.layers = nn.ModuleList(nn.Linear(band, width) for band in self.bands)
        self.join = join
        self.out_channels = 2 * width

    def forward(self, x: Tensor) -> Tensor:
        outputs, start = [], 0
        for band, norm, layer in zip(self.bands, self.norms, self.layers, strict=True):
            outputs.append(layer(norm(x[:, start : start + band]).transpose(1, 2)).transpose(1, 2))
            start += band
        return torch.cat(outputs, dim=1) if self.join == "cat" else torch.stack(outputs, dim=1).flatten(1, 2)


class Neighbours(nn.Module):
    """Each channel with its neighbours: the channel axis used as an axis of frequency."""

    def __init__(self, channels: int, width: int, *, manner: Literal["unfold", "pad and slice"]) -> None:
        super().__init__()
        self.manner = manner
        self.weights = nn.Parameter(torch.randn(3))
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, 1, 1))
        if self.manner == "unfold":
            return padded.unfold(1, 3, 1) @ self.weights
        channels = x.shape[1]
        return sum(weight * padded[:, i : i + channels] for i, weight in enumerate(self.weights))


BLOCKS = (
    Shuffle,
    CatSplit,
    StackUnbind,
    Hierarchical,
    PixelShuffle,
    Reorder,
    Tile,
    Frames,
    Pad,
    MergeIntoBatch,
    BandSplit,
    Neighbours,
)
