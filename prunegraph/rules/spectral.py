"""Fourier transforms and the views between complex values and pairs of real ones.

A channel along a transformed dimension is a place in time or a frequency, so labels there are locked. Costs follow the
radix-2 algorithm: ``n / 2 * log2(n)`` complex multiply-adds of 4 MACs, half of that where one side is real.
"""

import operator
from collections.abc import Sequence
from math import log2, prod
from typing import Any

import torch
from torch import fx

from prunegraph.rules.base import Call, Labels, Product, Rule, dims_of, packet
from prunegraph.rules.locking import Locks, fixed_numbers

aten = torch.ops.aten

_TRANSFORMED = "a Fourier transform runs along this dimension"


def fft_macs(size: int, *, real: bool) -> int:
    """MACs of one transform of ``size`` points: ``2 n log2 n``, or ``n log2 n`` between real and complex values.

    >>> fft_macs(512, real=True)
    4608
    """
    return round((1 if real else 2) * size * log2(size)) if size > 1 else 0


class ShortTimeFourier(Rule):
    """``stft``: ``(batch, time)`` -> ``(batch, frequencies, frames)``, with a last dimension of 2 if not complex."""

    def labels(self, call: Call) -> Labels:
        x = call.labels("self")
        call.lock_all([x[-1], *call.labels("window")], _TRANSFORMED)
        fixed_numbers(call, "n_fft", "hop_length", "win_length")
        return (*x[:-1], *(None,) * (len(call.output_shape) - len(x) + 1))

    def macs(self, call: Call) -> Sequence[Product]:
        size, frames = call["n_fft"], call.output_shape[len(call.shape("self"))]
        return [(*call.sizes("self")[:-1], frames, size + fft_macs(size, real=True))]


class InverseShortTimeFourier(Rule):
    """``istft``: ``(batch, frequencies, frames)`` complex -> ``(batch, time)``."""

    def labels(self, call: Call) -> Labels:
        x = call.labels("self")
        call.lock_all([*x[-2:], *call.labels("window")], _TRANSFORMED)
        fixed_numbers(call, "n_fft", "hop_length", "win_length", "length")
        return (*x[:-2], None)

    def macs(self, call: Call) -> Sequence[Product]:
        size, frames = call["n_fft"], call.shape("self")[-1]
        return [(*call.sizes("self")[:-2], frames, size + fft_macs(size, real=True))]


class Fourier(Rule):
    """``fft_*`` along chosen dimensions.

    Args:
        real: one side of the transform is real.
    """

    def __init__(self, real: bool) -> None:
        self.real = real

    def labels(self, call: Call) -> Labels:
        x, dims = call.labels("self"), self.dims(call)
        call.lock_all([x[dim] for dim in dims], _TRANSFORMED)
        fixed_numbers(call, "n", "s")
        return tuple(None if dim in dims else atoms for dim, atoms in enumerate(x))

    def dims(self, call: Call) -> tuple[int, ...]:
        """The transformed dimensions: all of them where none are named, or the last ones if sizes are given."""
        rank, sizes = len(call.shape("self")), call.get("s")
        if call["dim"] is None and sizes is not None:
            return tuple(range(rank - len(sizes), rank))
        return dims_of(call["dim"], rank)

    def macs(self, call: Call) -> Sequence[Product]:
        dims = self.dims(call)
        points = prod(max(call.shape("self")[dim], call.output_shape[dim]) for dim in dims)
        rest = [size for dim, size in enumerate(call.sizes("self")) if dim not in dims]
        return [(*rest, fft_macs(points, real=self.real))]


class Shift(Fourier):
    """``fftshift``, ``ifftshift``: rotates dimensions by half."""

    def __init__(self) -> None:
        super().__init__(real=True)

    def macs(self, call: Call) -> Sequence[Product]:
        return ()


class ViewAsComplex(Rule):
    """``(..., 2)`` -> ``(...)`` complex.

    Pairs lie at even places of the memory: where they are cut out of a wider value, that shrinks in twos.
    """

    def labels(self, call: Call) -> Labels:
        *labels, pair = call.labels("self")
        call.lock(pair, "the real and the imaginary part")
        whole = _cut_from(call["self"])
        last = call.labels(whole)[-1] if whole is not None else None
        if last is not None and len(last) % 2 == 0:
            call.sink.unite(last[::2], last[1::2])
        return tuple(labels)


def _cut_from(value: fx.Node) -> fx.Node | None:
    """The value that holds the memory of a part of it; None where the value is no part."""
    is_cut = False
    while packet(value) in _CUTS | _VIEWS:
        is_cut = is_cut or packet(value) in _CUTS
        value = value.all_input_nodes[0]
    return value if is_cut else None


class ViewAsReal(Rule):
    """``(...)`` complex -> ``(..., 2)``."""

    def labels(self, call: Call) -> Labels:
        return (*call.labels("self"), None)


_CUTS = {aten.slice, aten.narrow, aten.split, aten.split_with_sizes, aten.chunk}
_VIEWS = {
    operator.getitem,
    aten.view,
    aten.reshape,
    aten.unflatten,
    aten.unsqueeze,
    aten.transpose,
    aten.permute,
    aten.to,
}
_COMPLEX = ("fft", "ifft", "fft2", "ifft2", "fftn", "ifftn")
_REAL = ("rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn", "hfft", "ihfft", "hfft2", "ihfft2", "hfftn", "ihfftn")

RULES: dict[Any, Rule] = {
    aten.stft: ShortTimeFourier(),
    aten.istft: InverseShortTimeFourier(),
    **{getattr(aten, f"fft_{name}"): Fourier(real=False) for name in _COMPLEX},
    **{getattr(aten, f"fft_{name}"): Fourier(real=True) for name in _REAL},
    aten.fft_fftshift: Shift(),
    aten.fft_ifftshift: Shift(),
    aten.fft_fftfreq: Locks(_TRANSFORMED),
    aten.fft_rfftfreq: Locks(_TRANSFORMED),
    aten.view_as_complex: ViewAsComplex(),
    aten.view_as_real: ViewAsReal(),
}
