"""`verify`: proves that a pruned network is exactly the one that the plan chose."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from prunegraph.capture.clone import lasting_tensors, named_tensors
from prunegraph.capture.example import Nested, normalise_example
from prunegraph.capture.state import undisturbed
from prunegraph.capture.tracer import capture
from prunegraph.errors import CaptureError, PrunegraphError, VerificationError
from prunegraph.graph import DependencyGraph, build_graph, recorded_cost
from prunegraph.ir.outcome import Check, VerificationReport
from prunegraph.ir.plan import PruningPlan
from prunegraph.ir.trace import Site, Trace
from prunegraph.masked.program import MaskedProgram
from prunegraph.surgery.slicing import check_shapes, copy_of, planned_tensors, slice_tensor
from prunegraph.verification.data_reads import changed_reads, contraction_orders, newly_undefined, sizes_depend_on_data
from prunegraph.verification.differences import bit_equal, relative_difference
from prunegraph.verification.doubled import doubled, doubles_made, in_double
from prunegraph.verification.explaining import advice, describe
from prunegraph.verification.other_inputs import heard
from prunegraph.verification.replay import values_of_masked, values_of_trace
from prunegraph.verification.runs import Runs
from prunegraph.verification.values import Samples, diverging_value, masked_run

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def verify(
    model: nn.Module,
    pruned: nn.Module,
    plan: PruningPlan,
    example_inputs: Any,
    *,
    graph: DependencyGraph | None = None,
) -> VerificationReport:
    """Checks the pruned network against the original, the plan and the exact masked program.

    The plan removes whole channels; kept slices are bit-equal to the original's; parameters and MACs are those of
    the plan; forward and backward run and the outputs keep their shapes; the output equals the exact masked
    program's; a batch of another size, shorter and longer inputs, and training mode run if the original allows them.

    Args:
        model: the original network; left as it is.
        pruned: the network to check; left as it is.
        plan: what was to be removed.
        example_inputs: as for `build_graph`; noise takes the place of silence, which proves nothing.
        graph: the original's dependency graph, if it is at hand; it is built anew for inputs of other shapes.

    Raises:
        VerificationError: a check failed; names the tensor, or the first diverging node and its source line.
    """
    check = _Verification(model, pruned, plan, normalise_example(example_inputs), graph)
    with undisturbed(list(named_tensors(pruned).values())):
        return check.run()


class _Verification:
    def __init__(
        self, model: nn.Module, pruned: nn.Module, plan: PruningPlan, example: Nested, graph: DependencyGraph | None
    ) -> None:
        self.model, self.pruned, self.plan = model, pruned, plan
        noise = heard(example.tensors)
        self.arguments = example.arguments(example.tensors if noise is None else noise)
        self.example = normalise_example(self.arguments)
        # What the code does with silence may not be what it does with noise: the graph must be of the same run.
        serves = graph is not None and noise is None and _is_of(graph, self.example)
        self.graph = graph if graph is not None and serves else build_graph(model, self.arguments)
        self.steps = {node.name: step for step, node in enumerate(self.graph.trace.graph.nodes)}
        self.runs = Runs(model=model, pruned=pruned, plan=plan, graph=self.graph, example=self.example)
        self.checks: list[Check] = []

    @cached_property
    def masked(self) -> MaskedProgram:
        return MaskedProgram(self.graph)

    def run(self) -> VerificationReport:
        self._note("plan", self._check_plan())
        self._note("weights", self._check_weights())
        recorded = self._recorded()
        self._note("cost", self._check_cost(recorded))
        difference, tolerance = self._compare(recorded)
        self._note("output", f"differs from the exact masked program by {difference:.1e} (at most {tolerance:.0e})")
        self._note("backward", self.runs.backward())
        self._note("training", self.runs.training())
        self._note("other inputs", self.runs.other_inputs())
        return VerificationReport(checks=tuple(self.checks), difference=difference, tolerance=tolerance)

    def _note(self, name: str, detail: str) -> None:
        self.checks.append(Check(name=name, detail=detail))

    def _check_plan(self) -> str:
        """The plan's tensors and attributes follow from its kept channels."""
        try:
            check_shapes(self.model, self.plan)
            expected = self.graph.plan(self.plan.kept)
        except PrunegraphError as error:
            raise VerificationError(
                f"the plan does not fit the network: {error}{self._where_kept_is_wrong()}"
            ) from error
        # What a run leaves in a network was not there for the plan, or is not there now.
        left_once = expected.fleeting.keys() ^ self.plan.fleeting.keys()
        names = {*expected.tensors, *self.plan.tensors} - left_once
        wrong = [n for n in names if dict(expected.tensors.get(n, {})) != dict(self.plan.tensors.get(n, {}))]
        if wrong:
            name, where = self._first_use(wrong)
            raise VerificationError(f"the plan keeps other indices of {name} than its channels say; {where}")
        if set(expected.attributes) != set(self.plan.attributes):
            differing = sorted(set(expected.attributes) ^ set(self.plan.attributes), key=str)[0]
            raise VerificationError(f"the plan sets {differing.module}.{differing.name} wrongly: {differing}")
        return f"{sum(map(len, self.plan.kept.values()))} of {sum(self.plan.widths.values())} channels stay"

    def _where_kept_is_wrong(self) -> str:
        for group in self.graph.groups if isinstance(self.plan, PruningPlan) else ():
            if not set(self.plan.kept.get(group.name, ())) <= set(range(group.width)):
                return f"; {self._first_use([member.tensor for member in group.members])[1]}"
        return ""

    def _check_weights(self) -> str:
        """Every tensor of the pruned network is the original's, sliced, bit by bit."""
        ours, theirs = planned_tensors(self.model, self.plan), named_tensors(self.pruned)
        new = lasting_tensors(self.pruned).keys() - ours.keys()
        if new:
            raise VerificationError(f"{min(new)} of the pruned network is not in the original")
        wrong = [name for name, tensor in ours.items() if not self._is_slice(name, tensor, theirs.get(name))]
        if wrong:
            name, where = self._first_use(wrong)
            what = "is not the kept slice of the original" if name in theirs else "is missing"
            raise VerificationError(f"{name} of the pruned network {what}; {where}")
        return f"{len(ours)} tensors are bit-equal to the original's kept slices"

    def _is_slice(self, name: str, tensor: torch.Tensor, found: torch.Tensor | None) -> bool:
        kept = slice_tensor(tensor.detach(), self.plan.tensors.get(name, {}))
        return found is not None and found.shape == kept.shape and bit_equal(found, kept)

    def _recorded(self) -> Trace:
        try:
            return capture(self.pruned, self.arguments)
        except CaptureError as error:
            groups = self._pruned_around(error.module, error.line)
            raise VerificationError(
                f"the pruned network does not run: {error.failure}\n{advice(groups)}", groups
            ) from error
        except PrunegraphError as error:
            raise VerificationError(f"the pruned network does not run: {error}") from error

    def _pruned_around(self, module: str | None, line: tuple[str, int] | None) -> tuple[str, ...]:
        """The pruned groups that a line has to do with, or where that is none, its module."""
        at_line = self.runs.of_plan(self.graph.groups_at(*line)) if line else ()
        return at_line or (self.runs.pruned_in(module) if module is not None else ())

    def _check_cost(self, recorded: Trace) -> str:
        planned, measured = self.graph.cost(self.plan), recorded_cost(recorded)
        parameters = sum(parameter.numel() for parameter in self.pruned.parameters())
        if planned.parameters != parameters:
            raise VerificationError(
                f"the plan says {planned.parameters:,} parameters, the pruned network has {parameters:,}"
            )
        if planned.macs != measured.macs:
            self._refuse_changed_reads(sizes=False)
            if sizes_depend_on_data(recorded):
                return f"{planned.parameters:,} parameters, as planned; the data decide on the MACs"
            if contraction_orders(recorded) != contraction_orders(self.graph.trace):
                return f"{planned.parameters:,} parameters, as planned; {measured.macs:,} MACs, einsum reordered"
            raise VerificationError(f"the plan says {planned.macs:,} MACs, the pruned network has {measured.macs:,}")
        return f"{planned.macs:,} MACs and {planned.parameters:,} parameters, as planned"

    def _refuse_changed_reads(self, *, sizes: bool) -> None:
        """Raises where the code takes numbers out of data that are others without the channels; or sizes, if asked."""
        trace = self.graph.trace
        dense = values_of_trace(trace, self.graph.weights, self.example.tensors)
        masked = values_of_masked(self.masked, self._keep(), self.example.tensors)
        changed = list(changed_reads(trace, dense, masked, sizes=sizes))
        if changed:
            raise VerificationError(
                f"the code reads numbers out of data that are others with fewer channels; first: "
                f"{describe(self.graph, changed[0])}",
                self.runs.of_plan(self.graph.groups_before(changed)),
            )

    def _compare(self, recorded: Trace) -> tuple[float, float]:
        try:
            expected, values = masked_run(
                self.graph, self.masked, self.graph.kept_channels(self.plan.kept), self._keep(), self.example.tensors
            )
        except RuntimeError as error:
            self._refuse_changed_reads(sizes=True)
            raise VerificationError(f"the exact masked program does not run: {error}") from error
        found = self.runs.outputs(copy_of(self.pruned))
        shapes = [tuple(t.shape) for t in expected], [tuple(t.shape) for t in found]
        if shapes[0] != shapes[1]:
            raise VerificationError(f"the outputs have shapes {shapes[1]}, the original's have {shapes[0]}")
        difference, tolerance = relative_difference(found, expected), self._tolerance()
        if not difference <= tolerance:
            precise = self._compare_in_double()
            if precise is not None:
                return precise
            self._refuse_changed_reads(sizes=recorded.operations != self.graph.trace.operations)
            where, node = self._first_divergence(recorded, tolerance)
            site = self.graph.trace.site(node) if node is not None else Site()
            raise VerificationError(
                f"the pruned network's output differs from the exact masked program by {difference:.2e} "
                f"(at most {tolerance:.0e}); {where}",
                self._pruned_around(site.module, (site.file, site.line)),
            )
        self._refuse_undefined(recorded, found)
        self._refuse_diverging_values(values, recorded, tolerance)
        return difference, tolerance

    def _compare_in_double(self) -> tuple[float, float] | None:
        """The same in float64, for networks that make much of rounding; None where that fails, too."""
        if self._tolerance() != _TOLERANCE[torch.float32]:
            return None
        example = normalise_example(self.example.arguments([*map(in_double, self.example.tensors)]))
        try:
            with doubles_made():
                precise = _Verification(doubled(self.model), doubled(self.pruned), self.plan, example, None)
                return precise._compare(precise._recorded())
        except (PrunegraphError, RuntimeError):
            return None

    def _refuse_diverging_values(self, masked: Samples, recorded: Trace, tolerance: float) -> None:
        """Raises where a value on the way is wrong, be it hidden in the output behind what is much larger."""
        if tolerance > _TOLERANCE[torch.float32]:
            return
        node = diverging_value(self.graph, masked, recorded, named_tensors(self.pruned), self.example.tensors)
        if node is not None:
            site = self.graph.trace.site(node)
            raise VerificationError(
                f"a value within the pruned network is not that of the exact masked program, though the output differs "
                f"little; first diverging node: {describe(self.graph, node)}",
                self._pruned_around(site.module, (site.file, site.line)),
            )

    def _refuse_undefined(self, recorded: Trace, found: Sequence[torch.Tensor]) -> None:
        """Raises where the pruned network gives out infinities or NaN, as its masked program may, the original not."""
        if all(bool(tensor.isfinite().all()) for tensor in found):
            return
        dense = values_of_trace(self.graph.trace, self.graph.weights, self.example.tensors)
        pruned = values_of_trace(recorded, named_tensors(self.pruned), self.example.tensors)
        node = newly_undefined(self.graph.trace, dense, recorded, pruned)
        if node is None and not any(bool(tensor.isfinite().any()) for tensor in found):
            raise VerificationError(
                "the original gives out no finite number, so nothing is proved; try another example"
            )
        if node is not None:
            site = self.graph.trace.site(node)
            raise VerificationError(
                f"with these channels alone values are infinite or not numbers; first: {describe(self.graph, node)}",
                self._pruned_around(site.module, (site.file, site.line)),
            )

    def _tolerance(self) -> float:
        types = [p.dtype for p in self.model.parameters() if p.dtype in _TOLERANCE]
        return max((_TOLERANCE[dtype] for dtype in types), default=_TOLERANCE[torch.float32])

    def _keep(self) -> torch.Tensor:
        kept = torch.from_numpy(self.graph.kept_channels(self.plan.kept))
        reference = next(p for p in self.model.parameters())
        return kept.to(reference.device, torch.float64 if reference.dtype == torch.float64 else torch.float32)

    def _first_use(self, names: Iterable[str]) -> tuple[str, str]:
        """The tensor among the named ones that is read first, and where."""
        first: tuple[int, str, str] | None = None
        for name in sorted(names):
            node = self._reader(name)
            step = len(self.steps) if node is None else self.steps[node.name]
            if first is None or step < first[0]:
                where = "no node reads it" if node is None else f"first diverging node: {describe(self.graph, node)}"
                first = step, name, where
        assert first is not None
        return first[1:]

    def _reader(self, tensor: str) -> fx.Node | None:
        """The first node that reads a parameter or buffer."""
        specs = self.graph.trace.tensors
        for node in self.graph.trace.graph.nodes:
            spec = specs.get(node.name)
            if spec is not None and tensor in (spec.name, *spec.aliases):
                return min(node.users, key=lambda user: self.steps[user.name], default=None)
        return None

    def _first_divergence(self, recorded: Trace, tolerance: float) -> tuple[str, fx.Node | None]:
        """Runs both recorded graphs side by side."""
        ours = values_of_masked(self.masked, self._keep(), self.example.tensors)
        theirs = values_of_trace(recorded, named_tensors(self.pruned), self.example.tensors)
        kept = np.append(self.graph.kept_channels(self.plan.kept), True)[self.graph.channel_of]
        for node, other in zip(self.graph.trace.steps, recorded.steps, strict=False):
            if node.target != other.target and node.op == "call_function":
                return f"the networks take different paths from here: {describe(self.graph, node)}", node
            value = ours.get(node.name)
            if not isinstance(value, torch.Tensor) or not isinstance(theirs.get(other.name), torch.Tensor):
                continue
            for dim, atoms in enumerate(self.graph.labels.get(node.name) or ()):
                if atoms is not None:
                    stays = torch.from_numpy(np.flatnonzero(kept[atoms])).to(value.device)
                    value = value.index_select(dim, stays)
            if value.shape != theirs[other.name].shape or (
                not relative_difference([theirs[other.name]], [value]) <= tolerance
            ):
                return f"first diverging node: {describe(self.graph, node)}", node
        return "no single node diverges by more", None


def _is_of(graph: DependencyGraph, example: Nested) -> bool:
    """Whether the graph was recorded for inputs of the example's shapes."""
    return graph.trace.input_shapes == [tuple(tensor.shape) for tensor in example.tensors]
