"""Scaled dot-product attention and torch's fused attention layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from prunegraph.rules.base import Atoms, Call, Labels, Masker, Product, Rule
from prunegraph.rules.locking import Locks, united
from prunegraph.rules.pointwise import FIXED_SIZE

aten = torch.ops.aten

_POSITIONS = "attention runs along this dimension"
_FUSED = "a fused attention layer has no parts that can be followed"


class Attention(Rule):
    """``softmax(scale * query key^T + mask) value``.

    query ``(..., targets, width)``, key ``(..., sources, width)``, value ``(..., sources, value width)``. The width of
    query and key is contracted; without a given scale the op divides by its square root, in the pruned network by that
    of the kept width.
    """

    numbers_follow = True

    def labels(self, call: Call) -> Labels:
        query, key, value = (call.labels(name) for name in ("query", "key", "value"))
        call.match(query[-1], key[-1], "queries and keys of fixed width")
        call.lock_all([key[-2], value[-2]], _POSITIONS)
        if call["is_causal"]:
            call.lock(query[-2], _POSITIONS)
        targets = self._targets(call, query[-2])
        rank = len(call.output_shape)
        return (*(self._batch(call, dim) for dim in range(-rank, -2)), targets, value[-1])

    def _targets(self, call: Call, atoms: Atoms | None) -> Atoms | None:
        labels, shape = call.labels("attn_mask"), self._shape(call, "attn_mask")
        if not shape:
            return atoms
        call.lock(labels[-1], _POSITIONS)
        sides = [(call.shape("query")[-2], atoms), *([(shape[-2], labels[-2])] if len(shape) > 1 else ())]
        return united(call, sides, FIXED_SIZE)

    def _batch(self, call: Call, dim: int) -> Atoms | None:
        """Batch and head dimensions broadcast; grouped heads of keys and values serve several of the queries."""
        sides: dict[str, tuple[int, Atoms | None]] = {}
        for name in ("query", "key", "value", "attn_mask"):
            shape = self._shape(call, name)
            if len(shape) >= -dim:
                sides[name] = (shape[dim], call.labels(name)[dim])
        if call["enable_gqa"] and dim == -3:
            heads = sides["query"][0]
            sides |= {name: self._serving(*sides[name], heads) for name in ("key", "value")}
        return united(call, sides.values(), FIXED_SIZE)

    def _serving(self, size: int, atoms: Atoms | None, heads: int) -> tuple[int, Atoms | None]:
        """Head h of the queries uses head ``h // (heads // size)``; a single one serves any number."""
        return (1, None) if size == 1 else (heads, None if atoms is None else np.repeat(atoms, heads // size))

    def _shape(self, call: Call, name: str) -> tuple[int, ...]:
        return () if call.get(name) is None else call.shape(name)

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        atoms = call.labels("query")[-1]
        query = mask.times_keep(mask.value(call["query"]), -1, atoms)
        if call.get("scale") is not None:
            return self._scaled(call, mask, query)
        keep = mask.keep(atoms)
        return mask.rerun(query=query if keep is None else mask.emit(_rescaled, query, keep))

    def alike(self, call: Call) -> Sequence[tuple[Atoms, Atoms]]:
        """Fused kernels want keys and values of one width."""
        key, value = (call.labels(name)[-1] for name in ("key", "value"))
        return () if key is None or value is None else [(key, value)]

    def _scaled(self, call: Call, mask: Masker, query: fx.Node) -> fx.Node:
        """The op takes its scale as a plain number only, so one that depends on masks goes into the query."""
        scale = mask.number(call.origin("scale"))
        if isinstance(scale, fx.Node):
            return mask.rerun(query=mask.emit(torch.mul, query, scale), scale=1.0)
        return mask.rerun(query=query, scale=scale)

    def macs(self, call: Call) -> Sequence[Product]:
        query, key, value = (call.sizes(name) for name in ("query", "key", "value"))
        batch = tuple(self._batch_size(call, dim) for dim in range(-len(call.output_shape), -2))
        return [(*batch, *query[-2:], key[-2]), (*batch, query[-2], *value[-2:])]

    def _batch_size(self, call: Call, dim: int) -> int | Atoms:
        for name in ("query", "key", "value"):
            if len(call.shape(name)) >= -dim and call.shape(name)[dim] != 1:
                return call.sizes(name)[dim]
        return call.output_shape[dim]


def _rescaled(query: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Turns the division by ``sqrt(width)``, which the op does, into one by the square root of the kept width."""
    return query * (keep.numel() / keep.sum()).sqrt().to(query.dtype)


RULES: dict[Any, Rule] = {
    aten.scaled_dot_product_attention: Attention(),
    aten._native_multi_head_attention: Locks(_FUSED),
    aten._transformer_encoder_layer_fwd: Locks(_FUSED),
}
