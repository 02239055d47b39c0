"""Is what a library left of a network the network without the removed channels?"""

import traceback
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from benchmarks.zoo.kept import kept_indices, without_statistics, zero_removed
from tests.zoo.networks import cast, default_dtype

TOLERANCE = 1e-6
"""In float64, without norms: what fits together differs by rounding only, 1e-10 at most on the zoo."""


class Verdict(NamedTuple):
    """What became of a network.

    Attributes:
        status: ``right``, ``wrong``, ``forward fails`` or ``prunes nothing``.
        detail: The error, or what was found wrong.
        difference: Relative difference to the network whose removed channels are zero, in float64, norm statistics
            switched off in both.
    """

    status: str
    detail: str = ""
    difference: float | None = None


def judge(dense: nn.Module, pruned: nn.Module, inputs: tuple[Tensor, ...]) -> Verdict:
    """Runs the pruned network and compares it with the dense one whose removed entries are zero; changes both."""
    if size(pruned) == size(dense):
        return Verdict("prunes nothing")
    try:
        with torch.no_grad():
            pruned(*inputs)
    except Exception as error:
        return Verdict("forward fails", first_line(error))
    try:
        difference = difference_to_zeroed(dense, pruned, inputs)
    except ValueError as error:
        return Verdict("wrong", str(error))
    return Verdict("right" if difference <= TOLERANCE else "wrong", "", float(f"{difference:.1e}"))


def difference_to_zeroed(dense: nn.Module, pruned: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """How far the pruned network is from the dense one with zeros.

    Raises:
        ValueError: Shapes or weights are not those of a part of the dense network.
    """
    zero_removed(dense, kept_indices(dense, pruned))
    for network in (dense, pruned):
        cast(network, torch.float64)
    precise = [value.double() if value.is_floating_point() else value for value in inputs]
    with default_dtype(torch.float64), torch.no_grad(), without_statistics(dense), without_statistics(pruned):
        return relative_difference(dense(*precise), pruned(*precise))


def relative_difference(expected: object, actual: object) -> float:
    """Largest difference of any output entry, relative to the largest entry of that output."""
    leaves = zip(pytree.tree_leaves(expected), pytree.tree_leaves(actual), strict=True)
    pairs = [(one, other) for one, other in leaves if isinstance(one, Tensor)]
    for one, other in pairs:
        if one.shape != other.shape:
            raise ValueError(f"output shape {tuple(other.shape)} instead of {tuple(one.shape)}")
    return max(float((one - other).abs().max() / one.abs().max().clamp_min(1e-30)) for one, other in pairs)


def size(network: nn.Module) -> int:
    """Number of parameter elements."""
    return sum(parameter.numel() for parameter in network.parameters())


def first_line(error: BaseException) -> str:
    """The message and the innermost place that raised it."""
    lines = str(error).splitlines()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "/".join(Path(frame.filename).parts[-3:])
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''} ({where}:{frame.lineno})"
