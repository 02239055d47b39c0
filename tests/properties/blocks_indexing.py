"""Index assignment, gathers, scatters, creation ops, caches, checks of sizes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Assign(nn.Module):
    """A result written piece by piece into a tensor made beforehand."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        make: Literal["zeros by attribute", "new_zeros by shape", "zeros_like", "empty_like", "full", "clone"],
        write: Literal["halves of time", "halves of channels", "+= slice", "even channels", "mask", "index_copy"],
    ) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv1d(channels, width, 1)
        self.second = nn.Conv1d(channels, width, 3, padding=1)
        self.make, self.write = make, write
        self.out_channels = width

    def blank(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        if self.make == "zeros by attribute":
            return torch.zeros(batch, self.width, time, dtype=x.dtype, device=x.device)
        if self.make == "new_zeros by shape":
            return x.new_zeros((batch, channels, time))
        if self.make == "full":
            return torch.full((batch, self.width, time), 0.5, dtype=x.dtype, device=x.device)
        if self.make == "empty_like":
            return torch.empty_like(x).fill_(0.25)
        return x.clone() if self.make == "clone" else torch.zeros_like(x)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x), self.second(x)
        y = self.blank(a)
        half = x.shape[-1] // 2
        if self.write == "halves of time":
            y[..., :half] = a[..., :half]
            y[..., half:] = b[..., half:]
        elif self.write == "halves of channels":
            middle = y.shape[1] // 2
            y[:, :middle] = a[:, :middle]
            y[:, middle:] = torch.tanh(b[:, middle:])
        elif self.write == "+= slice":
            y[:, :, 1:] += a[:, :, :-1]
            y[:, :, :-1] += b[:, :, 1:]
        elif self.write == "even channels":
            y[:, ::2] = a[:, ::2]
        elif self.write == "mask":
            y[:, :, torch.arange(x.shape[-1], device=x.device) % 2 == 0] = 0.75
            y = y + a
        else:
            y.index_copy_(2, torch.arange(half, device=x.device), b[..., :half])
        return y


