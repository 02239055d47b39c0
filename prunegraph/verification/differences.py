"""How far tensors are from each other."""

from collections.abc import Sequence

import numpy as np
import torch

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def relative_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """``|found - expected| / |expected|`` over all tensors together, in Euclidean norms, accumulated in float64.

    Equal elements do not differ, be they infinite or not a number; sizes are measured on finite elements.
    """
    pairs = [(_wide(f), _wide(e)) for f, e in zip(found, expected, strict=True)]
    error = sum(float(_difference(f, e).abs().square().sum()) for f, e in pairs)
    size = sum(float(e[e.isfinite()].abs().square().sum()) for _, e in pairs)
    return float(np.sqrt(error) / np.sqrt(size)) if size > 0 else float(np.sqrt(error))


def _difference(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    equal = (found == expected) | (found.isnan() & expected.isnan())
    return torch.where(equal, torch.zeros_like(expected), found - expected)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def bit_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Also where values are not numbers; 0 and -0 differ."""
    return a.dtype == b.dtype and torch.equal(_bits(a), _bits(b))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as integers: compared several times faster than byte by byte."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view(_INTEGERS[real.element_size()])
