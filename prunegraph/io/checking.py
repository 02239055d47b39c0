"""`verify_saved`: proves a saved network against the dense one, also after fine-tuning."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunegraph.capture.clone import clone_with, named_tensors
from prunegraph.io.saved_network import SavedNetwork, read
from prunegraph.io.saving import rebuild
from prunegraph.ir.outcome import Check, VerificationReport
from prunegraph.ir.plan import PruningPlan
from prunegraph.surgery.slicing import planned_tensors, slice_tensor
from prunegraph.verification.verifying import verify


def verify_saved(model: nn.Module, path: Path, example_inputs: Any) -> tuple[SavedNetwork, VerificationReport]:
    """Checks the files, then everything that `prunegraph.verify` checks.

    Weights that were trained after the pruning are no slices of the dense network's any more. So the saved weights are
    put into the kept places of a copy of the dense network, and the saved network must be exactly that one without
    the removed channels: plan, structure, costs, gradients and the exact masked program are then checked as on the
    day of the pruning. Not checked is where trained weights came from; the report says how many tensors that concerns.

    Args:
        model: the dense network; left as it is.
        path: the directory that `prunegraph.save` wrote.
        example_inputs: as for `prunegraph.build_graph`, in the element type of the saved network.

    Raises:
        FileFormatError: a file is missing, cut or changed, or was saved from another network.
        VerificationError: a check failed; names the tensor, or the first diverging node and its source line.
    """
    saved = read(path)
    pruned = rebuild(model, saved, path)
    trained = _trained_tensors(model, pruned, saved.plan)
    report = verify(_scattered(model, pruned, saved.plan), pruned, saved.plan, example_inputs)
    return saved, VerificationReport(
        checks=(
            Check(name="files", detail=f"complete and unchanged: {len(saved.state.tensors)} tensors, plan, structure"),
            Check(name="origin", detail=_origin(trained, len(planned_tensors(model, saved.plan)))),
            *(check for check in report.checks if check.name != "weights"),
        ),
        difference=report.difference,
        tolerance=report.tolerance,
    )


def _trained_tensors(model: nn.Module, pruned: nn.Module, plan: PruningPlan) -> list[str]:
    """Names of the tensors that are not the dense network's kept slices, bit by bit."""
    found = named_tensors(pruned)
    return [
        name
        for name, tensor in planned_tensors(model, plan).items()
        if found[name].dtype != tensor.dtype
        or not torch.equal(found[name], slice_tensor(tensor.detach(), plan.tensors.get(name, {})))
    ]


def _origin(trained: list[str], total: int) -> str:
    if not trained:
        return f"all {total} tensors are the dense network's kept slices, bit by bit"
    return (
        f"{len(trained)} of {total} tensors, the first of them {trained[0]}, are not the dense network's kept slices: "
        "trained since, or the dense weights are others; checked below are the saved weights in their kept places"
    )


def _scattered(model: nn.Module, pruned: nn.Module, plan: PruningPlan) -> nn.Module:
    """A copy of the dense network with the pruned one's weights in the kept places, in their element types."""
    found = named_tensors(pruned)
    ours = {name: tensor for name, tensor in named_tensors(model).items() if name in found}
    made: dict[int, torch.Tensor] = {}
    for name, tensor in ours.items():
        if id(tensor) not in made:
            values = _with_kept(tensor.detach(), found[name].detach(), plan.tensors.get(name, {}))
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(values, requires_grad=tensor.requires_grad) if is_parameter else values
    dense = clone_with(model, {name: made[id(tensor)] for name, tensor in ours.items()})
    for module in dense.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    return dense


def _with_kept(dense: torch.Tensor, kept_values: torch.Tensor, kept: Any) -> torch.Tensor:
    if not kept:
        return kept_values.clone()
    result = dense.to(kept_values.dtype, copy=True)
    indices = [
        torch.tensor(kept.get(dim, range(size)), device=dense.device).view(-1, *[1] * (dense.dim() - dim - 1))
        for dim, size in enumerate(dense.shape)
    ]
    result[tuple(indices)] = kept_values
    return result
