"""The record of one forward pass: a torch.fx graph of ATen calls and what is known about each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx, nn

from prunegraph.ir.sizes import Expression

Place: TypeAlias = tuple[int | str, ...]
"""Where an argument stands in a call: ``(1, 2)`` is element 2 of argument 1, ``("scale",)`` a keyword argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The place in the user's code that made a call.

    Attributes:
        module: dotted path of the innermost running module; empty for the network itself.
        file: source file of the innermost frame that belongs to neither torch nor prunegraph.
        line: line number in that file.
        code: the text of that line.
    """

    module: str = ""
    file: str = ""
    line: int = 0
    code: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file else "unknown source"
        return f"{self.module or '(network)'} at {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One parameter or buffer of the network, or a tensor in an ordinary attribute, which is treated like a buffer.

    Attributes:
        name: its state-dict name (the first one, when tied); ``encoder.tables[0]`` in an ordinary attribute.
        aliases: the further names of a tied tensor.
        shape: its sizes.
        dtype: its element type.
        is_parameter: False for a buffer.
        is_lasting: False for a non-persistent buffer or a tensor in an ordinary attribute: a forward pass may have
            left there.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    is_lasting: bool = True


_ATEN = torch.ops.aten
DATA_READS = (_ATEN.item, _ATEN._local_scalar_dense, _ATEN.is_nonzero, _ATEN.equal, _ATEN.resolve_neg)
"""Ops that Python code ends with where it reads a tensor; ``tolist`` and ``numpy`` resolve signs first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSpec:
    """Shape and element type of one tensor of the graph."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sizes that the user's code compared, by one of `prunegraph.ir.sizes.RELATIONS`, and what came out."""

    left: Expression
    right: Expression
    relation: str
    outcome: bool

    @property
    def found_equal(self) -> bool:
        """Whether the sizes were compared for equality, and equal."""
        return self.relation == "==" and self.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """A module of the network as later stages need it: its class and its plain attributes.

    Attributes:
        path: dotted path of the module (the first one, when shared).
        aliases: the further paths of a shared module.
        kind: the class.
        sizes: tracked integer attributes, ``name -> value`` (containers are indexed: ``size[0]``).
    """

    path: str
    aliases: tuple[str, ...]
    kind: type
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnBackward:
    """A call of a custom ``torch.autograd.Function``: the ops in it are recorded, its backward pass is its own.

    Attributes:
        kind: the function.
        args: what it was given; names of nodes in the places of tensors.
        tensors: these places.
        outputs: names of the nodes of what it returned; empty for what is no tensor.
        last: name of the last node that it added.
    """

    kind: type[torch.autograd.Function]
    args: tuple[Any, ...]
    tensors: tuple[int, ...]
    outputs: tuple[str, ...]
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The record of one forward pass; nothing in it refers to a live module.

    Attributes:
        graph: ATen calls before autograd; one placeholder per parameter, buffer and input tensor.
        tensors: placeholder name -> parameter or buffer.
        inputs: placeholder names of the example's tensors, in the order of its flattened arguments.
        keywords: names of the example's keyword arguments, in their order.
        constants: tensors that the code made outside the network's parameters, by get_attr target.
        values: node name -> ValueSpec, a tuple of them for several outputs, or None for other values.
        sites: node name -> place in the user's code.
        sizes: node name -> argument path -> expression behind that number.
        comparisons: what the code compared sizes with, and the line that did so first.
        converted: sizes of which the code made ordinary numbers, by ``int`` or ``float``, and the line that did so.
        modules: every module of the network by path.
        unused: names of parameters and buffers that no call reads.
        without_gradient: names of the nodes that were called under ``torch.no_grad()``.
        own_backwards: calls of custom autograd functions.
        output: structure of the output, for rebuilding it from the graph's flat outputs.
        training: whether it is of a run in training mode, of which only sizes are compared.
    """

    graph: fx.Graph
    tensors: Mapping[str, TensorSpec]
    inputs: tuple[str, ...]
    keywords: tuple[str, ...]
    constants: Mapping[str, torch.Tensor]
    values: Mapping[str, Any]
    sites: Mapping[str, Site]
    sizes: Mapping[str, Mapping[Place, Expression]]
    comparisons: Mapping[Comparison, Site]
    converted: Mapping[Expression, Site]
    modules: Mapping[str, ModuleSpec]
    unused: frozenset[str]
    without_gradient: frozenset[str]
    own_backwards: tuple[OwnBackward, ...]
    output: Any
    training: bool = False

    def site(self, node: fx.Node) -> Site:
        """The place in the user's code that made the call of this node."""
        return self.sites.get(node.name, Site())

    def shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """The sizes of the node's value; None when it is not one tensor."""
        value = self.values.get(node.name)
        return value.shape if isinstance(value, ValueSpec) else None

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the example's tensors, in the order of ``inputs``."""
        return [self.values[name].shape for name in self.inputs]

    @property
    def steps(self) -> list[fx.Node]:
        """The calls and the constants, in order; what earlier runs left in a network adds none to them."""
        return [node for node in self.graph.nodes if node.op not in ("placeholder", "output")]

    @property
    def operations(self) -> list[Any]:
        """The ops that were called, in order."""
        return [node.target for node in self.graph.nodes if node.op == "call_function"]

    def as_module(self) -> fx.GraphModule:
        """The record as a module of the network's tensors and the example's, flat; it returns the flat outputs."""
        root = nn.Module()
        for name, constant in self.constants.items():
            root.register_buffer(name, constant, persistent=False)
        return fx.GraphModule(root, self.graph)
