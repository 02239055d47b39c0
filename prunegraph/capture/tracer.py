"""`capture`: records one real forward pass of an unmodified network as a torch.fx graph of ATen calls."""

import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import MethodType
from typing import Any

import torch
from torch import fx, nn

from prunegraph.capture.attributes import track_attributes
from prunegraph.capture.check import check_model
from prunegraph.capture.clone import clone_with, detached, lasting_tensors, named_tensors
from prunegraph.capture.closures import functions_held_by
from prunegraph.capture.example import Nested, normalise_example
from prunegraph.capture.modes import in_mode
from prunegraph.capture.recorder import CallRecorder
from prunegraph.capture.settings import all_ordinary_attributes, settings_in
from prunegraph.capture.state import undisturbed
from prunegraph.capture.torch_internals import (
    ATTENTION_MODULES,
    VALUE,
    attention_forward,
    is_within_transform,
    trace_aten,
    value_spec,
)
from prunegraph.capture.transparency import transparent_python
from prunegraph.capture.whereabouts import Whereabouts
from prunegraph.errors import CaptureError, PrunegraphError, UnsupportedModelError
from prunegraph.ir.trace import ModuleSpec, TensorSpec, Trace


def as_it_is(network: nn.Module) -> None:
    """Prepares nothing."""


def capture(
    model: nn.Module,
    example_inputs: Any,
    *,
    training: bool = False,
    prepare: Callable[[nn.Module], None] = as_it_is,
) -> Trace:
    """Records the ATen calls of one forward pass in eval mode, or in training mode with gradients.

    The caller's network is not run: a copy of it is. Training flags, random
    number generators, gradients, buffers and hooks are what they were, also when recording fails.

    Args:
        model: any network; its forward may take tensors nested in tuples, lists and dicts.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
        training: whether the network runs in training mode.
        prepare: what to do to the copy before it runs.

    Raises:
        UnsupportedModelError: the network is quantised, on several devices, on the meta device, or not initialised.
        InputError: the example is not of one of the three kinds.
        CaptureError: the forward pass raised; names the module and the user's line.
    """
    check_model(model)
    return _Capture(model, normalise_example(example_inputs), training, prepare).run()


class _Capture:
    """The state of one capture: the working copy of the network and what was noted about it."""

    def __init__(self, model: nn.Module, example: Nested, training: bool, prepare: Callable[[nn.Module], None]) -> None:
        self.where = Whereabouts({path: type(module) for path, module in model.named_modules()})
        self.recorder = CallRecorder(self.where)
        self.example, self.training = example, training
        self.originals = tensors = named_tensors(model)
        self.specs = _tensor_specs(model, tensors)
        self.flat_tensors = [detached(tensors[spec.name]) for spec in self.specs]
        for spec, tensor in zip(self.specs, self.flat_tensors, strict=True):
            tensor.requires_grad_(tensors[spec.name].requires_grad and spec.is_parameter)
        self.clone = in_mode(clone_with(model, _every_name(self.specs, self.flat_tensors)), training=training)
        self._refuse_changed_weights(tensors, training)
        prepare(self.clone)
        users = {id(value) for value in settings_in(value for _, value in all_ordinary_attributes(model))}
        sizes = track_attributes(self.clone, self.recorder, untouchable=users)
        self.modules = _module_specs(self.clone, sizes)
        self.keywords: tuple[str, ...] = ()
        self.output: Nested | None = None
        self._prepare_modules()

    def _refuse_changed_weights(self, tensors: Mapping[str, torch.Tensor], training: bool) -> None:
        """A network may fold or merge weights when its mode is changed: the record would be of others than it has.

        It may also drop what earlier runs left in it, which then is not read.
        """
        now = named_tensors(self.clone)
        there = [spec for spec in self.specs if spec.is_lasting or spec.name in now]
        changed = [spec.name for spec in there if not _same(now.get(spec.name), tensors[spec.name])]
        if changed:
            mode = "train" if training else "eval"
            raise UnsupportedModelError(
                f"{mode}() changes the weights of the network, {changed[0]} first; call model.{mode}() before"
            )

    def run(self) -> Trace:
        flat_inputs = [tensor.detach().clone() for tensor in self.example.tensors]
        with ExitStack() as stack:
            stack.enter_context(undisturbed([*self.flat_tensors, *flat_inputs], gradients=self.training))
            classes = {kind for module in self.clone.modules() for kind in type(module).__mro__}
            by_module = sorted(classes, key=lambda kind: kind.__module__)
            stack.enter_context(transparent_python(by_module, functions_held_by(self.clone)))
            stack.enter_context(self.recorder.gradients.noted())
            traced = self._trace(flat_inputs)
        return self._as_trace(traced)

    def _trace(self, flat_inputs: list[torch.Tensor]) -> fx.GraphModule:
        try:
            return trace_aten(self._forward, [*self.flat_tensors, *flat_inputs])
        except PrunegraphError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    def _forward(self, *flat: torch.Tensor) -> list[torch.Tensor]:
        args, kwargs = self.example.rebuild(list(flat[len(self.flat_tensors) :]))
        self.keywords = tuple(kwargs)
        with self.recorder:
            result = self.clone(*args, **kwargs)
        output = Nested.of(result)
        if not output.tensors:
            raise CaptureError(
                f"the network returned {type(result).__name__}, in which there is no tensor; return a tensor, or "
                "tensors in a tuple, list, dict or dataclass"
            )
        self.output = output.without_tensors()
        return list(output.tensors)

    def _refuse_reads_of_the_original(self, traced: fx.GraphModule, constants: Mapping[str, torch.Tensor]) -> None:
        """What refers to the network in a way that its copies cannot follow would go on with its weights for ever."""
        names = {_place(tensor): name for name, tensor in self.originals.items() if tensor.numel()}
        for node in traced.graph.nodes:
            name = names.get(_place(constants[str(node.target)])) if node.op == "get_attr" else None
            if name is not None:
                site = next(
                    (self.recorder.sites[user.name] for user in node.users if user.name in self.recorder.sites), ""
                )
                raise UnsupportedModelError(
                    f"a copy of the network reads {name} of the network itself ({site}): it holds what refers "
                    "to the network and does not go with a copy, such as a weak reference, a method under "
                    "functools.lru_cache, or an entry of a global registry; let it go through self"
                )

    def _prepare_modules(self) -> None:
        """Lets every module of the copy tell when it runs, and attention run in terms that can be followed."""
        for path, module in self.clone.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            module.register_forward_pre_hook(_Enter(self.where, path), prepend=True)
            module.register_forward_hook(_Leave(self.where), always_call=True)
            if type(module) in ATTENTION_MODULES:
                vars(module)["forward"] = MethodType(attention_forward, weakref.proxy(module))

    def _explained(self, error: Exception) -> CaptureError:
        site = self.where.failure_site(error)
        return CaptureError(
            f"the forward pass failed in {site}: {type(error).__name__}: {error}\n    {site.code}",
            advice="Check that the example inputs fit the network: does `model(*example_inputs)` run in eval mode?",
            line=(site.file, site.line),
            module=site.module,
        )

    def _as_trace(self, traced: fx.GraphModule) -> Trace:
        names = [node.name for node in traced.graph.nodes if node.op == "placeholder"]
        read = {node.name for node in traced.graph.nodes if node.users} | self.recorder.measured()
        count = len(self.specs)
        constants = _constants(traced)
        self._refuse_reads_of_the_original(traced, constants)
        return Trace(
            graph=traced.graph,
            tensors=dict(zip(names[:count], self.specs, strict=True)),
            inputs=tuple(names[count:]),
            keywords=self.keywords,
            constants=constants,
            values={
                node.name: node.meta.get(VALUE)
                if node.op != "get_attr"
                else value_spec(constants.get(str(node.target)))
                for node in traced.graph.nodes
            },
            sites=self.recorder.sites,
            sizes=self.recorder.sizes,
            comparisons=self.recorder.comparisons,
            converted=self.recorder.converted,
            modules=self.modules,
            unused=frozenset(s.name for n, s in zip(names, self.specs, strict=False) if n not in read),
            without_gradient=frozenset(self.recorder.without_gradient),
            own_backwards=tuple(self.recorder.gradients.functions),
            output=self.output,
            training=self.training,
        )


