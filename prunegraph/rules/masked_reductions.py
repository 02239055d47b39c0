"""Reductions that count each entry with its keep value, as the op counts the entries that are left after pruning.

Every function takes the tensor, ``keeps`` (one entry per dimension: keep values of shape ``(size,)``, or None), the
reduced dimensions (not negative) and ``keepdim``, then what its op takes. With keep values of 1 it gives what the op
gives; with 0 and 1 what the op gives on the kept entries. In between it is differentiable in the keep values.
"""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from prunegraph.rules.statistics import (
    Keeps,
    accumulation_dtype,
    autocast_dtype,
    blend,
    split_dims,
    squeezed,
    weighted_mean,
    weighted_moments,
    weights_of,
    widened,
)


def masked_sum(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool, dtype: torch.dtype | None = None) -> Tensor:
    """``sum(m x)`` in the type that ``torch.sum`` gives."""
    is_integer = not (x.is_floating_point() or x.is_complex())
    dtype = dtype or (torch.int64 if is_integer else autocast_dtype(x))
    weights = weights_of(keeps, accumulation_dtype(x))
    plain, varying = split_dims(weights, dims)
    sums = widened(x).sum(plain, keepdim=True) if plain else x
    return squeezed((sums * weights).sum(varying, keepdim=True), dims, keepdim).to(dtype)


