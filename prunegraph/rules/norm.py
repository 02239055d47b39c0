"""Normalisations: which channels share statistics, and statistics that count only the channels present."""

from typing import Any

import torch
from torch import Tensor, fx

from prunegraph.rules.base import Atoms, Call, Labels, Masker, Rule
from prunegraph.rules.locking import fixed_numbers
from prunegraph.rules.pointwise import FIXED_SIZE
from prunegraph.rules.statistics import (
    Keeps,
    autocast_dtype,
    scale_and_shift,
    shares,
    weighted_moments,
    weights_of,
    widened,
)

aten = torch.ops.aten


def keeps_of(mask: Masker, labels: Labels, dims: range | tuple[int, ...]) -> tuple[fx.Node | None, ...] | None:
    """Keep values of the given dimensions, one entry per dimension of the tensor; None where everything stays."""
    keeps = tuple(mask.keep(atoms) if dim in dims else None for dim, atoms in enumerate(labels))
    return keeps if any(keep is not None for keep in keeps) else None


def _operand(call: Call, mask: Masker, name: str) -> fx.Node | None:
    return mask.value(call[name]) if isinstance(call[name], fx.Node) else None


def _match_vectors(call: Call, channels: Atoms | None, *names: str) -> None:
    for name in names:
        if call.labels(name):
            call.match(channels, call.labels(name)[0], FIXED_SIZE)


class GroupNorm(Rule):
    """``y[n, c] = (x[n, c] - mean[n, g]) / sqrt(var[n, g] + eps) * weight[c] + bias[c]`` for c in group g.

    With several channels per group the same in-group index is coupled over all groups, whose number stays. With one
    channel per group, or where that leaves nothing prunable, the groups themselves come and go, and the op's
    ``num_groups`` argument with them.
    """

    def labels(self, call: Call) -> Labels:
        labels, groups = call.labels("input"), int(call["num_groups"])
        if labels[1] is None or groups == 1:
            fixed_numbers(call, "num_groups")
        else:
            self._couple(call, labels[1].reshape(groups, -1))
        _match_vectors(call, labels[1], "weight", "bias")
        return labels

    def _couple(self, call: Call, by_group: Atoms) -> None:
        alike, whole = by_group, by_group.T
        if len(whole) > 1 and call.sink.choose(call.node, "groups", (alike[0], whole[0])) == 0:
            fixed_numbers(call, "num_groups")
            whole = alike
        else:
            call.require_size("num_groups", None, whole[0], len(alike))
        for other in whole[1:]:
            call.sink.unite(whole[0], other)

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels, groups = call.labels("input"), int(call["num_groups"])
        dims = range(1 if groups < call.shape("input")[1] else 2, len(labels))
        keeps = keeps_of(mask, labels, dims)
        if keeps is None:
            return None
        vectors = (_operand(call, mask, "weight"), _operand(call, mask, "bias"))
        return mask.emit(masked_group_norm, mask.value(call["input"]), groups, *vectors, call["eps"], keeps)


def masked_group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, keeps: Keeps
) -> Tensor:
    """Group normalisation whose statistics count each channel with its keep value.

    ``mean = sum(m x) / sum(m)`` and ``var = sum(m (x - mean)^2) / sum(m)`` over the channels and places of a group.

    Args:
        x: shape ``(batch, channels, ...)``.
        num_groups: number of groups.
        weight: scale per channel, shape ``(channels,)``.
        bias: offset per channel, shape ``(channels,)``.
        eps: added to the variance.
        keeps: keep values per dimension of ``x``.
    """
    dtype, x = autocast_dtype(x), widened(x)
    by_group = (x.shape[0], num_groups, -1, *x.shape[2:])
    grouped = x.reshape(by_group)
    weights = weights_of(keeps, x.dtype)
    weights = weights.reshape(1, num_groups if weights.shape[1] != 1 else 1, -1, *weights.shape[2:])
    mean, var = weighted_moments(grouped, weights, range(2, grouped.dim()))
    per_group = mean.shape[:2]
    scale = torch.rsqrt(var.view(*per_group, 1) + eps).expand(*per_group, grouped.shape[2])
    scale = scale.reshape(x.shape[:2]) if weight is None else scale.reshape(x.shape[:2]) * weight
    shift = (-mean.view(*per_group, 1) * scale.view(*per_group, -1)).view(x.shape[:2])
    return scale_and_shift(x, scale, shift if bias is None else shift + bias).to(dtype)


