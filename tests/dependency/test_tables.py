"""Tables of which one run reads some rows, and another run others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget

READS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "as long as the value": lambda m, table, x: table[:, : x.size(1)],
    "a length without origin": lambda m, table, x: table[:, : int(x.size(1))],
    "from a place on": lambda m, table, x: table[:, m.first : m.first + x.size(1)],
    "the last ones": lambda m, table, x: table[:, -x.size(1) :],
    "narrow": lambda m, table, x: table.narrow(1, 0, x.size(1)),
    "scaled before": lambda m, table, x: (0.5 * table)[:, : x.size(1)],
    "split": lambda m, table, x: table.split([x.size(1), table.size(1) - x.size(1)], 1)[0],
    "the others too": lambda m, table, x: table[:, : x.size(1)] + 0 * table[:, x.size(1) :].mean(),
    "one of them": lambda m, table, x: table[:, x.size(1)].unsqueeze(1),
}


class Positions(nn.Module):
    """Adds rows of a table to frames; a learned table of few rows before it gives the axis of time its channels."""

    def __init__(self, read: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read, self.first = read, 2
        self.before, self.after = nn.Linear(3, 8), nn.Linear(8, 3)
        self.register_buffer("short", torch.randn(1, 40, 8))
        self.register_buffer("table", torch.randn(1, 40, 8))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        x = x + self.short[:, : x.shape[1]]
        return self.after(x + self.read(self, self.table, x))


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_rows_that_only_longer_inputs_read_stay(read: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
    model = Positions(read)
    result = prunegraph.prune(model, torch.randn(1, 6, 3).double(), criterion="l1", budget=Budget(ratio=0.5))
    assert list(result.plan.kept) == ["before.weight[0]"]
    assert result.model.table.shape == (1, 40, 4)
    longer = torch.randn(2, 19, 3).double()
    kept = list(result.plan.kept["before.weight[0]"])
    cut = torch.zeros(8, 8, dtype=torch.float64)
    cut[kept, kept] = 1
    model.after.weight.data = model.after.weight.data @ cut
    torch.testing.assert_close(result.model(longer), model(longer))
