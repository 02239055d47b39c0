"""What errors in the outputs of layers do to the network's output."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.utils import _pytree

from prunegraph.contractions import Contraction
from prunegraph.importance.gradients import differentiable_record
from prunegraph.ir.trace import Trace


class Sensitivity:
    """Second moments of the derivatives g of the network's output by a layer's, summed over positions and uses.

    Args:
        diagonal: whether to keep those of each output with itself alone, where all pairs are too many.
    """

    def __init__(self, *, diagonal: bool) -> None:
        self.diagonal = diagonal
        self.moments: Tensor | None = None  # (blocks, outputs, outputs) or, of the diagonal, (blocks, outputs)
        self.of_relative_errors = 0.0

    def add(self, call: Contraction, energy: Tensor, gradient: Tensor) -> None:
        """Adds one use.

        Args:
            call: the layer.
            energy: the sum of the squares of what its op gave out.
            gradient: g for all of that.
        """
        # An error with the direction of noise: all that is known where the layer's output goes through gates.
        self.of_relative_errors += float(gradient.double().square().sum() * energy / gradient.numel())
        if not call.is_output:
            return
        for chunk in call.chunks(gradient):
            found = chunk.outputs.square().sum(1) if self.diagonal else chunk.outputs.mT @ chunk.outputs
            if self.moments is None:
                self.moments = found.new_zeros(call.blocks, *found.shape[1:])
            self.moments[chunk.blocks] += found

    def times_root(self, coefficients: Tensor, energy: Tensor) -> Tensor:
        """Coefficients ``(blocks, features, outputs)`` in units of the network's output.

        Args:
            coefficients: of the layer.
            energy: mean square of its output, which its relative errors are to be counted by.
        """
        if self.moments is None:
            return math.sqrt(self.of_relative_errors) * relative(coefficients, energy)
        if self.diagonal:
            return coefficients * self.moments.sqrt().unsqueeze(1)
        mean = self.moments.diagonal(dim1=1, dim2=2).mean(1)
        jitter = torch.diag_embed((1e-6 * mean + torch.finfo(mean.dtype).tiny)[:, None].expand(self.moments.shape[:2]))
        root: Tensor = torch.linalg.cholesky(self.moments + jitter)
        return coefficients @ root


def relative(coefficients: Tensor, energy: Tensor) -> Tensor:
    """Coefficients whose output has a mean square of 1."""
    scale: Tensor = energy.clamp_min(torch.finfo(energy.dtype).tiny).sqrt()
    return coefficients / scale


LayersOf: TypeAlias = Callable[[fx.Interpreter, fx.Node], Iterable[tuple[Sensitivity, Contraction]]]
"""The layers that a node of a running record is, and where their sensitivities are added up."""


class Probe(fx.Interpreter):
    r"""Runs the record and sends noise back from its outputs.

    With random v of unit variance, $g = J^T v$ for the Jacobian J of an output y by a layer's output has the second
    moments $J^T J$ (Hutchinson), so that $(g^T \delta)^2$ is on average what the error $\delta$ changes of y, squared.
    Each output counts relative to its norm, so that 1 is as much as the output itself.
    """

    def __init__(self, trace: Trace, layers_of: LayersOf) -> None:
        super().__init__(differentiable_record(trace))
        self._layers_of = layers_of

    def add(self, tensors: Sequence[Tensor], inputs: Sequence[Tensor], noise: torch.Generator) -> None:
        """Adds to the sensitivity of every layer between an input of real or complex numbers and an output.

        Raises:
            RuntimeError: the record cannot be run with derivatives, an op has none, or no output depends on an input of
                such numbers.
        """
        leaves = [tensor.detach().clone() for tensor in inputs]
        wanted = [leaf.requires_grad_() for leaf in leaves if leaf.is_floating_point() or leaf.is_complex()]
        with torch.enable_grad():
            # Copies, since a forward pass may write to buffers, inputs and even weights.
            outputs = self.run(*(tensor.detach().clone() for tensor in tensors), *(leaf.clone() for leaf in leaves))
            probes = [(value * _noise(value, noise)).sum() / _norm(value) for value in _outputs(outputs)]
            if not probes:
                raise RuntimeError("no output has a derivative by an input")
            torch.autograd.grad(torch.stack(probes).sum(), wanted, allow_unused=True)

    def run_node(self, n: fx.Node) -> Any:
        """Runs a node; a layer's output tells when its derivative is known, whatever overwrites it later."""
        layers = tuple(self._layers_of(self, n))
        result = super().run_node(n)
        output = result[0] if isinstance(result, tuple | list) else result
        for sensitivity, call in layers:
            if output.requires_grad:
                output.register_hook(partial(_add, sensitivity, call, output.detach().double().square().sum()))
        return result


def _add(sensitivity: Sensitivity, call: Contraction, energy: Tensor, gradient: Tensor) -> Tensor:
    """What goes on to earlier layers: without the places where there is no derivative, such as roots of silence."""
    with torch.no_grad():
        finite = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        sensitivity.add(call, energy, finite)
    return finite


def _outputs(outputs: Any) -> Iterator[Tensor]:
    """What a loss may depend on, complex numbers as pairs."""
    for value in _pytree.tree_leaves(outputs):
        if isinstance(value, Tensor) and value.requires_grad:
            yield torch.view_as_real(value) if value.is_complex() else value


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU, so that every device gets the same."""
    return torch.randn(like.shape, generator=generator).to(like)


def _norm(value: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(value.detach())
    return norm.clamp_min(torch.finfo(value.dtype).tiny)
