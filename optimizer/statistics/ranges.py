"""Which range of a tensor to quantize, judged by its histogram.

::

    min-max         [min, max]: nothing is clipped
    moving-average  the mean over the feeds of each feed's min and max, as ONNX Runtime's calibrator averages them
                    (PyTorch's ``MovingAverageMinMaxObserver`` weighs later feeds more)
    percentile      all but (100 - p) / 2 percent at either end (H. Wu et al., "Integer Quantization for Deep
                    Learning Inference", arXiv 2004.09602)
    entropy         least KL(P || Q): P are the bins inside, with the clipped ones added to the outermost, Q the same
                    bins averaged over each of the levels (S. Migacz, "8-bit Inference with TensorRT", GTC 2017)
    mse             least sum of (x - dequantize(quantize(x)))^2, by grid search (M. Nagel et al., "A White Paper on
                    Neural Network Quantization", arXiv 2106.08295, section 3.1)

Both ends are searched, so that a tensor that is not symmetric is clipped at the end that has the outliers. Quantization
by a range widens it to hold 0, and so do the errors here. ONNX Runtime's quantizer has percentile and entropy in
``PercentileCalibrater`` and ``EntropyCalibrater``, PyTorch a search for the least squared error in
``HistogramObserver``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from optimizer.statistics.histogram import Histogram

Method: TypeAlias = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
_SHARES = np.geomspace(1, 1 / 256, 40)  # of the outermost value: each candidate is 13 % narrower than the one before
_FINE_STEPS = 7
_ROUNDS = 2  # the two ends depend on each other; a third round moves 3 % of the ranges of a real net by a little
_MOST_CLIPPED = 0.1
_LEAST_PROBABILITY = 1e-7  # of a bin of Q where P has something


@dataclass(frozen=True)
class Range:
    """From which to which value a tensor is quantized.

    Attributes:
        rmin: The lower end.
        rmax: The upper end; not below ``rmin``.
    """

    rmin: float
    rmax: float

    @property
    def largest(self) -> float:
        """The larger magnitude of the two ends."""
        return max(abs(self.rmin), abs(self.rmax))


def percentile_range(histogram: Histogram, extremes: Range, percentile: float, *, symmetric: bool = False) -> Range:
    """All but the outermost ``100 - percentile`` percent; to the bin's outer edge, so never less than asked for.

    Args:
        histogram: Of the tensor.
        extremes: Its minimum and maximum, which the result stays within.
        percentile: 0 to 100.
        symmetric: Whether the percentage is of magnitudes, for [-t, t].
    """
    # 1. How many elements may lie outside.
    edges, counts = histogram.between(extremes.rmin, extremes.rmax)
    clipped = counts.sum() * (100 - percentile) / 100
    # 2. Symmetric: whole bins go, the farthest from 0 first, as long as they hold no more than that.
    if symmetric:
        magnitude = np.maximum(np.abs(edges[:-1]), np.abs(edges[1:]))
        order = np.argsort(-magnitude, kind="stable")
        kept = order[int(np.searchsorted(np.cumsum(counts[order]), clipped, side="right")) :]
        return _within(extremes, -float(magnitude[kept].max(initial=0)), float(magnitude[kept].max(initial=0)))
    # 3. Else half of them may go at either end.
    low = edges[np.searchsorted(np.cumsum(counts), clipped / 2, side="right")]
    high = edges[len(counts) - np.searchsorted(np.cumsum(counts[::-1]), clipped / 2, side="right")]
    return _within(extremes, float(low), float(high))


def least_error_range(histogram: Histogram, extremes: Range, levels: int, *, symmetric: bool = False) -> Range:
    """The range whose quantization to ``levels`` levels has the least squared error over the histogram (mse)."""
    edges, counts = histogram.between(extremes.rmin, extremes.rmax)
    density = counts / np.diff(edges)
    return _search(lambda low, high: squared_error(edges, density, low, high, levels), extremes, symmetric=symmetric)


def least_divergence_range(histogram: Histogram, extremes: Range, levels: int, *, symmetric: bool = False) -> Range:
    """The range whose quantization to ``levels`` levels changes the distribution least (entropy).

    The bin that holds 0 counts as much as its larger neighbour at most: zeros, half of what follows a Relu, are exact
    at any range, and would hide all else.
    """
    edges, counts = histogram.between(min(extremes.rmin, 0.0), max(extremes.rmax, 0.0))
    numbers = counts.astype(np.float64)
    zero = int(np.searchsorted(edges, 0, side="right")) - 1
    neighbours = [numbers[place] for place in (zero - 1, zero + 1) if 0 <= place < len(numbers)]
    numbers[zero] = min(numbers[zero], max([1.0, *neighbours]))
    return _search(lambda low, high: divergence(edges, numbers, low, high, levels), extremes, symmetric=symmetric)


def squared_error(
    edges: NDArray[np.float64], density: NDArray[np.float64], low: float, high: float, levels: int
) -> float:
    """The sum of squared errors of asymmetric quantization to [low, high], exact for evenly filled bins.

    Inside, x = k s + e with k = round(x / s), and the integral of e^2 from 0 to x is k s^3 / 12 + e^3 / 3; outside,
    that of the distance to the end squared is its cube / 3.

    Args:
        edges: Of the bins, ascending.
        density: Elements per unit of x in each bin.
        low: The lower end; widened to hold 0, and moved by less than a step so that 0 is on a level.
        high: The upper end, likewise.
        levels: How many numbers the grid has.
    """
    # 1. The grid: its step, and its lower end moved so that 0 is a level. A range of one point sends all to 0.
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (levels - 1)
    if step <= 0:
        return float(density @ np.diff(edges**3 / 3))
    low = float(np.rint(low / step)) * step
    inside = np.clip(edges, low, low + step * (levels - 1))
    # 2. The integral of the squared error from 0 to each edge: whole steps, the rest of a step, what is clipped.
    nearest = np.rint(inside / step)
    integral = nearest * (step**3 / 12) + (inside - nearest * step) ** 3 / 3 + (edges - inside) ** 3 / 3
    # 3. Differences are the integrals over the bins.
    return float(density @ np.diff(integral))


def divergence(edges: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float, levels: int) -> float:
    """KL(P || Q) as in the module's docstring; infinite where there are fewer bins than levels.

    It is infinite as well where a tenth of the elements is clipped: how far away they are does not enter it, so a bulk
    that is clipped into one bin would look like a good fit.

    Args:
        edges: Of the bins, ascending and evenly spaced.
        counts: Elements in each bin.
        low: The lower end; the bin that it is in counts as inside.
        high: The upper end, likewise.
        levels: How many numbers the grid has.
    """
    # 1. The bins inside, and how much is clipped.
    first = max(int(np.searchsorted(edges, low, side="right")) - 1, 0)
    last = min(int(np.searchsorted(edges, high, side="left")), len(counts))
    inside = counts[first:last]
    clipped = counts[:first].sum() + counts[last:].sum()
    if len(inside) < levels or not inside.any() or clipped > _MOST_CLIPPED * counts.sum():
        return float("inf")
    # 2. Q: each level's elements, spread evenly over those of its bins that have any.
    level = np.arange(len(inside)) * levels // len(inside)
    filled = inside > 0
    mean = np.bincount(level, inside) / np.maximum(np.bincount(level, filled), 1)
    # 3. P: the bins themselves, with what is clipped in the outermost.
    reference, candidate = inside.copy(), mean[level] * filled
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    # 4. Both as probabilities; sum of P log(P / Q) over the bins where P has something. Q can be 0 in an outermost
    #    bin that was empty.
    reference /= reference.sum()
    candidate = np.maximum(candidate / candidate.sum(), _LEAST_PROBABILITY)
    occupied = reference > 0
    return float(reference[occupied] @ np.log(reference[occupied] / candidate[occupied]))


def _search(cost: Callable[[float, float], float], extremes: Range, *, symmetric: bool) -> Range:
    """The cheapest range inside ``extremes``, the widest of equals."""
    low, high = min(extremes.rmin, 0.0), max(extremes.rmax, 0.0)
    if symmetric:
        low, high = -extremes.largest, extremes.largest
    # 1. Both ends by one share. That is all where there is one end.
    shrink = _cheapest(lambda share: cost(low * share, high * share))
    if symmetric or low == 0 or high == 0:
        return _within(extremes, low * shrink, high * shrink)

    def best_below(high_share: float) -> float:
        return _cheapest(lambda share: cost(low * share, high * high_share))

    def best_above(low_share: float) -> float:
        return _cheapest(lambda share: cost(low * low_share, high * share))

    # 2. One end at a time, from the cheapest of three starts: both ends narrowed, or one of them alone.
    starts = ((shrink, shrink), (best_below(1.0), 1.0), (1.0, best_above(1.0)))
    low_share, high_share = min(starts, key=lambda shares: cost(low * shares[0], high * shares[1]))
    for _ in range(_ROUNDS):
        previous = low_share, high_share
        high_share = best_above(low_share)
        low_share = best_below(high_share)
        if (low_share, high_share) == previous:
            break
    return _within(extremes, low * low_share, high * high_share)


def _cheapest(cost: Callable[[float], float]) -> float:
    """The share with the least ``cost``: the best of ``_SHARES``, refined between its neighbours."""
    costs = [cost(float(share)) for share in _SHARES]
    best = int(np.argmin(costs))
    around = np.linspace(_SHARES[max(best - 1, 0)], _SHARES[min(best + 1, len(_SHARES) - 1)], _FINE_STEPS)
    # Only if it is better: among equals the coarse one, which is the wider.
    fine = [cost(float(share)) for share in around]
    return float(around[np.argmin(fine)]) if min(fine) < costs[best] else float(_SHARES[best])


def _within(extremes: Range, low: float, high: float) -> Range:
    low, high = max(low, extremes.rmin), min(high, extremes.rmax)
    return Range(low, high) if low <= high else extremes
