"""Judges the result of any pruner without knowing how it works: what is left of each weight, and does it fit?"""

import contextlib
from collections.abc import Iterator, Mapping
from unittest import mock

import torch
from torch import Tensor, nn

KeptIndices = Mapping[str, Mapping[int, Tensor]]
"""Tensor name -> dimension -> the indices that are left, for each dimension that shrank."""


def tell_apart(model: nn.Module) -> None:
    """Moves entries of vectors that are equal to the next numbers, so that values say which entries are left.

    In larger tensors a few equal entries do not matter: the others of their row decide. Steps are normal numbers, since
    a processor may take smaller ones for zero.
    """
    for vector in (
        parameter for parameter in model.parameters() if parameter.numel() == max(parameter.shape, default=1)
    ):
        order = vector.detach().flatten().argsort()
        values = vector.detach().flatten()[order]
        while (tied := values[1:] <= values[:-1]).any():
            before = values[:-1][tied]
            next_number = torch.nextafter(before, torch.tensor(torch.inf))
            values[1:][tied] = torch.maximum(next_number, before + torch.finfo(values.dtype).tiny)
        with torch.no_grad():
            vector.copy_(torch.empty_like(values).index_copy(0, order, values).view(vector.shape))


def kept_indices(dense: nn.Module, pruned: nn.Module) -> dict[str, dict[int, Tensor]]:
    """Finds which slices of each weight are left, by the values in them.

    Raises:
        ValueError: A weight of the pruned network is no sub-array of the dense network's, or is gone.
    """
    after = dict(pruned.named_parameters())
    if missing := [name for name, _ in dense.named_parameters() if name not in after]:
        raise ValueError(f"weight {missing[0]} is gone")
    return {
        name: _kept(name, before.detach(), after[name].detach())
        for name, before in dense.named_parameters()
        if before.shape != after[name].shape
    }


def _kept(name: str, before: Tensor, after: Tensor) -> dict[int, Tensor]:
    order = before.flatten().argsort()
    position = torch.searchsorted(before.flatten()[order], after.flatten()).clamp_max(order.numel() - 1)
    found = torch.unravel_index(order[position], before.shape)
    kept = {
        dim: index.reshape(after.shape).movedim(dim, 0).reshape(after.shape[dim], -1).mode(dim=1).values
        for dim, index in enumerate(found)
        if before.shape[dim] != after.shape[dim]
    }
    rebuilt = before
    for dim, index in kept.items():
        rebuilt = rebuilt.index_select(dim, index)
    if rebuilt.shape != after.shape or not torch.equal(rebuilt, after):
        raise ValueError(f"what is left of {name} is no slice of it")
    return kept


def zero_removed(dense: nn.Module, kept: KeptIndices) -> None:
    """Sets every weight entry that is not kept to zero, in place."""
    parameters = dict(dense.named_parameters())
    for name, dims in kept.items():
        for dim, index in dims.items():
            removed = torch.ones(parameters[name].shape[dim], dtype=torch.bool).index_fill(0, index, False)
            with torch.no_grad():
                parameters[name].index_fill_(dim, removed.nonzero().flatten(), 0)


@contextlib.contextmanager
def without_statistics(model: nn.Module) -> Iterator[None]:
    """Makes every norm scale and shift only: a channel set to zero then counts exactly as one that is absent."""
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            scale, shift = _affine(module)
            if scale is not None and shift is not None and _is_norm(module):
                stack.enter_context(mock.patch.object(module, "forward", _Affine(module, scale, shift)))
        yield


def _is_norm(module: nn.Module) -> bool:
    kind = type(module).__name__
    return "Norm" in kind or kind.endswith("LN")


def _affine(module: nn.Module) -> tuple[str | None, str | None]:
    names = dict(module.named_parameters(recurse=False))
    scale = next((name for name in ("weight", "gamma") if name in names), None)
    shift = next((name for name in ("bias", "beta") if name in names), None)
    return scale, shift


class _Affine:
    """``x * scale + shift`` along the channels of the norm it stands for."""

    def __init__(self, module: nn.Module, scale: str, shift: str) -> None:
        self.module, self.scale, self.shift = module, scale, shift

    def __call__(self, x: Tensor) -> Tensor:
        scale, shift = getattr(self.module, self.scale), getattr(self.module, self.shift)
        # Some norms put channels last by themselves.
        if isinstance(self.module, nn.LayerNorm) or scale.dim() > 1 or x.shape[1] != len(scale):
            return x * scale + shift
        shape = [1, -1] + [1] * (x.dim() - 2)
        return x * scale.view(shape) + shift.view(shape)
