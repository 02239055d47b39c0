"""Small networks with the channel groups that follow from their code, derived by hand.

The tests of later stages walk through the same networks.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from prunegraph import DependencyGraph, PruningPlan
from tests.dependency.networks import (
    Attention,
    Cat,
    Chain,
    ChannelsLast,
    Chunk,
    Depthwise,
    DualPath,
    Excite,
    Flatten,
    Gated,
    GlobalNorm,
    Glu,
    Grouped,
    GroupNormed,
    Heads,
    LoadedDiagonal,
    Masking,
    Normed,
    PixelShuffle,
    Recurrent,
    Residual,
    Shared,
    Split,
    Tied,
    Transposed,
    UNet,
)

Indices = Callable[[int], Iterable[int]]


def at(*offsets: int) -> Indices:
    """Channel c owns index c + offset for each offset: blocks one after the other."""
    return lambda c: [c + offset for offset in offsets]


def run(length: int) -> Indices:
    """Channel c owns ``length`` neighbouring indices."""
    return lambda c: range(c * length, (c + 1) * length)


@dataclass(frozen=True)
class Group:
    """``width`` channels; channel c owns index c of the ``plain`` members and the given ones of the others."""

    width: int
    plain: str
    others: Mapping[str, Indices] = field(default_factory=dict)

    def channels(self) -> frozenset[frozenset[tuple[str, int]]]:
        members = dict.fromkeys(self.plain.split(), at(0)) | dict(self.others)
        return frozenset(
            frozenset((member, index) for member, indices in members.items() for index in indices(c))
            for c in range(self.width)
        )


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    groups: tuple[Group, ...]

    def example(self) -> tuple[nn.Module, Tensor]:
        """The network with random weights and buffers, in float64 and eval mode, and an input for it."""
        torch.manual_seed(0)
        model = self.build().double().eval()
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + (0.5 if "var" in name else 0.0))
        generator = torch.Generator().manual_seed(1)
        if self.shape == TOKENS:
            return model, torch.randint(10, TOKENS, generator=generator)
        return model, torch.randn(self.shape, generator=generator, dtype=torch.float64)


SIGNAL = (2, 1, 16)
FRAMES = (2, 5, 3)
TOKENS = (2, 5)
PICTURE = (1, 1, 8, 8)

_CELLS = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
_GATED = [f"rnn.{kind}{cell}[0]" for cell in _CELLS for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

CASES: Mapping[str, Case] = MappingProxyType(
    {
        "chain": Case(
            Chain,
            SIGNAL,
            (
                Group(
                    6,
                    "a.weight[0] a.bias[0] norm.weight[0] norm.bias[0] norm.running_mean[0] norm.running_var[0] "
                    "act.weight[0] b.weight[1]",
                ),
            ),
        ),
        "residual": Case(
            Residual,
            SIGNAL,
            (
                Group(6, "a.weight[0] a.bias[0] into.weight[1] out.weight[0] out.bias[0] b.weight[1]"),
                Group(4, "into.weight[0] into.bias[0] out.weight[1]"),
            ),
        ),
        "cat": Case(
            Cat,
            SIGNAL,
            (
                Group(4, "a.weight[0] a.bias[0] c.weight[1]"),
                Group(6, "b.weight[0] b.bias[0]", {"c.weight[1]": at(4)}),
            ),
        ),
        "split": Case(
            Split,
            SIGNAL,
            (
                Group(4, "a.weight[0] a.bias[0] b.weight[1]"),
                Group(6, "c.weight[1]", {"a.weight[0]": at(4), "a.bias[0]": at(4)}),
                Group(3, "b.weight[0] b.bias[0] c.weight[0] c.bias[0] d.weight[1]"),
            ),
        ),
        "chunk": Case(Chunk, SIGNAL, (Group(4, "b.weight[1]", {"a.weight[0]": at(0, 4), "a.bias[0]": at(0, 4)}),)),
        "glu": Case(Glu, SIGNAL, (Group(4, "b.weight[1]", {"a.weight[0]": at(0, 4), "a.bias[0]": at(0, 4)}),)),
        "grouped": Case(
            Grouped,
            SIGNAL,
            (
                Group(4, "b.weight[1]", {"a.weight[0]": at(0, 4), "a.bias[0]": at(0, 4)}),
                Group(6, "", {"b.weight[0]": at(0, 6), "b.bias[0]": at(0, 6), "c.weight[1]": at(0, 6)}),
            ),
        ),
        "depthwise": Case(
            Depthwise,
            SIGNAL,
            (
                Group(
                    4,
                    "a.weight[0] a.bias[0] b.weight[0] b.bias[0]",
                    {"c.weight[0]": run(2), "c.bias[0]": run(2), "d.weight[1]": run(2)},
                ),
            ),
        ),
        "transposed": Case(
            Transposed,
            SIGNAL,
            (
                Group(6, "a.weight[0] a.bias[0] b.weight[0]"),
                Group(4, "", {"b.weight[1]": at(0, 4), "b.bias[0]": at(0, 4), "c.weight[0]": at(0, 4)}),
                Group(
                    6,
                    "c.weight[1]",
                    {name: at(0, 6) for name in ("c.bias[0]", "d.weight[0]", "d.bias[0]", "e.weight[1]")},
                ),
            ),
        ),
        "pixel shuffle": Case(
            PixelShuffle, PICTURE, (Group(4, "b.weight[1]", {"a.weight[0]": run(4), "a.bias[0]": run(4)}),)
        ),
        "heads": Case(
            Heads,
            FRAMES,
            (
                Group(
                    4,
                    "",
                    {"qkv.weight[0]": at(0, 4, 8, 12, 16, 20), "qkv.bias[0]": at(0, 4, 8, 12, 16, 20)}
                    | {"out.weight[1]": at(0, 4)},
                ),
            ),
        ),
        "flatten": Case(
            Flatten,
            SIGNAL,
            (
                Group(4, "a.weight[0] a.bias[0]", {"b.weight[1]": run(16)}),
                Group(5, "b.weight[0] b.bias[0] c.weight[1]"),
            ),
        ),
        "shared": Case(
            Shared,
            SIGNAL,
            (Group(6, "a.weight[0] a.bias[0] block.weight[0] block.weight[1] block.bias[0] b.weight[1]"),),
        ),
        "tied": Case(
            Tied,
            TOKENS,
            (
                Group(6, "table.weight[1] a.weight[1] b.weight[0] b.bias[0]"),
                Group(8, "a.weight[0] a.bias[0] b.weight[1]"),
            ),
        ),
        "recurrent": Case(
            Recurrent,
            FRAMES,
            (
                Group(
                    3,
                    " ".join(f"rnn.weight_hr{c}[0] rnn.weight_hr{c}[1] rnn.weight_hh{c}[1]" for c in _CELLS),
                    dict.fromkeys(_GATED, at(0, 7, 14, 21))
                    | dict.fromkeys(("rnn.weight_ih_l1[1]", "rnn.weight_ih_l1_reverse[1]", "out.weight[1]"), at(0, 3)),
                ),
                Group(
                    3,
                    "",
                    dict.fromkeys(_GATED, at(4, 11, 18, 25))
                    | dict.fromkeys([f"rnn.weight_hr{c}[1]" for c in _CELLS], at(4)),
                ),
            ),
        ),
        "gated": Case(
            Gated,
            FRAMES,
            (
                Group(4, "a.weight[0] a.bias[0] rnn.weight_ih_l0[1]"),
                Group(
                    5,
                    "rnn.weight_hh_l0[1] out.weight[1]",
                    {f"rnn.{name}_l0[0]": at(0, 5, 10) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
                ),
            ),
        ),
        "attention": Case(
            Attention,
            FRAMES,
            (
                Group(8, "a.weight[0] a.bias[0] attention.in_proj_weight[1]"),
                Group(8, "attention.out_proj.weight[0] attention.out_proj.bias[0] out.weight[1]"),
                Group(
                    4,
                    "",
                    {
                        "attention.in_proj_weight[0]": at(0, 4, 8, 12),
                        "attention.in_proj_bias[0]": at(0, 4, 8, 12),
                    },
                ),
                Group(
                    4,
                    "",
                    {
                        "attention.in_proj_weight[0]": at(16, 20),
                        "attention.in_proj_bias[0]": at(16, 20),
                        "attention.out_proj.weight[1]": at(0, 4),
                    },
                ),
            ),
        ),
        "channels last": Case(
            ChannelsLast,
            SIGNAL,
            (
                Group(6, "a.weight[0] a.bias[0] norm.weight[0] norm.bias[0] b.weight[1]"),
                Group(5, "b.weight[0] b.bias[0] c.weight[1]"),
            ),
        ),
        "excite": Case(
            Excite,
            SIGNAL,
            (
                Group(6, "a.weight[0] a.bias[0] down.weight[1] up.weight[0] up.bias[0] b.weight[1]"),
                Group(3, "down.weight[0] down.bias[0] up.weight[1]"),
            ),
        ),
        "group norm": Case(
            GroupNormed,
            SIGNAL,
            (
                Group(
                    4,
                    "",
                    {
                        name: at(0, 4)
                        for name in ("a.weight[0]", "a.bias[0]", "norm.weight[0]", "norm.bias[0]", "b.weight[1]")
                    },
                ),
            ),
        ),
        "global norm": Case(GlobalNorm, SIGNAL, (Group(6, "a.weight[0] a.bias[0] gain[1] shift[1] b.weight[1]"),)),
        "weight norm": Case(
            Normed,
            SIGNAL,
            (
                Group(
                    6,
                    "a.parametrizations.weight.original0[0] a.parametrizations.weight.original1[0] a.bias[0] "
                    "b.parametrizations.weight.original1[1]",
                ),
            ),
        ),
        "loaded diagonal": Case(LoadedDiagonal, SIGNAL, (Group(6, "a.weight[0] a.bias[0] gain[0] b.weight[1]"),)),
        "u-net": Case(
            UNet,
            SIGNAL,
            (
                Group(4, "a.weight[0] a.bias[0] down.weight[1]", {"b.weight[1]": at(5)}),
                Group(6, "down.weight[0] down.bias[0] up.weight[0]"),
                Group(5, "up.weight[1] up.bias[0] b.weight[1]"),
            ),
        ),
        "dual path": Case(
            DualPath,
            SIGNAL,
            (
                Group(
                    6,
                    "a.weight[0] a.bias[0] within.weight[0] within.weight[1] within.bias[0] across.weight[0] "
                    "across.weight[1] across.bias[0] b.weight[1]",
                ),
            ),
        ),
        "masking": Case(
            Masking,
            SIGNAL,
            (
                Group(
                    6,
                    "encoder.weight[0] encoder.bias[0] masks.weight[1] decoder.weight[0]",
                    {"masks.weight[0]": at(0, 6), "masks.bias[0]": at(0, 6)},
                ),
            ),
        ),
    }
)


def random_plan(graph: DependencyGraph, seed: int) -> PruningPlan:
    """Each group keeps a random half of its channels, at least one."""
    generator = np.random.default_rng(seed)
    return graph.plan(
        {g.name: generator.choice(g.width, max(1, g.width // 2), replace=False).tolist() for g in graph.groups}
    )
