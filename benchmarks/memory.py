"""How far a stage raises the memory of its process."""

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def with_peak(stage: Callable[[], T]) -> tuple[T, int]:
    """Runs a stage, and tells by how many MB it raised the resident memory; the peak begins anew before it.

    What an earlier stage freed may be used again unseen, so the first stages of a new process tell most.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory_mb("VmRSS")
    result = stage()
    return result, round(_memory_mb("VmHWM") - before)


def _memory_mb(field: str) -> float:
    """A field of the process's status: ``VmRSS``, what is resident, or ``VmHWM``, its peak."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1e3  # type: ignore[index]
