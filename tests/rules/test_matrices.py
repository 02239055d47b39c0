"""Pseudo-inverses of matrices of weights, of which rows or columns go."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget

EXAMPLE = torch.randn(1, 1, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Inverted(nn.Module):
    """A filterbank whose synthesis filters are the pseudo-inverse of its analysis filters."""

    def __init__(self, filters: int, inverse: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inverse = inverse
        self.analysis, self.mask = nn.Conv1d(1, filters, 8, 4, bias=False), nn.Conv1d(filters, filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.analysis(x)
        synthesis = self.inverse(self.analysis.weight[:, 0]).t()[:, None]
        return nn.functional.conv_transpose1d(y * self.mask(y).sigmoid(), synthesis, stride=4)


@pytest.mark.parametrize("filters", [6, 24])
@pytest.mark.parametrize("inverse", [torch.linalg.pinv, torch.pinverse], ids=["linalg.pinv", "pinverse"])
def test_filters_and_columns_of_the_pseudo_inverse_go_together(
    filters: int, inverse: Callable[[Tensor], Tensor]
) -> None:
    model = Inverted(filters, inverse).double()
    result = prunegraph.prune(model, EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    assert result.model.analysis.out_channels == filters // 2
    assert result.report.verification.difference < 1e-10


def test_a_hermitian_matrix_stays() -> None:
    model = Inverted(8, lambda weight: torch.linalg.pinv(weight + weight.t(), hermitian=True)).double()
    assert prunegraph.build_graph(model, EXAMPLE).groups == ()
