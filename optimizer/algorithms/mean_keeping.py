"""Choosing entries of a codebook so that the errors of an output channel cancel in the mean.

The output of a row w is off by sum_k d_k x_k for errors d. With inputs of mean m_k and variance v_k that vary apart,
its mean square is

    sum_k v_k d_k^2 + (sum_k m_k d_k)^2

Elements are chosen one after the other. With s the sum of m d over those before, and T the sum of m^2 / v over those
behind, which can still make up for s, the best d_k is

    - s m_k / (v_k (1 + T) + m_k^2)

and the entry nearest to w_k + d_k is taken: Babai's nearest plane for this form, as GPTQ is for a full one (see
``adaptive_rounding``). Elements of small v come last. A row that gains nothing by it keeps the nearest entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DAMPING = 0.05  # of the mean power, added to variances: other inputs vary otherwise
MOST_ENTRIES = 64  # of a row's own codebook: all are compared


def mean_keeping(  # noqa: PLR0913 - the rows, what they may become, and what they meet; by keyword from the third on
    rows: NDArray[Any],
    indices: NDArray[np.uint8],
    *,
    books: NDArray[Any],
    owners: NDArray[np.int64] | None,
    power: NDArray[Any],
    mean: NDArray[Any],
    keep_zeros: bool,
) -> NDArray[np.uint8]:
    """Indices for ``rows`` whose errors cancel in the mean.

    Args:
        rows: The weight, one row an output channel, (rows, elements).
        indices: The nearest entries.
        books: Ascending entries, (codebooks, entries).
        owners: Which codebook each row has; ``None`` if there is one, or one for each row.
        power: Mean squares of the inputs, (rows, elements).
        mean: Their means, (rows, elements).
        keep_zeros: Whether zeros stay 0.
    """
    own = books[owners] if owners is not None else books
    wide = own.astype(np.float64)
    middles = (wide[:, 1:] + wide[:, :-1]) / 2
    variance = np.maximum(power - np.square(mean, dtype=np.float64), 0)
    damped = variance + _DAMPING * power.mean(axis=1, keepdims=True, dtype=np.float64)
    order = np.argsort(-damped.mean(axis=0), kind="stable")
    behind = np.cumsum((np.square(mean, dtype=np.float64) / damped)[:, order[::-1]], axis=1)[:, ::-1]
    found, total = np.empty_like(indices), np.zeros(len(rows))
    every = np.arange(len(rows)) if len(own) > 1 else np.zeros(len(rows), np.int64)
    for step, at in enumerate(order):
        weight, scale = rows[:, at].astype(np.float64), mean[:, at].astype(np.float64)
        left = 1 + (behind[:, step + 1] if step + 1 < len(order) else 0)
        target = weight - total * scale / (damped[:, at] * left + scale**2)
        if keep_zeros:
            target[weight == 0] = 0
        chosen = np.searchsorted(middles[0], target) if len(own) == 1 else np.sum(target[:, None] > middles, axis=1)
        found[:, at] = chosen
        total += scale * (wide[every, chosen] - weight)
    worse = _cost(rows, wide, every, found, variance, mean) >= _cost(rows, wide, every, indices, variance, mean)
    found[worse] = indices[worse]
    return found


def _cost(  # noqa: PLR0913, PLR0917 - as above
    rows: NDArray[Any],
    books: NDArray[np.float64],
    every: NDArray[np.int64],
    indices: NDArray[np.uint8],
    variance: NDArray[Any],
    mean: NDArray[Any],
) -> NDArray[np.float64]:
    """What each row's output is off by, in the mean square."""
    difference = books[every[:, None], indices] - rows
    return np.asarray(np.sum(variance * difference**2, axis=1) + np.sum(mean * difference, axis=1) ** 2)
