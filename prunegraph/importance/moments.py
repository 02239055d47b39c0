"""Second moments of what layers read, and of what their errors do, on the recorded forward pass."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx

from prunegraph.contractions import Contraction, contractions
from prunegraph.errors import CriterionError, InputError
from prunegraph.graph import DependencyGraph
from prunegraph.importance.batches import GraphOf, batches_of, graph_for, pair_of, recorded_inputs
from prunegraph.importance.effects import Probe, Sensitivity, relative
from prunegraph.plugin.contracts import LayerMoments

BATCHES = 8
"""How many batches of the data are looked at: a minute of audio or so."""

MOST_NUMBERS = 2**24
"""Layers with more moments than this, 128 MiB of them, are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputMoments:
    """What each layer that reads a channel group reads over the first batches of the data.

    Convolutions, transposed ones without groups and dilation, linear maps, and what the first layer of a recurrent
    network reads of its input, unless they read thousands of features; their weights may be computed from parameters,
    as by weight norm. A layer that is used several times sums over its uses. The record of the network is run, in eval
    mode and on copies of its tensors: once for what is read, and once with derivatives, for what errors in the outputs
    of the layers do. Where it cannot be differentiated, each layer's errors count relative to its output.

    Attributes:
        graph: the network's dependency graph.
        data: batches ``(inputs, targets)`` on the network's device, the inputs as for `build_graph`.
        graph_of: the graph for inputs of other shapes than the example's; without it all batches have those.

    Raises:
        InputError: while it is gone through: there is no batch, a batch is no pair, has other shapes than the
            example, or cannot be run.
        CriterionError: while it is gone through: a layer meets values that are not finite; names its weight.
    """

    graph: DependencyGraph
    data: Iterable[tuple[Any, Any]]
    graph_of: GraphOf | None = None

    def __iter__(self) -> Iterator[LayerMoments]:
        """Goes through the data, then gives one layer after the other, in the order of their first use."""
        readings: dict[DependencyGraph, _Reading] = {}
        layers: _Layers = {}
        noise = torch.Generator().manual_seed(0)
        for number, batch in enumerate(islice(batches_of(self.data), BATCHES)):
            where = f"batch {number} of the data"
            inputs, _ = pair_of(batch, where)
            graph = graph_for(inputs, self.graph, self.graph_of)
            if graph not in readings:
                readings[graph] = _Reading(graph, layers)
            readings[graph].add(inputs, where, noise)
        yield from (layer.moments() for layer in layers.values() if layer.is_counted)


class _Reading(fx.Interpreter):
    """Runs the record and adds up what layers read."""

    def __init__(self, graph: DependencyGraph, layers: "_Layers") -> None:
        super().__init__(graph.trace.as_module())
        self.source, self.layers = graph, layers
        self.varying = _depend_on_inputs(graph)
        self.probe = Probe(graph.trace, self._sensitivities)

    @torch.no_grad()
    def add(self, inputs: Any, where: str, noise: torch.Generator) -> None:
        given = recorded_inputs(self.source.trace, inputs, where)
        tensors = [self.source.weights[spec.name] for spec in self.source.trace.tensors.values()]
        try:
            # Copies, since a forward pass may write to buffers, inputs and even weights.
            self.run(*(tensor.detach().clone() for tensor in (*tensors, *given)))
        except RuntimeError as error:
            raise InputError(f"the network cannot be run on {where}: {error}") from error
        try:
            self.probe.add(tensors, given, noise)
        except RuntimeError:
            for layer in self.layers.values():
                layer.sensitivity = None

    def run_node(self, n: fx.Node) -> Any:
        for weight, call in _contractions(self, n):
            key = self._key(weight, call)
            if key not in self.layers and weight not in self.varying:
                self.layers[key] = _Layer(key[0], self._channels(call, weight))
            if key in self.layers:
                self.layers[key].add(call)
        return super().run_node(n)

    def _key(self, weight: fx.Node, call: Contraction) -> tuple[str, type]:
        """A tied filter bank is convolved with, and convolved back: two layers."""
        spec = self.source.trace.tensors.get(weight.name)
        return spec.name if spec else weight.name, type(call)

    def _sensitivities(self, running: fx.Interpreter, n: fx.Node) -> Iterator[tuple[Sensitivity, Contraction]]:
        for weight, call in _contractions(running, n):
            layer = self.layers.get(self._key(weight, call))
            if layer is not None and layer.is_counted and layer.sensitivity is not None:
                yield layer.sensitivity, call

    def _channels(self, call: Contraction, weight: fx.Node) -> Mapping[str, NDArray[np.int64]]:
        """The groups along the weight's input dimension -> where each of their channels is, ``(width, places)``."""
        atoms = (self.source.labels.get(weight.name) or {call.input_dim: None})[call.input_dim]
        if atoms is None or not call.weight.is_floating_point():
            return {}
        numbers, start, found = self.source.channel_of[atoms], 0, {}
        for group in self.source.groups:
            places = np.flatnonzero((numbers >= start) & (numbers < start + group.width))
            counts = np.bincount(numbers[places] - start, minlength=group.width)
            if counts.min() == counts.max() > 0:
                found[group.name] = places[np.argsort(numbers[places], kind="stable")].reshape(group.width, -1)
            start += group.width
        return found