def masked_nansum(
    x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """`masked_sum` of what is not NaN."""
    return masked_sum(x.masked_fill(x.isnan(), 0), keeps, dims, keepdim, dtype)


def masked_mean(
    x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """``sum(m x) / sum(m)``."""
    weights = weights_of(keeps, accumulation_dtype(x))
    return squeezed(weighted_mean(x, weights, dims), dims, keepdim).to(dtype or x.dtype)


def masked_nanmean(
    x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """`masked_mean` of what is not NaN."""
    weights = weights_of(keeps, accumulation_dtype(x)) * ~x.isnan()
    total = (x.masked_fill(x.isnan(), 0) * weights).sum(list(dims), keepdim=True)
    return squeezed(total / weights.sum(list(dims), keepdim=True), dims, keepdim).to(dtype or x.dtype)


def masked_var_mean(
    x: Tensor,
    keeps: Keeps,
    dims: Sequence[int],
    keepdim: bool,
    correction: float | None = None,
    unbiased: bool = True,
) -> tuple[Tensor, Tensor]:
    """``sum(m |x - mean|^2) / (sum(m) - correction)`` and the mean; the correction is 1 unless given or biased."""
    weights = weights_of(keeps, accumulation_dtype(x))
    correction = float(unbiased) if correction is None else correction
    mean, var = weighted_moments(x, weights, dims)
    plain, varying = split_dims(weights, dims)
    count = weights.sum(varying, keepdim=True) * float(_sizes(x, plain).numel())
    var = var * (count / (count - correction).clamp_min(0)) if correction else var
    real = x.dtype.to_real() if x.is_complex() else x.dtype
    return squeezed(var, dims, keepdim).to(real), squeezed(mean, dims, keepdim).to(x.dtype)


def _sizes(x: Tensor, dims: Sequence[int]) -> torch.Size:
    return torch.Size([x.shape[dim] for dim in dims])


def masked_var(
    x: Tensor,
    keeps: Keeps,
    dims: Sequence[int],
    keepdim: bool,
    correction: float | None = None,
    unbiased: bool = True,
) -> Tensor:
    """The variance of `masked_var_mean`."""
    return masked_var_mean(x, keeps, dims, keepdim, correction, unbiased)[0]


def masked_std(
    x: Tensor,
    keeps: Keeps,
    dims: Sequence[int],
    keepdim: bool,
    correction: float | None = None,
    unbiased: bool = True,
) -> Tensor:
    """The root of the variance of `masked_var_mean`."""
    return masked_var(x, keeps, dims, keepdim, correction, unbiased).sqrt()


def masked_std_mean(
    x: Tensor,
    keeps: Keeps,
    dims: Sequence[int],
    keepdim: bool,
    correction: float | None = None,
    unbiased: bool = True,
) -> tuple[Tensor, Tensor]:
    """The root of the variance, and the mean, of `masked_var_mean`."""
    var, mean = masked_var_mean(x, keeps, dims, keepdim, correction, unbiased)
    return var.sqrt(), mean


def _without_absent(x: Tensor, keeps: Keeps, dims: Sequence[int], *, highest: bool) -> Tensor:
    """Absent entries moved to the far end, so that they are no extreme; in proportion for values between 0 and 1."""
    far = x.amin(list(dims), keepdim=True) if highest else x.amax(list(dims), keepdim=True)
    return blend(x, far.detach(), weights_of(keeps, accumulation_dtype(x)))


def masked_amax(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The largest of the present entries."""
    return _without_absent(x, keeps, dims, highest=True).amax(list(dims), keepdim)


def masked_amin(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The smallest of the present entries."""
    return _without_absent(x, keeps, dims, highest=False).amin(list(dims), keepdim)


def masked_aminmax(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> tuple[Tensor, Tensor]:
    """The smallest and the largest of the present entries."""
    return masked_amin(x, keeps, dims, keepdim), masked_amax(x, keeps, dims, keepdim)


def masked_max(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> tuple[Tensor, Tensor]:
    """The largest present entry along one dimension, and its position among all entries."""
    found = _without_absent(x, keeps, dims, highest=True).max(dims[0], keepdim)
    return found.values, found.indices


def masked_min(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> tuple[Tensor, Tensor]:
    """The smallest present entry along one dimension, and its position among all entries."""
    found = _without_absent(x, keeps, dims, highest=False).min(dims[0], keepdim)
    return found.values, found.indices


def masked_any(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> Tensor:
    """Whether any present entry is true."""
    return blend(x.bool(), False, weights_of(keeps, torch.float32)).any(tuple(dims), keepdim)


def masked_all(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> Tensor:
    """Whether all present entries are true."""
    return blend(x.bool(), True, weights_of(keeps, torch.float32)).all(tuple(dims), keepdim)


def masked_count_nonzero(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> Tensor:
    """How many present entries are not zero."""
    return squeezed(blend(x != 0, False, weights_of(keeps, torch.float32)).sum(list(dims), True), dims, keepdim)


def masked_prod(
    x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """``prod(m x + 1 - m)``: an absent entry is a factor of 1."""
    dtype = dtype or (autocast_dtype(x) if x.is_floating_point() or x.is_complex() else torch.int64)
    x = blend(x.to(dtype), 1, weights_of(keeps, accumulation_dtype(x)))
    for dim in dims:
        x = x.prod(dim, keepdim=True)
    return squeezed(x, dims, keepdim)


def _exponentials(x: Tensor, weights: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``exp(x - top)`` and ``top``, the largest present entry; absent ones larger than that are taken as that."""
    top = x.masked_fill(weights == 0, -inf).amax(list(dims), keepdim=True).detach()
    top = top.masked_fill(top.isinf(), 0)
    return (x - top).clamp(max=0).exp(), top


def masked_logsumexp(x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool) -> Tensor:
    """``log(sum(m exp(x)))``."""
    dtype, wide = autocast_dtype(x), widened(x)
    weights = weights_of(keeps, wide.dtype)
    exponentials, top = _exponentials(wide, weights, dims)
    total = top + (exponentials * weights).sum(list(dims), keepdim=True).log()
    return squeezed(total, dims, keepdim).to(dtype)


def masked_softmax(x: Tensor, keeps: Keeps, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """``exp(x) / sum(m exp(x))``: only present entries count in the sum.

    An absent entry keeps a finite value of its own, which whoever reads it multiplies by its keep value.
    """
    wide = widened(x if dtype is None else x.to(dtype))
    weights = weights_of(keeps, wide.dtype)
    exponentials, _ = _exponentials(wide, weights, [dim])
    return (exponentials / (exponentials * weights).sum(dim, keepdim=True)).to(dtype or autocast_dtype(x))


def masked_log_softmax(x: Tensor, keeps: Keeps, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """``x - log(sum(m exp(x)))``; see `masked_softmax`."""
    wide = widened(x if dtype is None else x.to(dtype))
    return (wide - masked_logsumexp(wide, keeps, [dim], True)).to(dtype or autocast_dtype(x))


def masked_vector_norm(
    x: Tensor, keeps: Keeps, dims: Sequence[int], keepdim: bool, order: float, dtype: torch.dtype | None = None
) -> Tensor:
    """``(sum(m |x|^p))^(1/p)``; for an infinite p the extreme of the present entries."""
    dtype = dtype or (x.dtype.to_real() if x.is_complex() else autocast_dtype(x))
    wide = widened(x)
    if order in (inf, -inf):
        extreme = masked_amax if order > 0 else masked_amin
        return extreme(wide.abs(), keeps, dims, keepdim).to(dtype)
    if order == 0:
        return masked_sum((wide != 0).to(accumulation_dtype(wide)), keeps, dims, keepdim).to(dtype)
    weights = weights_of(keeps, accumulation_dtype(wide))
    plain, varying = split_dims(weights, dims)
    lengths = torch.linalg.vector_norm(wide, order, plain, True) if plain else wide.abs()
    powers = (lengths.pow(order) * weights).sum(varying, keepdim=True)
    # The norm of nothing has the gradient zero, as torch's has.
    norm = torch.where(powers > 0, powers, 1).pow(1 / order) * (powers > 0)
    return squeezed(norm, dims, keepdim).to(dtype)


def masked_pairwise_distance(a: Tensor, b: Tensor, keeps: Keeps, keepdim: bool, order: float, eps: float) -> Tensor:
    """``(sum(m |a - b + eps|^p))^(1/p)`` along the last dimension: an absent entry adds no ``eps`` either."""
    return masked_vector_norm(a - b + eps, keeps, (len(keeps) - 1,), keepdim, order)


def masked_renorm(x: Tensor, keeps: Keeps, dims: Sequence[int], order: float, maxnorm: float) -> Tensor:
    """``x`` scaled so that ``(sum(m |x|^p))^(1/p)`` over ``dims`` is at most ``maxnorm``."""
    norm = masked_vector_norm(x, keeps, dims, True, order)
    # The small number is the one that torch adds.
    return x * torch.where(norm > maxnorm, maxnorm / (norm + 1e-7), 1)


def masked_cosine_similarity(a: Tensor, b: Tensor, keeps: Keeps, dim: int, eps: float) -> Tensor:
    """``sum(m a b) / (max(sqrt(sum(m a^2)), eps) max(sqrt(sum(m b^2)), eps))``."""
    dtype = autocast_dtype(a)
    a, b = torch.broadcast_tensors(widened(a), widened(b))  # type: ignore[no-untyped-call]
    weights = weights_of(keeps, a.dtype)
    dot = (a * b * weights).sum(dim)
    lengths = [(x.square() * weights).sum(dim).clamp_min(eps**2).sqrt() for x in (a, b)]
    return (dot / (lengths[0] * lengths[1])).to(dtype)


def with_neutral(x: Tensor, keeps: Keeps, neutral: int) -> Tensor:
    """``m x + (1 - m) neutral``."""
    return blend(x, neutral, weights_of(keeps, accumulation_dtype(x)))
