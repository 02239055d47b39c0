"""`save` and `load`: a pruned network outlives the process that made it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from prunegraph.capture.check import check_model
from prunegraph.capture.clone import lasting_tensors
from prunegraph.errors import FileFormatError, InputError, PlanError, SurgeryError
from prunegraph.io.saved_network import SavedNetwork, read, write
from prunegraph.io.state import restore_state, state_of
from prunegraph.io.structure import first_difference, structure_of
from prunegraph.ir.outcome import Report
from prunegraph.ir.plan import PruningPlan
from prunegraph.surgery.slicing import apply


@runtime_checkable
class Saveable(Protocol):
    """A `prunegraph.PruningResult`, or what has the same three attributes."""

    @property
    def model(self) -> nn.Module:
        """The pruned network, fine-tuned or not."""

    @property
    def plan(self) -> PruningPlan:
        """What was removed."""

    @property
    def report(self) -> Report:
        """What that changed."""


def save(result: Saveable, path: str | os.PathLike[str]) -> Path:
    """Writes ``pruned.safetensors`` and ``plan.json`` into the directory ``path``, all or nothing.

    Saved is the network as it is now: after fine-tuning the tuned weights, after ``.half()`` the halved ones. For a
    network that became another object on the way, give ``dataclasses.replace(result, model=tuned)``. Tied tensors are
    stored once. Nothing is pickled.

    Args:
        result: what `prunegraph.prune` returned.
        path: a directory; an earlier result in it is replaced, anything else is refused.

    Returns:
        The directory.

    Raises:
        PlanError: the network is not the one of the plan: renamed, wrapped, or changed in shape.
        InputError: something else stands at ``path``, the network holds state that only pickle could save, or what is
            to be saved is no result.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    if not isinstance(result, Saveable):
        raise InputError(
            f"expected what prunegraph.prune returned, got {type(result).__name__}; a network alone is saved by "
            "dataclasses.replace(result, model=network)"
        )
    check_model(result.model)
    _check_follows_plan(result.model, result.plan)
    target = Path(path)
    saved = SavedNetwork(
        plan=result.plan,
        state=state_of(result.model),
        structure=structure_of(result.model),
        criterion=result.report.criterion,
        dense=result.report.dense,
        pruned=result.report.pruned,
    )
    write(saved, target)
    return target


def load(module_or_factory: nn.Module | Callable[[], nn.Module], path: str | os.PathLike[str]) -> nn.Module:
    """Makes the saved network from the original one: the user's own class, sliced, with the saved weights.

    Its outputs equal those of the saved network bit by bit on the same device. It lies on the original's device, and
    is in the training or evaluation mode that it was saved in.

    Args:
        module_or_factory: the dense network, which is left untouched, or a function without arguments that makes it;
            its weights do not matter.
        path: the directory that `save` wrote.

    Raises:
        FileFormatError: a file is missing, cut, changed or of another schema version, or it is of another network;
            names what differs.
        InputError: neither a network nor a function that returns one was given.
    """
    if not callable(module_or_factory):
        raise InputError(
            f"expected the dense network or a function that makes it, got {type(module_or_factory).__name__}"
        )
    saved = read(Path(path))
    model = module_or_factory if isinstance(module_or_factory, nn.Module) else module_or_factory()
    if not isinstance(model, nn.Module):
        raise InputError(f"the factory returned {type(model).__name__}; expected a torch.nn.Module")
    return rebuild(model, saved, Path(path))


def rebuild(model: nn.Module, saved: SavedNetwork, path: Path) -> nn.Module:
    """The saved network, made from the dense one; ``path`` is for messages.

    Raises:
        FileFormatError: it was saved from another network.
    """
    try:
        pruned = apply(model, saved.plan)
        difference = first_difference(saved.structure, structure_of(pruned))
        if difference:
            raise FileFormatError(f"another network was saved: {difference}")
        restore_state(pruned, saved.state)
    except (PlanError, SurgeryError, FileFormatError) as error:
        raise FileFormatError(f"{path} does not fit {type(model).__name__}: {error}") from error
    return pruned


def _check_follows_plan(model: nn.Module, plan: PruningPlan) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in lasting_tensors(model).items()}
    for name in [*plan.shapes, *found]:
        if name not in plan.shapes:
            raise PlanError(
                f"the network holds {name}, which its plan does not know; save the network itself, unwrapped"
            )
        kept = plan.tensors.get(name, {})
        planned = tuple(len(kept.get(dim, range(size))) for dim, size in enumerate(plan.shapes[name]))
        if found.get(name) != planned:
            text = f"has shape {found[name]}" if name in found else "is missing"
            raise PlanError(f"the network is not the one of its plan: {name} {text}, planned is {planned}")
