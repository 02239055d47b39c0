"""Recurrent layers whose directions and sequences run side by side, each on a thread of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from prunegraph.timing import using_threads

Kernel: TypeAlias = Callable[..., Sequence[Tensor]]
Part: TypeAlias = tuple[Tensor, ...]


class ConcurrentLSTM(nn.LSTM):
    """An ``LSTM`` whose directions and sequences run side by side on a CPU.

    Each step waits for the one before, and is so small that threads which share it wait for one another longer than
    they multiply. Directions, and the sequences of a batch, never wait for one another: each thread gets some of its
    own. What is not a padded batch in inference mode runs as in torch.

    Attributes:
        threads: on which it runs, however many torch uses for other ops.
    """

    threads: int

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether the module could be of this class: an unchanged ``LSTM``."""
        return type(module) is nn.LSTM

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> Any:  # noqa: A002 - named as in torch
        """As in torch."""
        if not _can_run_concurrently(input):
            return super().forward(input, hx)
        cell = input.new_zeros(len(self.all_weights), _sequences(self, input), self.hidden_size)
        states = (cell[..., : self.proj_size or self.hidden_size], cell) if hx is None else hx
        self.check_forward_args(input, states, None)
        return _run(self, torch.lstm, input, states)


class ConcurrentGRU(nn.GRU):
    """A ``GRU`` whose directions and sequences run side by side on a CPU: see `ConcurrentLSTM`.

    Attributes:
        threads: on which it runs, however many torch uses for other ops.
    """

    threads: int

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether the module could be of this class: an unchanged ``GRU``."""
        return type(module) is nn.GRU

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Any, hx: Tensor | None = None) -> Any:  # noqa: A002 - named as in torch
        """As in torch."""
        if not _can_run_concurrently(input):
            return super().forward(input, hx)
        if hx is None:
            hx = input.new_zeros(len(self.all_weights), _sequences(self, input), self.hidden_size)
        self.check_forward_args(input, hx, None)
        output, (state,) = _run(self, lambda x, states, *rest: torch.gru(x, *states, *rest), input, (hx,))
        return output, state


def _can_run_concurrently(x: Any) -> bool:
    """Gradients, autocast and what records calls would not follow to other threads."""
    batch = isinstance(x, Tensor) and x.dim() == 3 and x.device.type == "cpu"
    usual = torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")
    return batch and usual


def _sequences(module: nn.RNNBase, x: Tensor) -> int:
    return x.shape[0 if module.batch_first else 1]


def _run(
    module: ConcurrentLSTM | ConcurrentGRU, kernel: Kernel, x: Tensor, states: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The output and the last states; each of the states is ``(layers * directions, sequences, width)``."""
    x = x if module.batch_first else x.transpose(0, 1)
    ways = 2 if module.bidirectional else 1
    last: list[Sequence[Tensor]] = []
    with _pool(module.threads) as pool:
        run = partial(_in_parts, pool, max(module.threads // ways, 1), partial(_one_way, module, kernel))
        for layer in range(0, len(module.all_weights), ways):
            jobs = [run(number, x, *(state[number] for state in states)) for number in range(layer, layer + ways)]
            found = [[_joined(parts, 0) for parts in zip(*(job.result() for job in way), strict=True)] for way in jobs]
            x = _joined([output for output, *_ in found], -1)
            last += [state for _, *state in found]
    return x if module.batch_first else x.transpose(0, 1), tuple(map(torch.stack, zip(*last, strict=True)))


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads each of which computes alone."""
    with (
        using_threads(torch.get_num_threads()),  # what the workers set holds for threads that are yet to come
        ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        yield pool


def _in_parts(
    pool: ThreadPoolExecutor, count: int, run: Callable[..., Part], number: int, *batches: Tensor
) -> list[Future[Part]]:
    """Runs of equal shares of the sequences."""
    parts = zip(*(batch.chunk(min(count, len(batch))) for batch in batches), strict=True)
    return [pool.submit(run, number, *part) for part in parts]


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]


def _one_way(module: nn.RNNBase, kernel: Kernel, number: int, x: Tensor, *states: Tensor) -> Part:
    """The output ``(sequences, steps, width)`` of one direction of one layer, and its last states."""
    backward = module.bidirectional and number % 2 == 1
    with torch.inference_mode():
        before = [state[None].contiguous() for state in states]
        settings = module.all_weights[number], module.bias, 1, 0.0, False, False, True
        output, *last = kernel(x.flip(1) if backward else x, before, *settings)
        return (output.flip(1) if backward else output), *(state[0] for state in last)
