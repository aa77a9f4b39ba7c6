"""Integers for rows of weights, one scale a row, by least squared error.

A row is whatever shares a scale: an output channel, a block of one, or a whole tensor. For each row the scale is looked
for among shrunken ones, since clipping an outlier may gain more than it loses (the MSE criterion of Nagel et al. 2021,
arXiv:2106.08295, section 3.1):

    q = saturate(round(w / scale) + zero_point)        w' = (q - zero_point) scale

    symmetric    scale = f max|w| / qmax                             zero_point = 0
    asymmetric   scale = f (max(w, 0) - min(w, 0)) / (qmax - qmin)   zero_point = round(qmin - f min(w, 0) / scale)

with the f of 1, 31/32, 30/32 … 16/32 whose sum of (w - w')^2 is least.

An element that is not clipped is off by at most half a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.algorithms.quantization.linear import IntegerRange

if TYPE_CHECKING:
    from numpy.typing import NDArray

INT4 = IntegerRange(np.dtype(np.int8), -8, 7)
UINT4 = IntegerRange(np.dtype(np.uint8), 0, 15)
_FACTORS = tuple(step / 32 for step in range(32, 15, -1))
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_CHUNK = 1 << 16  # elements at a time: they stay in the cache, and a large table needs no more memory


@dataclass(frozen=True)
class Rows:
    """Quantized rows.

    Attributes:
        integers: (rows, elements), of the grid's dtype.
        scale: (rows,), float32.
        zero_point: (rows,), of the grid's dtype.
        grid: The integers.
    """

    integers: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    grid: IntegerRange

    def floats(self) -> NDArray[np.float32]:
        """What the integers stand for, (rows, elements)."""
        shifted = self.integers.astype(np.float32) - self.zero_point.astype(np.float32)[:, None]
        return shifted * self.scale[:, None]


def quantize_rows(rows: NDArray[Any], grid: IntegerRange, *, symmetric: bool = True) -> Rows:
    """Quantize each row of (rows, elements) with a scale of its own.

    Args:
        rows: Finite floats.
        grid: The integers; for ``symmetric`` they have to hold 0 and as much below as above.
        symmetric: Whether the zero point is 0.
    """
    count, length = rows.shape
    result = Rows(np.empty((count, length), grid.dtype), np.empty(count, np.float32), np.zeros(count, grid.dtype), grid)
    step = max(_CHUNK // max(length, 1), 1)
    for begin in range(0, count, step):
        chunk = slice(begin, begin + step)
        floats = rows[chunk].astype(np.float32)
        scale, zero = _least_error(floats, grid, symmetric)
        result.integers[chunk] = _integers(floats, scale, zero, grid)
        result.scale[chunk], result.zero_point[chunk] = scale[:, 0], zero[:, 0]
    return result


def relative_error(rows: NDArray[Any], back: NDArray[np.float32]) -> float:
    """Root mean square over the rows of |w - w'| / |w|: what an output of the kernel is off by, for white inputs.

    Rows of less than a millionth of the largest norm do not count: they are dead.

    Args:
        rows: The weights, (rows, elements).
        back: What their integers stand for.
    """
    error, power = square_sums(rows - back), square_sums(rows)
    alive = power > 1e-12 * power.max(initial=0.0)
    return float(np.sqrt(np.mean(error[alive] / power[alive]))) if alive.any() else 0.0


def square_sums(rows: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of squares of each row."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _least_error(
    rows: NDArray[np.float32], grid: IntegerRange, symmetric: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and zero point of each row, (rows, 1) both."""
    low = np.minimum(rows.min(axis=1, keepdims=True, initial=0), 0)
    high = np.maximum(rows.max(axis=1, keepdims=True, initial=0), 0)
    if symmetric:
        high = np.maximum(high, -low)
    # Factor 1 clips nothing. Smaller ones clip the largest elements and round all others more finely; the least squared
    # error of the factors tried wins, row by row
    best = _parameters(low, high, 1.0, grid, symmetric)
    least = _squared_error(rows, *best, grid)
    for factor in _FACTORS[1:]:
        tried = _parameters(low, high, factor, grid, symmetric)
        error = _squared_error(rows, *tried, grid)
        better = (error < least)[:, None]
        best = np.where(better, tried[0], best[0]), np.where(better, tried[1], best[1])
        least = np.minimum(least, error)
    return best


def _parameters(
    low: NDArray[np.float32], high: NDArray[np.float32], factor: float, grid: IntegerRange, symmetric: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # symmetric: scale = f max|w| / qmax
    # asymmetric: scale = f (rmax - rmin) / (qmax - qmin), zero point = round(qmin - f rmin / scale)
    steps = grid.qmax if symmetric else grid.qmax - grid.qmin
    width = high.astype(np.float64) if symmetric else high.astype(np.float64) - low
    scale = np.maximum(width * factor / steps, _SMALLEST_SCALE).astype(np.float32)
    if symmetric:
        return scale, np.zeros_like(scale)
    zero = np.clip(np.rint(grid.qmin - factor * low.astype(np.float64) / scale), grid.qmin, grid.qmax)
    return scale, zero.astype(np.float32)


def _integers(
    rows: NDArray[np.float32], scale: NDArray[np.float32], zero: NDArray[np.float32], grid: IntegerRange
) -> NDArray[np.float32]:
    # q = saturate(round(w / scale) + z), in float32: exact for integers of 8 bits
    steps = np.rint(rows / scale) + zero
    saturated: NDArray[np.float32] = np.clip(steps, np.float32(grid.qmin), np.float32(grid.qmax))
    return saturated


def _squared_error(
    rows: NDArray[np.float32], scale: NDArray[np.float32], zero: NDArray[np.float32], grid: IntegerRange
) -> NDArray[np.float64]:
    return square_sums(rows - (_integers(rows, scale, zero, grid) - zero) * scale)
