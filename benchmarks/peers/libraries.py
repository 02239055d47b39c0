"""Each library as a careful new user would call it: L1 magnitudes, the same ratio, the output layers left alone.

Packages are imported where they are used, so that those which are absent or broken hinder nothing.
"""

import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import prunegraph
from benchmarks.peers.judge import first_line

RATIO = 0.3
NNI_LAYERS = ("Conv1d", "Conv2d", "Linear")

Inputs: TypeAlias = tuple[Tensor, ...]
Prune: TypeAlias = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True)
class Library:
    """A library that takes channels out.

    Attributes:
        name: As it is shown.
        package: The name of its distribution.
        module: What is imported.
        prepare: Takes the network, its inputs and the layers whose outputs stay; finds the groups and returns what
            prunes.
    """

    name: str
    package: str
    module: str
    prepare: Callable[[nn.Module, Inputs, Sequence[str]], Prune]

    def problem(self) -> str:
        """Why it cannot be used, or nothing."""
        if find_spec(self.module.partition(".")[0]) is None:
            return "not installed"
        try:
            importlib.import_module(self.module)
        except Exception as error:
            return f"does not import: {first_line(error)}"
        return ""

    def version(self) -> str:
        """The version that is installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


def prepare_prunegraph(model: nn.Module, inputs: Inputs, output_layers: Sequence[str]) -> Prune:
    """prunegraph finds the outputs itself."""
    graph = prunegraph.build_graph(model, inputs)

    def prune() -> nn.Module:
        scores = prunegraph.score(graph, "l1")
        return prunegraph.apply(model, prunegraph.select(graph, scores, prunegraph.Budget(ratio=RATIO)))

    return prune


def prepare_torch_pruning(
    model: nn.Module,
    inputs: Inputs,
    output_layers: Sequence[str],
    ratio: float = RATIO,
    *,
    global_pruning: bool = False,
) -> Prune:
    """Torch-Pruning prunes the network in place."""
    import torch_pruning as tp

    pruner = tp.pruner.MagnitudePruner(
        model,
        example_inputs=inputs,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        global_pruning=global_pruning,
        ignored_layers=[model.get_submodule(name) for name in output_layers],
    )

    def prune() -> nn.Module:
        pruner.step()
        return model

    return prune


def prepare_nni(model: nn.Module, inputs: Inputs, output_layers: Sequence[str]) -> Prune:
    """NNI draws masks of single layers; its speedup finds what is coupled and shrinks the network in place."""
    from nni.compression.pruning import L1NormPruner

    settings = {"op_types": list(NNI_LAYERS), "sparse_ratio": RATIO, "exclude_op_names": list(output_layers)}
    pruner = L1NormPruner(model, [settings])
    _, masks = pruner.compress()
    pruner.unwrap_model()
    speedup = _nni_speedup(model, inputs, masks)

    def prune() -> nn.Module:
        speedup.speedup_model()
        return model

    return prune


def _nni_speedup(model: nn.Module, inputs: Inputs, masks: Mapping[str, Any]) -> Any:
    """Where NNI's own tracer fails, a graph is given to it, as its documentation advises."""
    from nni.compression.speedup import ModelSpeedup

    try:
        return ModelSpeedup(model, inputs, masks)
    except AttributeError:
        return ModelSpeedup(model, inputs, masks, graph_module=torch.fx.symbolic_trace(model))


def prepare_oto(model: nn.Module, inputs: Inputs, output_layers: Sequence[str]) -> Prune:
    """OTO's own check of a network: groups that it draws become zero, and the network without them is written."""
    from only_train_once import OTO

    oto = OTO(model=model, dummy_input=inputs if len(inputs) > 1 else inputs[0])

    def prune() -> nn.Module:
        oto.random_set_zero_groups(target_group_sparsity=RATIO)
        with tempfile.TemporaryDirectory() as folder:
            oto.construct_subnet(out_dir=folder)
            pruned: nn.Module = torch.load(oto.compressed_model_path, weights_only=False)
        return pruned

    return prune


PRUNEGRAPH = Library("prunegraph", "prunegraph", "prunegraph", prepare_prunegraph)
TORCH_PRUNING = Library("Torch-Pruning", "torch-pruning", "torch_pruning", prepare_torch_pruning)
NNI = Library("NNI", "nni", "nni.compression.speedup", prepare_nni)
OTO = Library("OTO", "only-train-once", "only_train_once", prepare_oto)
LIBRARIES = (PRUNEGRAPH, TORCH_PRUNING, NNI, OTO)


def library_named(name: str) -> Library:
    """The library of this name."""
    return next(library for library in LIBRARIES if library.name == name)
