"""The exact masked program: with masks and full-size tensors it computes precisely what the pruned network computes.

Every op that contracts over channels multiplies that operand by its keep values, every statistic over channels is
weighted by them, and every number that the code computes from a size becomes a function of them; the rest of the
recorded graph is unchanged. With keep values of 0 and 1 the result equals the pruned network's to rounding. It is
differentiable in the keep values.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from prunegraph.capture.example import Nested
from prunegraph.errors import InputError
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.masked.builder import build_masked_graph
from prunegraph.masked.reads import DataReads, alike

_RECORDS = 8
"""Programs that are kept: a record holds no weights, but its graph."""


class MaskedProgram(nn.Module):
    """A network as a function of the keep values of its channels.

    Args:
        graph: the network's dependency graph; inputs must have the shapes of its example.
            The network's tensors are used as they are; gradients flow to the keep values only.
    """

    def __init__(self, graph: DependencyGraph) -> None:
        super().__init__()
        self.program: fx.GraphModule = build_masked_graph(graph)
        self._groups = graph.groups
        self._tensors = tuple(graph.weights[spec.name] for spec in graph.trace.tensors.values())
        self._is_parameter = tuple(spec.is_parameter for spec in graph.trace.tensors.values())
        self._input_shapes = graph.trace.input_shapes
        self._keywords = graph.trace.keywords
        self._output = graph.trace.output

    def forward(self, masks: Mapping[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """The network's output under the masks.

        Args:
            masks: group name -> keep values in [0, 1] of shape ``(width,)``; groups that are absent stay whole.
            *args: the network's positional arguments.
            **kwargs: the network's keyword arguments.

        Raises:
            InputError: a mask fits no group, or an input has another shape than the example of the record.
        """
        self._check(masks)
        inputs = Nested.of_call(args, kwargs, self._keywords).tensors
        shapes = [tuple(tensor.shape) for tensor in inputs]
        if shapes != self._input_shapes:
            raise InputError(f"the program was recorded for inputs of shape {self._input_shapes}, not {shapes}")
        return self._output.rebuild(self.run(self._keep(masks), inputs))

    def run(self, keep: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """The flat outputs for one vector of keep values over all groups, shape ``(channels,)``."""
        return list(self.program(*self.operands(keep, inputs)))

    def operands(self, keep: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """The program's flat arguments; buffers are copied, since a forward pass may write them."""
        pairs = zip(self._tensors, self._is_parameter, strict=True)
        tensors = [tensor if is_parameter else tensor.clone() for tensor, is_parameter in pairs]
        return [torch.cat([keep, keep.new_ones(1)]), *tensors, *(tensor.clone() for tensor in inputs)]

    def _check(self, masks: Mapping[str, torch.Tensor]) -> None:
        widths = {group.name: group.width for group in self._groups}
        for name, mask in masks.items():
            if name not in widths:
                raise InputError(f"there is no channel group named {name!r}; see graph.groups")
            if tuple(mask.shape) != (widths[name],):
                raise InputError(f"group {name!r} has {widths[name]} channels, its mask has shape {tuple(mask.shape)}")

    def _keep(self, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
        reference = next((t for t in self._tensors if t.is_floating_point()), self._tensors[0])
        dtype = torch.float64 if reference.dtype == torch.float64 else torch.float32
        parts = [
            masks[group.name].to(reference.device, dtype)
            if group.name in masks
            else torch.ones(group.width, dtype=dtype, device=reference.device)
            for group in self._groups
        ]
        return torch.cat(parts) if parts else torch.ones(0, dtype=dtype, device=reference.device)


class MaskedNetwork:
    """The exact masked program of a network for any inputs: recorded anew for those of another shape.

    So it is where the code reads other numbers out of the data, and may take another path.

    Args:
        model: the network.
        graph: its dependency graph, whose groups the masks are for.
    """

    def __init__(self, model: nn.Module, graph: DependencyGraph) -> None:
        self._model, self._groups = model, [(group.name, group.width) for group in graph.groups]
        self._records = deque([_Record(graph, None)], maxlen=_RECORDS)

    def __call__(self, masks: Mapping[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """The network's output under the masks, see `MaskedProgram`.

        Raises:
            InputError: with these inputs the network has other channel groups.
        """
        return self._record_of(args, kwargs).program(masks, *args, **kwargs)

    def graph_of(self, *args: Any, **kwargs: Any) -> DependencyGraph:
        """The network's dependency graph for these inputs.

        Raises:
            InputError: with these inputs the network has other channel groups.
        """
        return self._record_of(args, kwargs).graph

    def _record_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Record":
        tensors = Nested.of((args, kwargs)).tensors
        devices = {tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"}
        with torch.random.fork_rng(devices=sorted(devices)):  # what the code reads may be drawn
            return self._fitting(args, kwargs)

    def _fitting(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Record":
        record = next((record for record in self._records if record.fits(args, kwargs)), None)
        if record is None:
            record = self._recorded(args, kwargs)
            self._records.append(record)
        return record

    def _recorded(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Record":
        if args and kwargs:
            raise InputError("give inputs either by position or by keyword")
        graph = build_graph(self._model, kwargs or args)
        if [(group.name, group.width) for group in graph.groups] != self._groups:
            raise InputError(
                "with these inputs the network has other channel groups than with the example, whose shape is another, "
                "or whose values lead the code elsewhere; give an example like the data"
            )
        return _Record(graph, Nested.of_call(args, kwargs, graph.trace.keywords).tensors)


class _Record:
    """What was recorded for some inputs serves others of their shape of which the code reads the same.

    Args:
        graph: what was recorded.
        inputs: for which; None where nobody knows any more.
    """

    def __init__(self, graph: DependencyGraph, inputs: Sequence[torch.Tensor] | None) -> None:
        self.graph = graph
        self._shapes = graph.trace.input_shapes
        self._reads = DataReads(graph)
        self._read = None if inputs is None and self._reads else self._reads.of(inputs or ())

    @cached_property
    def program(self) -> MaskedProgram:
        return MaskedProgram(self.graph)

    def fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the code does with these inputs what was recorded."""
        inputs = Nested.of_call(args, kwargs, self.graph.trace.keywords).tensors
        if [tuple(tensor.shape) for tensor in inputs] != self._shapes or self._read is None:
            return False
        return all(map(alike, self._reads.of(inputs), self._read))
