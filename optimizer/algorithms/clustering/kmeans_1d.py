"""k-means on a line, for many rows of sorted points at once.

The points of one center lie between two borders, so a clustering is a list of borders, and sums over any stretch are
differences of running sums: a round of Lloyd's algorithm (1957; IEEE Trans. Inf. Theory 28, 1982) takes time
proportional to the centers, not to the points. Between rounds, the two neighbours that lose least become one, and the
center that is free then halves the cell that gains most by it, as long as that makes the error less (after Patané,
Russo 2001, "The enhanced LBG algorithm"). For cells a and b and a cell cut at its mean,

    cost of one for two     m_a m_b / (m_a + m_b) (c_a - c_b)^2
    gain of two for one     D - D_left - D_right,    D = sum m x^2 - (sum m x)^2 / sum m

Against the best clustering by dynamic programming the squared error is 0 to 13 % larger, from both starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS, _ROUNDS_BETWEEN, _MOVES = 40, 4, 16


@dataclass(frozen=True)
class PrefixSums:
    """Sorted points of rows, and running sums over them.

    Attributes:
        points: (rows, points), ascending.
        mass: (rows, points + 1): of the first 0, 1, 2 … points.
        moment: The same of mass times point.
        square: The same of mass times squared point.
    """

    points: NDArray[np.float64]
    mass: NDArray[np.float64]
    moment: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(cls, points: NDArray[np.float64], masses: NDArray[np.float64]) -> PrefixSums:
        """The sums of ``points`` with these masses."""
        return cls(points, _running(masses), _running(masses * points), _running(masses * points**2))

    def stretches(self, borders: NDArray[np.int64]) -> Cells:
        """What lies between successive ``borders``, (rows, cells + 1)."""
        sums = (self.mass, self.moment, self.square)
        return Cells(*(np.diff(np.take_along_axis(running, borders, axis=1), axis=1) for running in sums))

    def cells(self, centers: NDArray[np.float64]) -> tuple[NDArray[np.int64], Cells]:
        """Where the points begin and end that are nearest to each center, and their sums."""
        borders = np.zeros((len(centers), centers.shape[1] + 1), np.int64)
        borders[:, 1:-1] = count_below(self.points, (centers[:, 1:] + centers[:, :-1]) / 2)
        borders[:, -1] = self.points.shape[1]
        return borders, self.stretches(borders)


@dataclass(frozen=True)
class Cells:
    """Mass, moment and square of stretches, (rows, cells)."""

    mass: NDArray[np.float64]
    moment: NDArray[np.float64]
    square: NDArray[np.float64]

    def means(self, otherwise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean of each cell; of an empty one what is given."""
        return np.where(self.mass > 0, self.moment / np.where(self.mass > 0, self.mass, 1), otherwise)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Squared distances from the mean."""
        return np.maximum(self.square - self.moment * self.means(np.zeros_like(self.mass)), 0)


def fitted(sums: PrefixSums, centers: NDArray[np.float64], *, keep_zeros: bool) -> NDArray[np.float64]:
    """Centers of least squared error, as far as it is found from ``centers``.

    Args:
        sums: The points.
        centers: (rows, entries), ascending.
        keep_zeros: Whether one center of each row is 0.
    """
    if centers.shape[1] == 2:
        return _rounds(sums, _best_pair(sums), _ROUNDS, keep_zeros=keep_zeros)
    for _ in range(_MOVES):
        centers = _rounds(sums, centers, _ROUNDS_BETWEEN, keep_zeros=keep_zeros)
        moved = _moved(sums, centers)
        if np.array_equal(moved, centers):
            break
        centers = moved
    return _rounds(sums, centers, _ROUNDS, keep_zeros=keep_zeros)


def _best_pair(sums: PrefixSums) -> NDArray[np.float64]:
    """The best two centers of each row: all borders are looked at."""
    ones = (sums.mass, sums.moment, sums.square)
    below = Cells(*ones)
    above = Cells(*(running[:, -1:] - running for running in ones))
    # Every border splits the points into those below and those above it, whose sums are running sums
    border = np.argmin(below.errors + above.errors, axis=1)[:, np.newaxis]
    ends = np.zeros_like(border), border, np.full_like(border, sums.points.shape[1])
    return sums.stretches(np.concatenate(ends, axis=1)).means(np.zeros((len(border), 2)))


def _rounds(sums: PrefixSums, centers: NDArray[np.float64], most: int, *, keep_zeros: bool) -> NDArray[np.float64]:
    """``centers`` after rounds of: borders half-way between centers, centers at the means between borders."""
    last = None
    for _ in range(most):
        borders, cells = sums.cells(centers)
        if last is not None and np.array_equal(borders, last):
            break
        last, centers = borders, cells.means(centers)
        if keep_zeros:
            centers[np.arange(len(centers)), np.argmin(np.abs(centers), axis=1)] = 0
    return centers


def _moved(sums: PrefixSums, centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """``centers`` with two neighbours made one and the other put where it halves a cell, as often as that gains."""
    borders, cells = sums.cells(centers)
    count = centers.shape[1]
    means = cells.means(centers)
    # 1. Cost of one center for two neighbours: m_a m_b / (m_a + m_b) (c_a - c_b)^2
    both = cells.mass[:, 1:] + cells.mass[:, :-1]
    weight = cells.mass[:, 1:] * cells.mass[:, :-1] / np.where(both > 0, both, 1)
    costs = weight * np.diff(means, axis=1) ** 2
    tie = np.arange(count - 1) % 2 + both / sums.mass[:, -1:]  # of equal ones every other, light ones first
    costs += 1e-12 * cells.errors.sum(axis=1, keepdims=True) * tie
    # Only local minima, so that no cell is in two merges; the cheapest quarter of the cells may go
    padded = np.pad(costs, ((0, 0), (1, 1)), constant_values=np.inf)
    costs = np.where((costs <= padded[:, 2:]) & (costs < padded[:, :-2]), costs, np.inf)  # no two touch
    merges = np.argsort(costs, axis=1, kind="stable")[:, : max(count // 4, 1)]
    # 2. Gain of two centers for one: a cell cut at its mean, D - D_left - D_right
    middles = np.clip(count_below(sums.points, means), borders[:, :-1], borders[:, 1:])
    halves = np.empty((len(centers), 2 * count + 1), np.int64)
    halves[:, ::2], halves[:, 1::2] = borders, middles
    half_cells = sums.stretches(halves)
    gains = cells.errors - half_cells.errors[:, ::2] - half_cells.errors[:, 1::2]
    # Cells that are merged are not split
    for side in (0, 1):
        np.put_along_axis(gains, merges + side, -np.inf, axis=1)
    splits = np.argsort(-gains, axis=1, kind="stable")[:, : merges.shape[1]]
    # 3. The best split pays for the cheapest merge, the second for the second, as long as it gains more than that costs
    pays = np.take_along_axis(gains, splits, axis=1) > 1.001 * np.take_along_axis(costs, merges, axis=1)
    # 4. A merge puts both centers at their common mean; its second slot goes to the upper half of the split cell
    joined = (cells.moment[:, 1:] + cells.moment[:, :-1]) / np.where(both > 0, both, 1)
    joined = np.where(both > 0, joined, means[:, 1:])
    new_centers, halved = centers.copy(), half_cells.means(np.repeat(means, 2, axis=1))
    row = np.broadcast_to(np.arange(len(centers))[:, np.newaxis], merges.shape)[pays]
    merge, split = merges[pays], splits[pays]
    new_centers[row, merge] = joined[row, merge]
    new_centers[row, split] = halved[row, 2 * split]
    new_centers[row, merge + 1] = halved[row, 2 * split + 1]
    return np.sort(new_centers, axis=1)


def _running(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the first 0, 1, 2 … numbers of each row."""
    sums = np.zeros((numbers.shape[0], numbers.shape[1] + 1))
    np.cumsum(numbers, axis=1, out=sums[:, 1:])
    return sums


def count_below(points: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the ascending ``points`` of a row are below each limit of that row: binary search in all rows."""
    count = points.shape[1]
    count_so_far = np.zeros(limits.shape, np.int64)
    # The largest count whose last point is below the limit, bit by bit from the top, in all rows at once
    step = 1 << count.bit_length()
    while step := step >> 1:
        further = count_so_far + step
        smaller = np.take_along_axis(points, np.minimum(further, count) - 1, axis=1) < limits
        count_so_far = np.where(smaller & (further <= count), further, count_so_far)
    return count_so_far
