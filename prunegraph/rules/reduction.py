"""Reductions, softmax and running sums: which dimensions they remove, and results that count only present channels."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from prunegraph.rules.base import Call, Labels, Masker, Rule, dims_of
from prunegraph.rules.masked_reductions import (
    masked_all,
    masked_amax,
    masked_amin,
    masked_aminmax,
    masked_any,
    masked_cosine_similarity,
    masked_count_nonzero,
    masked_log_softmax,
    masked_logsumexp,
    masked_max,
    masked_mean,
    masked_min,
    masked_nanmean,
    masked_nansum,
    masked_pairwise_distance,
    masked_prod,
    masked_renorm,
    masked_softmax,
    masked_std,
    masked_std_mean,
    masked_sum,
    masked_var,
    masked_var_mean,
    masked_vector_norm,
    with_neutral,
)
from prunegraph.rules.norm import keeps_of
from prunegraph.rules.pointwise import broadcast

aten = torch.ops.aten

_RANKED = "positions along this dimension are results: their numbers would change"
_ORDERED = "a running result depends on the order along this dimension"


class Reduction(Rule):
    """``y = f(x[i] for all i along the reduced dimensions)``, where f can leave out absent channels.

    Args:
        masked: ``masked(x, keeps, dims, keepdim, **options)``, the op with keep values.
        options: names of further arguments of the op that ``masked`` takes.
        outputs: number of outputs, all of one shape.
        positions: which output tells positions along the reduced dimension, if one does.
    """

    def __init__(
        self, masked: Callable[..., Any], *options: str, outputs: int = 1, positions: int | None = None
    ) -> None:
        self.function, self.options, self.outputs, self.positions = masked, options, outputs, positions

    def labels(self, call: Call) -> Any:
        labels, dims = call.labels("self"), self._dims(call)
        if self.positions is not None and _uses_output(call.node, self.positions):
            call.lock_all([labels[dim] for dim in dims if labels], _RANKED)
        left = _reduced(labels, dims, bool(call.get("keepdim", False)))
        return left if self.outputs == 1 else (left,) * self.outputs

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        dims = self._dims(call)
        keeps = keeps_of(mask, call.labels("self"), dims)
        if keeps is None:
            return None
        options = {name: call[name] for name in self.options if name in call.arguments}
        return mask.emit(
            self.function, mask.value(call["self"]), keeps, dims, bool(call.get("keepdim", False)), **options
        )

    def _dims(self, call: Call) -> tuple[int, ...]:
        return dims_of(call.get("dim"), len(call.shape("self")))


def _reduced(labels: Labels, dims: Sequence[int], keepdim: bool) -> Labels:
    if keepdim:
        return tuple(None if dim in dims else atoms for dim, atoms in enumerate(labels))
    return tuple(atoms for dim, atoms in enumerate(labels) if dim not in dims)


def _uses_output(node: fx.Node, index: int) -> bool:
    """Whether anything reads this output of an op that returns several."""
    taken = [user for user in node.users if user.target is operator.getitem and user.args[1] == index]
    others = [user for user in node.users if user.target is not operator.getitem]
    return bool(others) or any(user.users for user in taken)


class Softmax(Rule):
    """``exp(x) / sum(exp(x))`` along one dimension, or its logarithm."""

    def __init__(self, masked: Callable[..., Tensor]) -> None:
        self.function = masked

    def labels(self, call: Call) -> Labels:
        return call.labels("self")

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels = call.labels("self")
        dim = dims_of(call["dim"], len(labels))
        keeps = keeps_of(mask, labels, dim)
        if keeps is None:
            return None
        dtype = torch.float32 if call.get("half_to_float") else call.get("dtype")
        return mask.emit(self.function, mask.value(call["self"]), keeps, dim[0], dtype)


class VectorNorm(Reduction):
    """``(sum |x|^p)^(1/p)``. Norms of matrices that are no norm of their entries lock.

    Args:
        order: name of the argument p.
    """

    def __init__(self, order: str) -> None:
        super().__init__(masked_vector_norm, "dtype")
        self.order = order

    def labels(self, call: Call) -> Labels:
        labels: Labels = super().labels(call)
        if self._is_spectral(call):
            call.lock_all(call.labels("self"), "a norm of whole matrices")
        return labels

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        dims = self._dims(call)
        keeps = keeps_of(mask, call.labels("self"), dims)
        if keeps is None:
            return None
        order = call.get(self.order)
        order = 2.0 if order is None or order == "fro" else float(order)
        keepdim = bool(call.get("keepdim", False))
        return mask.emit(masked_vector_norm, mask.value(call["self"]), keeps, dims, keepdim, order, call.get("dtype"))

    def _is_spectral(self, call: Call) -> bool:
        """``linalg.norm`` of two dimensions is a matrix norm, unless no order is given."""
        order = call.get(self.order)
        return order == "nuc" or (
            self.order == "ord"
            and call.node.target.overloadpacket is aten.linalg_norm  # type: ignore[union-attr]
            and order not in (None, "fro")
            and len(self._dims(call)) == 2
        )


class CosineSimilarity(Rule):
    """``sum(a b) / (max(|a|, eps) max(|b|, eps))`` along one dimension of the operands, which broadcast."""

    def labels(self, call: Call) -> Labels:
        labels = self._broadcast(call)
        return _reduced(labels, dims_of(call["dim"], len(labels)), False)

    def _broadcast(self, call: Call) -> Labels:
        return broadcast(call, [call["x1"], call["x2"]])

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels = self._broadcast(call)
        dim = dims_of(call["dim"], len(labels))
        keeps = keeps_of(mask, labels, dim)
        if keeps is None:
            return None
        operands = (mask.value(call["x1"]), mask.value(call["x2"]))
        return mask.emit(masked_cosine_similarity, *operands, keeps, dim[0], call["eps"])


class PairwiseDistance(Rule):
    """``(sum |a - b + eps|^p)^(1/p)`` along the last dimension of the operands, which broadcast."""

    def labels(self, call: Call) -> Labels:
        labels = self._broadcast(call)
        return _reduced(labels, (len(labels) - 1,), bool(call["keepdim"]))

    def _broadcast(self, call: Call) -> Labels:
        return broadcast(call, [call["x1"], call["x2"]])

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels = self._broadcast(call)
        keeps = keeps_of(mask, labels, (len(labels) - 1,))
        if keeps is None:
            return None
        operands = (mask.value(call["x1"]), mask.value(call["x2"]))
        return mask.emit(masked_pairwise_distance, *operands, keeps, bool(call["keepdim"]), call["p"], call["eps"])


class Renorm(Rule):
    """``x / max(1, |x| / maxnorm)``, where the norm of each index of ``dim`` runs over all the other dimensions."""

    def labels(self, call: Call) -> Labels:
        return call.labels("self")

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels = call.labels("self")
        (dim,) = dims_of(call["dim"], len(labels))
        dims = tuple(other for other in range(len(labels)) if other != dim)
        keeps = keeps_of(mask, labels, dims)
        if keeps is None:
            return None
        scaled = mask.emit(masked_renorm, _operand(call, mask), keeps, dims, float(call["p"]), call["maxnorm"])
        return _given(call, mask, scaled)


class Cumulative(Rule):
    """Running sums and products: an absent entry adds ``neutral``."""

    def __init__(self, neutral: int) -> None:
        self.neutral = neutral

    def labels(self, call: Call) -> Labels:
        return call.labels("self")

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        labels = call.labels("self")
        keeps = keeps_of(mask, labels, dims_of(call["dim"], len(labels)))
        if keeps is None:
            return None
        running = mask.rerun(self=mask.emit(with_neutral, _operand(call, mask), keeps, self.neutral))
        return _given(call, mask, running)


def _operand(call: Call, mask: Masker) -> fx.Node:
    """The operand; a copy where the op writes over it, so that gradients can be found from what it was."""
    value = mask.value(call["self"])
    return mask.emit(torch.clone, value) if _is_in_place(call) else value


def _given(call: Call, mask: Masker, result: fx.Node) -> fx.Node:
    """The result, written where views of the operand see it if the op works in place."""
    return mask.emit(torch.Tensor.copy_, mask.value(call["self"]), result) if _is_in_place(call) else result


def _is_in_place(call: Call) -> bool:
    return isinstance(call.node.target, torch._ops.OpOverload) and call.node.target._schema.is_mutable


class Ranking(Rule):
    """Ops that rank entries or tell their positions: the dimension that they look along is locked.

    Args:
        reason: what is said of the lock.
    """

    def __init__(self, reason: str = _RANKED) -> None:
        self.reason = reason

    def labels(self, call: Call) -> Any:
        labels = call.labels("self")
        whole = "dim" not in call.arguments or (call["dim"] is None and "keepdim" in call.arguments)
        dims = dims_of(None if whole else call["dim"], len(labels))
        call.lock_all([labels[dim] for dim in dims if labels], self.reason)
        rows = [_reduced(labels, dims, len(shape) == len(labels)) for shape in call.output_shapes]
        return tuple(rows) if len(rows) > 1 else rows[0]


class Quantile(Rule):
    """Quantiles along one dimension or of everything, which is locked; several levels are a new first dimension.

    The levels stay, since absent ones could lie outside [0, 1].
    """

    def labels(self, call: Call) -> Labels:
        labels = call.labels("self")
        dims = dims_of(call["dim"], len(labels))
        call.lock_all([labels[dim] for dim in dims if labels], _RANKED)
        call.lock_all(call.labels("q"), "levels of quantiles")
        return (*(None for _ in call.labels("q")), *_reduced(labels, dims, bool(call["keepdim"])))


RULES: dict[Any, Rule] = {
    aten.sum: Reduction(masked_sum, "dtype"),
    aten.nansum: Reduction(masked_nansum, "dtype"),
    aten.mean: Reduction(masked_mean, "dtype"),
    aten.nanmean: Reduction(masked_nanmean, "dtype"),
    aten.var: Reduction(masked_var, "correction", "unbiased"),
    aten.std: Reduction(masked_std, "correction", "unbiased"),
    aten.var_mean: Reduction(masked_var_mean, "correction", "unbiased", outputs=2),
    aten.std_mean: Reduction(masked_std_mean, "correction", "unbiased", outputs=2),
    aten.amax: Reduction(masked_amax),
    aten.amin: Reduction(masked_amin),
    aten.aminmax: Reduction(masked_aminmax, outputs=2),
    aten.max.default: Reduction(masked_amax),
    aten.min.default: Reduction(masked_amin),
    aten.max.dim: Reduction(masked_max, outputs=2, positions=1),
    aten.min.dim: Reduction(masked_min, outputs=2, positions=1),
    aten.any: Reduction(masked_any),
    aten.all: Reduction(masked_all),
    aten.count_nonzero: Reduction(masked_count_nonzero),
    aten.prod: Reduction(masked_prod, "dtype"),
    aten.logsumexp: Reduction(masked_logsumexp),
    aten.special_logsumexp: Reduction(masked_logsumexp),
    aten.linalg_vector_norm: VectorNorm("ord"),
    aten.linalg_norm: VectorNorm("ord"),
    aten.norm: VectorNorm("p"),
    aten.frobenius_norm: VectorNorm("p"),
    aten.cosine_similarity: CosineSimilarity(),
    aten.pairwise_distance: PairwiseDistance(),
    aten.renorm: Renorm(),
    **dict.fromkeys((aten.softmax, aten._softmax, aten.special_softmax), Softmax(masked_softmax)),
    **dict.fromkeys((aten.log_softmax, aten._log_softmax, aten.special_log_softmax), Softmax(masked_log_softmax)),
    aten.cumsum: Cumulative(0),
    aten.cumprod: Cumulative(1),
    **dict.fromkeys((aten.cummax, aten.cummin, aten.logcumsumexp), Ranking(_ORDERED)),
    **dict.fromkeys((aten.argmax, aten.argmin, aten.sort, aten.argsort, aten.msort, aten.topk), Ranking()),
    **dict.fromkeys((aten.median, aten.nanmedian, aten.kthvalue, aten.mode), Ranking()),
    **dict.fromkeys((aten.quantile, aten.nanquantile), Quantile()),
}
