"""Rare ops as the common ones that they are made of, so that no rule has to know them."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten


def _product(matrices: Sequence[Tensor]) -> Tensor:
    return reduce(torch.matmul, matrices)


def _addr(x: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * x + alpha * torch.outer(left, right)


def _dist(x: Tensor, y: Tensor, p: float = 2) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x - y, p)
    return norm


def _matrix_norm(
    x: Tensor, kind: str = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, **options: Any
) -> Any:
    return torch.linalg.vector_norm(x, 2, dim, keepdim, **options) if kind == "fro" else NotImplemented


def _select_scatter(x: Tensor, source: Tensor, dim: int, index: int) -> Tensor:
    result = x.clone()
    result.select(dim, index).copy_(source)
    return result


def _slice_scatter(
    x: Tensor, source: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    result = x.clone()
    aten.slice(result, dim, start, end, step).copy_(source)
    return result


def _pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    longest = max(sequence.shape[0] for sequence in sequences)
    padded = []
    for sequence in sequences:
        missing = longest - sequence.shape[0]
        ends = (missing, 0) if padding_side == "left" else (0, missing)
        padded.append(F.pad(sequence, (0, 0) * (sequence.dim() - 1) + ends, value=padding_value))
    return torch.stack(padded, 0 if batch_first else 1)


def _meshgrid(tensors: Sequence[Tensor], *, indexing: str = "ij") -> list[Tensor]:
    swapped = indexing == "xy" and len(tensors) > 1
    axes = [1, 0, *range(2, len(tensors))] if swapped else list(range(len(tensors)))
    ends = [len(tensors) - 1 - axis for axis in axes]
    sides = [t[(None,) * axis + (...,) + (None,) * end] for t, axis, end in zip(tensors, axes, ends, strict=True)]
    return list(aten.broadcast_tensors(sides))


def _block_diag(matrices: Sequence[Tensor]) -> Tensor:
    blocks = [matrix if matrix.dim() == 2 else matrix.reshape(1, -1) for matrix in matrices]

    def at(row: Tensor, column: Tensor) -> Tensor:
        return row if row is column else torch.zeros_like(row.sum(1, keepdim=True)) + torch.zeros_like(column.sum(0))

    return torch.cat([torch.cat([at(row, column) for column in blocks], 1) for row in blocks])


def _conv_tbc(x: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    return F.conv1d(x.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad).permute(2, 0, 1)


def _padded(mode: str) -> Callable[..., Tensor]:
    return lambda x, padding: aten.pad(x, padding, mode)


COMPOSITES: Mapping[Any, Callable[..., Any]] = {
    **{
        op: op.decompose
        for op in (
            aten.hsplit.int,
            aten.hsplit.array,
            aten.vsplit.int,
            aten.vsplit.array,
            aten.dsplit.int,
            aten.dsplit.array,
            aten.linalg_vecdot.default,
            *(getattr(aten.gradient, name) for name in aten.gradient.overloads()),  # type: ignore[no-untyped-call]
        )
    },
    aten.linalg_multi_dot.default: _product,
    aten.chain_matmul.default: _product,
    aten.addr.default: _addr,
    aten.dist.default: _dist,
    aten.linalg_matrix_norm.str_ord: _matrix_norm,
    aten.select_scatter.default: _select_scatter,
    aten.slice_scatter.default: _slice_scatter,
    aten.pad_sequence.default: _pad_sequence,
    aten.block_diag.default: _block_diag,
    aten.conv_tbc.default: _conv_tbc,
    **{op.default: _padded("reflect") for op in (aten.reflection_pad1d, aten.reflection_pad2d, aten.reflection_pad3d)},
    **{
        op.default: _padded("replicate")
        for op in (aten.replication_pad1d, aten.replication_pad2d, aten.replication_pad3d)
    },
    aten.meshgrid.default: _meshgrid,
    aten.meshgrid.indexing: _meshgrid,
}
"""ATen op -> the same, written with others."""
