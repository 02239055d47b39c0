"""Ops along space: pooling, resampling, sliding windows, sub-pixel rearrangement.

A channel along a dimension on which a window slides is a place, so labels there are locked, except where the window is
one place wide. Batch and channel dimensions pass.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prunegraph.rules.base import Atoms, Call, Labels, Rule, at, replace_dim
from prunegraph.rules.locking import Locks, fixed_numbers
from prunegraph.rules.pointwise import FIXED_SIZE

aten = torch.ops.aten

_WINDOW = "a window slides along this dimension"
_RESAMPLED = "the places along this dimension are resampled"


class Pool(Rule):
    """Max and average pooling over the last ``spatial`` dimensions, with or without the places of the maxima."""

    def __init__(self, spatial: int) -> None:
        self.spatial = spatial

    def labels(self, call: Call) -> Any:
        labels = list(call.labels("self"))
        fixed_numbers(call, "kernel_size", "stride", "padding", "dilation")
        for place in range(self.spatial):
            dim = len(labels) - self.spatial + place
            if _gives_places(call) or not self._single(call, place):
                call.lock(labels[dim], _WINDOW)
                labels[dim] = None
        return (tuple(labels),) * 2 if _gives_places(call) else tuple(labels)

    def _single(self, call: Call, place: int) -> bool:
        """Is the window one place wide, so that it leaves this dimension as it is?"""
        kernel, stride, padding = (at(call.get(name), place) for name in ("kernel_size", "stride", "padding"))
        return kernel == 1 and stride in (1, None) and padding in (0, None)


def _gives_places(call: Call) -> bool:
    """Does the op also return where the maxima are, counted over all of space?"""
    return isinstance(call.trace.values.get(call.node.name), tuple)


class Resample(Rule):
    """Adaptive pooling and ``upsample_*``: the last ``spatial`` dimensions get new sizes.

    A dimension that keeps its size passes, as long as the code asks for the new width after pruning.
    """

    def __init__(self, spatial: int) -> None:
        self.spatial = spatial

    def labels(self, call: Call) -> Any:
        x = call.tensors()[0]
        labels = list(call.labels(x))
        for place in range(self.spatial):
            dim = len(labels) - self.spatial + place
            labels[dim] = self._resampled(call, place, labels[dim], call.shape(x)[dim])
        return (tuple(labels),) * 2 if _gives_places(call) else tuple(labels)

    def _resampled(self, call: Call, place: int, atoms: Atoms | None, size: int) -> Atoms | None:
        sizes, scales = call.get("output_size"), call.get("scale_factors")
        if _gives_places(call):
            call.lock(atoms, _WINDOW)
            return None
        if sizes is None and scales is not None and scales[place] == 1:
            return atoms
        if sizes is not None and len(sizes) == self.spatial:
            same = atoms if sizes[place] == size else None
            call.require_size("output_size", place, same, sizes[place])
            if same is not None:
                return same
        call.lock(atoms, _RESAMPLED)
        return None


class Unpool(Rule):
    """``max_unpool``: values go back to the places of the maxima."""

    def __init__(self, spatial: int) -> None:
        self.spatial = spatial

    def labels(self, call: Call) -> Labels:
        x, indices = call.labels("self"), call.labels("indices")
        lead = len(x) - self.spatial
        call.lock_all([*x[lead:], *indices[lead:]], _RESAMPLED)
        passed = [call.match(a, b, FIXED_SIZE) for a, b in zip(x[:lead], indices[:lead], strict=True)]
        return (*passed, *(None,) * self.spatial)


class Im2Col(Rule):
    """``(batch, channels, height, width)`` -> ``(batch, channels * taps, places)``, the taps of a channel together."""

    def labels(self, call: Call) -> Labels:
        *lead, channels, height, width = call.labels("self")
        call.lock_all([height, width], _WINDOW)
        fixed_numbers(call, "kernel_size", "dilation", "padding", "stride")
        taps = call["kernel_size"][0] * call["kernel_size"][-1]
        return (*lead, _repeated(channels, taps), None)


class Col2Im(Rule):
    """``(batch, channels * taps, places)`` -> ``(batch, channels, height, width)``: couples the taps."""

    def labels(self, call: Call) -> Labels:
        *lead, channels, places = call.labels("self")
        call.lock(places, _WINDOW)
        fixed_numbers(call, "output_size", "kernel_size", "dilation", "padding", "stride")
        taps = call["kernel_size"][0] * call["kernel_size"][-1]
        return (*lead, _coupled_runs(call, channels, taps), None, None)


def _repeated(atoms: Atoms | None, times: int) -> Atoms | None:
    return None if atoms is None else np.repeat(atoms, times)


def _coupled_runs(call: Call, atoms: Atoms | None, length: int) -> Atoms | None:
    """Couples each run of adjacent indices; the first of a run stands for it. A single run must stay."""
    if atoms is None or len(atoms) == length:
        call.lock(atoms, "all parts of a single channel")
        return None
    runs = atoms.reshape(-1, length)
    for part in runs.T[1:]:
        call.sink.unite(runs[:, 0], part)
    return runs[:, 0]


class Windows(Rule):
    """``Tensor.unfold``: windows of one dimension, laid along a new last one."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        fixed_numbers(call, "size", "step")
        if not labels:
            return (None,)
        dim = int(call["dimension"]) % len(labels)
        call.lock(labels[dim], _WINDOW)
        return (*replace_dim(labels, dim, None), None)


