"""Ops that work element by element, with broadcasting: each index of a dimension depends on that index alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from prunegraph.ir.sizes import Attribute, ShapeOf, leaves
from prunegraph.rules.base import Atoms, Call, Labels, Masker, Rule

aten = torch.ops.aten

FIXED_SIZE = "meets a value of fixed size"


def broadcast(call: Call, operands: Sequence[fx.Node]) -> Labels:
    """Labels of the broadcast of the operands, whose labelled dimensions are matched from the right.

    An operand of size 1 broadcasts to any number of channels; an unlabelled one of full size fixes the number.
    """
    rank = max((len(call.shape(node)) for node in operands), default=0)
    return tuple(_broadcast_dim(call, operands, dim - rank) for dim in range(rank))


def _broadcast_dim(call: Call, operands: Sequence[fx.Node], dim: int) -> Atoms | None:
    full = [node for node in operands if len(call.shape(node)) >= -dim and call.shape(node)[dim] != 1]
    if not full:
        return None
    united = call.labels(full[0])[dim]
    for node in full[1:]:
        united = call.match(united, call.labels(node)[dim], FIXED_SIZE)
    return united


_WHOLE = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


class Pointwise(Rule):
    """``y[i] = f(a[i], b[i], ...)``. Absent channels stay absent, so the masked form is the op itself.

    Numbers among the arguments that were computed from sizes (``x / x.shape[1]``) become what they will be in the
    pruned network.
    """

    numbers_follow = True

    def labels(self, call: Call) -> Labels:
        return broadcast(call, call.tensors())

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        changing = {name: mask.number(call.origin(name)) for name in _sized_numbers(call)}
        if not any(isinstance(value, fx.Node) for value in changing.values()):
            return None
        computed = mask.rerun(**changing)
        # Counts of channels are whole numbers in the network; here they are sums of keep values, in their precision.
        dtype = call.trace.values[call.node.name].dtype
        return mask.emit(torch.Tensor.to, computed, torch.get_default_dtype() if dtype in _WHOLE else dtype)


def _sized_numbers(call: Call) -> list[str]:
    numbers = [name for name in call.places if isinstance(call[name], int | float) and not isinstance(call[name], bool)]
    return [n for n in numbers if any(isinstance(leaf, Attribute | ShapeOf) for leaf in leaves(call.origin(n)))]


class BroadcastTensors(Rule):
    """Every operand as large as all of them together."""

    def labels(self, call: Call) -> tuple[Labels, ...]:
        return (broadcast(call, call.tensors()),) * len(call.output_shapes)


class Unary(Pointwise):
    """``y[i] = f(a[i])``; further operands, as in ``type_as(other)``, only lend a type or a number."""

    def labels(self, call: Call) -> Labels:
        return call.labels(call.tensors()[0])


class Resolved(Unary):
    """``resolve_neg``, with which ``tolist()`` and ``numpy()`` end: what no op reads after it, Python does."""

    def labels(self, call: Call) -> Labels:
        labels = super().labels(call)
        if not call.node.users:
            call.lock_all(labels, "the code reads the values as numbers, by their places")
        return labels


class Noise(Unary):
    """Draws a random number for each element, where ``train`` says so: of fewer elements each would get another.

    In training mode any will do. Nothing is dropped with probability 0.
    """

    def labels(self, call: Call) -> Labels:
        labels = super().labels(call)
        in_use = next((call[name] for name in ("train", "training") if name in call.arguments), True)
        if in_use and call.arguments.get("p") != 0 and not call.trace.training:
            call.lock_all(labels, "a random number is drawn for each element")
        return labels


class PRelu(Rule):
    """``y[n, c, ...] = max(0, x) + weight[c] * min(0, x)``; one shared weight leaves the channels alone."""

    def labels(self, call: Call) -> Labels:
        labels, weight = call.labels("self"), call.labels("weight")
        if call.shape("weight") not in ((1,), ()) and len(labels) > 1:
            call.match(labels[1], weight[0], FIXED_SIZE)
        return labels


class QuantisedPerChannel(Rule):
    """``fake_quantize_per_channel_affine``: the channels along ``axis`` have steps and zero points of their own."""

    def labels(self, call: Call) -> Labels:
        labels, axis = call.labels("self"), int(call["axis"])
        for name in ("scale", "zero_point"):
            call.match(labels[axis], call.labels(name)[0], FIXED_SIZE)
        return labels


class Copy(Rule):
    """``self[...] = src``: the written value takes the source's channels."""

    def labels(self, call: Call) -> Labels:
        operands = call.tensors()
        broadcast(call, operands)
        return call.labels(operands[0])


