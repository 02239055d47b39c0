"""`optimize`: makes a network as fast as its device allows, without changing what it computes."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from prunegraph.capture.check import check_model
from prunegraph.capture.example import Nested, call_arguments, normalise_example
from prunegraph.errors import InputError, UnsupportedModelError
from prunegraph.modules.attention import WeightlessAttention
from prunegraph.modules.depthwise import DepthwiseConv1d
from prunegraph.modules.fused import callers_of_unfused_attention, with_fused_attention
from prunegraph.modules.pointwise import PointwiseConv1d, PointwiseConv2d
from prunegraph.surgery.slicing import copy_of
from prunegraph.timing import interleaved, using_threads

_WARM_UP_RUNS = 3
_GAIN_OF_FEWER_THREADS = 1.1  # less may be chance


class OptimizedNetwork(nn.Module):
    """A network in the form that was found to be the fastest on its device; for inference only.

    Args:
        network: the network in evaluation mode.
        form: the form in use: ``eager``, ``compiled`` or ``cuda graph``.
        call: the network in this form.
        threads: on which torch runs it on a CPU.
        milliseconds: median time of each form that was tried.
    """

    def __init__(
        self, network: nn.Module, *, form: str, call: Callable[..., Any], threads: int, milliseconds: dict[str, float]
    ) -> None:
        super().__init__()
        self.network = network
        self.form, self.threads, self.milliseconds = form, threads, milliseconds
        self._call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output, without gradients."""
        with torch.inference_mode(), using_threads(self.threads):
            return self._call(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode only.

        Raises:
            InputError: training mode is asked for.
        """
        if mode:
            raise InputError("an optimised network is for inference; train the network that it was made from")
        return super().train(False)


class CudaGraph:
    """A network as one CUDA graph for inputs of the example's shapes; others run eagerly.

    The graph reads and writes buffers of its own, so that each call copies its inputs in and its outputs out.

    Args:
        network: in evaluation mode, on a GPU; its weights must stay where they are.
        example_inputs: see `optimize`.
    """

    def __init__(self, network: Callable[..., Any], example_inputs: Any) -> None:
        self._network = network
        self._inputs = normalise_example(example_inputs)
        self._buffers = [tensor.detach().clone() for tensor in self._inputs.tensors]
        args, kwargs = self._inputs.rebuild(self._buffers)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            self._warm_up(args, kwargs)
            with torch.cuda.graph(self._graph):
                self._output = Nested.of(network(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output for these inputs."""
        given = Nested.of((args, kwargs))
        if not self._fits(given):
            return self._network(*args, **kwargs)
        for buffer, tensor in zip(self._buffers, given.tensors, strict=True):
            buffer.copy_(tensor)
        self._graph.replay()
        return self._output.rebuild([tensor.clone() for tensor in self._output.tensors])

    def _warm_up(self, args: Any, kwargs: Any) -> None:
        """Libraries choose their kernels and reserve memory, which they cannot do within a graph."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                self._network(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(stream)

    def _fits(self, given: Nested) -> bool:
        """Whether the call differs from the example in the values of its tensors only."""
        same = (given.structure, given.leaves) == (self._inputs.structure, self._inputs.leaves)
        return same and all(
            (tensor.shape, tensor.dtype, tensor.device) == (buffer.shape, buffer.dtype, buffer.device)
            for tensor, buffer in zip(given.tensors, self._buffers, strict=True)
        )


def optimize(
    model: nn.Module, example_inputs: Any, *, measure_for: float = 2.0, compiled: bool = True
) -> OptimizedNetwork:
    """The network in the fastest form that its device offers, with the same results to rounding.

    On a GPU, forms are eager and one CUDA graph; on a CPU, eager and ``torch.compile`` where there is a compiler, both
    with depthwise convolutions as multiplications where that is faster, pointwise ones as matrix products, the
    directions and sequences of recurrent layers on threads of their own where that is faster, and everything else on as
    many of torch's threads as is fastest. Attention weights that the network asks for and never reads are left out in
    each, and heads whose widths fused kernels do not take are widened by zeros. All forms run in turns and the least
    median wins; one that fails or gives other results is out.

    Args:
        model: a network in evaluation mode; it is left untouched, the result has weights of its own.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments; other shapes may run
            eagerly.
        measure_for: seconds of measuring for each choice, after all forms are warm.
        compiled: whether to try ``torch.compile`` on a CPU, which takes minutes for a large network.

    Raises:
        InputError: the network is in training mode, or the example is of none of the three kinds.
        UnsupportedModelError: what was given is no network with weights, or is compiled already.
    """
    check_model(model)
    if any(module.training for module in model.modules()):
        raise InputError("the network is in training mode; call model.eval() first")
    network = _contiguous(copy_of(model))
    example = normalise_example(example_inputs)
    args, kwargs = call_arguments(example_inputs)
    device = example.tensors[0].device
    run = partial(network, *args, **kwargs)
    with torch.inference_mode():
        expected = Nested.of(run()).tensors
        _leave_weights_out(network, run, expected)
        for module in callers_of_unfused_attention(network, run):
            module.__class__ = with_fused_attention(type(module))
        if device.type == "cpu":
            _multiply(network)
            _recur_concurrently(network, run, measure_for)
    threads = _fastest_threads(run, measure_for) if device.type == "cpu" else torch.get_num_threads()
    forms: dict[str, Callable[..., Any]] = {"eager": network.__call__}
    name, make = ("cuda graph", _cuda_graph) if device.type == "cuda" else ("compiled", _compiled)
    with torch.inference_mode(), using_threads(threads):
        other = make(network, example_inputs) if compiled or device.type == "cuda" else None
        if other is not None and _agree(Nested.of(other(*args, **kwargs)).tensors, expected):
            forms[name] = other
        calls = [partial(form, *args, **kwargs) for form in forms.values()]
        medians = [1000 * float(np.median(taken)) for taken in interleaved(calls, device, measure_for=measure_for)]
    milliseconds = dict(zip(forms, medians, strict=True))
    best = min(forms, key=milliseconds.__getitem__)
    return OptimizedNetwork(network, form=best, call=forms[best], threads=threads, milliseconds=milliseconds)


def cuda_graph(network: Callable[..., Any], example_inputs: Any) -> CudaGraph:
    """The network as one CUDA graph.

    Raises:
        UnsupportedModelError: the network does something that a CUDA graph cannot hold, such as reading a value on the
            CPU, or is on no GPU.
    """
    if normalise_example(example_inputs).tensors[0].device.type != "cuda":
        raise UnsupportedModelError("CUDA graphs need the network and its example inputs on a GPU")
    try:
        return CudaGraph(network, example_inputs)
    except RuntimeError as error:
        raise UnsupportedModelError(f"the network cannot run as one CUDA graph: {error}") from error


def _cuda_graph(network: nn.Module, example_inputs: Any) -> Callable[..., Any] | None:
    try:
        return cuda_graph(network, example_inputs)
    except UnsupportedModelError:
        return None


def _compiled(network: nn.Module, example_inputs: Any) -> Callable[..., Any] | None:
    """None where there is no compiler, or where it fails on this network."""
    args, kwargs = call_arguments(example_inputs)
    try:
        compiled: Callable[..., Any] = torch.compile(network.__call__)
        compiled(*args, **kwargs)
    except Exception:  # compilers fail in many ways, and eager remains
        return None
    return compiled


def _multiply(network: nn.Module) -> None:
    for module in network.modules():
        for faster in (DepthwiseConv1d, PointwiseConv1d, PointwiseConv2d):
            if faster.fits(module):
                module.__class__ = faster


def _recur_concurrently(network: nn.Module, run: Callable[[], Any], measure_for: float) -> None:
    """Recurrent layers run their directions and sequences side by side, if the network is faster so."""
    from prunegraph.modules.recurrent import ConcurrentGRU, ConcurrentLSTM  # imports torch's compiler: 2 s

    usual: dict[nn.Module, type[nn.Module]] = {module: type(module) for module in network.modules()}
    kinds = (ConcurrentLSTM, ConcurrentGRU)
    other: dict[Any, type[nn.Module]] = {module: kind for module in usual for kind in kinds if kind.fits(module)}
    threads = torch.get_num_threads()
    if not other or threads == 1:
        return
    for module in other:
        module.threads = threads

    def run_as(concurrent: bool) -> None:
        for module in other:
            module.__class__ = (other if concurrent else usual)[module]
        run()

    calls = [partial(run_as, concurrent) for concurrent in (False, True)]
    before, after = (np.median(taken) for taken in interleaved(calls, torch.device("cpu"), measure_for=measure_for))
    run_as(bool(after < before))


def _fastest_threads(run: Callable[[], Any], measure_for: float) -> int:
    """Of all that torch uses, half of them, and so on to one: ops that are short wait for one another's threads."""
    most = torch.get_num_threads()
    counts = [most >> halvings for halvings in range(most.bit_length())]

    def run_on(count: int) -> None:
        with using_threads(count):
            run()

    if most == 1:
        return 1
    taken = interleaved([partial(run_on, count) for count in counts], torch.device("cpu"), measure_for=measure_for)
    medians = np.median(taken, axis=1)
    fewer = counts[int(np.argmin(medians))]
    return fewer if medians[0] > _GAIN_OF_FEWER_THREADS * medians.min() else most


def _leave_weights_out(network: nn.Module, run: Callable[[], Any], expected: tuple[torch.Tensor, ...]) -> None:
    """Attention that is asked for its weights gives none, where the network's output is the same without them."""
    attentions = [module for module in network.modules() if WeightlessAttention.fits(module)]
    asked = _asked_for_weights(attentions, run) if attentions else []
    if asked and not _same_without(asked, run, expected):
        for module in asked:
            _same_without([module], run, expected)


def _same_without(attentions: list[nn.Module], run: Callable[[], Any], expected: tuple[torch.Tensor, ...]) -> bool:
    """Whether nobody reads their weights; where somebody does, they go on giving them."""
    before = [module.__class__ for module in attentions]
    for module in attentions:
        module.__class__ = WeightlessAttention
    try:
        same = _agree(Nested.of(run()).tensors, expected)
    except Exception:  # whatever the code does with a None that it takes for a tensor
        same = False
    for module, given in zip(attentions, before, strict=True):
        if not same:
            module.__class__ = given
    return same


def _asked_for_weights(attentions: list[nn.Module], run: Callable[[], Any]) -> list[nn.Module]:
    """Those whose weights the code asks for; torch's own layers do not, and have kernels of their own."""
    asked: dict[nn.Module, None] = {}

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        if inspect.signature(module.forward).bind(*args, **kwargs).arguments.get("need_weights", True):
            asked[module] = None

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in attentions]
    run()
    for hook in hooks:
        hook.remove()
    return list(asked)


def _agree(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    """Whether the differences are those of rounding, relative to the greatest value."""
    return len(found) == len(expected) and all(
        a.shape == b.shape and bool((a - b).abs().max() <= _rounding(b) * b.abs().max())
        for a, b in zip(found, expected, strict=True)
    )


def _rounding(value: torch.Tensor) -> float:
    return math.sqrt(torch.finfo(value.dtype).eps) if value.is_floating_point() or value.is_complex() else 0.0


def _contiguous(network: nn.Module) -> nn.Module:
    """Weights go on requiring gradients: by those torch multiplies in one piece, by others piece by piece."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.contiguous()
    return network
