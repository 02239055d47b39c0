"""Functions of whole matrices, as beamformers need them: no row or column can go, nor a matrix of a batch by itself.

The pseudo-inverse, of which asteroid makes decoders, is another matter.
"""

from typing import Any

import torch
from torch import fx

from prunegraph.rules.base import Call, Labels, Masker, Rule
from prunegraph.rules.locking import Locks

aten = torch.ops.aten


_AS_A_WHOLE = "a matrix is taken as a whole"


class PseudoInverse(Rule):
    """``(..., m, n)`` to ``(..., n, m)``: without some rows it lacks those columns; for rows of zeros it has zeros."""

    def labels(self, call: Call) -> Labels:
        *batch, rows, columns = call.labels(call.tensors()[0])
        if call.get("hermitian"):
            call.lock_all([rows, columns], _AS_A_WHOLE)
        return (*batch, columns, rows)

    def masked(self, call: Call, mask: Masker) -> fx.Node | None:
        name = next(iter(call.places))
        *_, rows, columns = call.labels(name)
        if mask.keep(rows) is None and mask.keep(columns) is None:
            return None
        matrix = mask.times_keep(mask.value(call[name]), -2, rows)
        return mask.rerun(**{name: mask.times_keep(matrix, -1, columns)})


_WHOLE = (
    "linalg_inv linalg_inv_ex inverse linalg_solve linalg_solve_ex linalg_solve_triangular triangular_solve "
    "linalg_det det linalg_slogdet slogdet logdet linalg_eigh linalg_eig linalg_eigvals "
    "linalg_eigvalsh linalg_svd svd linalg_svdvals linalg_qr qr linalg_cholesky linalg_cholesky_ex cholesky "
    "cholesky_solve cholesky_inverse linalg_lu linalg_lstsq linalg_matrix_exp matrix_exp linalg_matrix_power "
    "matrix_power linalg_matrix_norm linalg_matrix_rank linalg_cond cov corrcoef"
)

RULES: dict[Any, Rule] = {
    **{getattr(aten, name): Locks(_AS_A_WHOLE) for name in _WHOLE.split() if hasattr(aten, name)},
    **dict.fromkeys((aten.linalg_pinv, aten.pinverse), PseudoInverse()),
}
