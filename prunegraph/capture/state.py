"""Leaves process-wide state as it was: random number generators, gradient mode, torch's fused-attention switch."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SEED = 0


@contextmanager
def undisturbed(tensors: Iterable[torch.Tensor], *, gradients: bool = False) -> Iterator[None]:
    """Runs its body with or without gradients, with seeded generators, and restores every generator afterwards."""
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        with seeded(_SEED, tensors), torch.set_grad_enabled(gradients):
            torch.backends.mha.set_fastpath_enabled(False)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def seeded(seed: int, tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Runs its body with the generators of Python, numpy, torch and the tensors' devices seeded, then restores them."""
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
