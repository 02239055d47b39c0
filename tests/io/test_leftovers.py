"""Tensors that a forward pass leaves in a network come and go: they bar nobody from saving and loading."""

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget


class Attending(nn.Module):
    """Distances are kept in a buffer that is not saved, and grows with the longest input."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv1d(1, 8, 4, 4), nn.ConvTranspose1d(8, 1, 4, 4)
        self.register_buffer("distances", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x).mT
        time = h.shape[1]
        if self.distances is None or len(self.distances) < time:
            distances = (torch.arange(time)[:, None] - torch.arange(time)).abs()
            self.register_buffer("distances", distances.to(x.dtype), persistent=False)
        weights = (h @ h.mT - self.distances[:time, :time]).softmax(-1)
        out: Tensor = self.out((weights @ h).mT)
        return out


class Remembering(nn.Module):
    """A codebook computed from sums by the first run, in an ordinary attribute; it is as wide as the features."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 1, 1)
        self.register_buffer("sums", torch.rand(8, 1))
        self.codebook: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.codebook is None:
            self.codebook = self.sums / 2
        out: Tensor = self.out(self.into(x) * self.codebook)
        return out


@pytest.mark.parametrize("runs_before", [0, 1])
@pytest.mark.parametrize("runs_after", [[], [40], [160]])
def test_a_fresh_network_is_loaded(runs_before: int, runs_after: list[int], tmp_path) -> None:
    torch.manual_seed(0)
    model, x = Attending().eval(), torch.randn(1, 1, 80)
    for _ in range(runs_before):
        model(x)
    result = prunegraph.prune(model, x, budget=Budget(ratio=0.5))
    for length in runs_after:
        result.model(torch.randn(1, 1, length))
    loaded = prunegraph.load(Attending().eval(), prunegraph.save(result, tmp_path / "saved"))
    for inputs in (x, torch.randn(1, 1, 120)):
        torch.testing.assert_close(loaded(inputs), result.model(inputs), rtol=0, atol=0)


def test_what_shrinks_is_loaded_where_it_is_not_yet_there(tmp_path) -> None:
    torch.manual_seed(0)
    model, x = Remembering().eval(), torch.randn(1, 1, 20)
    result = prunegraph.prune(model, x, budget=Budget(ratio=0.5))
    result.model(x)
    loaded = prunegraph.load(Remembering().eval(), prunegraph.save(result, tmp_path / "saved"))
    torch.testing.assert_close(loaded(x), result.model(x), rtol=0, atol=0)
    assert loaded.codebook.shape == (4, 1)
