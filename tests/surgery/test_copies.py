"""Modules that say themselves what of their state a copy has."""

import copy
from typing import Any

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget

EXAMPLE = torch.randn(2, 1, 40, generator=torch.Generator().manual_seed(1))


class Heads(nn.Module):
    """Splits channels into heads; copies are made anew from the settings, as layers of einops are."""

    def __init__(self, **settings: int) -> None:
        super().__init__()
        self.settings = settings
        self.sizes = tuple(settings.items())

    def forward(self, x: Tensor) -> Tensor:
        (_, heads), (_, width), _ = self.sizes
        return x.reshape(len(x), heads, width, -1)

    def __getstate__(self) -> dict[str, Any]:
        return self.settings

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class Network(nn.Module):
    def __init__(self, split: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.split, self.last = nn.Conv1d(1, 24, 3), split, nn.Conv2d(3, 1, (1, 3))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.split(self.first(x)))).amax(2)


def test_a_size_lasts_in_copies() -> None:
    model = Network(Heads(heads=3, width=8, other=8))
    result = prunegraph.prune(model, EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    assert result.model.split.settings == {"heads": 3, "width": 4, "other": 8}
    assert model.split.settings["width"] == 8
    torch.testing.assert_close(copy.deepcopy(result.model)(EXAMPLE), result.model(EXAMPLE))


def test_layers_of_einops_follow() -> None:
    result = prunegraph.prune(
        Network(Rearrange("b (h d) t -> b h d t", h=3, d=8)), EXAMPLE, criterion="l1", budget=Budget(ratio=0.5)
    )
    assert result.model.first.out_channels == 12
    assert result.model.split.axes_lengths == {"h": 3, "d": 4}
