"""`apply`: makes the smaller network from the user's network and a plan."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prunegraph.capture.attributes import get_attribute, integers_of, set_attribute
from prunegraph.capture.check import check_model
from prunegraph.capture.clone import clone_with, fleeting_tensors, lasting_tensors, named_tensors
from prunegraph.capture.memory_format import channels_last, is_channels_last
from prunegraph.capture.modes import in_mode
from prunegraph.errors import PlanError, SurgeryError
from prunegraph.ir.plan import AttributeUpdate, PruningPlan
from prunegraph.modules.attention import WidthFreeAttention


def apply(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """A new network of the user's own class with the plan's channels removed; the given one is untouched.

    Parameters and buffers are sliced on their own device and keep element type, ``requires_grad``, memory format and
    ties. Size attributes take their new values. Attention modules whose widths no longer agree are replaced by an
    equal one with the same tensor names.

    Raises:
        PlanError: the plan was made for another network; names the first tensor that differs.
        SurgeryError: an attribute of the plan does not exist or has another value.
    """
    check_model(model)
    check_shapes(model, plan)
    for name, dims in plan.tensors.items():
        for dim, kept in dims.items():
            _check_indices(name, dim, kept, plan.shapes.get(name) or plan.fleeting.get(name, ()))
    fitting = {name: plan.tensors[name] for name in planned_tensors(model, plan) if name in plan.tensors}
    pruned = clone_with(model, _sliced_tensors(model, fitting))
    _update_attributes(pruned, plan)
    _replace(pruned, plan.replaced)
    for module in pruned.modules():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
        _compute_normed_weights(module)
    return pruned


@torch.no_grad()
def _compute_normed_weights(module: nn.Module) -> None:
    """What weight and spectral norm compute before each forward is of the old size until then."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            setattr(module, hook.name, hook.compute_weight(module))
        elif isinstance(hook, SpectralNorm):
            setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))


def copy_of(model: nn.Module) -> nn.Module:
    """An independent copy of a network, in eval mode."""
    return in_mode(clone_with(model, _sliced_tensors(model, {})), training=False)


def check_shapes(model: nn.Module, plan: PruningPlan) -> None:
    """Raises `PlanError` when the names and shapes of the plan are not those of the network."""
    if not isinstance(plan, PruningPlan):
        raise PlanError(f"expected a PruningPlan, got {type(plan).__name__}; PruningPlan.from_json reads a saved one")
    lasting = lasting_tensors(model)
    for name in [*plan.shapes, *lasting]:
        ours, theirs = tuple(lasting[name].shape) if name in lasting else None, plan.shapes.get(name)
        if ours != theirs:
            raise PlanError(
                f"the plan was made for another network: {name} has shape {_text(theirs)} in the plan and "
                f"{_text(ours)} in {type(model).__name__}"
            )


def planned_tensors(model: nn.Module, plan: PruningPlan) -> dict[str, torch.Tensor]:
    """What a plan accounts for: parameters and persistent buffers, and other tensors that the plan slices.

    Those others a forward pass may have left there, or not yet: they count where they have the sizes that are sliced.
    """
    sliced = {name: tensor for name, tensor in fleeting_tensors(model).items() if name in plan.tensors}
    return lasting_tensors(model) | {name: tensor for name, tensor in sliced.items() if _fits(name, tensor, plan)}


def _fits(name: str, tensor: torch.Tensor, plan: PruningPlan) -> bool:
    planned = plan.fleeting[name]
    return tensor.dim() == len(planned) and all(tensor.shape[dim] == planned[dim] for dim in plan.tensors[name])


def slice_tensor(tensor: torch.Tensor, kept: Mapping[int, Sequence[int]]) -> torch.Tensor:
    """The kept indices of each dimension, on the tensor's device, in its memory format.

    Another order in memory, as that of a transposed matrix, is no format: a saved network would not have it.
    """
    result = tensor
    for dim, indices in kept.items():
        result = result.index_select(dim, torch.tensor(indices, device=tensor.device))
    if is_channels_last(tensor):
        return channels_last(result) if kept else result
    return result.contiguous() if result.layout is torch.strided else result


def _check_indices(name: str, dim: int, kept: Sequence[int], shape: tuple[int, ...]) -> None:
    size = shape[dim] if 0 <= dim < len(shape) else 0
    ascending = all(a < b for a, b in pairwise(kept))
    if not kept or not ascending or kept[0] < 0 or kept[-1] >= size:
        raise PlanError(
            f"the plan keeps indices of {name}[{dim}] that are not an ascending choice from its {size}: "
            f"{', '.join(map(str, list(kept)[:5]))}, ..."
        )


def _sliced_tensors(model: nn.Module, kept: Mapping[str, Mapping[int, Sequence[int]]]) -> dict[str, torch.Tensor]:
    """New tensors by name; a tied tensor is sliced once and stays tied."""
    made: dict[int, torch.Tensor] = {}
    result = {}
    for name, tensor in named_tensors(model).items():
        if id(tensor) not in made:
            made[id(tensor)] = _like(tensor, slice_tensor(tensor.detach(), kept.get(name, {})))
        result[name] = made[id(tensor)]
    return result


def _like(original: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    values = values.clone() if values.data_ptr() == original.data_ptr() else values
    if isinstance(original, nn.Parameter):
        return nn.Parameter(values, requires_grad=original.requires_grad)
    return values.requires_grad_(original.requires_grad)


def _update_attributes(pruned: nn.Module, plan: PruningPlan) -> None:
    modules = dict(pruned.named_modules())
    planned = {(update.module, update.name) for update in plan.attributes}
    for update in plan.attributes:
        module = modules.get(update.module)
        try:
            found = None if module is None else get_attribute(module, update.name)
        except (AttributeError, LookupError):
            found = None
        if module is None or found != update.old:
            raise SurgeryError(
                f"the plan changes {update.module}.{update.name} from {update.old} to {update.new}, but it is {found}"
            )
        set_attribute(module, update.name, update.new)
        if _is_made_anew(module):
            others = [
                n for n, value in integers_of(module) if value == update.old and (update.module, n) not in planned
            ]
            _keep_in_copies(module, update, others)


def _is_made_anew(module: nn.Module) -> bool:
    """Whether the module's class says itself what of its state a copy has, as layers of einops do."""
    kind = type(module)
    return kind.__setstate__ is not nn.Module.__setstate__ and not kind.__module__.startswith("torch.nn.")


def _keep_in_copies(module: nn.Module, update: AttributeUpdate, others: Iterable[str]) -> None:
    """If copies compute the attribute from another one, which had the same value, that one is set, too."""

    def is_kept() -> bool:
        return bool(get_attribute(copy.deepcopy(module), update.name) == update.new)

    for other in () if is_kept() else others:
        set_attribute(module, other, update.new)
        if is_kept():
            return
        set_attribute(module, other, update.old)


def _replace(pruned: nn.Module, paths: Iterable[str]) -> None:
    """Puts the replacements wherever the modules stand, also where they are shared."""
    olds = [pruned.get_submodule(path) for path in paths]
    new = {id(old): WidthFreeAttention.from_module(old) for old in olds if isinstance(old, nn.MultiheadAttention)}
    for parent in list(pruned.modules()) if new else ():
        for name, child in parent._modules.items():
            parent._modules[name] = new.get(id(child), child)


def _text(shape: tuple[int, ...] | None) -> str:
    return "no place" if shape is None else str(shape)
