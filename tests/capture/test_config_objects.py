"""Sizes kept in settings objects - dataclasses, namespaces - follow the weights, in the pruned network alone."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import prunegraph


@dataclass(frozen=True)
class Settings:
    width: int = 12


class Configured(nn.Module):
    """Reads its width from a settings object, nested in the way that the test asks for."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.into, self.out = nn.Linear(5, 12), nn.Linear(12, 5)

    def width(self) -> int:
        config = self.config
        return config["width"] if isinstance(config, dict) else config.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.into(x).relu().reshape(-1, self.width())).view(x.shape)


@pytest.mark.parametrize(
    "config", [Settings(), SimpleNamespace(width=12), {"width": 12}], ids=lambda c: type(c).__name__
)
def test_a_width_in_a_settings_object_follows(config: Any) -> None:
    model = Configured(config)
    graph = prunegraph.build_graph(model, torch.randn(2, 3, 5))
    plan = graph.plan({"into.weight[0]": [1, 4, 7]})
    pruned = prunegraph.apply(model, plan)
    assert pruned.width() == 3
    assert model.width() == 12
    assert type(model.width()) is int
    prunegraph.verify(model, pruned, plan, torch.randn(2, 3, 5))
