"""How far a stage raises the memory of its process, and what it brings to the host from a device."""

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")


def with_peak(stage: Callable[[], T]) -> tuple[T, int]:
    """Runs a stage, and tells by how many MB it raised the resident memory; the peak begins anew before it.

    What an earlier stage freed may be used again unseen, so the first stages of a new process tell most.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mb("VmRSS")
    result = stage()
    return result, round(memory_mb("VmHWM") - before)


def memory_mb(field: str) -> float:
    """A field of the process's status: ``VmRSS``, what is resident, or ``VmHWM``, its peak."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1e3  # type: ignore[index]


class HostCopies(TorchDispatchMode):
    """Within it, ``bytes`` counts what torch's ops make on the host out of tensors on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        if any(tensor.device.type != "cpu" for tensor in given):
            self.bytes += sum(_host_bytes(value) for value in torch.utils._pytree.tree_leaves(result))
        return result


def _host_bytes(value: Any) -> int:
    """The bytes of a tensor on the host, and of a number that was read out of one on a device."""
    if isinstance(value, torch.Tensor):
        return value.nbytes if value.device.type == "cpu" else 0
    return 8 if isinstance(value, int | float | complex) else 0
