"""A small graph with known weights, built by hand so that every score can be checked with pencil and paper."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from prunegraph.ir.channels import ChannelGroup, Member
from prunegraph.ir.trace import ModuleSpec

WEIGHTS = {
    "first.weight": torch.tensor([[[3.0, -4.0]], [[0.0, 2.0]]]),
    "first.bias": torch.tensor([1.0, -2.0]),
    "norm.weight": torch.tensor([-1.0, 0.5]),
    "second.weight": torch.tensor([[1.0, -2.0, 2.0, 4.0], [2.0, 0.0, 1.0, -3.0]]),
}
"""A convolution (2 filters of 1 channel and 2 taps), a norm, and a linear map behind a flattening by 2."""

KINDS = {"first": nn.Conv1d, "norm": nn.BatchNorm1d, "second": nn.Linear}


def member(tensor: str, dim: int, indices: list[list[int]]) -> Member:
    """A member by its indices per channel."""
    return Member(tensor=tensor, dim=dim, indices=np.array(indices, dtype=np.int64))


def group(name: str, *members: Member) -> ChannelGroup:
    """A group of the members' common width."""
    return ChannelGroup(name=name, width=len(members[0].indices), members=members, module="")


HIDDEN = group(
    "first",
    member("first.weight", 0, [[0], [1]]),
    member("first.bias", 0, [[0], [1]]),
    member("norm.weight", 0, [[0], [1]]),
    member("norm.running_mean", 0, [[0], [1]]),
    member("second.weight", 1, [[0, 1], [2, 3]]),
)
"""Channel c is filter c, with its entries of bias and norm, and columns 2c and 2c + 1 of the linear map."""


@dataclass(frozen=True)
class HandMade:
    """As much of a dependency graph as scoring needs."""

    groups: tuple[ChannelGroup, ...]
    modules: Mapping[str, ModuleSpec]


def graph(*groups: ChannelGroup, kinds: Mapping[str, type] = KINDS) -> HandMade:
    """A graph of these groups; none given means `HIDDEN` alone."""
    modules = {path: ModuleSpec(path=path, aliases=(), kind=kind, sizes={}) for path, kind in kinds.items()}
    return HandMade(groups=groups or (HIDDEN,), modules=modules)
