"""An endless, resumable stream of batches, and each process's share of a batch."""

import random
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from prunegraph.capture.example import Nested
from prunegraph.errors import DataError, InputError

Batch: TypeAlias = tuple[Any, Any]
"""Inputs, as the example inputs of `prunegraph.build_graph`, and targets."""

Data: TypeAlias = Iterable[Batch] | Callable[[int], Iterable[Batch]]
"""Batches that can be gone through again and again, or a function that gives them from number ``start`` on."""


def mono_signal(example: Any, demand: str) -> Tensor:
    """The one tensor of an example, ``(batch, time)`` or ``(batch, 1, time)``.

    Raises:
        InputError: the example is another one; the message begins with ``demand``, such as "evaluate needs".
    """
    signal = example[0] if isinstance(example, tuple) and len(example) == 1 else example
    if not isinstance(signal, Tensor) or signal.dim() not in (2, 3) or (signal.dim() == 3 and signal.shape[1] != 1):
        raise InputError(f"{demand} one mono signal: (batch, time) or (batch, 1, time)")
    return signal


def stream(data: Data, start: int, seed: int) -> Iterator[Batch]:
    """The batches from number ``start`` on, in which batch i depends on the data, the seed and i only.

    Raises:
        InputError: the data are an iterator, which cannot be gone through again.
        DataError: the batches end.
    """
    if callable(data):
        yield from _numbered(iter(data(start)), start, seed)
        raise DataError("the batches ended before the training did: give more of them, or fewer steps")
    if iter(data) is data:
        raise InputError(
            "the batches come from an iterator, which cannot be resumed: give a list, a DataLoader, or a function of "
            "the number of the first batch"
        )
    length = len(data) if isinstance(data, Sized) else 0
    number = start // length * length if length else 0
    while True:
        first = number
        seed_generators(seed, first)
        for batch in _numbered(iter(data), first, seed):
            if number >= start:
                yield batch
            number += 1
        if number == first:
            raise DataError("there are no batches")


def _numbered(batches: Iterator[Batch], number: int, seed: int) -> Iterator[Batch]:
    """Seeds the generators before each batch is made, since data sets may draw from them."""
    while True:
        seed_generators(seed, number)
        try:
            batch = next(batches)
        except StopIteration:
            return
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError(f"batch {number} is of type {type(batch).__name__}; expected a pair (inputs, targets)")
        yield batch[0], batch[1]
        number += 1


def share(batch: Batch, rank: int, processes: int) -> Batch:
    """Every ``processes``-th item of the batch from ``rank`` on: together the processes see what one would.

    Raises:
        InputError: the batch cannot be shared equally.
    """
    if processes == 1:
        return batch
    nested = Nested.of(batch)
    uneven = [tuple(tensor.shape) for tensor in nested.tensors if not tensor.shape or tensor.shape[0] % processes]
    if uneven:
        raise InputError(f"a tensor of shape {uneven[0]} cannot be shared by {processes} processes: change the batch")
    inputs, targets = nested.rebuild([tensor[rank::processes] for tensor in nested.tensors])
    return inputs, targets


def seed_generators(*entropy: int) -> None:
    """Puts every generator into a state that depends on these numbers only: no other state need be stored."""
    value = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - data sets draw from the legacy generator
