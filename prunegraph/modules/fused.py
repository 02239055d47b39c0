"""Attention in the widths that torch's fused kernels take.

The kernels that never hold a matrix of queries by keys want keys and values of one width, best one that fills whole
registers. After pruning, widths are any; zeros beside them change nothing but the time.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_REGISTER = 16
"""Bytes; on a GPU, kernels ask for widths that are multiples of it."""


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    r"""``F.scaled_dot_product_attention`` with heads widened by zeros to one width for keys and values.

    .. math:: \operatorname{softmax}(q k^\top / \sqrt{d} + \text{mask})\, v

    Zeros in $q$ and $k$ add nothing to their product, those in $v$ give columns that are cut off.

    Args:
        query: ``(..., heads, queries, d)``.
        key: ``(..., heads, keys, d)``.
        value: ``(..., heads, keys, values)``.
        attn_mask: as in torch.
        dropout_p: as in torch.
        is_causal: as in torch.
        scale: factor in place of $1 / \sqrt{d}$.
        enable_gqa: as in torch.

    Returns:
        ``(..., heads, queries, values)``.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    width = _fused_width(query, value)
    q, k, v = (x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in (query, key, value))
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    return heads[..., : value.shape[-1]]


class FusedAttention(TorchFunctionMode):
    """While it is active, every call of ``F.scaled_dot_product_attention`` is one of `fused_attention`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the call."""
        if func is F.scaled_dot_product_attention:
            func = fused_attention
        return func(*args, **(kwargs or {}))


def with_fused_attention(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of modules whose forward pass runs under `FusedAttention`."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with FusedAttention():
            return kind.forward(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def callers_of_unfused_attention(network: nn.Module, run: Callable[[], Any]) -> list[nn.Module]:
    """The innermost modules at work when ``F.scaled_dot_product_attention`` gets heads of other widths in a run."""
    at_work: list[nn.Module] = []
    hooks = []
    for module in network.modules():
        hooks.append(module.register_forward_pre_hook(lambda called, _: at_work.append(called)))
        hooks.append(module.register_forward_hook(lambda *_: at_work.pop() and None, always_call=True))
    found: dict[nn.Module, None] = {}
    with _UnfusedCalls(lambda: found.setdefault(at_work[-1])):
        run()
    for hook in hooks:
        hook.remove()
    return list(found)


class _UnfusedCalls(TorchFunctionMode):
    def __init__(self, note: Callable[[], Any]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and not _is_fused(*args, **(kwargs or {})):
            self.note()
        return func(*args, **(kwargs or {}))


def _is_fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> bool:
    return query.shape[-1] == value.shape[-1] == _fused_width(query, value)


def _fused_width(query: Tensor, value: Tensor) -> int:
    unit = max(1, _REGISTER // query.element_size())
    widest: int = max(query.shape[-1], value.shape[-1])
    return -(-widest // unit) * unit