class LayerNorm(Rule):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions, those of ``normalized_shape``."""

    def labels(self, call: Call) -> Labels:
        labels, shape = call.labels("input"), call.shape("input")
        first = len(shape) - len(call["normalized_shape"])
        for index, dim in enumerate(range(first, len(shape))):
            call.require_size("normalized_shape", index, labels[dim], shape[dim])
            for name in ("weight", "bias"):
                if call.labels(name):
                    call.match(labels[dim], call.labels(name)[index], FIXED_SIZE)
        return labels

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels, count = call.labels("input"), len(call["normalized_shape"])
        keeps = keeps_of(mask, labels, range(len(labels) - count, len(labels)))
        return None if keeps is None else self._emit(call, mask, keeps[len(labels) - count :])

    def _emit(self, call: Call, mask: Masker, keeps: tuple[fx.Node | None, ...]) -> fx.Node:
        vectors = (_operand(call, mask, "weight"), _operand(call, mask, "bias"))
        return mask.emit(masked_layer_norm, mask.value(call["input"]), *vectors, call["eps"], keeps)


def masked_layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, keeps: Keeps) -> Tensor:
    """Layer normalisation whose statistics count each index with its keep value.

    Args:
        x: shape ``(..., *normalized_shape)``.
        weight: scale, shape ``normalized_shape``.
        bias: offset, shape ``normalized_shape``.
        eps: added to the variance.
        keeps: keep values per normalised dimension.
    """
    dtype, shape, x = autocast_dtype(x), x.shape, widened(x)
    normalised = shape[len(shape) - len(keeps) :]
    share = _shares(keeps, x).expand(normalised).flatten()
    scale = torch.ones_like(share) if weight is None else weight.to(x.dtype).flatten()
    offset = torch.zeros_like(share) if bias is None else bias.to(x.dtype).flatten()
    y: Tensor = _NormalisedRows.apply(x.reshape(-1, normalised.numel()), share, scale, offset, eps)  # type: ignore[no-untyped-call]
    return y.view(shape).to(dtype)


def _shares(keeps: Keeps, x: Tensor) -> Tensor:
    """Weights that sum to one over the normalised dimensions."""
    weights = weights_of(keeps, x.dtype)
    sizes = x.shape[x.dim() - len(keeps) :]
    repeats = sizes.numel() // weights.numel()
    return shares(weights, range(weights.dim())) / repeats


class _NormalisedRows(torch.autograd.Function):
    """``(x - mean) / sqrt(var + eps) * scale + offset`` for each row, by weights ``share`` that sum to one.

    Shapes ``(rows, n)`` for ``x`` and ``(n,)`` for the others. Matrix products stay out of autocast.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor, scale: Tensor, offset: Tensor, eps: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            centred = x - (x @ share).unsqueeze(-1)
            inverse = torch.rsqrt((centred.square() @ share).unsqueeze(-1) + eps)
        normalised = centred.mul_(inverse)
        ctx.save_for_backward(normalised, inverse, share, scale)
        return torch.addcmul(offset, normalised, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normalised, inverse, share, scale = ctx.saved_tensors
        _, by_share, by_scale, by_offset, _ = ctx.needs_input_grad
        product = grad * normalised
        with torch.autocast(grad.device.type, enabled=False):
            of_mean, of_scale = (grad @ scale).unsqueeze(-1), (product @ scale).unsqueeze(-1)
        grad_scale = product.sum(0) if by_scale else None
        grad_offset = grad.sum(0) if by_offset else None
        grad_share = None
        if by_share:
            grad_share = -torch.addcmul(of_mean, normalised, of_scale / 2).mul_(normalised).sum(0)
        lost = torch.addcmul(of_mean, normalised, of_scale).mul_(share)
        return lost.neg_().addcmul_(grad, scale).mul_(inverse), grad_share, grad_scale, grad_offset, None


class RmsNorm(LayerNorm):
    """``y = x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions, those of ``normalized_shape``."""

    def _emit(self, call: Call, mask: Masker, keeps: tuple[fx.Node | None, ...]) -> fx.Node:
        weight = _operand(call, mask, "weight")
        return mask.emit(masked_rms_norm, mask.value(call["input"]), weight, call.get("eps"), keeps)


def masked_rms_norm(x: Tensor, weight: Tensor | None, eps: float | None, keeps: Keeps) -> Tensor:
    """Root-mean-square normalisation whose mean counts each index with its keep value; see `masked_layer_norm`."""
    dtype, x = x.dtype, widened(x)
    dims = tuple(range(-len(keeps), 0))
    power = (x.square() * _shares(keeps, x)).sum(dims, keepdim=True)
    y = x * torch.rsqrt(power + (torch.finfo(x.dtype).eps if eps is None else eps))
    return (y if weight is None else y * weight).to(dtype)


class BatchNorm(Rule):
    """``y[n, c] = (x[n, c] - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]``: each channel by itself."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("input")
        _match_vectors(call, labels[1], "weight", "bias", "running_mean", "running_var")
        if call["training"]:
            call.lock_all((labels[0], *labels[2:]), "statistics of a batch run along this dimension")
        return labels


class InstanceNorm(Rule):
    """``y[n, c] = (x[n, c] - mean[n, c]) / sqrt(var[n, c] + eps) * weight[c] + bias[c]``."""

    def labels(self, call: Call) -> Labels:
        labels = call.labels("input")
        _match_vectors(call, labels[1], "weight", "bias", "running_mean", "running_var")
        return labels

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels = call.labels("input")
        keeps = keeps_of(mask, labels, range(2, len(labels)))
        if keeps is None or not call["use_input_stats"]:
            return None
        vectors = (_operand(call, mask, "weight"), _operand(call, mask, "bias"))
        channels = call.shape("input")[1]
        return mask.emit(masked_group_norm, mask.value(call["input"]), channels, *vectors, call["eps"], keeps)


class WeightNorm(Rule):
    """``w = v * g / |v|``, the norm taken over all dimensions of v but ``dim`` (over all of them for -1)."""

    def labels(self, call: Call) -> Any:
        v, g, dim = call.labels("v"), call.labels("g"), call["dim"]
        if dim != -1:
            call.match(v[dim], g[dim], FIXED_SIZE)
        return (v, g) if len(call.output_shapes) > 1 else v

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels, dim = call.labels("v"), call["dim"]
        keeps = keeps_of(mask, labels, tuple(other for other in range(len(labels)) if other != dim))
        if keeps is None:
            return None
        masked = masked_weight_norm if len(call.output_shapes) == 1 else masked_weight_norm_interface
        return mask.emit(masked, mask.value(call["v"]), mask.value(call["g"]), dim, keeps)


def masked_weight_norm(v: Tensor, g: Tensor, dim: int, keeps: Keeps) -> Tensor:
    """``v * g / sqrt(sum(m v^2))``: a weight whose norm counts only the indices that are present.

    Args:
        v: the direction, any shape.
        g: the length along ``dim``: v's size there, 1 elsewhere; any one number for a ``dim`` of -1.
        dim: the dimension that is not reduced; -1 for none.
        keeps: keep values per dimension of ``v``.
    """
    return masked_weight_norm_interface(v, g, dim, keeps)[0]


def masked_weight_norm_interface(v: Tensor, g: Tensor, dim: int, keeps: Keeps) -> tuple[Tensor, Tensor]:
    """The weight of `masked_weight_norm`, and the norms."""
    wide = widened(v)
    dims = [other for other in range(v.dim()) if other != dim]
    norm = (wide.square() * weights_of(keeps, wide.dtype)).sum(dims, keepdim=True).sqrt()
    norm = norm.view(g.shape)
    return (wide * (g / norm)).to(v.dtype), norm


RULES: dict[Any, Rule] = {
    aten.group_norm: GroupNorm(),
    aten.layer_norm: LayerNorm(),
    aten.rms_norm: RmsNorm(),
    aten.batch_norm: BatchNorm(),
    aten.instance_norm: InstanceNorm(),
    aten._weight_norm: WeightNorm(),
    aten._weight_norm_interface: WeightNorm(),
}
