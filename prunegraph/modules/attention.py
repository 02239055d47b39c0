"""Multi-head attention whose inner widths are free: what nn.MultiheadAttention becomes when it is pruned.

``nn.MultiheadAttention`` ties the width of its queries, keys and values to the width of its input. Here every width is
read from the shape of a parameter, so that slicing the parameters is all that surgery has to do.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunegraph.errors import InputError, SurgeryError
from prunegraph.modules.fused import fused_attention


def attention_forward(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""``nn.MultiheadAttention.forward`` without its assumption on widths and without its fused kernels.

    .. math:: \text{head}_i = \operatorname{softmax}(q_i k_i^\top / \sqrt{d} + \text{mask})\, v_i

    The widths of queries and keys (``num_heads * d``) and of values may differ from each other and from the width of
    the inputs; all are read from the shapes of ``module``'s parameters.

    Args:
        module: An ``nn.MultiheadAttention`` or a `WidthFreeAttention`.
        query: ``(time, batch, channels)``, ``(batch, time, channels)`` if ``module.batch_first``, or
            ``(time, channels)``.
        key: The same with the keys' time axis and width.
        value: The same with the keys' time axis and the values' width.
        key_padding_mask: ``(batch, keys)`` or ``(keys,)``; True hides a key, a float is added to its scores.
        need_weights: Whether to return the attention weights too.
        attn_mask: ``(queries, keys)`` or ``(batch * heads, queries, keys)``; True forbids, a float is added.
        average_attn_weights: Whether to average the returned weights over the heads.
        is_causal: Says that ``attn_mask`` is the causal mask, which then need not be read.

    Returns:
        The output, laid out as ``query``, and the weights ``(batch, queries, keys)``, with an axis for the heads after
        the batch if they are not averaged; None in place of weights that are not needed.

    Raises:
        RuntimeError: ``is_causal`` without ``attn_mask``, as in ``nn.MultiheadAttention``.

    Reference:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017.
    """
    masks_and_weights = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
    return _attention(module, query, key, value, *masks_and_weights, attend=F.scaled_dot_product_attention)