_UNARY = (
    "abs absolute acos acosh angle asin asinh atan atanh bitwise_not ceil conj conj_physical cos cosh deg2rad digamma "
    "erf erfc erfinv exp exp2 expm1 fix floor frac imag isfinite isinf isnan lgamma log log10 log1p log2 logical_not "
    "logit nan_to_num neg negative positive rad2deg real reciprocal relu relu6 round rsqrt sgn sigmoid sign signbit "
    "silu sin sinc sinh special_expit sqrt square tan tanh trunc mish hardswish hardsigmoid hardtanh gelu elu selu "
    "celu leaky_relu softplus softsign tanhshrink hardshrink softshrink log_sigmoid threshold clamp clamp_min "
    "clamp_max clip resolve_conj detach alias clone contiguous to _to_copy type_as lift lift_fresh "
    "lift_fresh_copy double float half bfloat16 int long bool requires_grad_ cpu cuda zeros_like ones_like full_like "
    "empty_like fill zero i0 _conj _neg_view _conj_physical arctan arcsin arcsinh arccos arccosh arctanh isposinf "
    "isneginf isreal polygamma special_erf special_erfc special_erfcx special_ndtr special_ndtri special_log_ndtr "
    "special_log1p special_expm1 special_exp2 special_sinc special_i0 special_i0e special_i1 special_i1e special_psi "
    "special_digamma special_gammaln special_entr special_logit special_round fake_quantize_per_tensor_affine "
    "_fake_quantize_learnable_per_tensor_affine"
)
_NOISE = "dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout rrelu bernoulli"
_FILLS = "exponential_ normal_ uniform_ cauchy_ geometric_ log_normal_ random_"
_BINARY = (
    "add sub mul div rsub pow floor_divide true_divide divide multiply subtract remainder fmod atan2 arctan2 hypot "
    "maximum minimum max.other min.other fmax fmin eq ne lt le gt ge equal_ not_equal less greater less_equal "
    "greater_equal logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ "
    "where addcmul addcdiv lerp masked_fill complex polar copysign float_power xlogy special_xlogy nextafter ldexp "
    "logaddexp logaddexp2 heaviside isclose __iand__ __ior__ __ixor__ __lshift__ __rshift__ bitwise_left_shift "
    "bitwise_right_shift igamma igammac special_xlog1py special_zeta clamp.Tensor clamp_min.Tensor clamp_max.Tensor "
    "clip.Tensor"
)


def _named(names: str, rule: Rule) -> dict[Any, Rule]:
    found: dict[Any, Rule] = {}
    for name in names.split():
        packet, _, overload = name.partition(".")
        target = getattr(aten, packet, None)
        if target is not None:
            found[getattr(target, overload) if overload else target] = rule
    return found


RULES: dict[Any, Rule] = {
    **_named(_UNARY, Unary()),
    **_named(_BINARY, Pointwise()),
    **_named(f"{_NOISE} {_FILLS}", Noise()),
    aten.broadcast_tensors: BroadcastTensors(),
    aten.prelu: PRelu(),
    aten._prelu_kernel: PRelu(),
    aten.fake_quantize_per_channel_affine: QuantisedPerChannel(),
    aten._fake_quantize_learnable_per_channel_affine: QuantisedPerChannel(),
    aten.copy_: Copy(),
    aten.resolve_neg: Resolved(),
}
