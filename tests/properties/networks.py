"""Random small networks over the whole rule set: plain data, a strategy that draws it, and `build`.

A `NetworkSpec` holds a tree of `Block` and `Join`; its ``repr`` is the code that makes it again, so that a network that
once failed is kept by pasting what hypothesis printed.
"""

import contextlib
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.properties import (
    blocks_affine,
    blocks_attention,
    blocks_habits,
    blocks_indexing,
    blocks_layout,
    blocks_norm,
    blocks_pointwise,
    blocks_reduction,
    blocks_sequence,
    blocks_spectral,
)
from tests.properties.blocks_topology import TOPOLOGIES, width_of

_FAMILIES = (
    blocks_affine,
    blocks_norm,
    blocks_pointwise,
    blocks_reduction,
    blocks_layout,
    blocks_sequence,
    blocks_attention,
    blocks_spectral,
    blocks_indexing,
    blocks_habits,
)
BLOCKS: types.MappingProxyType[str, type[nn.Module]] = types.MappingProxyType(
    {block.__name__: block for family in _FAMILIES for block in family.BLOCKS}
)
JOINS: types.MappingProxyType[str, type[nn.Module]] = types.MappingProxyType({t.__name__: t for t in TOPOLOGIES})

WIDTHS = (4, 6, 5, 8, 12, 9)
WIDEST = 32
"""Features wider than this are brought down by a 1x1 convolution, so that networks stay small."""

Options: TypeAlias = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Block:
    """One block of `BLOCKS` by class name; ``width`` is its inner or output width."""

    kind: str
    width: int
    options: Options = ()


@dataclass(frozen=True)
class Join:
    """Blocks joined by a topology of `JOINS`."""

    kind: str
    parts: "tuple[Block | Join, ...]"
    options: Options = ()


@dataclass(frozen=True)
class NetworkSpec:
    """A network: an input layer, a body and an output layer.

    Attributes:
        body: What the network does to its features.
        width: Channels of the features that enter the body.
        channels: Channels of the input; 0 for a waveform ``(batch, time)``.
        sources: Channels of the output.
        batch: Size of the batch.
        time: Length of the input.
        encoder: How features are made of the input.
        decoder: How the output is made of features.
        inputs: A tensor, a tuple of two tensors, or a dict of keyword arguments.
        outputs: A tensor, or a dict that holds the features too.
        training: Whether the network is handed over in training mode.
        seed: Of weights, inputs and plans.
    """

    body: Block | Join
    width: int = 4
    channels: int = 1
    sources: int = 1
    batch: int = 1
    time: int = 8
    encoder: Literal["conv", "strided"] = "conv"
    decoder: Literal["conv", "linear", "transposed"] = "conv"
    inputs: Literal["tensor", "tuple", "dict"] = "tensor"
    outputs: Literal["tensor", "dict"] = "tensor"
    training: bool = False
    seed: int = 0


CONDITION_WIDTH = 3


class Network(nn.Module):
    """The module of a `NetworkSpec`; output ``(batch, sources, time)``."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        stride = 2 if spec.encoder == "strided" else 1
        self.encoder = nn.Conv1d(spec.channels or 1, spec.width, 2 * stride + 1, stride=stride, padding=stride)
        self.condition = nn.Linear(CONDITION_WIDTH, spec.width)
        self.body = _make(spec.body, spec.width)
        width = width_of(self.body)
        self.is_linear = spec.decoder == "linear"
        kinds: dict[str, Callable[[], nn.Module]] = {
            "conv": lambda: nn.Conv1d(width, spec.sources, 1),
            "linear": lambda: nn.Linear(width, spec.sources),
            "transposed": lambda: nn.ConvTranspose1d(width, spec.sources, 3, padding=1),
        }
        up = nn.Upsample(scale_factor=2) if spec.encoder == "strided" else nn.Identity()
        self.decoder = nn.ModuleList([up, kinds[spec.decoder]()])
        self.returns_features = spec.outputs == "dict"

    def forward(self, mixture: Tensor, condition: Tensor | None = None) -> Any:
        time = mixture.shape[-1]
        features = self.encoder(mixture.unsqueeze(1) if mixture.dim() == 2 else mixture)
        if condition is not None:
            features = features + self.condition(condition).unsqueeze(-1)
        features = self.body(features)
        up, layer = self.decoder
        x = up(features)[..., :time]
        estimate = layer(x.transpose(1, 2)).transpose(1, 2) if self.is_linear else layer(x)
        return {"estimate": estimate, "features": [features]} if self.returns_features else estimate


def build(spec: NetworkSpec, dtype: torch.dtype = torch.float64) -> tuple[Network, Any]:
    """The network and its example inputs, the same ones at every call; the random generator stays as it was."""
    with torch.random.fork_rng(devices=[]), _default_dtype(dtype):
        torch.manual_seed(spec.seed)
        model = Network(spec).train(spec.training)
        _make_channels_differ(model)
        mixture = torch.randn(*((spec.batch, spec.channels) if spec.channels else (spec.batch,)), spec.time)
        condition = torch.randn(spec.batch, CONDITION_WIDTH)
    if spec.inputs == "tensor":
        return model, mixture
    if spec.inputs == "tuple":
        return model, (mixture, condition)
    return model, {"mixture": mixture, "condition": condition}


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The output tensors for inputs as `build` gives them."""
    if isinstance(inputs, dict):
        return outputs_of(model(**inputs))
    return outputs_of(model(*inputs) if isinstance(inputs, tuple) else model(inputs))


