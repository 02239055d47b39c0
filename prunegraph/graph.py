"""`build_graph` and `DependencyGraph`: channel groups of a network, what is locked, and what any choice costs."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from prunegraph.capture.caches import ColdRun, cold_run
from prunegraph.capture.clone import named_tensors
from prunegraph.capture.example import normalise_example
from prunegraph.capture.modes import asks_for_its_mode
from prunegraph.capture.torch_internals import ATTENTION_MODULES
from prunegraph.capture.tracer import as_it_is, capture
from prunegraph.cost.build import build_cost_model
from prunegraph.cost.model import CostModel
from prunegraph.dependency.branches import Branch, find_branches
from prunegraph.dependency.coupling import couple
from prunegraph.dependency.label_space import SizeUse
from prunegraph.dependency.other_runs import OtherRun, read_by, read_in_training, unread, with_tensors
from prunegraph.dependency.propagation import RuledCall, possible_sources, propagate
from prunegraph.dependency.size_uses import Solution, solve_for
from prunegraph.dependency.view import as_networkx
from prunegraph.errors import CaptureError, PlanError, UnsupportedModelError
from prunegraph.ir.channels import ChannelGroup, LockedGroup
from prunegraph.ir.cost import Cost
from prunegraph.ir.plan import AttributeUpdate, PruningPlan
from prunegraph.ir.sizes import attributes
from prunegraph.ir.trace import ModuleSpec, Trace
from prunegraph.plugin.manager import create_manager, load_op_rules
from prunegraph.rules.base import Atoms, Labels
from prunegraph.rules.book import RuleBook


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DependencyGraph:
    """What prunegraph knows about a network; holds no live module.

    Attributes:
        groups: the channel groups that can be pruned.
        locked: coupled channels that must stay, and why.
        without_rule: ops that prunegraph has no rule for and that channels meet -> number of calls; these are locked.
        weights: parameters and buffers by name, detached: they share the network's memory.
        trace: the recorded forward pass.
        calls: node name -> op call and its rule.
        labels: node name -> labels of its value.
        size_uses: the numbers in the user's code that count channels.
        branches: the sizes in the user's code that must remain unequal.
        channel_of: for each atom the number of its channel over all groups; -1 for what always stays.
        cost_model: costs of any choice of channels.
        asks_for_batch: whether code that runs in training mode asks for the size of the batch.
    """

    groups: tuple[ChannelGroup, ...]
    locked: tuple[LockedGroup, ...]
    without_rule: Mapping[str, int]
    weights: Mapping[str, torch.Tensor]
    trace: Trace
    calls: Mapping[str, RuledCall]
    labels: Mapping[str, Labels]
    size_uses: tuple[SizeUse, ...]
    branches: tuple[Branch, ...]
    channel_of: NDArray[np.int64]
    cost_model: CostModel
    asks_for_batch: bool

    def __repr__(self) -> str:
        counts = f"channels: {self._channels}, groups: {len(self.groups)}, locked: {len(self.locked)}"
        return f"DependencyGraph({counts}, coverage: {self.coverage:.1%})"

    @property
    def unused(self) -> frozenset[str]:
        """Names of parameters and buffers that the forward pass never reads; they stay as they are."""
        return self.trace.unused

    @property
    def coverage(self) -> float:
        """Share of the elements of parameters in use that lie in a tensor with at least one prunable dimension."""
        prunable = {member.tensor for group in self.groups for member in group.members}
        read = (s for s in self.trace.tensors.values() if s.is_parameter and s.name not in self.unused)
        sizes = {s.name: int(np.prod(s.shape)) for s in read}
        return sum(size for name, size in sizes.items() if name in prunable) / max(sum(sizes.values()), 1)

    def cost(self, plan: PruningPlan | None = None) -> Cost:
        """MACs, parameters and activation memory of one forward pass of the example, dense or under a plan.

        Raises:
            PlanError: the plan was made for another network.
        """
        if plan is None:
            return self.cost_model.evaluate(np.ones(self._channels, bool))
        if dict(plan.widths) != {group.name: group.width for group in self.groups}:
            raise PlanError("the plan was made for another network: it has other channel groups")
        return self.cost_model.evaluate(self.kept_channels(plan.kept))

    @property
    def modules(self) -> Mapping[str, ModuleSpec]:
        """Every module of the network by path."""
        return self.trace.modules

    def macs_and_parameters(self, kept: NDArray[np.bool_]) -> tuple[float, float]:
        """The two costs when channel i stays where ``kept[i]``, counted over all groups in their order."""
        return self.cost_model.macs_and_parameters(kept)

    def plan(self, kept: Mapping[str, Iterable[int]]) -> PruningPlan:
        """The plan that keeps the given channels; groups that are not named stay whole.

        Raises:
            PlanError: a group or channel does not exist, a group would lose its last channel, or two sizes would
                become equal that the code compares, which would turn a branch.
        """
        if not isinstance(kept, Mapping):
            raise PlanError(f"expected a dict from group names to kept channels, got {type(kept).__name__}")
        unknown = set(kept) - {group.name for group in self.groups}
        if unknown:
            raise PlanError(f"there is no channel group named {min(unknown, key=str)!r}; see graph.groups")
        choice = {group.name: self._checked(group, kept) for group in self.groups}
        self._refuse_turned_branch(choice)
        tensors = self._kept_indices(choice)
        specs = [(name, spec) for spec in self.trace.tensors.values() for name in (spec.name, *spec.aliases)]
        return PruningPlan(
            kept=choice,
            widths={group.name: group.width for group in self.groups},
            tensors=tensors,
            attributes=self._attribute_updates(choice),
            replaced=self._replaced(tensors),
            shapes={name: spec.shape for name, spec in specs if spec.is_lasting},
            fleeting={name: spec.shape for name, spec in specs if not spec.is_lasting and name in tensors},
        )

    def turned_branch(self, kept: Mapping[str, Sequence[int]]) -> Branch | None:
        """A comparison of sizes that would come out otherwise with these channels of every group."""
        value_of = self._solution(kept).value_of if self.branches else None
        return next((branch for branch in self.branches if value_of and branch.turns(value_of)), None)

    def groups_of(self, branch: Branch) -> tuple[str, ...]:
        """Names of the groups whose channels the branch counts."""
        return self.groups_among(branch.atoms)

    def groups_at(self, file: str, line: int) -> tuple[str, ...]:
        """Names of the groups whose channels go into or come out of the calls in a line of the user's code."""
        sites = ((node, self.trace.site(node)) for node in self.trace.graph.nodes)
        return self.groups_among(*self._atoms_of(node for node, s in sites if (s.file, s.line) == (file, line)))

    def groups_in(self, module: str) -> tuple[str, ...]:
        """Names of the groups whose channels go into or come out of a module's own calls, or that its sizes count."""
        sites = ((node, self.trace.sites.get(node.name)) for node in self.trace.graph.nodes)
        calls = (node for node, site in sites if site is not None and site.module == module)
        counted = [use.atoms for use in self.size_uses if module in {a.module for a in attributes(use.expression)}]
        return self.groups_among(*self._atoms_of(calls), *(atoms for atoms in counted if atoms is not None))

    def groups_before(self, nodes: Iterable[fx.Node]) -> tuple[str, ...]:
        """Names of the groups whose channels the values of these nodes depend on."""
        found = dict.fromkeys(nodes)
        waiting = list(found)
        while waiting:
            new = [node for node in waiting.pop().all_input_nodes if node not in found]
            found.update(dict.fromkeys(new))
            waiting += new
        return self.groups_among(*self._atoms_of(found))

    def groups_among(self, *atoms: Atoms) -> tuple[str, ...]:
        """Names of the groups that the atoms are channels of."""
        ends = np.cumsum([group.width for group in self.groups])
        channels = self.channel_of[np.concatenate([np.empty(0, np.int64), *(some.ravel() for some in atoms)])]
        numbers = np.searchsorted(ends, np.unique(channels[channels >= 0]), side="right")
        return tuple(self.groups[number].name for number in np.unique(numbers))

    def _atoms_of(self, calls: Iterable[fx.Node]) -> list[Atoms]:
        values = [value.name for call in calls for value in (call, *call.all_input_nodes)]
        return [atoms for value in values for atoms in self.labels.get(value) or () if isinstance(atoms, np.ndarray)]

    def kept_channels(self, kept: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
        """For each channel, counted over all groups in their order, whether it stays; shape ``(channels,)``."""
        parts = []
        for group in self.groups:
            stays = np.zeros(group.width, bool)
            stays[list(kept[group.name])] = True
            parts.append(stays)
        return np.concatenate(parts) if parts else np.empty(0, bool)

    def to_networkx(self) -> nx.Graph:
        """A bipartite graph of groups and tensor dimensions, see `prunegraph.dependency.view`."""
        return as_networkx(self.groups, self.locked)

    def to_graphml(self, path: str | Path) -> None:
        """Writes the networkx view as GraphML."""
        nx.write_graphml(self.to_networkx(), path)

    @property
    def _channels(self) -> int:
        return sum(group.width for group in self.groups)

    def _checked(self, group: ChannelGroup, kept: Mapping[str, Iterable[int]]) -> tuple[int, ...]:
        if group.name not in kept:
            return tuple(range(group.width))
        channels = tuple(sorted({_index(channel, group) for channel in _listed(kept[group.name], group)}))
        if not channels:
            raise PlanError(f"group {group.name!r} would lose all of its {group.width} channels; keep at least one")
        if channels[0] < 0 or channels[-1] >= group.width:
            stranger = channels[0] if channels[0] < 0 else channels[-1]
            raise PlanError(f"group {group.name!r} has channels 0 to {group.width - 1}, not {stranger}")
        return channels

    def _kept_indices(self, kept: Mapping[str, tuple[int, ...]]) -> dict[str, dict[int, tuple[int, ...]]]:
        specs = {spec.name: spec for spec in self.trace.tensors.values()}
        stays: dict[tuple[str, int], NDArray[np.bool_]] = {}
        for group in self.groups:
            gone = np.setdiff1d(np.arange(group.width), kept[group.name])
            for member in group.members if len(gone) else ():
                size = specs[member.tensor].shape[member.dim]
                stays.setdefault((member.tensor, member.dim), np.ones(size, bool))[member.indices[gone]] = False
        found: dict[str, dict[int, tuple[int, ...]]] = {}
        for (tensor, dim), mask in sorted(stays.items()):
            for name in (tensor, *specs[tensor].aliases):
                found.setdefault(name, {})[dim] = tuple(np.flatnonzero(mask).tolist())
        return found

    def _refuse_turned_branch(self, kept: Mapping[str, tuple[int, ...]]) -> None:
        branch = self.turned_branch(kept)
        if branch is not None:
            change, remedy = (
                ("are ordered otherwise", "more channels")
                if branch.is_of_order
                else ("become equal", "one channel more or less")
            )
            raise PlanError(
                f"two sizes that are compared in {branch.site} {change} with these channels, and the network would "
                f"take another branch; keep {remedy} in {' or '.join(self.groups_of(branch))}"
            )

    def _solution(self, kept: Mapping[str, Sequence[int]]) -> Solution:
        return solve_for(self.size_uses, self.labels, np.append(self.kept_channels(kept), True)[self.channel_of])

    def _attribute_updates(self, kept: Mapping[str, tuple[int, ...]]) -> tuple[AttributeUpdate, ...]:
        solution = self._solution(kept)
        if solution.conflicts:
            use = solution.conflicts[0].use
            raise PlanError(
                f"the size {use.size} given to {use.op} in {use.site} cannot follow this choice of channels"
            )
        return tuple(
            AttributeUpdate(module=attribute.module, name=attribute.name, old=attribute.value, new=value)
            for attribute, value in solution.values.items()
            if value != attribute.value
        )

    def _replaced(self, tensors: Mapping[str, object]) -> tuple[str, ...]:
        """Attention modules with a tensor that shrinks: torch's own assumes equal inner and outer widths."""
        return tuple(
            path
            for path, module in self.trace.modules.items()
            if module.kind in ATTENTION_MODULES and any(name.startswith(f"{path}.") for name in tensors)
        )


def _listed(channels: Any, group: ChannelGroup) -> list[Any]:
    if isinstance(channels, str) or not isinstance(channels, Iterable):
        raise PlanError(f"the kept channels of group {group.name!r} must be listed, not {channels!r}")
    return list(channels)


def _index(channel: Any, group: ChannelGroup) -> int:
    """A channel's number; neither 1.5 nor True is one."""
    try:
        if not isinstance(channel, bool | np.bool_):
            return operator.index(channel)
    except TypeError:
        pass
    raise PlanError(f"the kept channels of group {group.name!r} are listed by number; {channel!r} is none")


def build_graph(model: nn.Module, example_inputs: Any) -> DependencyGraph:
    """Records one forward pass and finds which channels are coupled.

    Args:
        model: any network; it is left untouched.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.

    Raises:
        UnsupportedModelError: the network cannot be pruned as it is; says what to do.
        InputError: the example is not of one of the three kinds.
        CaptureError: the forward pass failed; names the module and the line.
    """
    trace = capture(model, example_inputs)
    graph = analyse(model, trace, [*_runs_in_training(model, example_inputs, trace)])
    run = cold_run(model, example_inputs, _held(graph))
    cold = None if run is None else _cold_run(model, run)
    if run is None or cold is None:
        return graph
    return analyse(model, trace, [*_runs_in_training(model, example_inputs, trace, run.prepare), cold])


def _runs_in_training(
    model: nn.Module, example_inputs: Any, trace: Trace, prepare: Callable[[nn.Module], None] = as_it_is
) -> Iterator[OtherRun]:
    """Tell what comes and goes together where training runs other code; nothing where the network cannot train.

    Where that asks for the size of the batch, it may make something anew for another: a batch of two runs as well.
    ``prepare`` takes away what earlier runs left in the network.
    """
    if not unread(trace) and not asks_for_its_mode(model):
        return
    example = normalise_example(example_inputs)
    for inputs in (example, example.twice()):
        try:
            training = capture(model, inputs.arguments(inputs.tensors), training=True, prepare=prepare)
        except (CaptureError, UnsupportedModelError):
            continue
        run = _other_run(training, locks=read_in_training(trace, training))
        yield run
        if not run.asks_for_batch:
            return


def _held(graph: DependencyGraph) -> dict[str, bool]:
    """Tensors that an earlier run may have left, and whether they may be computed from what this one did not read."""
    prunable = {member.tensor for group in graph.groups for member in group.members}
    tensors = (spec for spec in graph.trace.tensors.values() if not spec.is_parameter)
    doubtful = {spec.name: bool(possible_sources(graph.trace, spec)) for spec in tensors}
    return {name: doubt for name, doubt in doubtful.items() if doubt or name in prunable}


def _cold_run(model: nn.Module, run: ColdRun) -> OtherRun | None:
    """A run that makes anew what an earlier one left in the network, where channels of that are prunable."""
    try:
        cold = capture(model, run.example.arguments(run.example.tensors), prepare=run.prepare)
    except CaptureError:
        return None
    return _other_run(cold, locks=read_by(cold))


def _other_run(trace: Trace, locks: frozenset[str]) -> OtherRun:
    coupling = couple(trace, RuleBook(load_op_rules(create_manager())))
    return OtherRun.of(coupling.found.space, coupling.turned, read_by(trace), locks)


def analyse(model: nn.Module, trace: Trace, others: Sequence[OtherRun] = ()) -> DependencyGraph:
    """Finds which channels are coupled from one recorded forward pass of ``model``.

    Args:
        model: the network.
        trace: the record of it.
        others: what other runs of it tell.
    """
    read_elsewhere = frozenset[str]().union(*(other.tensors for other in others))
    shaped = frozenset(spec.name for spec in trace.tensors.values() if spec.shape)
    trace = with_tensors(trace, shaped & read_elsewhere)
    coupling = couple(trace, RuleBook(load_op_rules(create_manager())), others)
    found, grouping = coupling.found, coupling.grouping
    branches = find_branches(trace, found.space.uses, found.labels)
    tensors = named_tensors(model)
    return DependencyGraph(
        groups=grouping.groups,
        locked=grouping.locked,
        without_rule=found.without_rule,
        weights=MappingProxyType({spec.name: tensors[spec.name].detach() for spec in trace.tensors.values()}),
        trace=trace,
        calls=found.calls,
        labels=found.labels,
        size_uses=tuple(found.space.uses),
        branches=tuple(b for b in branches if (grouping.channel_of[b.atoms] >= 0).any()),
        channel_of=grouping.channel_of,
        cost_model=build_cost_model(trace, found, grouping.channel_of),
        asks_for_batch=any(other.asks_for_batch for other in others),
    )


def recorded_cost(trace: Trace) -> Cost:
    """MACs, parameters and activation memory of a recorded network as it is; what could be pruned is not asked."""
    found = propagate(trace, RuleBook(load_op_rules(create_manager())), {})
    nothing_prunable = np.full(found.space.count, -1, np.int64)
    return build_cost_model(trace, found, nothing_prunable).evaluate(np.ones(0, bool))