class PixelShuffle(Rule):
    """``(..., channels * r * r, height, width)`` -> ``(..., channels, height * r, width * r)``."""

    def labels(self, call: Call) -> Labels:
        *lead, channels, height, width = call.labels("self")
        call.lock_all([height, width], _RESAMPLED)
        fixed_numbers(call, "upscale_factor")
        return (*lead, _coupled_runs(call, channels, call["upscale_factor"] ** 2), None, None)


class PixelUnshuffle(Rule):
    """``(..., channels, height * r, width * r)`` -> ``(..., channels * r * r, height, width)``."""

    def labels(self, call: Call) -> Labels:
        *lead, channels, height, width = call.labels("self")
        call.lock_all([height, width], _RESAMPLED)
        fixed_numbers(call, "downscale_factor")
        return (*lead, _repeated(channels, call["downscale_factor"] ** 2), None, None)


class ChannelShuffle(Rule):
    """``y[:, j * groups + i] = x[:, i * width + j]``: index j of every group is coupled, the number of groups stays."""

    def labels(self, call: Call) -> Labels:
        labels, groups = call.labels("self"), int(call["groups"])
        atoms = labels[1]
        fixed_numbers(call, "groups")
        if atoms is None or len(atoms) == groups:
            call.lock(atoms, "one channel in each shuffled group")
            return labels
        table = atoms.reshape(groups, -1)
        for row in table[1:]:
            call.sink.unite(table[0], row)
        return replace_dim(labels, 1, table.T.reshape(-1))


class GridSampler(Rule):
    """``y[n, c, ...] = x[n, c, grid[n, ...]]``: ``(batch, channels, *places of the grid)``."""

    def labels(self, call: Call) -> Labels:
        batch, channels, *places = call.labels("input")
        grid_batch, *positions, coordinates = call.labels("grid")
        call.lock_all([*places, coordinates], _RESAMPLED)
        return (call.match(batch, grid_batch, FIXED_SIZE), channels, *positions)


class AffineGrid(Rule):
    """``(batch, 2, 3)`` matrices -> ``(batch, height, width, 2)`` positions, in two or three dimensions."""

    def labels(self, call: Call) -> Labels:
        batch, *matrix = call.labels("theta")
        call.lock_all(matrix, "coordinates of space")
        call.require_size("size", 0, batch, call["size"][0])
        return (batch, *(None,) * (len(call.output_shape) - 1))


def _each(names: str, rules: Sequence[Rule]) -> dict[Any, Rule]:
    """Ops whose names end in the number of spatial dimensions."""
    return {
        getattr(aten, name.format(place)): rule
        for name in names.split()
        for place, rule in enumerate(rules, 1)
        if hasattr(aten, name.format(place))
    }


_POOLS = "max_pool{}d max_pool{}d_with_indices avg_pool{}d mkldnn_max_pool{}d"
_ADAPTIVE = (
    "adaptive_avg_pool{}d adaptive_max_pool{}d _adaptive_avg_pool{}d upsample_nearest{}d _upsample_nearest_exact{}d"
)
_IN_PLANE = "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"

RULES: dict[Any, Rule] = {
    **_each(_POOLS, [Pool(1), Pool(2), Pool(3)]),
    **_each(_ADAPTIVE, [Resample(1), Resample(2), Resample(3)]),
    **{getattr(aten, name): Resample(2) for name in _IN_PLANE.split()},
    aten.upsample_linear1d: Resample(1),
    aten.upsample_trilinear3d: Resample(3),
    **_each("fractional_max_pool{}d", [Locks("windows are drawn at random for each channel")] * 3),
    **_each("max_unpool{}d", [Unpool(1), Unpool(2), Unpool(3)]),
    aten.im2col: Im2Col(),
    aten.col2im: Col2Im(),
    aten.unfold: Windows(),
    aten.unfold_copy: Windows(),
    aten.pixel_shuffle: PixelShuffle(),
    aten.pixel_unshuffle: PixelUnshuffle(),
    aten.channel_shuffle: ChannelShuffle(),
    aten.native_channel_shuffle: ChannelShuffle(),
    aten.grid_sampler: GridSampler(),
    aten.grid_sampler_2d: GridSampler(),
    aten.grid_sampler_3d: GridSampler(),
    aten.affine_grid_generator: AffineGrid(),
}
