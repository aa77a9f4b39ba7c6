"""A histogram whose range grows with what it is shown, in constant memory.

It has 8,192 bins over [-L, L), where L is the least power of two above the largest magnitude seen. When a larger one
comes, L is doubled as often as needed and bins are merged pairwise, so no count is lost. Since scaling by a power of
two is exact, the counts are those of the final L from the start: they do not depend on the order of what was added.

At least 2,048 bins lie between 0 and the largest magnitude: as many as TensorRT's calibrator has (S. Migacz, "8-bit
Inference with TensorRT", GTC 2017). PyTorch's ``HistogramObserver`` and the ``HistogramCollector`` of ONNX Runtime's
quantizer do the same work with a range that starts at the first feed's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 8192
_LEAST_EXPONENT, _MOST_EXPONENT = -100, 1023  # what is smaller than 2^-100 counts as zero


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(BINS, np.int64)


@dataclass
class Histogram:
    """Counts over [-limit, limit).

    Attributes:
        counts: int64, one number a bin.
        exponent: ``limit`` is two to this power.
    """

    counts: NDArray[np.int64] = field(default_factory=_no_counts)
    exponent: int = _LEAST_EXPONENT

    @property
    def limit(self) -> float:
        """The upper end of the last bin, and minus the lower end of the first."""
        return math.ldexp(1.0, self.exponent)

    @property
    def width(self) -> float:
        """The width of a bin."""
        return self.limit / (BINS // 2)

    def fit(self, largest: float) -> None:
        """Grow until ``largest`` lies inside."""
        if largest == 0:
            return
        # 1. The least e with largest < 2^e: frexp gives largest = f * 2^e with f in [1/2, 1).
        exponent = min(max(math.frexp(largest)[1], _LEAST_EXPONENT), _MOST_EXPONENT)
        if exponent <= self.exponent:
            return
        # 2. Bin b, counted from 0, becomes b >> shift: an arithmetic shift rounds down, so that negative bins stay
        #    negative. A shift by 62 empties any index, and an int64 takes no more than 63.
        middle, shift = BINS // 2, min(exponent - self.exponent, 62)
        merged = _no_counts()
        np.add.at(merged, middle + ((np.arange(BINS) - middle) >> shift), self.counts)
        self.counts, self.exponent = merged, exponent

    def add(self, numbers: NDArray[np.float64], index: NDArray[np.intp] | None = None) -> None:
        """Count finite ``numbers``, which ``fit`` has made room for.

        Args:
            numbers: Are overwritten.
            index: Room for as many integers, for callers that have some at hand.
        """
        if index is None:
            index = np.empty(numbers.shape, np.intp)
        # floor(x / width), in place; the width is a power of two, so its inverse and the product are exact.
        np.multiply(numbers, 1.0 / self.width, out=numbers)
        np.floor(numbers, out=numbers)
        np.copyto(index, numbers, casting="unsafe")
        # Magnitudes of 2^1023 and more go to the last bins.
        np.clip(index, -BINS // 2, BINS // 2 - 1, out=index)
        index += BINS // 2
        self.counts += np.bincount(index, minlength=BINS)

    def between(self, low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The bins from that of ``low`` to that of ``high``: their edges, (bins + 1,), and counts, (bins,)."""
        first, last = (min(max(math.floor(end / self.width), -BINS // 2), BINS // 2 - 1) for end in (low, high))
        edges = np.arange(first, last + 2, dtype=np.float64) * self.width
        return edges, self.counts[first + BINS // 2 : last + 1 + BINS // 2]
