"""Tensors whose channels lie last in memory, for which kernels are chosen that round otherwise."""

import torch
from torch import Tensor

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(tensor: Tensor) -> bool:
    """By its strides: a tensor with one channel is contiguous in both formats, but torch goes by the strides."""
    if tensor.layout is not torch.strided or tensor.dim() not in _FORMATS:
        return False
    return tensor.stride() == _strides(tensor, _FORMATS[tensor.dim()]) != _strides(tensor, torch.contiguous_format)


def channels_last(tensor: Tensor) -> Tensor:
    """A copy with the channels last, of a tensor of four or five dimensions."""
    return torch.empty_like(tensor, memory_format=_FORMATS[tensor.dim()]).copy_(tensor)


def _strides(tensor: Tensor, memory_format: torch.memory_format) -> tuple[int, ...]:
    return torch.empty(tensor.shape, device="meta", memory_format=memory_format).stride()
