"""Statistics of tensors whose indices are present to a degree: each counts with its keep value, 0 to 1.

With keep values of 0 and 1 they are the statistics of the tensor that has only the kept indices. They are
differentiable in the tensor and in the keep values, and accumulate in float32 or better.

Keep values come as one entry per dimension of the tensor: a vector, or None where every index is present.
"""

from collections.abc import Sequence
from functools import reduce
from operator import mul
from typing import Any, TypeAlias

import torch
from torch import Tensor

Keeps: TypeAlias = Sequence[Tensor | None]
"""Per dimension of a tensor: keep values, shape ``(size,)``, or None where all indices are present."""

LEAST_PRESENCE = 1e-6
"""Statistics of fewer indices than this are 0 rather than undefined: masks under training may remove a whole group."""


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """The real type in which statistics of the tensor are accumulated: at least float32."""
    if x.is_complex():
        return x.dtype.to_real()
    return torch.promote_types(x.dtype, torch.float32) if x.is_floating_point() else torch.float64


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The type of the result of an op that autocast runs in float32."""
    is_half = x.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if is_half and torch.is_autocast_enabled(x.device.type) else x.dtype


def widened(x: Tensor) -> Tensor:
    """The tensor in the precision in which its statistics are accumulated."""
    return x if x.is_complex() else x.to(accumulation_dtype(x))


def weights_of(keeps: Keeps, dtype: torch.dtype) -> Tensor:
    """Product of the keep values; of size 1 along dimensions that have none."""
    shapes = [[-1 if other == dim else 1 for other in range(len(keeps))] for dim in range(len(keeps))]
    factors = [keep.to(dtype).view(shape) for keep, shape in zip(keeps, shapes, strict=True) if keep is not None]
    product: Tensor = reduce(mul, factors)
    return product


def split_dims(weights: Tensor, dims: Sequence[int]) -> tuple[list[int], list[int]]:
    """The dimensions along which the weights are constant, and those along which they vary."""
    return [dim for dim in dims if weights.shape[dim] == 1], [dim for dim in dims if weights.shape[dim] != 1]


def shares(weights: Tensor, dims: Sequence[int]) -> Tensor:
    """The weights divided by their sum over the dimensions along which they vary."""
    return weights / weights.sum(split_dims(weights, dims)[1], keepdim=True).clamp_min(LEAST_PRESENCE)


def squeezed(result: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """Removes reduced dimensions, unless they are to be kept."""
    return result if keepdim else result.squeeze(list(dims))


def blend(x: Tensor, neutral: Any, weights: Tensor) -> Tensor:
    """``x`` where the weight is 1, ``neutral`` where it is 0, exactly; linear in between."""
    if not (x.is_floating_point() or x.is_complex()):
        return torch.where(weights > 0, x, neutral)
    weights = weights.to(x.dtype.to_real() if x.is_complex() else x.dtype)
    return _part(x, weights) + _part(neutral, 1 - weights)


def _part(value: Any, weights: Tensor) -> Tensor:
    """``value`` times the weights; of an infinite value, too, there is nothing where the weight is 0."""
    if isinstance(value, Tensor):
        value = value.masked_fill(value.isinf() & (weights == 0), 0)
    part: Tensor = value * weights
    return part


def weighted_mean(x: Tensor, weights: Tensor, dims: Sequence[int]) -> Tensor:
    """``sum(w x) / sum(w)`` over the dimensions, which stay with size 1.

    What need not be weighted is averaged first, so the tensor is read once.
    """
    plain, varying = split_dims(weights, dims)
    x = widened(x)
    means = x.mean(plain, keepdim=True) if plain else x
    return (means * shares(weights, dims)).sum(varying, keepdim=True)


def weighted_moments(x: Tensor, weights: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and ``sum(w |x - mean|^2) / sum(w)`` over the dimensions, which stay with size 1.

    Moments over what need not be weighted come first. They are combined by the law of total variance, a sum of
    terms that are not negative: nothing cancels.
    """
    plain, varying = split_dims(weights, dims)
    x = widened(x)
    means, within = _plain_moments(x, plain) if plain else (x, None)
    share = shares(weights, dims)
    mean = (means * share).sum(varying, keepdim=True)
    # The derivative with respect to the mean is zero, since deviations from it sum to zero.
    deviation = means - mean.detach()
    between = deviation.abs().square() if deviation.is_complex() else deviation.square()
    return mean, ((between if within is None else between + within) * share).sum(varying, keepdim=True)


def _plain_moments(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    if x.is_complex():
        (real, real_var), (imag, imag_var) = _plain_moments(x.real, dims), _plain_moments(x.imag, dims)
        return torch.complex(real, imag), real_var + imag_var
    last = list(range(-len(dims), 0))
    moved = x.movedim(tuple(dims), tuple(last))
    rows = moved.flatten(-len(dims))
    found = _RowMoments.apply(rows)  # type: ignore[no-untyped-call]
    shape = [1 if dim in dims else size for dim, size in enumerate(x.shape)]
    return found[0].view(shape), found[1].view(shape)


class _RowMoments(torch.autograd.Function):
    """Mean and variance over the last dimension; both passes read the tensor once.

    Torch's group normalisation computes them several times faster on CPUs than ``torch.var_mean``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.shape[:-1].numel()
        grouped = x.reshape(1, rows, -1).contiguous()
        _, mean, scale = torch.native_group_norm(grouped, None, None, 1, rows, grouped.shape[-1], rows, 0.0)
        mean = mean.view(x.shape[:-1])
        ctx.save_for_backward(x, mean)
        return mean, scale.view(x.shape[:-1]).square().reciprocal()

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_var: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        slope = grad_var * (2 / x.shape[-1])
        offset = grad_mean / x.shape[-1] - slope * mean
        return torch.addcmul(offset.unsqueeze(-1), x, slope.unsqueeze(-1))


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift``, one scale and shift per row: shapes ``(..., n)``, ``(...)`` and ``(...)``.

    Torch's batch normalisation with statistics 0 and 1 does this with a backward pass that reads the tensors once.
    """
    rows = x.reshape(1, scale.numel(), -1)
    zeros, ones = torch.zeros_like(scale).flatten(), torch.ones_like(scale).flatten()
    # The functional form refuses the eps of 0 that keeps this exact.
    y = torch.batch_norm(rows, scale.flatten(), shift.flatten(), zeros, ones, False, 0.0, 0.0, False)
    return y.view(x.shape)
