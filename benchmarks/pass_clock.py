"""How much of verification goes into forward and backward passes, and into recording, which is a stage of its own."""

import time
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from prunegraph.verification import verifying


class PassClock:
    """Adds up the seconds inside the outermost calls of modules, of `torch.autograd.grad` and of `capture`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began: list[float] = []

    def __enter__(self) -> Self:
        self._hooks = (
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        )
        self._patches = [
            patch.object(owner, name, self._timed(getattr(owner, name)))
            for owner, name in ((torch.autograd, "grad"), (verifying, "capture"))
        ]
        for replaced in self._patches:
            replaced.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for replaced in self._patches:
            replaced.stop()
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._began.append(time.perf_counter())

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self._add(self._began.pop())

    def _timed(self, function: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._began.append(time.perf_counter())
            try:
                return function(*args, **kwargs)
            finally:
                self._add(self._began.pop())

        return timed

    def _add(self, began: float) -> None:
        if not self._began:
            self.seconds += time.perf_counter() - began
