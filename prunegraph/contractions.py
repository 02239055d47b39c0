"""Ops that are linear in a weight, seen as least-squares problems: windows of the input against the output.

A problem may fall into independent *blocks*: the groups of a grouped convolution, and the phases of a transposed one
(output ``q * stride + phase`` meets every ``stride``-th tap only). Within a block
``output (positions, outputs) = windows (positions, features) @ coefficients (features, outputs)``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 2**22
"""Elements of the windows that are laid out at a time: 32 MiB in float64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Some positions of some blocks, in float64.

    Attributes:
        blocks: which blocks.
        windows: shape ``(blocks, positions, features)``.
        outputs: what belongs to them of the tensor that was given, shape ``(blocks, positions, outputs)``.
    """

    blocks: slice
    windows: Tensor
    outputs: Tensor


class Contraction(Protocol):
    """One call of an op that is linear in its weight.

    Attributes:
        weight: as it was given to the op.
        bias: as it was given; None where there is none, or where it cannot be fitted block by block.
        input_dim: the weight's dimension over input channels.
        output_dim: the weight's dimension over output channels.
        channel_dim: the output's dimension over output channels.
        blocks: number of independent problems.
        same_windows: whether all blocks meet the same windows, but for the ends of the signal.
        is_output: whether the op gives this out as it is; a recurrent layer does not show what its gates read.
    """

    weight: Tensor
    bias: Tensor | None
    input_dim: int
    output_dim: int
    channel_dim: int
    blocks: int
    same_windows: bool
    is_output: bool

    def output(self) -> Tensor:
        """What the linear part of the op gives."""

    def chunks(self, values: Tensor) -> Iterator[Chunk]:
        """All windows, with what belongs to them of ``values``, a tensor of the output's shape."""

    def as_weight(self, coefficients: Tensor) -> Tensor:
        """Coefficients ``(blocks, features, outputs)`` in the layout of the weight."""


