"""The protocol's tests leave the processor as they found it."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def tiny_numbers_stay() -> Iterator[None]:
    """The command lets the processor take the tiniest numbers for zero, in the whole process."""
    yield
    torch.set_flush_denormal(False)