class _Enter:
    def __init__(self, where: Whereabouts, path: str) -> None:
        self.where, self.path = where, path

    def __call__(self, module: nn.Module, args: Any) -> None:
        self.where.enter(self.path)


class _Leave:
    def __init__(self, where: Whereabouts) -> None:
        self.where = where

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.where.leave()


def _tensor_specs(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> list[TensorSpec]:
    """One spec per distinct tensor, tied names gathered."""
    parameters = {id(p) for p in model.parameters()}
    lasting = lasting_tensors(model)
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return [
        TensorSpec(
            name=first,
            aliases=tuple(rest),
            shape=tuple(tensors[first].shape),
            dtype=tensors[first].dtype,
            is_parameter=identity in parameters,
            is_lasting=first in lasting,
        )
        for identity, (first, *rest) in names.items()
    ]


def _every_name(specs: list[TensorSpec], tensors: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for spec, t in zip(specs, tensors, strict=True) for name in (spec.name, *spec.aliases)}


def _same(found: torch.Tensor | None, expected: torch.Tensor) -> bool:
    """Equal, also where values are not numbers."""
    if found is None or found.shape != expected.shape:
        return False
    return torch.equal(found, expected) or torch.equal(found.nan_to_num(), expected.nan_to_num())


def _module_specs(model: nn.Module, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, ModuleSpec]:
    paths: dict[int, list[str]] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        paths.setdefault(id(module), []).append(path)
    return {
        first: ModuleSpec(path=first, aliases=tuple(rest), kind=type(modules[first]), sizes=sizes.get(first, {}))
        for first, *rest in paths.values()
    }


def _place(tensor: torch.Tensor) -> tuple[torch.device, int]:
    """Where its memory lies."""
    return tensor.device, tensor.untyped_storage().data_ptr()


def _constants(traced: fx.GraphModule) -> dict[str, torch.Tensor]:
    targets = {str(node.target) for node in traced.graph.nodes if node.op == "get_attr"}
    found = {name: getattr(traced, name) for name in sorted(targets)}
    for value in found.values():
        if not isinstance(value, torch.Tensor):
            raise UnsupportedModelError(
                f"the forward pass hands a {type(value).__name__} to torch, which can be no part of a record"
            )
        if is_within_transform(value):
            raise UnsupportedModelError(
                "the forward pass runs ops within torch.func.grad or another transform of torch.func, of which no "
                "record can be made; compute what it gives outside the network"
            )
    return found