class LinearMap:
    """``y[..., o] = sum_i x[..., i] weight[o, i] + bias[o]``."""

    input_dim, output_dim, channel_dim, blocks, same_windows, is_output = 1, 0, -1, 1, True, True

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        self.x, self.weight, self.bias = x, weight, bias

    def output(self) -> Tensor:
        """See `Contraction`."""
        return F.linear(self.x, self.weight, self.bias)

    def chunks(self, values: Tensor) -> Iterator[Chunk]:
        """See `Contraction`."""
        windows, outputs = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (self.x, values))
        step = max(1, _CHUNK // windows.shape[1])
        for x, y in zip(torch.split(windows, step), torch.split(outputs, step), strict=True):
            yield Chunk(blocks=slice(None), windows=x.double()[None], outputs=y.double()[None])

    def as_weight(self, coefficients: Tensor) -> Tensor:
        """See `Contraction`."""
        return coefficients[0].mT


class Gates(LinearMap):
    """What the gates of a recurrent layer read of its input."""

    is_output = False


class Convolution:
    """Convolutions of any number of dimensions, grouped or not; the blocks are the groups."""

    input_dim, output_dim, same_windows, is_output = 1, 0, False, True

    def __init__(self, function: Callable[..., Tensor], arguments: Mapping[str, Any]) -> None:
        self.function, self.arguments = function, arguments
        self.x, self.weight, self.bias = arguments["input"], arguments["weight"], arguments["bias"]
        self.rank = self.weight.dim() - 2
        self.channel_dim = -1 - self.rank
        self.blocks = int(arguments["groups"])

    def output(self) -> Tensor:
        """See `Contraction`."""
        return self.function(**self.arguments)

    def chunks(self, values: Tensor) -> Iterator[Chunk]:
        """See `Contraction`."""
        x = _with_batch(self.x, self.rank)
        padding = _paddings(self.arguments["padding"], self.arguments["dilation"], self.weight.shape[2:])
        x = torch.unflatten(F.pad(x, padding), 1, (self.blocks, -1))
        for dim, (kernel, stride, dilation) in enumerate(self._sizes(), start=3):
            x = x.unfold(dim, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
        outputs = torch.unflatten(_with_batch(values, self.rank), 1, (self.blocks, -1))
        yield from _chunks(slice(None), x, outputs, self.rank)

    def as_weight(self, coefficients: Tensor) -> Tensor:
        """See `Contraction`."""
        return coefficients.mT.reshape(self.weight.shape)

    def _sizes(self) -> Iterator[tuple[int, int, int]]:
        arguments = (_each(self.arguments[name], self.rank) for name in ("stride", "dilation"))
        return zip(self.weight.shape[2:], *arguments, strict=True)


class TransposedConvolution:
    """Transposed convolutions without groups and dilation; the blocks are the phases, which share the bias.

    ``y[o, q s + r - p] = sum_{c, j} x[c, q - j] weight[c, o, r + j s]`` for phase r, stride s and padding p.
    """

    input_dim, output_dim, same_windows, is_output = 0, 1, True, True

    def __init__(self, function: Callable[..., Tensor], arguments: Mapping[str, Any]) -> None:
        self.function, self.arguments = function, arguments
        self.x, self.weight = arguments["input"], arguments["weight"]
        self.bias: Tensor | None = None
        self.rank = self.weight.dim() - 2
        self.channel_dim = -1 - self.rank
        self.strides = _each(arguments["stride"], self.rank)
        self.taps = tuple(-(-kernel // stride) for kernel, stride in zip(self.kernel, self.strides, strict=True))
        self.blocks = prod(self.strides)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps along each dimension."""
        return tuple(self.weight.shape[2:])

    def output(self) -> Tensor:
        """See `Contraction`."""
        return self.function(**self.arguments)

    def chunks(self, values: Tensor) -> Iterator[Chunk]:
        """See `Contraction`."""
        values = _with_batch(values, self.rank)
        windows = self._windows().unsqueeze(1)
        for block, phase in enumerate(product(*map(range, self.strides))):
            places = [self._places(dim, phase[dim], values.shape[2 + dim]) for dim in range(self.rank)]
            x, y = windows, values
            for dim, (first, at, count) in enumerate(places):
                x = x.narrow(3 + dim, first, count)
                y = y.movedim(2 + dim, 0)[at :: self.strides[dim]].movedim(0, 2 + dim)
            yield from _chunks(slice(block, block + 1), x * self._present(phase), y.unsqueeze(1), self.rank)

    def as_weight(self, coefficients: Tensor) -> Tensor:
        """See `Contraction`."""
        rank, channels = self.rank, self.weight.shape[0]
        taps = coefficients.reshape(*self.strides, channels, *self.taps, -1).flip(tuple(range(rank + 1, 2 * rank + 1)))
        along = [dim for pair in zip(range(rank + 1, 2 * rank + 1), range(rank), strict=True) for dim in pair]
        padded = taps.permute(rank, -1, *along).reshape(
            channels, -1, *(count * stride for count, stride in zip(self.taps, self.strides, strict=True))
        )
        for dim, size in enumerate(self.kernel, start=2):
            padded = padded.narrow(dim, 0, size)
        return padded

    def _windows(self) -> Tensor:
        """``x[c, q - j]`` for every q, taps in descending order of j; ``(batch, channels, *places, *taps)``."""
        extra = _each(self.arguments["output_padding"], self.rank)
        padding = [(taps - 1, taps - 1 + more) for taps, more in zip(self.taps, extra, strict=True)]
        x = F.pad(_with_batch(self.x, self.rank), [size for pair in reversed(padding) for size in pair])
        for dim, taps in enumerate(self.taps, start=2):
            x = x.unfold(dim, taps, 1)
        return x

    def _places(self, dim: int, phase: int, length: int) -> tuple[int, int, int]:
        """The first q of a phase, the first output that it gives, and how many there are."""
        stride, padding = self.strides[dim], _each(self.arguments["padding"], self.rank)[dim]
        first = max(0, -(-(padding - phase) // stride))
        at = first * stride + phase - padding
        return first, at, max(0, -(-(length - at) // stride))

    def _present(self, phase: Sequence[int]) -> Tensor:
        """1 for the taps of this phase that the kernel has, which may end in the middle of a stride."""
        present: Tensor = self.weight.new_ones(self.taps)
        for dim, (offset, taps) in enumerate(zip(phase, self.taps, strict=True)):
            has = [offset + (taps - 1 - m) * self.strides[dim] < self.kernel[dim] for m in range(taps)]
            present = present * present.new_tensor(has).view([-1 if d == dim else 1 for d in range(self.rank)])
        return present


def contractions(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Contraction]:
    """What a torch function contracts with weights; nothing where it is none of the ops above."""
    name = getattr(function, "__name__", "")
    if name in _CONVOLUTIONS:
        return [Convolution(function, _bound(args, kwargs, groups=1, dilation=1))]
    if name in _TRANSPOSED:
        arguments = _bound(args, kwargs, output_padding=0, groups=1, dilation=1)
        plain = arguments["groups"] == 1 and set(_each(arguments["dilation"], 1)) == {1}
        return [TransposedConvolution(function, arguments)] if plain else []
    if name == "linear":
        return [LinearMap(**dict(zip(("x", "weight", "bias"), args, strict=False)), **_renamed(kwargs))]
    if name in _CELLS:
        return [Gates(args[0], args[2], args[4] if len(args) > 4 else None)]
    return _first_layer(args) if name in _RECURRENT else []


_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_CELLS = frozenset(f"{name}_cell" for name in _RECURRENT)


def _bound(args: Sequence[Any], kwargs: Mapping[str, Any], **last: int) -> dict[str, Any]:
    """The arguments of a convolution by name, in the order of its signature."""
    order = ("dilation", "groups") if "output_padding" not in last else ("output_padding", "groups", "dilation")
    names = ("input", "weight", "bias", "stride", "padding", *order)
    return {"bias": None, "stride": 1, "padding": 0, **last, **dict(zip(names, args, strict=False)), **kwargs}


def _renamed(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {{"input": "x"}.get(name, name): value for name, value in kwargs.items()}


def _first_layer(args: Sequence[Any]) -> list[Contraction]:
    """Both directions of the first layer of a recurrent network; its input may be packed."""
    place = next(index for index, value in enumerate(args) if index >= 2 and isinstance(value, list | tuple))
    place = place if isinstance(args[place + 1], bool) else place + 1  # the states of an LSTM are a tuple, too
    weights, has_biases, layers, bidirectional = args[place], args[place + 1], args[place + 2], args[place + 5]
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    starts = range(0, each * directions, each)
    return [Gates(args[0], weights[at], weights[at + 2] if has_biases else None) for at in starts]


def _chunks(blocks: slice, windows: Tensor, outputs: Tensor, rank: int) -> Iterator[Chunk]:
    """Splits along the batch and the first dimension of places.

    Args:
        blocks: which blocks.
        windows: ``(batch, blocks, channels, *places, *taps)``.
        outputs: ``(batch, blocks, outputs, *places)``.
        rank: number of dimensions of places.
    """
    row = prod(windows.shape[1:3]) * prod(windows.shape[4:])
    step = max(1, _CHUNK // max(row, 1))
    places = range(2, 2 + rank)
    for sample, values in zip(windows, outputs, strict=True):
        for x, y in zip(torch.split(sample, step, 2), torch.split(values, step, 2), strict=True):
            x = x.permute(0, *places, 1, *range(2 + rank, 2 + 2 * rank)).flatten(rank + 1).flatten(1, rank)
            yield Chunk(blocks=blocks, windows=x.double(), outputs=y.flatten(2).mT.double())


def _with_batch(tensor: Tensor, rank: int) -> Tensor:
    return tensor if tensor.dim() == rank + 2 else tensor[None]


def _each(value: Any, rank: int) -> tuple[int, ...]:
    """A number for every dimension, as torch spreads it."""
    listed = tuple(value) if isinstance(value, list | tuple) else (value,)
    return listed if len(listed) == rank else listed * rank


def _paddings(padding: Any, dilation: Any, kernel: Sequence[int]) -> list[int]:
    """Padding before and after, last dimension first, as `torch.nn.functional.pad` takes it."""
    if padding == "same":
        spans = [step * (size - 1) for step, size in zip(_each(dilation, len(kernel)), kernel, strict=True)]
        pairs = [(span // 2, span - span // 2) for span in spans]
    else:
        pairs = [(size, size) for size in _each(0 if padding == "valid" else padding, len(kernel))]
    return [size for pair in reversed(pairs) for size in pair]