class WidthFreeAttention(nn.MultiheadAttention):
    """An ``nn.MultiheadAttention`` whose widths are those of its parameters.

    The parameters have the names of ``nn.MultiheadAttention`` and these shapes, where ``query_width`` and
    ``value_width`` are any multiples of ``num_heads``:

    - ``in_proj_weight``: ``(2 * query_width + value_width, input_width)``, or ``q_proj_weight`` and ``k_proj_weight``:
      ``(query_width, ...)`` and ``v_proj_weight``: ``(value_width, ...)``; ``in_proj_bias`` alike
    - ``bias_k``: ``(1, 1, query_width)``, ``bias_v``: ``(1, 1, value_width)``
    - ``out_proj.weight``: ``(output_width, value_width)``

    It is made by `from_module`. The fused layers of torch, which cannot take such widths, decline it; the fused
    products are given heads of one width by `fused_attention`.
    """

    gives_weights: ClassVar[bool] = True

    def __init__(self, *_: Any) -> None:
        raise SurgeryError("a WidthFreeAttention is made from an attention module: WidthFreeAttention.from_module(...)")

    @classmethod
    def from_module(cls, module: nn.MultiheadAttention) -> Self:
        """An equal module that holds the very parameters, submodules and hooks of ``module``, which stays as it is.

        Raises:
            SurgeryError: ``module`` is of a class derived from ``nn.MultiheadAttention``, whose code would be lost.
        """
        if type(module) not in (nn.MultiheadAttention, cls):
            raise SurgeryError(
                f"{type(module).__qualname__} is derived from nn.MultiheadAttention and cannot be replaced by "
                f"{cls.__name__} without losing its own code; exclude it from the plan"
            )
        replacement = cls.__new__(cls)
        for name, held in vars(module).items():
            if name not in _WIDTHS:
                vars(replacement)[name] = held.copy() if isinstance(held, dict) else held
        # Tells nn.TransformerEncoderLayer to leave its fused path alone; nothing else reads it.
        replacement._qkv_same_embed_dim = False
        return replacement

    @property
    def query_width(self) -> int:
        """Width of the queries, and of the keys: all heads together."""
        return _inner_widths(self)[0]

    @property
    def value_width(self) -> int:
        """Width of the values: all heads together."""
        return _inner_widths(self)[1]

    @property
    def head_dim(self) -> int:
        """Width of the queries of one head."""
        heads: int = self.num_heads
        return self.query_width // heads

    @property
    def embed_dim(self) -> int:
        """Width of the input ``query``."""
        return _input_weights(self)[0].shape[1]

    @property
    def kdim(self) -> int:
        """Width of the input ``key``."""
        return _input_weights(self)[1].shape[1]

    @property
    def vdim(self) -> int:
        """Width of the input ``value``."""
        return _input_weights(self)[2].shape[1]

    def extra_repr(self) -> str:
        """The widths, since the constructor's arguments no longer tell them."""
        return f"num_heads={self.num_heads}, query_width={self.query_width}, value_width={self.value_width}"

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `attention_forward`; a nested tensor is attended to in its padded form."""
        need_weights = need_weights and self.gives_weights
        if query.is_nested or key.is_nested or value.is_nested:
            if query is not key or key is not value or attn_mask is not None or key_padding_mask is not None:
                raise InputError("nested tensors serve self-attention without masks only; pad them and give a mask")
            return self._attend_nested(query, need_weights, average_attn_weights)
        masks_and_weights = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
        return _attention(self, query, key, value, *masks_and_weights, attend=fused_attention)

    def _attend_nested(self, nested: Tensor, need_weights: bool, average: bool) -> tuple[Tensor, Tensor | None]:
        """Self-attention over a batch of unequal lengths, which nn.TransformerEncoder makes of a padded batch."""
        lengths = [len(sequence) for sequence in nested.unbind()]
        x = nested.to_padded_tensor(0.0)
        padding = torch.arange(x.shape[1], device=x.device) >= torch.tensor(lengths, device=x.device).unsqueeze(1)
        output, weights = _attention(self, x, x, x, padding, need_weights, None, average, attend=fused_attention)
        return torch.nested.as_nested_tensor([row[:n] for row, n in zip(output, lengths, strict=True)]), weights


class WeightlessAttention(WidthFreeAttention):
    """A `WidthFreeAttention` that returns no attention weights, also to those who ask: for where nobody reads them.

    Without them torch's fused kernels serve, which never hold a matrix of queries by keys.
    """

    gives_weights = False

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether the module could be of this class: attention without code of its own."""
        return type(module) in (nn.MultiheadAttention, WidthFreeAttention)


_WIDTHS = frozenset({"embed_dim", "kdim", "vdim", "head_dim"})
"""Attributes of nn.MultiheadAttention that say what the shapes of the parameters say."""


def _attention(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    need_weights: bool,
    attn_mask: Tensor | None,
    average_attn_weights: bool,
    is_causal: bool = False,
    *,
    attend: Callable[..., Tensor],
) -> tuple[Tensor, Tensor | None]:
    """See `attention_forward`; ``attend`` computes the heads where no weights are needed."""
    if is_causal and attn_mask is None:
        raise RuntimeError("is_causal only describes a mask: give attn_mask too, such as the causal mask")
    is_batched = query.dim() == 3
    q, k, v = (_split_heads(module, x, is_batched) for x in _project(module, query, key, value))
    skip_mask = is_causal and key_padding_mask is None and not need_weights
    mask = None if skip_mask else _merge_masks(module, attn_mask, key_padding_mask, q)
    k, v, mask = _append_extra_keys(module, k, v, mask)
    if not need_weights:
        dropout = module.dropout if module.training else 0.0
        heads = attend(q, k, v, mask, dropout, skip_mask)
        return _output(module, heads, is_batched), None
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))
    scores = scores if mask is None else scores + mask
    weights = F.dropout(F.softmax(scores, dim=-1), module.dropout, module.training)
    output = _output(module, torch.matmul(weights, v), is_batched)
    weights = weights.mean(dim=1) if average_attn_weights else weights
    return output, weights if is_batched else weights.squeeze(0)


def _parameter(module: nn.MultiheadAttention, name: str) -> Tensor | None:
    """A parameter that not every configuration has; torch declares that it always does."""
    found: Tensor | None = getattr(module, name)
    return found


