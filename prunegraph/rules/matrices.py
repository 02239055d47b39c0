"""Functions of whole matrices, as beamformers need them: no row or column can go, nor a matrix of a batch by itself."""

from typing import Any

import torch

from prunegraph.rules.base import Rule
from prunegraph.rules.locking import Locks

aten = torch.ops.aten

_WHOLE = (
    "linalg_inv linalg_inv_ex inverse linalg_solve linalg_solve_ex linalg_solve_triangular triangular_solve "
    "linalg_pinv pinverse linalg_det det linalg_slogdet slogdet logdet linalg_eigh linalg_eig linalg_eigvals "
    "linalg_eigvalsh linalg_svd svd linalg_svdvals linalg_qr qr linalg_cholesky linalg_cholesky_ex cholesky "
    "cholesky_solve cholesky_inverse linalg_lu linalg_lstsq linalg_matrix_exp matrix_exp linalg_matrix_power "
    "matrix_power linalg_matrix_norm linalg_matrix_rank linalg_cond cov corrcoef"
)

RULES: dict[Any, Rule] = {
    getattr(aten, name): Locks("a matrix is taken as a whole") for name in _WHOLE.split() if hasattr(aten, name)
}
