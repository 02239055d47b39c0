"""Nothing is changed by a capture, also when it fails in the middle."""

import functools
import gc
import math
import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunegraph import CaptureError
from prunegraph.capture.tracer import capture
from tests.capture.snapshots import process_state, snapshot


class Restless(nn.Module):
    """A forward pass that touches whatever it can reach."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails, self.calls, self.seen, self.cache = fails, 0, [], {"last": None}
        self.a, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.drop, self.b = nn.Dropout(0.5), nn.Linear(6, 2)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(2, 6), persistent=False)
        self.plain = torch.zeros(6)
        self.plain_list = [torch.zeros(6)]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x.shape[0])
        self.cache["last"] = x
        self.count += 1
        self.scratch.copy_(x[:2].repeat(1, 2)[:, :6])
        self.plain.add_(1)
        self.plain_list[0].mul_(2).add_(1)
        self.b.weight.data.mul_(0.5)
        random.random()
        np.random.rand()  # noqa: NPY002 - the legacy generator is what users' code draws from
        x = self.norm(self.a(x)) + torch.rand(6)
        x = torch.nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)
        self.train()
        if self.fails:
            raise ValueError("in the middle")
        return self.b(self.drop(x))


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_changed(fails: bool) -> None:
    model = Restless(fails)
    model.a.requires_grad_(False)
    model.norm.eval()
    model.b.weight.grad = torch.ones(2, 6)
    fired: list[str] = []
    handle = model.a.register_forward_hook(lambda *_: fired.append("hook"))
    x = torch.randn(3, 4)
    before, state, given = snapshot(model), process_state(), x.clone()
    if fails:
        with pytest.raises(CaptureError, match="in the middle"):
            capture(model, x)
    else:
        capture(model, x)
    assert snapshot(model) == before
    assert process_state() == state
    assert torch.equal(x, given)
    assert list(model.a._forward_hooks) == [handle.id]


def test_inputs_that_are_written_to_stay() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(0)
            return self.a(x)

    x = torch.ones(2, 4)
    capture(Writes(), x)
    assert torch.equal(x, torch.ones(2, 4))


def test_a_capture_is_the_same_each_time() -> None:
    """Random numbers drawn in the forward pass come from a seed of the capture's own."""
    model, x = Restless(), torch.randn(3, 4)
    codes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        codes.append(str(capture(model, x).graph))
    assert codes[0] == codes[1]


def test_no_gradient_is_recorded() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.asked = nn.Linear(4, 2), []

        def forward(self, x: Tensor) -> Tensor:
            self.asked.append((torch.is_grad_enabled(), self.training))
            return self.a(x)

    model = Asks().train()
    spy: list[Any] = []
    model.a.register_forward_hook(lambda module, args, output: spy.append((output.requires_grad, module.training)))
    capture(model, torch.randn(2, 4, requires_grad=True))
    assert spy == [(False, False)]
    assert model.asked == []
    assert model.training


@functools.lru_cache
def cached_width(rows: int, columns: int) -> int:
    return rows * columns


def test_caches_and_math_are_restored() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).reshape(cached_width(x.shape[0], 6)) * math.sqrt(x.shape[0])

    before, wrapped = cached_width.cache_info(), sys.modules[__name__].cached_width
    capture(Cached(), torch.randn(2, 4))
    assert cached_width.cache_info() == before
    assert sys.modules[__name__].cached_width is wrapped


def test_the_copy_is_freed_at_once() -> None:
    """Large networks have no room for a second copy that waits for the garbage collector."""
    model = nn.TransformerEncoderLayer(8, 2, 16)
    capture(nn.Linear(8, 8), torch.randn(3, 8))  # the first one in a process loads parts of torch, which leaves cycles
    gc.collect()
    gc.disable()
    try:
        before = live_parameters()
        capture(model, torch.randn(3, 1, 8))
        assert live_parameters() == before
    finally:
        gc.enable()


def live_parameters() -> int:
    return sum(issubclass(type(value), nn.Parameter) for value in gc.get_objects())
