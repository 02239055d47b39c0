"""Attention with widened heads equals torch's own, and gives its kernels the widths that they take."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import prunegraph
from prunegraph.modules.attention import WidthFreeAttention
from prunegraph.modules.fused import callers_of_unfused_attention, fused_attention, with_fused_attention

MASK = torch.randn(5, 7)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"attn_mask": MASK},
    {"attn_mask": MASK > 0},
    {"scale": 0.3},
    {"is_causal": True},
]


class Widths(TorchFunctionMode):
    """Notes the widths of keys and values that torch's attention is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            value = args[2] if len(args) > 2 else kwargs["value"]
            self.seen.append((args[1].shape[-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


def heads(query_width: int, value_width: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 5, query_width, dtype=dtype), torch.randn(2, 3, 7, query_width, dtype=dtype)
    return query, key, torch.randn(2, 3, 7, value_width, dtype=dtype)


class Attending(nn.Module):
    """Code that calls torch's attention itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part(x).unflatten(-1, (2, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        out: Tensor = self.out(F.scaled_dot_product_attention(query, key, value=value).transpose(1, 2).flatten(-2))
        return out


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attending, self.head = Attending(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.attending(x))
        return out


@pytest.fixture
def unequal() -> tuple[nn.Module, Tensor]:
    """A pruned network with wider values than keys."""
    x, network = torch.randn(2, 6, 8), Network().eval()
    graph = prunegraph.build_graph(network, x)
    key = next(group for group in graph.groups if "attending.key.weight" in {member.tensor for member in group.members})
    plan = graph.plan({key.name: range(key.width - 1)})
    return prunegraph.apply(network, plan).eval(), x


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options) or "plain")
@pytest.mark.parametrize("widths", [(4, 4), (3, 3), (3, 5), (6, 2)])
def test_equal_to_torch(widths: tuple[int, int], options: dict[str, Any]) -> None:
    query, key, value = (x.requires_grad_() for x in heads(*widths))
    if "attn_mask" in options and options["attn_mask"].is_floating_point():
        options = {"attn_mask": options["attn_mask"].double()}
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    found = fused_attention(query, key, value, **options)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), (query, key, value))
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), (query, key, value)), wanted)


def test_groups_of_queries_share_keys() -> None:
    query, key, value = heads(3, 5)
    found = fused_attention(query, key[:, :1], value[:, :1], enable_gqa=True)
    torch.testing.assert_close(found, fused_attention(query, key[:, :1].expand_as(key), value[:, :1].expand_as(value)))


@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.float64, 6), (torch.float32, 8), (torch.bfloat16, 8), (torch.float16, 8)]
)
def test_kernels_get_one_width_of_whole_registers(dtype: torch.dtype, width: int) -> None:
    with Widths() as watched:
        fused_attention(*heads(3, 5, dtype))
    assert watched.seen == [(width, width)]


def test_pruned_attention_modules_widen_their_heads() -> None:
    module = WidthFreeAttention.from_module(nn.MultiheadAttention(8, 2, batch_first=True).eval())
    x = torch.randn(1, 5, 8)
    with Widths() as watched:
        module(x, x, x, need_weights=False)
    assert watched.seen == [(4, 4)]
    module.in_proj_weight = nn.Parameter(module.in_proj_weight[4:])  # 4 keys and queries less
    module.in_proj_bias = nn.Parameter(module.in_proj_bias[4:])
    with Widths() as watched:
        module(x, x, x, need_weights=False)
    assert watched.seen == [(4, 4)]


def test_callers_are_the_innermost_modules(unequal: tuple[nn.Module, Tensor]) -> None:
    network, x = unequal
    assert callers_of_unfused_attention(network, lambda: network(x)) == [network.get_submodule("attending")]
    dense = Network()
    assert callers_of_unfused_attention(dense, lambda: dense(x)) == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_callers_get_their_heads_widened(unequal: tuple[nn.Module, Tensor]) -> None:
    network, x = unequal
    expected, widened = network(x), copy.deepcopy(network)
    caller = widened.get_submodule("attending")
    caller.__class__ = with_fused_attention(type(caller))
    with Widths() as watched:
        torch.testing.assert_close(widened(x), expected)
    assert watched.seen == [(4, 4)]
    assert isinstance(caller, Attending)


def test_optimised_networks_widen_heads(unequal: tuple[nn.Module, Tensor]) -> None:
    network, x = unequal
    fast = prunegraph.optimize(network, x, measure_for=0.01, compiled=False)
    with Widths() as watched:
        torch.testing.assert_close(fast(x), network(x))
    assert watched.seen[0] == (4, 4)
    assert watched.seen[1] == (3, 4)
