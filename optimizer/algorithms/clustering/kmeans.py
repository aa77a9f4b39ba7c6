"""Codebooks of numbers: one-dimensional k-means, weighted, for many rows at once.

    minimize  sum_i m_i (w_i - c[a_i])^2        c the entries of a row, a_i in 0 … entries - 1, m_i the mass of w_i

The numbers are sorted once and fitted by ``optimizer.algorithms.clustering.kmeans_1d``. Rows of more than
``MOST_POINTS`` numbers are first gathered into bins of equal leading bits of their floats (sign, exponent, nine bits of
the mantissa), each with its mass and its mean; borders are then off by at most a five-hundredth of themselves.

It starts from one of

    density   entries where the integral of p^(1/3), p the density of the numbers, grows by equal steps, which is
              optimal for many entries (Panter, Dite 1951; Proc. IRE 39): with gaps d between sorted numbers it is the
              running sum of m^(1/3) d^(2/3)
    linear    entries evenly spaced from the least to the largest number (Han et al. 2016, arXiv:1510.00149)

A row may keep its zeros: the entry nearest to 0 is then 0 after each round. A row of no more different numbers than
entries gets just these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from optimizer.algorithms.clustering.kmeans_1d import PrefixSums, count_below, fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

Init: TypeAlias = Literal["density", "linear"]
MOST_POINTS = 1 << 18
_CHUNK = 1 << 20  # numbers at a time
_DROPPED_BITS = 14  # of a float32, in a bin


def codebooks(
    rows: NDArray[Any],
    entries: int,
    masses: NDArray[Any] | None = None,
    *,
    init: Init = "density",
    keep_zeros: bool = False,
) -> NDArray[Any]:
    """The entries for each row, in ascending order; the last one is repeated where a row needs fewer.

    Args:
        rows: Finite floats, (rows, numbers).
        entries: How many each row gets.
        masses: What an error of each number counts, in a shape that broadcasts to that of ``rows``; not negative.
        init: What to start from.
        keep_zeros: Whether one of the entries is 0.

    Returns:
        (rows, entries), of the type of ``rows``.
    """
    books = np.empty((len(rows), entries), rows.dtype)
    is_long = rows.shape[1] > MOST_POINTS
    step = 1 if is_long else max(_CHUNK // max(rows.shape[1], 1), 1)
    for begin in range(0, len(rows), step):
        chunk = slice(begin, begin + step)
        mass = None if masses is None else np.broadcast_to(masses, rows.shape)[chunk]
        points, weights = _binned(rows[chunk], mass) if is_long else _sorted(rows[chunk], mass)
        begun = _start(points, weights, entries, init)
        books[chunk] = np.sort(fitted(PrefixSums.of(points, weights), begun, keep_zeros=keep_zeros), axis=1)
        _exact(points, rows[chunk], books[chunk])
    return books


def nearest(numbers: NDArray[Any], entries: NDArray[Any]) -> NDArray[np.uint8]:
    """Which of the ascending ``entries`` is nearest to each number; a number that is an entry gets an equal one.

    Args:
        numbers: Floats of any shape.
        entries: (entries,), at most 256.
    """
    wide = entries.astype(np.float64)
    # The nearest entry is found by the borders half-way between entries: a binary search and no distances
    middles = (wide[1:] + wide[:-1]) / 2
    flat = numbers.reshape(-1)
    indices = np.empty(flat.size, np.uint8)
    for begin in range(0, flat.size, _CHUNK):
        chunk = slice(begin, begin + _CHUNK)
        indices[chunk] = np.searchsorted(middles, flat[chunk].astype(np.float64))
    return indices.reshape(numbers.shape)


def _sorted(rows: NDArray[Any], masses: NDArray[Any] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The numbers of each row in ascending order, with their masses."""
    if masses is None:
        points = np.sort(rows, axis=1).astype(np.float64)
        return points, np.ones_like(points)
    order = np.argsort(rows, axis=1, kind="stable")
    points = np.take_along_axis(rows, order, axis=1).astype(np.float64)
    return points, np.take_along_axis(masses, order, axis=1).astype(np.float64)


def _binned(rows: NDArray[Any], masses: NDArray[Any] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The means of the bins of the one row, in ascending order, with their masses."""
    size = 1 << (32 - _DROPPED_BITS)
    mass, moment = np.zeros(size), np.zeros(size)
    for begin in range(0, rows.shape[1], _CHUNK):
        numbers = rows[0, begin : begin + _CHUNK]
        bins = _bins(numbers.astype(np.float32))
        weights = np.ones(numbers.size) if masses is None else masses[0, begin : begin + _CHUNK].astype(np.float64)
        # A bin is one point at its mean: mass = sum m, moment = sum m w
        mass += np.bincount(bins, weights, size)
        moment += np.bincount(bins, weights * numbers, size)
    filled = mass > 0
    return (moment[filled] / mass[filled])[np.newaxis], mass[filled][np.newaxis]


def _bins(numbers: NDArray[np.float32]) -> NDArray[np.int64]:
    """The leading bits of floats as integers in the same order; -0 is with 0."""
    bits = (numbers + np.float32(0)).view(np.int32).astype(np.int64)
    # As integers, floats of one sign ascend with their magnitude; negative ones are turned round below 0
    ascending = np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)  # floats are sign and magnitude
    return np.asarray((ascending + (1 << 31)) >> _DROPPED_BITS)


def _start(points: NDArray[np.float64], masses: NDArray[np.float64], entries: int, init: Init) -> NDArray[np.float64]:
    """Where the entries of each row are at first."""
    steps = (np.arange(entries) + 0.5) / entries
    if init == "linear":
        low, high = points[:, :1], points[:, -1:]
        return low + (high - low) * np.linspace(0, 1, entries)
    # 1. m^(1/3) d^(2/3) between neighbours: p^(1/3) dw for a density p = m / d
    gaps = np.diff(points, axis=1)
    between = np.cbrt((masses[:, 1:] + masses[:, :-1]) / 2 * gaps**2)
    # 2. its running integral
    integral = np.concatenate([np.zeros((len(points), 1)), np.cumsum(between, axis=1)], axis=1)
    # 3. the points where it reaches (k + 1/2) / entries of the whole, no point twice
    order, last = np.arange(entries), points.shape[1] - 1
    at = np.maximum.accumulate(count_below(integral, steps * integral[:, -1:]) - order, axis=1) + order
    return np.take_along_axis(points, np.clip(np.minimum(at, last - entries + 1 + order), 0, last), axis=1)


def _exact(points: NDArray[np.float64], rows: NDArray[Any], books: NDArray[Any]) -> None:
    """Give rows of few different numbers these."""
    entries = books.shape[1]
    few = np.count_nonzero(np.diff(points, axis=1), axis=1) < entries
    for number in np.flatnonzero(few):
        exact = np.unique(rows[number])
        if exact.size <= entries:
            books[number] = exact[-1]
            books[number, : exact.size] = exact
