"""Closed-form compensation: what is left of each layer takes over, as well as it can, the work of what was removed.

A consumer of removed channels reads less than it did. Its remaining weights are set to those that best reproduce the
output that it had in the dense network, on given audio. No gradients, no steps, no learning rate.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunegraph.capture.check import check_model
from prunegraph.capture.clone import named_tensors
from prunegraph.capture.example import call_arguments
from prunegraph.capture.modes import in_mode
from prunegraph.capture.state import undisturbed
from prunegraph.contractions import Contraction, contractions
from prunegraph.errors import InputError
from prunegraph.ir.plan import PruningPlan
from prunegraph.recovery.reparametrised import make_plain, set_weights
from prunegraph.surgery.slicing import apply, check_shapes, copy_of, slice_tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """How well one layer reproduces its dense output on the given audio.

    Attributes:
        weight: name of the layer's weight.
        before: ``|dense - pruned| / |dense|`` with the weights that surgery left, all layers before compensated.
        after: the same with the compensated weights; never greater, but for rounding.
    """

    weight: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compensation:
    """A compensated network.

    Attributes:
        model: a copy of the pruned network with other weights, in the same training mode.
        layers: what was gained, in the order in which the network uses its layers.
        skipped: names of matrices that lost channels and kept the weights that surgery left, because it is not known
            how they are used: recurrent weights, products written out in tensor operations, layers that are applied at
            other positions than in the dense network.
    """

    model: nn.Module
    layers: tuple[LayerError, ...]
    skipped: tuple[str, ...]


def compensate(
    dense: nn.Module, pruned: nn.Module, plan: PruningPlan, inputs: Iterable[Any], *, ridge: float = 1e-4
) -> Compensation:
    r"""Gives each consumer of removed channels the weights that best reproduce its dense output.

    Layer by layer in the order of their use, with input x of the layer in the network compensated so far, weights W
    and bias b that surgery left, and the output y that the kept channels have in the dense network:

    .. math:: \min_{\Delta, \delta} \sum \|y - (W + \Delta) x - (b + \delta)\|^2 + \lambda \|\Delta\|^2

    with :math:`\lambda` = ``ridge`` times the mean variance of x. Second moments are accumulated in float64, a layer
    that is used several times sums over its uses, and no layer gets worse on the given audio. Fitted are
    convolutions, transposed ones without groups and dilation (their bias stays), linear maps, and what the first layer
    of a recurrent network reads of its input; their weights may be under weight norm. Each layer costs one pass of both
    networks over the inputs, up to it.

    Args:
        dense: the original network; left as it is.
        pruned: what surgery made of it; left as it is.
        plan: what was removed.
        inputs: audio, each item as the example inputs of `prunegraph.build_graph`; a minute or two are enough.
        ridge: pull towards the weights that surgery left.

    Raises:
        InputError: there are no inputs, or ``ridge`` is not positive.
        PlanError: the plan is not for this network.
        UnsupportedModelError: ``dense`` or ``pruned`` is no network with weights.
    """
    check_model(dense)
    check_model(pruned)
    check_shapes(dense, plan)
    examples = list(inputs)
    if not examples or ridge <= 0:
        raise InputError(f"compensation needs some inputs and ridge > 0, got {len(examples)} inputs and {ridge=}")
    with undisturbed(list(named_tensors(dense).values())):
        fitting = _Fitting(dense, pruned, plan, examples, ridge)
        fitted = [fitting.fit(weight) for weight in fitting.consumers()]
        layers = tuple(layer for layer in fitted if layer is not None)
        skipped = fitting.skipped()
        model = copy_of(pruned)
        set_weights(model, fitting.pruned, fitting.computed)
    for copied, original in zip(model.modules(), pruned.modules(), strict=True):
        copied.training = original.training
    return Compensation(model=model, layers=layers, skipped=skipped)


class _Fitting:
    """Both networks side by side; the pruned one changes layer by layer."""

    def __init__(
        self, dense: nn.Module, pruned: nn.Module, plan: PruningPlan, examples: Sequence[Any], ridge: float
    ) -> None:
        # Without tensors the plan copies the network, and replaces the modules that hide their contractions.
        self.dense = in_mode(apply(dense, replace(plan, tensors={}, attributes=())), training=False)
        self.pruned = copy_of(pruned)
        self.computed = make_plain(self.pruned)
        make_plain(self.dense)
        self.plan, self.examples, self.ridge = plan, examples, ridge
        self.own = frozenset(id(parameter) for parameter in self.pruned.parameters())
        self.unlike: set[str] = set()
        self.uses, self.pruned_uses = (
            [_uses(net, example) for example in examples] for net in (self.dense, self.pruned)
        )

    def consumers(self) -> list[str]:
        """Weights that lost input channels, in the order of their first use, if both networks use them alike."""
        names = dict.fromkeys(weight for uses in self.uses for weight in uses)
        return [weight for weight in names if self._is_consumer(weight) and self._is_understood(weight)]

    def skipped(self) -> tuple[str, ...]:
        """Matrices that lost channels, and of which it is not known how both networks use them."""
        parameters = dict(self.dense.named_parameters())
        weights = {source: weight for weight, source in self.computed.items()}
        names = [weights.get(name, name) for name in self.plan.tensors]
        matrices = [name for name in names if name in parameters and parameters[name].dim() > 1]
        return tuple(name for name in matrices if not self._is_understood(name))

    def _removed(self, weight: str) -> Mapping[int, Sequence[int]]:
        """Dimension of the weight -> what is left of it."""
        return self.plan.tensors.get(self.computed.get(weight, weight), {})

    def _is_consumer(self, weight: str) -> bool:
        return any(kind.input_dim in self._removed(weight) for kind in self._kinds(weight))  # type: ignore[attr-defined]

    def _is_understood(self, weight: str) -> bool:
        """Whether it is always used by the same kind of contraction, as often in one network as in the other."""
        alike = weight not in self.unlike and all(
            ours.get(weight) == theirs.get(weight) for ours, theirs in zip(self.uses, self.pruned_uses, strict=True)
        )
        return alike and len(self._kinds(weight)) == 1

    def _kinds(self, weight: str) -> set[type]:
        return {kind for uses in self.uses for kind in uses.get(weight, ())}

    def fit(self, weight: str) -> LayerError | None:
        """Solves for one weight and puts the solution into the pruned network; None if the two do not compare."""
        moments = _Moments(self.own)
        try:
            for example, uses in zip(self.examples, self.uses, strict=True):
                self._accumulate(weight, example, len(uses.get(weight, ())), moments)
        except _UnlikeError:
            self.unlike.add(weight)
            return None
        return moments.solve(weight, self.ridge)

    def _accumulate(self, weight: str, example: Any, count: int, moments: "_Moments") -> None:
        """The n-th use of the weight in one network answers to the n-th in the other."""
        if count == 0:
            return
        targets: list[Tensor] = []
        _watch(self.dense, example, weight, count, lambda call: targets.append(self._kept(weight, call)))
        waiting = iter(targets)
        _watch(self.pruned, example, weight, count, lambda call: moments.add(call, next(waiting)))

    def _kept(self, weight: str, call: Contraction) -> Tensor:
        """The output channels that the pruned network has, too."""
        kept = self._removed(weight).get(call.output_dim)
        return call.output() if kept is None else slice_tensor(call.output(), {call.channel_dim: kept})


class _UnlikeError(Exception):
    """The layer has other positions in one network than in the other: data or further channels decide on them."""


class _Moments:
    """Second moments of one layer: of z = (1, x), with the 1 where a bias is fitted, and of the residual r.

    ``gram`` is the sum of z z', shape ``(blocks, features, features)``; ``cross`` the sum of z r', shape
    ``(blocks, features, outputs)``; ``missing`` the energy of r, shape ``(blocks,)``; ``energy`` that of the dense
    output.
    """

    def __init__(self, own: frozenset[int]) -> None:
        self.own = own
        self.call: Contraction | None = None

    def add(self, call: Contraction, target: Tensor) -> None:
        """Adds one use of the layer, whose kept channels had the output ``target`` in the dense network."""
        output = call.output()
        if output.shape != target.shape:
            raise _UnlikeError
        for chunk in call.chunks(target.double() - output):
            z, r = self._with_one(call, chunk.windows), chunk.outputs
            if self.call is None:
                self._begin(call, z, r)
            self.gram[chunk.blocks] += z.mT @ z
            self.cross[chunk.blocks] += z.mT @ r
            self.missing[chunk.blocks] += r.square().sum((1, 2))
        self.energy += target.double().square().sum()

    def _begin(self, call: Contraction, z: Tensor, r: Tensor) -> None:
        self.call = call
        self.gram = z.new_zeros(call.blocks, z.shape[2], z.shape[2])
        self.cross = z.new_zeros(call.blocks, z.shape[2], r.shape[2])
        self.missing, self.energy = z.new_zeros(call.blocks), z.new_zeros(())

    def _has_bias(self, call: Contraction) -> bool:
        return call.bias is not None and id(call.bias) in self.own

    def _with_one(self, call: Contraction, windows: Tensor) -> Tensor:
        return F.pad(windows, (1, 0), value=1.0) if self._has_bias(call) else windows

    def solve(self, weight: str, ridge: float) -> LayerError:
        """Solves the normal equations and adds the solution to weight and bias, in place."""
        call = self.call
        assert call is not None
        if not bool(self.gram.isfinite().all() & self.cross.isfinite().all()):
            raise InputError(f"{weight} meets values that are not finite on the given audio: mend the audio")
        has_bias = self._has_bias(call)
        system = self.gram + torch.diag_embed(self._penalty(ridge, has_bias))
        solution = torch.cholesky_solve(self.cross, torch.linalg.cholesky(system))
        left = self.missing.sum() - (solution * (2 * self.cross - self.gram @ solution)).sum()
        call.weight += call.as_weight(solution[:, int(has_bias) :]).to(call.weight.dtype)
        if call.bias is not None and has_bias:
            call.bias += solution[:, 0].flatten().to(call.bias.dtype)
        return LayerError(weight=weight, before=self._relative(self.missing.sum()), after=self._relative(left))

    def _penalty(self, ridge: float, has_bias: bool) -> Tensor:
        """``ridge`` times the mean variance of the features, shape ``(blocks, features)``; the bias is free."""
        squares = self.gram.diagonal(dim1=1, dim2=2)
        # Eliminating the bias first leaves the centred moments.
        variance = squares - self.gram[:, 0].square() / squares[:, :1].clamp_min(1) if has_bias else squares
        mean, least = (v[:, int(has_bias) :].mean(1, keepdim=True) for v in (variance, _LEAST_SPREAD * squares))
        penalty = (ridge * mean).maximum(least).expand_as(squares).clone()
        penalty[:, : int(has_bias)] = 0
        return penalty + torch.finfo(penalty.dtype).tiny

    def _relative(self, energy: Tensor) -> float:
        return float((energy.clamp_min(0) / self.energy.clamp_min(torch.finfo(energy.dtype).tiny)).sqrt())


_LEAST_SPREAD = 1e-10
"""Of the features' energy: where a layer reads the same over and over, it has a solution nevertheless."""


