"""Stand-ins for a network's layers: modules with the attributes that torch-pruning's importances read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import nn
from torch_pruning import ops
from torch_pruning.pruner.function import PrunerBox

from prunegraph.ir.channels import Member
from prunegraph.ir.trace import ModuleSpec
from prunegraph.plugin import GraphView

_CONTRACTIONS = (nn.modules.conv._ConvNd, nn.Linear)
_VECTORS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One side of a layer, as torch-pruning tells them apart.

    Attributes:
        layer: the stand-in.
        is_output: whether its outputs shrink, not its inputs.
    """

    layer: nn.Module
    is_output: bool

    @property
    def pruning_function(self) -> Callable[..., Any]:
        """The function by which torch-pruning names the side."""
        pruner = PrunerBox[ops.module2type(self.layer)]
        function: Callable[..., Any] = pruner.prune_out_channels if self.is_output else pruner.prune_in_channels
        return function


class Layers:
    """The stand-ins of one network; each is made when it is first asked for.

    Args:
        graph: tells the kinds of the network's modules.
        weights: parameter name -> tensor; the stand-ins share their memory where they have the same layout.
    """

    def __init__(self, graph: GraphView, weights: Mapping[str, torch.Tensor]) -> None:
        self._modules, self._weights = graph.modules, weights
        self._made = nn.ModuleList()
        self._by_key: dict[tuple[str, int], nn.Module] = {}
        self._sources: list[tuple[nn.Parameter, Callable[[Mapping[str, torch.Tensor]], torch.Tensor]]] = []

    def side(self, member: Member) -> Side | None:
        """The side of a layer that the member is; None for what torch-pruning does not look at by itself."""
        path, _, name = member.tensor.rpartition(".")
        if member.tensor not in self._weights:
            return None
        spec, rank = self._modules.get(path), self._weights[member.tensor].dim()
        if spec is not None and name in ("weight", "bias") and _is_known(spec.kind, name, rank):
            return self._side_of_module(spec, path, member.dim) if name == "weight" else None
        return self._side_of_matrix(member) if rank > 1 else None

    def give_gradients(
        self,
        gradients: Iterable[Mapping[str, torch.Tensor]],
        accumulate: Callable[[nn.Module], None] | None,
    ) -> None:
        """Leaves the mean gradient in ``.grad``; ``accumulate`` is called with each batch's gradient there."""
        means = [torch.zeros_like(parameter) for parameter, _ in self._sources]
        for number, batch in enumerate(gradients, 1):
            current = [source(batch) for _, source in self._sources]
            self._set_gradients(current)
            if accumulate is not None:
                accumulate(self._made)
            means = [mean + (new - mean) / number for mean, new in zip(means, current, strict=True)]
        self._set_gradients(means)

    def _set_gradients(self, gradients: Iterable[torch.Tensor]) -> None:
        for (parameter, _), gradient in zip(self._sources, gradients, strict=True):
            parameter.grad = gradient

    def _side_of_module(self, spec: ModuleSpec, path: str, dim: int) -> Side:
        layer = self._once((path, -1), lambda: self._module(spec, path))
        transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
        return Side(layer=layer, is_output=(dim == 0) != transposed)

    def _side_of_matrix(self, member: Member) -> Side:
        """A linear map whose outputs are the member's indices."""
        return Side(layer=self._once((member.tensor, member.dim), lambda: self._matrix(member)), is_output=True)

    def _once(self, key: tuple[str, int], make: Callable[[], nn.Module]) -> nn.Module:
        if key not in self._by_key:
            self._by_key[key] = make()
            self._made.append(self._by_key[key])
        return self._by_key[key]

    def _module(self, spec: ModuleSpec, path: str) -> nn.Module:
        layer = _bare(next(kind for kind in spec.kind.__mro__ if kind.__module__.startswith("torch.nn.modules.")))
        for name in ("weight", "bias"):
            tensor = f"{path}.{name}" if path else name
            self._register(layer, name, itemgetter(tensor) if tensor in self._weights else None)
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
            layer.in_channels, layer.out_channels = (
                spec.sizes.get(name, 1) for name in ("in_channels", "out_channels")
            )
            # Members count a grouped convolution's inputs within one group: only depthwise ones are told apart.
            layer.groups = layer.out_channels if spec.sizes.get("groups", 1) == layer.out_channels else 1
        elif not isinstance(layer, nn.Linear):
            vars(layer).update(affine=True, elementwise_affine=True)
        return layer

    def _matrix(self, member: Member) -> nn.Module:
        layer = _bare(nn.Linear)
        self._register(layer, "weight", lambda tensors: tensors[member.tensor].movedim(member.dim, 0).flatten(1))
        self._register(layer, "bias", None)
        return layer

    def _register(
        self, layer: nn.Module, name: str, source: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None
    ) -> None:
        if source is None:
            layer.register_parameter(name, None)
            return
        parameter = nn.Parameter(source(self._weights), requires_grad=False)
        self._sources.append((parameter, source))
        layer.register_parameter(name, parameter)


def _is_known(kind: type, name: str, rank: int) -> bool:
    return issubclass(kind, _CONTRACTIONS) or (issubclass(kind, _VECTORS) and rank == 1)


def _bare(kind: type[nn.Module]) -> nn.Module:
    """A module of this kind that no constructor has run on: there is nothing to initialise."""
    layer = kind.__new__(kind)
    nn.Module.__init__(layer)
    return layer
