"""All that one could see of a network and of the process, to tell whether it was changed."""

import math
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Values, identities and versions of everything that a module holds."""
    return {path: {name: _seen(value) for name, value in vars(m).items()} for path, m in model.named_modules()}


def _seen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _seen_tensor(value)
    if isinstance(value, nn.Module):
        return id(value)
    if isinstance(value, dict):
        return {key: _seen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [_seen(item) for item in value]
    return type(value), repr(value)


def _seen_tensor(tensor: Tensor) -> Any:
    if is_lazy(tensor) or tensor.is_meta:
        return id(tensor)
    gradient = repr(tensor.grad.tolist()) if tensor.is_leaf and tensor.grad is not None else None
    # As text, in which not-a-number equals itself.
    return id(tensor), tensor._version, repr(tensor.tolist()), tensor.requires_grad, gradient, tensor.data_ptr()


def process_state() -> tuple[Any, ...]:
    numpy = np.random.get_state()  # noqa: NPY002
    return (
        random.getstate(),
        (numpy[0], numpy[1].tolist(), *numpy[2:]),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.overrides._get_current_function_mode_stack(),
        torch.get_default_dtype(),
        (math.sqrt, math.log),
    )
