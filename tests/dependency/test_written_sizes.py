"""Where a value is made with a size that the code fixes, the lock further down tells of that line."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunegraph import build_graph

CLASS_WIDTH = 12


def literal(x: Tensor) -> Tensor:
    return x.new_zeros(x.size(0), 12)


def constant(x: Tensor) -> Tensor:
    return x.new_zeros(x.size(0), CLASS_WIDTH)


def through_other_ops(x: Tensor) -> Tensor:
    return torch.zeros(12).unsqueeze(0).tanh() + 1


def expanded(x: Tensor) -> Tensor:
    return x[:, :1, 0].expand(-1, 12)


class Starts(nn.Module):
    """A layer reads a state that is made on the fly."""

    def __init__(self, start: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.start = start
        self.enc, self.step, self.dec = nn.Conv1d(1, 16, 8, 4), nn.Linear(12, 16), nn.ConvTranspose1d(16, 1, 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.dec(self.enc(x) + self.step(self.start(x))[..., None])


@pytest.mark.parametrize(
    ("start", "op", "reason"),
    [
        (literal, "aten.new_zeros", "the size 12 is written in the code"),
        (constant, "aten.new_zeros", "the size 12 has an unknown origin: no attribute or shape that could be followed"),
        (through_other_ops, "aten.zeros", "the size 12 is written in the code"),
        (expanded, "aten.expand", "the size 12 is written in the code"),
    ],
)
def test_the_line_that_fixes_the_size_is_the_first_reason(
    start: Callable[[Tensor], Tensor], op: str, reason: str
) -> None:
    graph = build_graph(Starts(start), torch.randn(2, 1, 80))
    (locked,) = [group for group in graph.locked if group.name == "step.weight[1]"]
    cause, effect = locked.locks
    _, line = inspect.getsourcelines(start)
    assert (cause.op, cause.reason, cause.site.line) == (op, reason, line + 1)
    assert (effect.op, effect.reason) == ("aten.linear", "takes a fixed number of input features")


def test_a_written_length_leaves_the_channels_free() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.out = nn.Conv1d(1, 16, 8, 4), nn.Linear(16 * 19, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out((self.enc(x) + x.new_zeros(1, 1, 19)).flatten(1))

    graph = build_graph(Flat(), torch.randn(2, 1, 80))
    assert [group.width for group in graph.groups] == [16]
