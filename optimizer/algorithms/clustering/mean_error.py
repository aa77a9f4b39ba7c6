"""Choosing entries of a codebook so that the errors of an output channel cancel in the mean.

The output of a row w is off by sum_k d_k x_k for errors d. With inputs of mean m_k and variance v_k that vary apart,
its mean square is

    sum_k v_k d_k^2 + (sum_k m_k d_k)^2

Elements are chosen one after the other. With s the sum of m d over those before, and T the sum of m^2 / v over those
behind, which can still make up for s, the best d_k is

    - s m_k / (v_k (1 + T) + m_k^2)

and the entry nearest to w_k + d_k is taken: Babai's nearest plane for this form, as GPTQ is for a full one
(``optimizer.algorithms.reconstruction.gptq``). Elements of small v come last. A row that gains nothing by it keeps the
nearest entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DAMPING = 0.05  # of the mean power, added to variances: other inputs vary otherwise
_CHUNK = 1 << 20  # elements at a time
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
    result = np.empty_like(indices)
    step = max(_CHUNK // max(rows.shape[1], 1), 1)
    for begin in range(0, len(rows), step):
        chunk = slice(begin, begin + step)
        row_books = books if len(books) == 1 else books[chunk] if owners is None else books[owners[chunk]]
        chosen = _chosen(rows[chunk], row_books, power[chunk], mean[chunk], keep_zeros=keep_zeros)
        result[chunk] = _better(rows[chunk], row_books, (indices[chunk], chosen), power[chunk], mean[chunk])
    return result


def _chosen(
    rows: NDArray[Any], books: NDArray[Any], power: NDArray[Any], mean: NDArray[Any], *, keep_zeros: bool
) -> NDArray[np.uint8]:
    """Entries one element after the other; ``books`` has one codebook for all rows, or one for each."""
    wide = books.astype(np.float64)
    middles = (wide[:, 1:] + wide[:, :-1]) / 2
    variance = np.maximum(power - np.square(mean, dtype=np.float64), 0)
    damped = variance + _DAMPING * power.mean(axis=1, keepdims=True, dtype=np.float64)
    # Elements of large v first: those of small v are cheap to move, and make up for what is left at the end
    order = np.argsort(-damped.mean(axis=0), kind="stable")
    # T of each step: the sum of m^2 / v over the elements behind it
    behind = np.cumsum((np.square(mean, dtype=np.float64) / damped)[:, order[::-1]], axis=1)[:, ::-1]
    indices, total = np.empty(rows.shape, np.uint8), np.zeros(len(rows))
    every = np.arange(len(rows)) if len(books) > 1 else np.zeros(len(rows), np.int64)
    for step, at in enumerate(order):
        weight, scale = rows[:, at].astype(np.float64), mean[:, at].astype(np.float64)
        room_behind = 1 + (behind[:, step + 1] if step + 1 < len(order) else 0)
        # d = - s m / (v (1 + T) + m^2), with s = ``total`` the errors so far in the mean
        target = weight - total * scale / (damped[:, at] * room_behind + scale**2)
        if keep_zeros:
            target[weight == 0] = 0
        chosen = np.searchsorted(middles[0], target) if len(books) == 1 else np.sum(target[:, None] > middles, axis=1)
        indices[:, at] = chosen
        total += scale * (wide[every, chosen] - weight)
    return indices


def _better(
    rows: NDArray[Any],
    books: NDArray[Any],
    choices: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    power: NDArray[Any],
    mean: NDArray[Any],
) -> NDArray[np.uint8]:
    """Of two choices, for each row the one whose output is off by less in the mean square; else the first."""
    variance = np.maximum(power - np.square(mean, dtype=np.float64), 0)
    every = np.zeros(len(rows), np.int64) if len(books) == 1 else np.arange(len(rows))
    costs = []
    for indices in choices:
        difference = books[every[:, np.newaxis], indices].astype(np.float64) - rows
        costs.append(np.sum(variance * difference**2, axis=1) + np.sum(mean * difference, axis=1) ** 2)
    return np.where((costs[1] < costs[0])[:, np.newaxis], choices[1], choices[0])
