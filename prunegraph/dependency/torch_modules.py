"""The size attributes that torch's own modules keep beside their tensors, as further uses of those sizes."""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from prunegraph.dependency.label_space import LabelSpace, SizeUse
from prunegraph.ir.sizes import Attribute, Constant, Expression, Operation
from prunegraph.ir.trace import ModuleSpec, Site

_GATES = {nn.LSTM: 4, nn.GRU: 3, nn.LSTMCell: 4, nn.GRUCell: 3, nn.RNN: 1, nn.RNNCell: 1}

_USUAL: Mapping[type[nn.Module], Sequence[tuple[str, str, int]]] = {
    nn.Linear: (("in_features", "weight", 1), ("out_features", "weight", 0)),
    nn.Bilinear: (("out_features", "weight", 0), ("in1_features", "weight", 1), ("in2_features", "weight", 2)),
    nn.modules.batchnorm._NormBase: (("num_features", "weight", 0), ("num_features", "running_mean", 0)),
    nn.GroupNorm: (("num_channels", "weight", 0),),
    nn.PReLU: (("num_parameters", "weight", 0),),
    nn.Embedding: (("embedding_dim", "weight", 1),),
}
"""Attributes that are a size of a tensor: their names, the tensor and the dimension."""


def add_module_sizes(space: LabelSpace) -> None:
    """Adds a size use for each usual attribute: ``conv.out_channels`` counts dimension 0 of ``conv.weight``."""
    names = {name: spec for spec in space.trace.tensors.values() for name in (spec.name, *spec.aliases)}
    for module in space.trace.modules.values():
        try:
            usual = list(_usual_sizes(module))
        except KeyError:  # a size that is no whole number, such as a tensor of one
            continue
        for expression, tensor, dim in usual:
            spec = next((names[name] for name in _names(module.path, tensor) if name in names), None)
            if spec is None or dim >= len(spec.shape):
                continue
            space.uses.append(
                SizeUse(
                    expression=expression,
                    atoms=space.tensor_labels[spec.name][dim],
                    size=spec.shape[dim],
                    op=module.kind.__name__,
                    site=Site(module=module.path),
                )
            )


def _names(path: str, tensor: str) -> Iterator[str]:
    """Where a module's tensor may stand: spectral norm, weight norm and parametrizations keep it under other names.

    Spectral norm has a ``weight_v``, too: a vector.
    """
    prefix = f"{path}." if path else ""
    for suffix in ("", "_orig", "_v"):
        yield f"{prefix}{tensor}{suffix}"
    for original in ("original", "original1"):
        yield f"{prefix}parametrizations.{tensor}.{original}"


def _usual_sizes(module: ModuleSpec) -> Iterator[tuple[Expression, str, int]]:
    """(expression over the module's attributes, tensor, dimension) for each usual size."""
    kind = module.kind
    for kinds, sizes in _USUAL.items():
        if issubclass(kind, kinds):
            yield from ((_attribute(module, name), tensor, dim) for name, tensor, dim in sizes)
    if issubclass(kind, nn.modules.conv._ConvTransposeNd):
        yield _attribute(module, "in_channels"), "weight", 0
        yield _per_group(module, "out_channels"), "weight", 1
    elif issubclass(kind, nn.modules.conv._ConvNd):
        yield _attribute(module, "out_channels"), "weight", 0
        yield _per_group(module, "in_channels"), "weight", 1
    elif issubclass(kind, nn.LayerNorm | nn.RMSNorm):
        for dim in range(sum(name.startswith("normalized_shape[") for name in module.sizes)):
            yield _attribute(module, f"normalized_shape[{dim}]"), "weight", dim
    elif issubclass(kind, nn.RNNBase | nn.RNNCellBase):
        yield from _recurrent_sizes(module)


def _recurrent_sizes(module: ModuleSpec) -> Iterator[tuple[Expression, str, int]]:
    suffix = "_l0" if issubclass(module.kind, nn.RNNBase) else ""
    gates = next(count for kind, count in _GATES.items() if issubclass(module.kind, kind))
    yield _attribute(module, "input_size"), f"weight_ih{suffix}", 1
    yield Operation("mul", (_attribute(module, "hidden_size"), Constant(gates))), f"weight_ih{suffix}", 0
    if module.sizes.get("proj_size"):
        yield _attribute(module, "proj_size"), f"weight_hr{suffix}", 0


def _attribute(module: ModuleSpec, name: str) -> Attribute:
    return Attribute(module.path, name, module.sizes[name])


def _per_group(module: ModuleSpec, name: str) -> Operation:
    return Operation("truediv", (_attribute(module, name), _attribute(module, "groups")))