def outputs_of(returned: Any) -> list[Tensor]:
    """The tensors in what a `Network` returns; the estimate is the first."""
    return [returned["estimate"], *returned["features"]] if isinstance(returned, dict) else [returned]


def leaves(node: Block | Join) -> Iterator[Block]:
    """The blocks of a body."""
    if isinstance(node, Block):
        yield node
    else:
        for part in node.parts:
            yield from leaves(part)


def _make(node: Block | Join, channels: int) -> nn.Module:
    if isinstance(node, Block):
        module = BLOCKS[node.kind](channels, node.width, **dict(node.options))
    else:
        parts = [lambda width, part=part: _make(part, width) for part in node.parts]
        module = JOINS[node.kind](channels, parts, **dict(node.options))
    return module if width_of(module) <= WIDEST else _Narrowed(module)


class _Narrowed(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.out_channels = max(WIDTHS)
        self.module = module
        self.conv = nn.Conv1d(width_of(module), self.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.module(x))


def _make_channels_differ(model: nn.Module) -> None:
    """What starts as a constant (the scales and biases of norms) would hide that channels were mixed up."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 0 and (parameter == parameter.flatten()[0]).all():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --- strategies --------------------------------------------------------------------------------------------------


def choices(kind: type[nn.Module]) -> dict[str, tuple[Any, ...]]:
    """The options of a block or topology and their values: the ``Literal`` arguments of its constructor."""
    hints = typing.get_type_hints(kind.__init__)
    return {name: values for name, hint in hints.items() if (values := _literals(hint))}


def _literals(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(value for member in typing.get_args(hint) for value in _literals(member))
    return ()


def _options(kind: type[nn.Module]) -> st.SearchStrategy[Options]:
    named = [st.tuples(st.just(name), st.sampled_from(values)) for name, values in choices(kind).items()]
    return st.tuples(*named)


def _blocks() -> st.SearchStrategy[Block]:
    widths = st.sampled_from(WIDTHS)
    return _one_of([st.builds(Block, st.just(name), widths, _options(kind)) for name, kind in BLOCKS.items()])


def _joins(inner: st.SearchStrategy[Block | Join], most: int, least: int = 1) -> st.SearchStrategy[Join]:
    parts = st.lists(inner, min_size=least, max_size=most).map(tuple)
    return _one_of([st.builds(Join, st.just(name), parts, _options(kind)) for name, kind in JOINS.items()])


def _one_of(strategies: Sequence[st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Each with the same chance; ``st.one_of`` would look into those that are choices themselves."""
    return st.integers(0, len(strategies) - 1).flatmap(strategies.__getitem__)


def network_specs() -> st.SearchStrategy[NetworkSpec]:
    """Networks of one to six blocks in any topology, nested at most twice."""
    block = _blocks()
    nested = _joins(_one_of([block, _joins(block, 2)]), 3, least=2)
    body = _one_of([block, _joins(block, 5), _joins(block, 5, least=2), nested])
    fields = typing.get_type_hints(NetworkSpec)
    drawn = {name: st.sampled_from(_literals(fields[name])) for name in ("encoder", "decoder", "inputs", "outputs")}
    return st.builds(
        NetworkSpec,
        body=body,
        width=st.sampled_from(WIDTHS),
        channels=st.sampled_from((1, 2, 0)),
        sources=st.integers(1, 3),
        batch=st.integers(1, 2),
        time=st.integers(8, 24),
        training=st.booleans(),
        seed=st.integers(0, 99),
        **drawn,
    )
