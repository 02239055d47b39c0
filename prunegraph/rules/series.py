"""Ops that look at neighbours in a series of samples, mostly along time: differences and integrals."""

from typing import Any

import torch
from torch import fx

from prunegraph.rules.base import Atoms, Call, Labels, Rule, replace_dim
from prunegraph.rules.locking import united, unlabelled
from prunegraph.rules.pointwise import FIXED_SIZE, broadcast

aten = torch.ops.aten

_NEIGHBOURS = "neighbours along this dimension are combined"


class Difference(Rule):
    """``y[i] = x[i + 1] - x[i]``, ``n`` times, where x is ``prepend``, ``self`` and ``append`` joined along ``dim``."""

    def labels(self, call: Call) -> Labels:
        operands = [call[name] for name in ("self", "prepend", "append") if call.get(name) is not None]
        along = int(call["dim"]) % len(call.labels("self"))
        return tuple(self._dim(call, operands, dim, dim == along) for dim in range(len(call.labels("self"))))

    def _dim(self, call: Call, operands: list[fx.Node], dim: int, is_joined: bool) -> Atoms | None:
        sides = [(call.shape(node)[dim], call.labels(node)[dim]) for node in operands]
        if not is_joined:
            return united(call, sides, FIXED_SIZE)
        call.lock_all([atoms for _, atoms in sides], _NEIGHBOURS)
        return None


class Trapezoid(Rule):
    """``sum_i (y[i] + y[i + 1]) / 2 * (x[i + 1] - x[i])`` along ``dim``, or its running sums.

    The sample points x are evenly spaced, one vector for all, or broadcast with y.

    Args:
        running: whether all the running sums are returned.
    """

    def __init__(self, running: bool = False) -> None:
        self.running = running

    def labels(self, call: Call) -> Labels:
        rank, points = len(call.labels("y")), len(call.labels("x"))
        if points > rank:
            call.lock_all([*call.labels("y"), *call.labels("x")], _NEIGHBOURS)
            return tuple(unlabelled(call))
        dim = int(call["dim"]) % rank
        out = self._sampled(call, is_shared=points == 1)
        call.lock(out[dim], _NEIGHBOURS)
        return replace_dim(out, dim, None) if self.running else out[:dim] + out[dim + 1 :]

    def _sampled(self, call: Call, *, is_shared: bool) -> Labels:
        if is_shared:
            call.lock_all(call.labels("x"), _NEIGHBOURS)
            return call.labels("y")
        return broadcast(call, call.tensors())


RULES: dict[Any, Rule] = {
    aten.diff: Difference(),
    **dict.fromkeys((aten.trapezoid, aten.trapz), Trapezoid()),
    aten.cumulative_trapezoid: Trapezoid(running=True),
}