def _inner_widths(module: nn.MultiheadAttention) -> tuple[int, int]:
    """Widths of the queries and of the values."""
    packed = _parameter(module, "in_proj_weight")
    value_width = module.out_proj.weight.shape[1]
    query_rows = module.q_proj_weight.shape[0] if packed is None else (packed.shape[0] - value_width) // 2
    return query_rows, value_width


def _input_weights(module: nn.MultiheadAttention) -> tuple[Tensor, ...]:
    """The weights that make queries, keys and values."""
    packed = _parameter(module, "in_proj_weight")
    if packed is None:
        return module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    return _split(module, packed, dim=0)


def _input_biases(module: nn.MultiheadAttention) -> tuple[Tensor | None, ...]:
    """The biases of queries, keys and values."""
    bias = _parameter(module, "in_proj_bias")
    return (None, None, None) if bias is None else _split(module, bias, dim=0)


def _split(module: nn.MultiheadAttention, packed: Tensor, dim: int) -> tuple[Tensor, ...]:
    """The parts that belong to queries, keys and values."""
    query_width, value_width = _inner_widths(module)
    return torch.split(packed, [query_width, query_width, value_width], dim)


def _project(module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values of all heads, time and batch laid out as in the inputs."""
    packed = _parameter(module, "in_proj_weight")
    if query is key and key is value and packed is not None:
        return _split(module, F.linear(query, packed, module.in_proj_bias), dim=-1)
    inputs = (query, key, value)
    operands = zip(inputs, _input_weights(module), _input_biases(module), strict=True)
    return tuple(F.linear(*triple) for triple in operands)


def _split_heads(module: nn.MultiheadAttention, x: Tensor, is_batched: bool) -> Tensor:
    """``(time, batch, channels)``, or as ``batch_first`` says, to ``(batch, heads, time, width)``."""
    x = torch.unflatten(x, -1, (module.num_heads, -1))
    if not is_batched:
        return x.unsqueeze(0).transpose(1, 2)
    return x.transpose(1, 2) if module.batch_first else x.permute(1, 2, 0, 3)


def _output(module: nn.MultiheadAttention, heads: Tensor, is_batched: bool) -> Tensor:
    """``(batch, heads, time, width)`` to the layout of the query, then the last projection."""
    if not is_batched:
        heads = heads.transpose(1, 2).squeeze(0)
    else:
        heads = heads.transpose(1, 2) if module.batch_first else heads.permute(2, 0, 1, 3)
    return F.linear(heads.flatten(-2), module.out_proj.weight, module.out_proj.bias)


def _merge_masks(
    module: nn.MultiheadAttention, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor
) -> Tensor | None:
    """One float mask that broadcasts to ``(batch, heads, queries, keys)``."""
    mask = None
    if attn_mask is not None:
        mask = _as_float(attn_mask, q.dtype)
        mask = mask if mask.dim() == 2 else mask.view(q.shape[0], module.num_heads, *mask.shape[1:])
    if key_padding_mask is None:
        return mask
    padding = _as_float(key_padding_mask, q.dtype).view(q.shape[0], 1, 1, -1)
    return padding if mask is None else mask + padding


def _as_float(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """True becomes minus infinity; a float mask stays."""
    if mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def _append_extra_keys(
    module: nn.MultiheadAttention, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Adds the learnt key and value, then the zero ones, after the last; no mask hides them."""
    if module.bias_k is not None and module.bias_v is not None:
        k = torch.cat([k, _bias_heads(module, module.bias_k, k)], dim=2)
        v = torch.cat([v, _bias_heads(module, module.bias_v, v)], dim=2)
        mask = mask if mask is None else F.pad(mask, (0, 1))
    if module.add_zero_attn:
        k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        mask = mask if mask is None else F.pad(mask, (0, 1))
    return k, v, mask


def _bias_heads(module: nn.MultiheadAttention, bias: Tensor, x: Tensor) -> Tensor:
    """The learnt key or value of ``(1, 1, channels)`` for each element of the batch: ``(batch, heads, 1, width)``."""
    heads = torch.unflatten(bias, -1, (module.num_heads, -1)).transpose(1, 2)
    return heads.expand(x.shape[0], -1, -1, -1)
