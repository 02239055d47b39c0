"""Tensors made of tracked numbers, as sums: what torch makes of a Python number at once has no origin in the record."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from prunegraph.capture.numbers_in_arrays import RangeOfSizes


def _tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """``torch.tensor(data)`` for a number, lists of numbers, or a range of them."""
    if isinstance(data, RangeOfSizes):
        return torch.from_numpy(data).to(device, dtype)
    dtype = dtype or (torch.get_default_dtype() if _has_float(data) else torch.int64)
    if isinstance(data, list | tuple):
        return torch.stack([_tensor(item, dtype, device) for item in data])
    return torch.add(torch.zeros((), dtype=dtype, device=device), data)


def _full(size: Any, fill_value: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """``torch.full(size, fill_value)``."""
    dtype = dtype or (torch.get_default_dtype() if _has_float(fill_value) else torch.int64)
    return torch.add(torch.zeros(size, dtype=dtype, device=device), fill_value)


def _new_tensor(like: Tensor, data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """``like.new_tensor(data)``."""
    return _tensor(data, dtype or like.dtype, device or like.device)


def written(tensor: Tensor, number: Any) -> Tensor:
    """What ``tensor[...] = number`` writes."""
    return _full((), number, dtype=tensor.dtype, device=tensor.device)


def _has_float(data: Any) -> bool:
    return any(map(_has_float, data)) if isinstance(data, list | tuple) else isinstance(data, float)


MADE_OF_NUMBERS: Mapping[Any, Callable[..., Tensor]] = {
    torch.tensor: _tensor,
    torch.as_tensor: _tensor,
    torch.full: _full,
    torch.Tensor.new_tensor: _new_tensor,
}
"""torch function -> the same as a sum, for arguments among which there is a tracked number."""
