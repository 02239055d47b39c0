"""A network of given widths as if it had never been trained."""

from collections.abc import Callable

import torch
from torch import nn

from prunegraph.capture.state import seeded
from prunegraph.surgery.slicing import copy_of


def from_scratch(network: nn.Module, seed: int) -> nn.Module:
    """A copy with new weights.

    Modules with ``reset_parameters``, as all of torch's layers have it, start as a new one would. What that leaves as
    it was (parameters of the user's own modules, weights under weight norm) is drawn from a normal distribution with
    the mean and the standard deviation of its tensor, so that gains stay gains and nothing learned is left.

    Args:
        network: left as it is.
        seed: the only source of randomness.
    """
    fresh = copy_of(network)
    with seeded(seed, fresh.parameters()), torch.no_grad():
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                _call(reset)
        for new, old in zip(fresh.parameters(), network.parameters(), strict=True):
            if torch.equal(new, old):
                new.copy_(old.mean() + old.std(correction=0) * torch.randn_like(old))
    return fresh


def _call(reset: Callable[..., object]) -> None:
    try:
        reset()
    except TypeError:  # a user's method of that name that takes arguments; its parameters are drawn below
        return
