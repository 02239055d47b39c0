"""Leaves process-wide state as it was: random number generators, gradient mode, torch's fused-attention switch."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

_SEED = 0


@contextmanager
def undisturbed(tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    """Runs its body without gradients, with seeded generators, and restores every generator afterwards."""
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    python_state, numpy_state = random.getstate(), np.random.get_state()
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(_SEED)
            torch.backends.mha.set_fastpath_enabled(False)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