class _Enough(BaseException):
    """Ends a forward pass early; no ``except Exception`` of the network's own code may hold it."""


class _Watch(TorchFunctionMode):
    """Shows every contraction with a parameter of the network to ``see(name, call)`` before it is computed."""

    def __init__(self, network: nn.Module, see: Callable[[str, Contraction], None]) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in network.named_parameters()}
        self.see = see

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for call in contractions(func, args, kwargs or {}):
            name = self.names.get(id(call.weight))
            if name is not None and call.weight.is_floating_point():
                self.see(name, call)
        return func(*args, **(kwargs or {}))


def _uses(network: nn.Module, example: Any) -> dict[str, list[type]]:
    """The parameters that are contracted with, in the order of their first use -> by which kind of op, each time."""
    found: dict[str, list[type]] = {}
    args, kwargs = call_arguments(example)
    with _Watch(network, lambda name, call: found.setdefault(name, []).append(type(call))):
        network(*args, **kwargs)
    return found


def _watch(network: nn.Module, example: Any, weight: str, count: int, see: Callable[[Contraction], None]) -> None:
    """Runs the network until its ``count``-th use of a weight, showing each of them."""
    seen = 0

    def pick(name: str, call: Contraction) -> None:
        nonlocal seen
        if name == weight:
            see(call)
            seen += 1
            if seen == count:
                raise _Enough

    args, kwargs = call_arguments(example)
    try:
        with _Watch(network, pick):
            network(*args, **kwargs)
    except _Enough:
        return
