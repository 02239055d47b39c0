"""Functions of torch that are written in Python, and assignments to parts of a tensor."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget


class FunctionalAttention(nn.Module):
    """Attention as fairseq and its heirs write it, which asserts that widths agree."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_dim, self.num_heads, self.packed = 16, 2, packed
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 6)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.together = nn.Parameter(torch.randn(48, 16) / 4)
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).transpose(0, 1)
        biases = torch.cat([self.query.bias, self.key.bias, self.value.bias])
        separate = {
            "use_separate_proj_weight": True,
            "q_proj_weight": self.query.weight,
            "k_proj_weight": self.key.weight,
            "v_proj_weight": self.value.weight,
        }
        y, _ = F.multi_head_attention_forward(
            *(x, x, x, self.embed_dim, self.num_heads, self.together if self.packed else torch.empty([0]), biases),
            *(None, None, False, 0.0, self.out.weight, self.out.bias),
            training=False,
            **({} if self.packed else separate),
        )
        return self.last((x + y).transpose(0, 1))


@pytest.mark.parametrize("packed", [False, True])
def test_functional_attention_keeps_its_widths_equal(packed: bool) -> None:
    model = FunctionalAttention(packed).double().eval()
    example = torch.randn(2, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    result = prunegraph.prune(model, example, criterion="l1", budget=Budget(ratio=0.5))
    assert not result.report.unproved
    assert result.model.embed_dim == result.model.out.weight.shape[0] == result.model.out.weight.shape[1] == 8


class Assigned(nn.Module):
    """Writes a learned vector over parts of the features, as masking and start tokens do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.token = nn.Linear(6, 20), nn.Linear(20, 6), nn.Parameter(torch.randn(20))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y[:, 0] = self.token
        y[:, 3:5] = self.token
        y[:, -1:] += self.token
        return self.last(y)


def test_a_vector_may_be_written_over_parts() -> None:
    model, example = Assigned().eval(), torch.randn(2, 9, 6)
    result = prunegraph.prune(model, example, criterion="l1", budget=Budget(ratio=0.5))
    assert result.report.widths == {"first.weight[0]": (20, 10)}


class HeadsOfShape(nn.Module):
    """Attention whose heads are as wide as its input's size says."""

    def __init__(self, joined: Callable[[Tensor, int], Tensor], heads: int = 3) -> None:
        super().__init__()
        self.joined, self.heads = joined, heads
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, channels = x.shape
        qkv = self.qkv(x).view(batch, places, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(self.joined(attended.transpose(1, 2), channels))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "joined",
    [
        lambda heads, channels: heads.reshape(*heads.shape[:2], channels),
        lambda heads, channels: heads.reshape(*heads.shape[:2], -1),
        lambda heads, channels: heads.flatten(2),
    ],
    ids=["channels", "open", "flatten"],
)
def test_heads_as_wide_as_a_shape_says(joined: Callable[[Tensor, int], Tensor], depth: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), *(HeadsOfShape(joined) for _ in range(depth)), nn.Linear(12, 2))
    result = prunegraph.prune(model, torch.randn(1, 5, 4), criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert not result.report.unproved
    assert result.model[0].out_features == 6
    assert result.model[1].qkv.out_features == 18
