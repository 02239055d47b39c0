"""Losses that networks compute on their way, as those with codebooks do between features and codes."""

from typing import Any

import torch
from torch import fx

from prunegraph.rules.base import Call, Labels, Masker, Rule
from prunegraph.rules.masked_reductions import masked_mean, masked_sum
from prunegraph.rules.norm import keeps_of
from prunegraph.rules.pointwise import broadcast

aten = torch.ops.aten

_EACH, _MEAN = 0, 1
"""Numbers of reductions in ATen; the third one is the sum."""


class ElementwiseLoss(Rule):
    """``f(a[i], b[i])`` for all i, which broadcast: each of them, their mean, or their sum."""

    def labels(self, call: Call) -> Labels:
        labels = broadcast(call, call.tensors())
        return labels if call["reduction"] == _EACH else ()

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels = broadcast(call, call.tensors())
        dims = tuple(range(len(labels)))
        keeps = keeps_of(mask, labels, dims)
        if call["reduction"] == _EACH or keeps is None:
            return None
        arguments = {**call.arguments, "reduction": _EACH}.values()
        each = mask.emit(call.node.target, *(mask.value(a) if isinstance(a, fx.Node) else a for a in arguments))  # type: ignore[arg-type]
        return mask.emit(masked_mean if call["reduction"] == _MEAN else masked_sum, each, keeps, dims, False)


_LOSSES = "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy_with_logits"

RULES: dict[Any, Rule] = {getattr(aten, name): ElementwiseLoss() for name in _LOSSES.split()}
