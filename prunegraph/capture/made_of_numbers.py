"""Tensors made of tracked numbers, as sums: what torch makes of a Python number at once has no origin in the record."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from prunegraph.capture.numbers_in_arrays import RangeOfSizes


def _tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """``torch.tensor(data)`` for a number, lists of numbers, or a range of them."""
    if isinstance(data, RangeOfSizes):
        return torch.from_numpy(data).to(device, dtype)
    dtype = dtype or _dtype_of(data)
    if isinstance(data, list | tuple):
        return torch.stack([_tensor(item, dtype, device) for item in data])
    return torch.add(torch.zeros((), dtype=dtype, device=device), data)


def _full(size: Any, fill_value: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """``torch.full(size, fill_value)``."""
    dtype = dtype or _dtype_of(fill_value)
    return torch.add(torch.zeros(size, dtype=dtype, device=device), fill_value)


def _new_tensor(like: Tensor, data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """``like.new_tensor(data)``."""
    return _tensor(data, dtype or like.dtype, device or like.device)


def _new_full(
    like: Tensor, size: Any, fill_value: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any
) -> Tensor:
    """``like.new_full(size, fill_value)``."""
    dtype = dtype or like.dtype
    return torch.add(like.new_zeros(size, dtype=dtype, device=device), fill_value).to(dtype)


def written(tensor: Tensor, number: Any) -> Tensor:
    """What ``tensor[...] = number`` writes."""
    return _full((), number, dtype=tensor.dtype, device=tensor.device)


def _dtype_of(data: Any) -> torch.dtype:
    """What torch makes of a number, or of lists of them."""
    if isinstance(data, list | tuple):
        return reduce(torch.promote_types, map(_dtype_of, data))
    kind = next((kind for kind in (bool, int, float, complex) if isinstance(data, kind)), None)
    return torch.as_tensor(data if kind is None else kind()).dtype


MADE_OF_NUMBERS: Mapping[Any, Callable[..., Tensor]] = {
    torch.tensor: _tensor,
    torch.as_tensor: _tensor,
    torch.full: _full,
    torch.Tensor.new_tensor: _new_tensor,
    torch.Tensor.new_full: _new_full,
}
"""torch function -> the same as a sum, for arguments among which there is a tracked number."""
