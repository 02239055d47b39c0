"""Networks in float64, for those that make so much of rounding that float32 proves nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prunegraph.capture.clone import plain_tensors
from prunegraph.surgery.slicing import copy_of


def doubled(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose tensors, also those in ordinary attributes, are as `in_double` makes them."""
    copied: nn.Module = copy_of(network)._apply(in_double)  # type: ignore[no-untyped-call]
    for tensor in plain_tensors(copied).values():
        tensor.data = in_double(tensor.data)
    return copied


def in_double(tensor: torch.Tensor) -> torch.Tensor:
    """Real numbers as float64, complex ones as complex128, others as they are."""
    is_precise = tensor.is_floating_point() or tensor.is_complex()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float64)) if is_precise else tensor


@contextmanager
def doubles_made() -> Iterator[None]:
    """Tensors that code makes without a type, such as ``torch.eye(n)``, are of float64 as well."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)
