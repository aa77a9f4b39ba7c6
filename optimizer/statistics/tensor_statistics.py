"""What is known of a tensor after it was seen in any number of feeds, in constant memory.

Counterparts: the observers of PyTorch (``MinMaxObserver``, ``HistogramObserver``) and the calibrators of ONNX Runtime's
quantizer. Those are one object a method; this one keeps what all methods need, so the method can be chosen later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import DataError, UsageError
from optimizer.statistics import ranges
from optimizer.statistics.channel_statistics import ChannelStatistics
from optimizer.statistics.histogram import Histogram
from optimizer.statistics.ranges import METHODS, Range

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METHODS", "Observation", "Range"]

_BLOCK = 1 << 15  # elements worked on at once: what fits into a core's cache, and fresh pages are slow
_SAMPLE = 512  # elements of each feed that are compared with the first feed's
_DOUBLE = 4  # bytes; integers and floats of at least so many (float32 apart) need float64


@dataclass
class Observation:
    """Statistics of one tensor; elements that are not finite are counted and left out of all else.

    Attributes:
        channels: Statistics of each channel, if an axis was given.
        histogram: Of all finite elements.
        count: Finite elements.
        feeds: Arrays that had some.
        non_finite: Elements that are NaN or infinite.
        minimum: Least element.
        maximum: Largest element.
        total: Sum of elements.
        squares: Sum of squares.
        minima: Sum over the feeds of each feed's least element.
        maxima: Sum over the feeds of each feed's largest element.
        feed_change: Largest difference of a feed from the first one: of the mean, and of an element in a sample of at
            most a few hundred; infinite where the shape differs.
    """

    channels: ChannelStatistics | None = None
    histogram: Histogram = field(default_factory=Histogram)
    count: int = 0
    feeds: int = 0
    non_finite: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: float = 0.0
    squares: float = 0.0
    minima: float = 0.0
    maxima: float = 0.0
    feed_change: float = 0.0
    _first: tuple[tuple[int, ...], NDArray[Any]] | None = field(default=None, repr=False)
    _first_total: float | None = field(default=None, repr=False)

    @classmethod
    def of(cls, channel_axis: int | None = None) -> Observation:
        """Nothing seen yet.

        Args:
            channel_axis: The axis whose channels are looked at apart as well.
        """
        return cls(None if channel_axis is None else ChannelStatistics.along(channel_axis))

    @property
    def mean(self) -> float:
        """The mean of all elements, 0 if there is none."""
        return self.total / max(self.count, 1)

    @property
    def second_moment(self) -> float:
        """The mean square of all elements."""
        return self.squares / max(self.count, 1)

    @property
    def variance(self) -> float:
        """The variance of all elements."""
        return max(self.second_moment - self.mean**2, 0.0)

    @property
    def largest(self) -> float:
        """The largest magnitude, 0 if there is no element."""
        return max(-self.minimum, self.maximum) if self.count else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether all elements of all feeds are one number."""
        return self.count > 0 and self.minimum == self.maximum

    def add(self, array: NDArray[Any]) -> None:
        """Take in the tensor of one feed, of any shape and any numeric type.

        Raises:
            DataError: If its elements are not real numbers, or channels are wanted that it does not have.
        """
        numbers = _as_float(np.asarray(array))
        flat = numbers.reshape(-1)
        if not flat.size:
            return
        # Two passes over the memory tell whether all is finite: NaN is the minimum and the maximum if there is one.
        low, high = float(flat.min()), float(flat.max())
        finite = math.isfinite(low) and math.isfinite(high)
        if self.channels is not None:
            self.channels.add(numbers, finite=finite)
        self._compare(numbers.shape, flat)
        if not finite:
            kept = flat[np.isfinite(flat)]
            self.non_finite += flat.size - kept.size
            if not kept.size:
                return
            flat, low, high = kept, float(kept.min()), float(kept.max())
        self._count(flat, low, high)

    def range(
        self, method: str = "min-max", grid_levels: int = 256, percentile: float = 99.999, *, symmetric: bool = False
    ) -> Range:
        """The range to quantize by; it lies within [minimum, maximum].

        The formulas are in ``optimizer.statistics.ranges``.

        Args:
            method: One of ``METHODS``.
            grid_levels: How many integers the grid has; for entropy and mse.
            percentile: Share of the elements, in percent, that is not clipped; for percentile.
            symmetric: Whether the grid will be [-t, t], so that both ends are clipped at one t.

        Raises:
            UsageError: If there is no such method, or a number is out of bounds.
            DataError: If no finite element was seen.
        """
        if method not in METHODS:
            raise UsageError(f"there is no range method {method!r}; give one of {', '.join(METHODS)}")
        if not 0 < percentile <= 100 or grid_levels < 2:
            raise UsageError(f"percentile={percentile} must be in (0, 100], levels={grid_levels} at least 2")
        if not self.count:
            raise DataError("there is no range of a tensor of which no finite element was seen")
        extremes = Range(self.minimum, self.maximum)
        if method == "min-max" or self.is_constant:
            return extremes
        if method == "moving-average":
            low, high = self.minima / self.feeds, self.maxima / self.feeds
            return Range(max(low, self.minimum), min(high, self.maximum))  # a mean may be off by rounding
        if method == "percentile":
            return ranges.percentile_range(self.histogram, extremes, percentile, symmetric=symmetric)
        if method == "entropy":
            return ranges.least_divergence_range(self.histogram, extremes, grid_levels, symmetric=symmetric)
        return ranges.least_error_range(self.histogram, extremes, grid_levels, symmetric=symmetric)

    def share(self, low: float, high: float) -> float:
        """Share of the elements in the bins from that of ``low`` to that of ``high``."""
        if not self.count:
            return 0.0
        return float(self.histogram.between(low, high)[1].sum()) / self.count

    def _count(self, flat: NDArray[Any], low: float, high: float) -> None:
        """Take in finite elements, whose least and largest are ``low`` and ``high``."""
        # 1. Extremes, and a histogram wide enough for them.
        self.count += flat.size
        self.feeds += 1
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.minima, self.maxima = self.minima + low, self.maxima + high
        self.histogram.fit(max(-low, high))
        # 2. Sums and counts, block by block as float64, in two buffers that stay in the cache.
        total = 0.0
        buffer, index = np.empty(min(flat.size, _BLOCK)), np.empty(min(flat.size, _BLOCK), np.intp)
        for start in range(0, flat.size, _BLOCK):
            size = min(_BLOCK, flat.size - start)
            block = buffer[:size]
            block[:] = flat[start : start + size]
            with np.errstate(over="ignore"):  # the square of a huge double is infinite
                total += float(block.sum())
                self.squares += float(np.einsum("i,i", block, block))  # @ would start threads for it
            self.histogram.add(block, index[:size])
        # 3. How far the mean lies from the first feed's.
        self._first_total = total if self._first_total is None else self._first_total
        self.feed_change = max(self.feed_change, abs(total - self._first_total) / flat.size)
        self.total += total

    def _compare(self, shape: tuple[int, ...], flat: NDArray[Any]) -> None:
        """Compare a sample of evenly spaced elements with the first feed's: a mean alone would miss a permutation."""
        sample = flat[:: -(-flat.size // _SAMPLE)]
        if self._first is None:
            self._first = shape, sample.copy()
        elif shape != self._first[0]:
            self.feed_change = math.inf
        elif not np.array_equal(sample, self._first[1], equal_nan=True):
            with np.errstate(invalid="ignore", over="ignore"):  # of infinities
                difference = float(np.max(np.abs(sample.astype(np.float64) - self._first[1])))
            self.feed_change = max(self.feed_change, difference) if math.isfinite(difference) else math.inf


def _as_float(array: NDArray[Any]) -> NDArray[Any]:
    """``array`` as float32 where that is exact, else as float64."""
    type_kind, size = array.dtype.kind, array.dtype.itemsize
    if type_kind in "cOSUMm":
        raise DataError(f"elements of type {array.dtype} have no range")
    if array.dtype == np.float32:
        return array
    return array.astype(np.float64 if type_kind in "fiu" and size >= _DOUBLE else np.float32)