class Gather(nn.Module):
    """Times picked and put back by index."""

    def __init__(
        self, channels: int, width: int, *, op: Literal["index", "gather", "scatter_add", "take_along_dim", "index_put"]
    ) -> None:
        super().__init__()
        self.op = op
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        times = torch.arange(x.shape[-1], device=x.device).flip(0)
        if self.op == "index":
            return x + x[..., times]
        if self.op == "gather":
            return x + x.gather(2, times.expand_as(x))
        if self.op == "take_along_dim":
            return x * torch.take_along_dim(x, times.view(1, 1, -1), dim=2)
        if self.op == "index_put":
            y = x.clone()
            y[:, :, times[:2]] = 0.5
            return y
        return torch.zeros_like(x).scatter_add_(2, (times // 2).expand_as(x), x)


class Cache(nn.Module):
    """The past of each channel kept in a buffer, or in a list of state tensors, and put before the features."""

    def __init__(
        self, channels: int, width: int, *, kind: Literal["buffer", "zeros by attribute", "loop", "written back"]
    ) -> None:
        super().__init__()
        self.channels, self.past = channels, 2
        self.kind = kind
        self.register_buffer("cache", torch.randn(1, channels, self.past) * 0.3)
        self.conv = nn.Conv1d(channels, width, self.past + 1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        if self.kind == "loop":
            past, outputs = self.cache.expand(batch, -1, -1), []
            for frame in x.split(1, dim=-1):
                past = torch.cat([past, frame], dim=-1)
                outputs.append(self.conv(past))
                past = past[..., 1:]
            return torch.cat(outputs, dim=-1)
        if self.kind == "zeros by attribute":
            past = torch.zeros(batch, self.channels, self.past, dtype=x.dtype, device=x.device)
        else:
            past = self.cache.expand(batch, -1, -1)
        y = torch.cat([past, x], dim=-1)
        if self.kind == "written back":
            past = self.cache.clone()
            past.copy_(y[:1, :, -self.past :].detach())
            return self.conv(y) + past.mean()
        return self.conv(y)


class CheckedSizes(nn.Module):
    """Code that compares sizes, and goes another way where they differ."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        check: Literal["raise", "assert", "attribute branch", "shape branch", "shape of parameter"],
    ) -> None:
        super().__init__()
        self.in_channels, self.width = channels, width
        self.check = check
        self.conv = nn.Conv1d(channels, width, 3, padding=1)
        self.project = nn.Conv1d(channels, width, 1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        if self.check == "raise" and x.shape[1] != self.in_channels:
            raise ValueError(f"expected {self.in_channels} channels, got {x.shape[1]}")
        if self.check == "assert":
            assert x.size(1) == self.in_channels, "wrong number of channels"
        y = torch.relu(self.conv(x))
        if self.check == "attribute branch":
            return y + (x if self.in_channels == self.width else self.project(x))
        if self.check == "shape branch":
            return y + (x if x.shape[1] == y.shape[1] else self.project(x))
        if self.check == "shape of parameter" and self.conv.weight.shape[1] != x.shape[1]:
            return y * 0
        return y


class Creation(nn.Module):
    """Tensors made in the forward pass, as wide as the features."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        make: Literal["ones", "zeros cat", "full_like", "eye", "linspace", "one_hot", "tensor of shape", "tril"]
        | Literal["arange", "type_as"],
        sizes: Literal["attribute", "shape"],
    ) -> None:
        super().__init__()
        self.channels = channels
        self.make, self.sizes = make, sizes
        self.mix = nn.Conv1d(channels + 3 if make == "zeros cat" else channels, width, 1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        options = {"dtype": x.dtype, "device": x.device}
        channels = self.channels if self.sizes == "attribute" else x.shape[1]
        if self.make == "ones":
            x = x * torch.ones(channels, 1, **options).mul(0.5)
        elif self.make == "zeros cat":
            x = torch.cat([x, torch.zeros(x.shape[0], 3, x.shape[-1], **options)], dim=1)
        elif self.make == "full_like":
            x = torch.maximum(x, torch.full_like(x, -0.5))
        elif self.make == "eye":
            x = torch.eye(channels, **options) @ x
        elif self.make == "linspace":
            x = x * torch.linspace(0.5, 1.0, channels, **options).unsqueeze(-1)
        elif self.make == "one_hot":
            x = x + F.one_hot(torch.zeros(1, dtype=torch.long, device=x.device), channels).to(x.dtype).unsqueeze(-1)
        elif self.make == "arange":
            x = x * torch.cos(torch.arange(0, 2 * channels, 2, **options)).unsqueeze(-1)
        elif self.make == "type_as":
            x = x - torch.ones(1, channels, 1).to(x.device).mul(0.5).type_as(x)
        elif self.make == "tril":
            x = torch.tril(torch.ones(channels, channels, **options)).div(channels) @ x
        else:
            x = x / torch.tensor(x.shape[-1], **options).sqrt()
        return self.mix(x)


class Guarded(nn.Module):
    """Code under a context that changes how torch computes, and a checkpoint."""

    def __init__(self, channels: int, width: int, *, guard: Literal["no_grad", "autocast off", "checkpoint"]) -> None:
        super().__init__()
        self.guard = guard
        self.conv = nn.Conv1d(channels, width, 3, padding=1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        if self.guard == "no_grad":
            with torch.no_grad():
                scale = x.abs().mean(dim=1, keepdim=True)
            return self.conv(x) * scale
        if self.guard == "autocast off":
            with torch.autocast(x.device.type, enabled=False):
                return torch.tanh(self.conv(x))
        return checkpoint(lambda y: torch.tanh(self.conv(y)), x, use_reentrant=False)


BLOCKS = (Assign, Gather, Cache, CheckedSizes, Creation, Guarded)
