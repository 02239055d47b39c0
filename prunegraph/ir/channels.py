"""Channel groups: which indices of which tensors are removed together."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prunegraph.ir.trace import Site


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One dimension of one tensor in a channel group.

    Attributes:
        tensor: state-dict name of a parameter or buffer.
        dim: the dimension that shrinks.
        indices: which indices of that dimension belong to each channel, int64 of shape ``(width, multiplicity)``.
    """

    tensor: str
    dim: int
    indices: NDArray[np.int64] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.tensor}[{self.dim}]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelGroup:
    """Parallel channels: each can be removed by itself, with all indices that belong to it.

    Attributes:
        name: tensor name and dimension of its first member, such as ``encoder.weight[0]``.
        width: number of channels.
        members: every tensor dimension that shrinks with the group.
        module: path of the module that computes the channels.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    module: str

    def __str__(self) -> str:
        return f"{self.name}, {self.width} channels of {', '.join(map(str, self.members))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Why some channels can never be removed.

    Attributes:
        reason: in plain words.
        op: the ATen op that locks.
        site: the module path and the user's line that called it.
    """

    reason: str
    op: str
    site: Site

    def __str__(self) -> str:
        return f"{self.reason} ({self.op} in {self.site})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LockedGroup:
    """Coupled channels that must stay, and why.

    Attributes:
        name: tensor name and dimension of its first member.
        width: number of coupled sets of indices.
        members: the tensor dimensions concerned.
        locks: the first reasons found, at most one per op and line.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    locks: tuple[Lock, ...]

    def __str__(self) -> str:
        return f"{self.name}, {self.width} wide: {'; '.join(map(str, self.locks))}"
