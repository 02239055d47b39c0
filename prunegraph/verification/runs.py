"""What the pruned network must do wherever the original does it: train, and take other inputs than the example."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from prunegraph.capture.example import Nested
from prunegraph.capture.modes import in_mode
from prunegraph.capture.state import seeded
from prunegraph.errors import VerificationError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.plan import PruningPlan
from prunegraph.surgery.slicing import apply, copy_of
from prunegraph.verification.explaining import innermost_module
from prunegraph.verification.other_inputs import other_inputs

_Told = TypeVar("_Told")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runs:
    """Both networks, run side by side; errors name the groups whose removal is to blame.

    Attributes:
        model: the original network.
        pruned: the network to check.
        plan: what was removed.
        graph: the original's dependency graph.
        example: the inputs.
    """

    model: nn.Module
    pruned: nn.Module
    plan: PruningPlan
    graph: DependencyGraph
    example: Nested

    def outputs(self, model: nn.Module, tensors: Sequence[torch.Tensor] | None = None) -> tuple[torch.Tensor, ...]:
        """The tensors that a network returns for the example, or for other tensors in its place."""
        given = self.example.tensors if tensors is None else tensors
        args, kwargs = self.example.rebuild([tensor.clone() for tensor in given])
        with seeded(0, given):
            return Nested.of(model(*args, **kwargs)).tensors

    def backward(self) -> str:
        """The backward pass in eval mode; the original's tells only where the pruned network has none."""
        with suppress(Exception):
            return f"{self._backward(copy_of(self.pruned))} parameters receive gradients"
        ran = self._both(self._backward, copy_of, "has no backward pass, which the original has:")
        return f"{ran[1]} parameters receive gradients" if ran else "the original has no backward pass"

    def training(self) -> str:
        """Training mode with gradients, in which code may read sizes and layers that it else does not.

        Code that asks for the size of the batch may make something anew for another, so a batch of two is tried, too.
        """
        examples = [self.example, self.example.twice()] if self.graph.asks_for_batch else [self.example]
        ran = [self._trains(example.tensors) for example in examples]
        return "runs in training mode" if any(ran) else "the original does not run in training mode"

    def _trains(self, tensors: Sequence[torch.Tensor]) -> bool:
        expected: list[list[torch.Size]] = []

        @torch.enable_grad()
        def run(model: nn.Module) -> None:
            expected.append(self._output_shapes(model, tensors))
            if expected[-1] != expected[0]:
                raise ValueError("it returns other shapes than the original")

        failure = "fails in training mode, in which the original runs,"
        return self._both(run, lambda model: in_mode(copy_of(model), training=True), failure) is not None

    def other_inputs(self) -> str:
        """A batch of 2, less and more, where the original accepts them."""
        dense, pruned = copy_of(self.model), copy_of(self.pruned)
        ran = []
        for name, tensors in other_inputs(self.example):
            run = partial(self._output_shapes, tensors=tensors)
            shapes = self._shapes(run, dense, pruned, f"fails on a {name}, which the original accepts,")
            if shapes is None:  # the original need not accept such inputs
                continue
            if shapes[0] != shapes[1]:
                raise VerificationError(f"the pruned network returns other shapes than the original on a {name}")
            ran.append(name)
        return f"runs on {' and on '.join(ran)}" if ran else "the original accepts inputs of the example's shape only"

    def pruned_in(self, module: str) -> tuple[str, ...]:
        """The pruned groups that a module has to do with, or where that is none, the one that it belongs to."""
        found = self.of_plan(self.graph.groups_in(module))
        return found or (self.pruned_in(module.rpartition(".")[0]) if module else ())

    def of_plan(self, groups: Iterable[str]) -> tuple[str, ...]:
        """Those of the groups that the plan cuts."""
        return tuple(name for name in groups if len(self.plan.kept[name]) < self.plan.widths[name])

    def _both(
        self,
        run: Callable[[nn.Module], _Told],
        prepared: Callable[[nn.Module], nn.Module],
        failure: str,
    ) -> tuple[_Told, _Told] | None:
        """As `_shapes`; of the groups to blame those are named of which one channel less is enough to fail, if any."""
        try:
            return self._shapes(run, prepared(self.model), prepared(self.pruned), failure)
        except VerificationError as error:
            named, pruned = error.groups, self.of_plan(self.plan.kept)
            alone = self._failing_alone(named, run, prepared) or self._failing_alone(pruned, run, prepared)
            raise VerificationError(str(error), alone or named or pruned) from error

    def _failing_alone(
        self,
        groups: tuple[str, ...],
        run: Callable[[nn.Module], _Told],
        prepared: Callable[[nn.Module], nn.Module],
    ) -> tuple[str, ...]:
        """The groups of which one channel less is enough to fail.

        What only such a run reads is not recorded, and many more channels pass through the module that it belongs to.
        """
        found = []
        for name in groups:
            plan = self.graph.plan({name: range(1, self.plan.widths[name])})
            try:
                run(prepared(apply(self.model, plan)))
            except Exception:
                found.append(name)
        return tuple(found)

    def _shapes(
        self, run: Callable[[nn.Module], _Told], dense: nn.Module, pruned: nn.Module, failure: str
    ) -> tuple[_Told, _Told] | None:
        """What a run of both networks tells; None where the original does not run.

        Raises:
            VerificationError: only the pruned one does not; ``failure`` says what it does.
        """
        try:
            expected = run(dense)
        except Exception:
            return None
        try:
            found = run(pruned)
        except Exception as error:
            failing = innermost_module(pruned, error)
            raise VerificationError(
                f"the pruned network {failure} in {failing or '(network)'}: {type(error).__name__}: {error}",
                self.pruned_in(failing),
            ) from error
        return expected, found

    def _output_shapes(self, model: nn.Module, tensors: Sequence[torch.Tensor] | None = None) -> list[torch.Size]:
        return [tensor.shape for tensor in self.outputs(model, tensors)]

    def _backward(self, model: nn.Module) -> int:
        """How many parameters receive gradients."""
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            outputs = [t for t in self.outputs(model) if t.requires_grad]
            parameters = [p for p in model.parameters() if p.requires_grad]
            if not outputs or not parameters:
                return 0
            total = sum(output.abs().sum() for output in outputs)
            assert isinstance(total, torch.Tensor)
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return sum(gradient is not None for gradient in gradients)
