"""Second moments with a share of their mean diagonal added, and what follows from the Cholesky factor of that.

Inputs that were never seen, or moved together by chance, make a matrix of second moments singular or nearly so, and
solutions with it large and wrong. With A = M + share * mean(diag M) * I = L L^T everything is finite:

    [A^-1]_jj = sum_i (L^-1)_ij^2
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def damping_for(width: int, rows: int, least: float) -> float:
    """The share by which to damp moments of ``rows`` rows of ``width`` numbers: the fewer there are, the more."""
    return least + width / max(rows, 1)


def damped(moments: NDArray[np.float64], share: float, at_zero: float = 1.0) -> NDArray[np.float64]:
    """A copy of ``moments``, (…, K, K), with ``share`` of its mean diagonal added; ``at_zero`` where that is 0."""
    mean = np.einsum("...kk->...k", moments).mean(axis=-1, keepdims=True)
    square = moments.copy()
    np.einsum("...kk->...k", square)[...] += np.where(mean > 0, share * mean, at_zero)
    return square


def factor(square: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The lower Cholesky factor of ``square``, (…, K, K); ``None`` if that is not positive definite."""
    try:
        return np.asarray(np.linalg.cholesky(square))
    except np.linalg.LinAlgError:
        return None


def inverse_diagonal(square: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The diagonal of the inverse, (…, K); ``None`` if ``square`` is not positive definite."""
    lower = factor(square)
    if lower is None:
        return None
    return np.asarray(np.sum(np.linalg.inv(lower) ** 2, axis=-2))