def _contractions(running: fx.Interpreter, n: fx.Node) -> Iterator[tuple[fx.Node, Contraction]]:
    """What a node of a running record contracts, each with the node of its weight."""
    if isinstance(n.target, torch._ops.OpOverload):
        args, kwargs = running.fetch_args_kwargs_from_env(n)
        # The op by its name in torch: unlike the ATen call it takes numbers for lists of one.
        name = n.target.overloadpacket.__name__
        function = getattr(torch, name, getattr(F, name, None))
        for call in contractions(function, args, kwargs) if function else ():
            yield next(node for node in n.all_input_nodes if running.env[node] is call.weight), call


class _Layer:
    """The sum of z z' over all uses of one weight, with z = (1, x)."""

    def __init__(self, name: str, channels: Mapping[str, NDArray[np.int64]]) -> None:
        self.name, self.channels = name, channels
        self.gram: Tensor | None = None
        self.is_counted = bool(channels)
        self.sensitivity: Sensitivity | None = None

    def add(self, call: Contraction) -> None:
        for chunk in call.chunks(call.output()) if self.is_counted else ():
            if self.gram is None:
                self._begin(call, chunk.windows.shape[2] + 1, chunk.outputs.shape[2])
            if self.gram is None or chunk.blocks.start == len(self.gram):
                return
            z = F.pad(chunk.windows, (1, 0), value=1.0)
            self.gram[chunk.blocks] += z.mT @ z

    def _begin(self, call: Contraction, size: int, outputs: int) -> None:
        blocks = 1 if call.same_windows else call.blocks
        self.is_counted = blocks * size**2 <= MOST_NUMBERS
        if not self.is_counted:
            return
        self.gram = call.weight.new_zeros(blocks, size, size, dtype=torch.float64)
        self.has_bias, self.same_windows = call.bias is not None, call.same_windows
        self.coefficients, self.features = _as_matrices(call, size - 1, outputs)
        self.sensitivity = Sensitivity(diagonal=call.blocks * outputs**2 > MOST_NUMBERS)

    def moments(self) -> LayerMoments:
        assert self.gram is not None
        if not bool(self.gram.isfinite().all()):
            raise CriterionError(f"{self.name} meets values that are not finite on the data: mend the data")
        ones, sums, products = self.gram[:, :1, :1], self.gram[:, 1:, :1], self.gram[:, 1:, 1:]
        moments = (products - sums @ sums.mT / ones if self.has_bias else products) / ones
        coefficients = self._with_one_window(self.coefficients)
        energy = (coefficients * (moments @ coefficients)).sum()
        known = self.sensitivity
        effects = relative(self.coefficients, energy) if known is None else known.times_root(self.coefficients, energy)
        return LayerMoments(
            weight=self.name,
            moments=moments,
            coefficients=coefficients,
            effects=self._with_one_window(effects),
            features={name: self.features[places].reshape(len(places), -1) for name, places in self.channels.items()},
        )

    def _with_one_window(self, coefficients: Tensor) -> Tensor:
        """One block with the outputs of all, where they read the same."""
        return coefficients.transpose(0, 1).flatten(1)[None] if self.same_windows else coefficients


_Layers: TypeAlias = dict[tuple[str, type], _Layer]


def _as_matrices(call: Contraction, features: int, outputs: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Coefficients ``(blocks, features, outputs)``, and the features of each input index, ``(inputs, taps)``."""
    shape = call.blocks, features, outputs
    place = call.as_weight(torch.arange(call.blocks * features * outputs, device=call.weight.device).reshape(shape))
    coefficients = call.weight.new_zeros(place.new_empty(shape).numel(), dtype=torch.float64)
    coefficients[place.flatten()] = call.weight.detach().double().flatten()
    read = (place.movedim(call.input_dim, 0).flatten(1) // outputs % features).cpu().numpy()
    return coefficients.reshape(shape), np.stack([np.unique(row) for row in read])


def _depend_on_inputs(graph: DependencyGraph) -> frozenset[fx.Node]:
    """Values that are not the same in each forward pass."""
    found: set[fx.Node] = set()
    for node in graph.trace.graph.nodes:
        if node.name in graph.trace.inputs or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return frozenset(found)
