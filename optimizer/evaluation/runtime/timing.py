"""Which of two models is faster: paired latency with an interval.

One pair of sessions is not enough: where its buffers happen to lie in memory makes a model up to 5 % slower than
itself. So pairs of sessions are made afresh, in alternating order. Inside a pair the two run by turns, and the pair's
value is the median over neighbouring samples::

    pair = median_i log(candidate_i / reference_i)        neighbours in time share what else the machine does
    ratio = exp(median over pairs)                        interval: percentile bootstrap over pairs

(B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993).

The interval of a median of five pairs is their minimum to their maximum. More pairs are measured while nothing is
decided: neither the whole interval on one side of 1 ± 0.02, nor a ratio inside it with an interval that holds 1.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Clock = Callable[[], float]
Run = Callable[[], object]
Factory = Callable[[], Run]

MARGIN = 0.02
LEAST_PAIRS = 5
_MOST_PAIRS = 40
_SAMPLE_SECONDS = 1e-3  # a sample repeats a short model until it takes this long
_PAIR_SECONDS = 0.6  # sampling time of a pair of short models
_LEAST_SAMPLES = 7
_SLOW_SECONDS = 0.5  # from here on the first run counts: a warm-up would cost more than it steadies
_RESAMPLES = 2000


@dataclass(frozen=True)
class Latency:
    """How long the candidate takes, as a share of the reference.

    Attributes:
        ratio: Candidate / reference; below 1 the candidate is faster.
        low: Lower end of the 95 % interval of ``ratio``.
        high: Upper end.
        pairs: Pairs of fresh sessions that were measured.
        reference_seconds: Median time of one run of the reference.
        candidate_seconds: The same of the candidate.
    """

    ratio: float
    low: float
    high: float
    pairs: int
    reference_seconds: float = math.nan
    candidate_seconds: float = math.nan

    @property
    def verdict(self) -> Literal["faster", "slower", "same"]:
        """``same`` unless the whole interval lies outside 1 ± 0.02, over at least five pairs."""
        if self.pairs < LEAST_PAIRS:
            return "same"
        if self.low > 1 + MARGIN:
            return "slower"
        return "faster" if self.high < 1 - MARGIN else "same"

    def to_dict(self) -> dict[str, float | int | str]:
        """For the report."""
        return {
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "pairs": self.pairs,
            "reference_seconds": self.reference_seconds,
            "candidate_seconds": self.candidate_seconds,
            "verdict": self.verdict,
        }


def clock_for(threads: int) -> Clock:
    """The steadiest clock that still shows latency.

    With one thread a run happens in the calling thread, and that thread's own CPU time leaves out what other
    processes take from it. Several threads need the wall clock.
    """
    return time.thread_time if threads == 1 else time.perf_counter


def compare(  # noqa: PLR0913 - two sides, two clocks, and how long
    reference: Factory,
    candidate: Factory,
    *,
    clock: Clock = time.perf_counter,
    wall: Clock = time.perf_counter,
    pairs: int = LEAST_PAIRS,
    time_limit: float = 60.0,
) -> Latency:
    """Measure how much faster or slower ``candidate`` is than ``reference``.

    Args:
        reference: Makes a fresh session and returns a function that runs one inference.
        candidate: The same for the candidate.
        clock: Times the samples, in seconds; see ``clock_for``.
        wall: Keeps the time limit, in seconds.
        pairs: Pairs to measure before anything is decided.
        time_limit: Seconds after which no pair is begun; slow models get fewer samples a pair, never fewer than one.
            When it ends before five pairs, the verdict is ``same``.
    """
    deadline = wall() + time_limit
    pairs_measured: list[Pair] = []
    while True:
        # 1. A fresh pair, in alternating order, in its share of the time that is left.
        start = wall()
        share = (deadline - start) / max(pairs - len(pairs_measured), 1)
        clocks = _Clocks(clock, wall, start + share)
        candidate_first = len(pairs_measured) % 2 == 1
        pairs_measured.append(_fresh_pair(reference, candidate, clocks, candidate_first=candidate_first))
        # 2. Until it is decided, or no time is left for another one.
        result = summarize(pairs_measured)
        now = wall()
        enough = len(pairs_measured) >= _MOST_PAIRS or (len(pairs_measured) >= pairs and _decided(result))
        if enough or now + (now - start) > deadline:
            return result


@dataclass(frozen=True)
class Pair:
    """What one pair of sessions gave: the log of candidate / reference, and the median seconds of both."""

    log_ratio: float
    reference_seconds: float
    candidate_seconds: float


def summarize(measured: Sequence[Pair]) -> Latency:
    """Ratio and interval of what was measured."""
    logs = np.array([pair.log_ratio for pair in measured])
    low, high = bootstrap_median(logs)
    return Latency(
        ratio=float(np.exp(np.median(logs))),
        low=math.exp(low),
        high=math.exp(high),
        pairs=len(measured),
        reference_seconds=float(np.median([pair.reference_seconds for pair in measured])),
        candidate_seconds=float(np.median([pair.candidate_seconds for pair in measured])),
    )


def bootstrap_median(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of the median of ``values``; the same values give the same interval."""
    # 1. Samples of the same size, with repetition. 2. The interval of their medians.
    resamples = np.random.default_rng(0).choice(values, (_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(resamples, axis=1), [2.5, 97.5])
    return float(low), float(high)


def _decided(result: Latency) -> bool:
    """Whether more pairs would tell nothing: a verdict, or a ratio inside the margin with an interval that holds 1."""
    if result.verdict != "same":
        return True
    return abs(result.ratio - 1) <= MARGIN and result.low <= 1 <= result.high


@dataclass(frozen=True)
class _Clocks:
    """The clock of samples, the clock of the time limit, and when a pair must be done."""

    clock: Clock
    wall: Clock
    deadline: float

    def sample(self, run: Run, repeats: int) -> float:
        """Seconds of one run, over ``repeats`` runs."""
        start = self.clock()
        for _ in range(repeats):
            run()
        return max((self.clock() - start) / repeats, 1e-9)

    def both(self, reference: Run, candidate: Run, repeats: int, *, candidate_first: bool) -> tuple[float, float]:
        """Neighbouring samples of the two, the reference's first in the result."""
        if candidate_first:
            later = self.sample(candidate, repeats)
            return self.sample(reference, repeats), later
        return self.sample(reference, repeats), self.sample(candidate, repeats)


def _fresh_pair(reference: Factory, candidate: Factory, clocks: _Clocks, *, candidate_first: bool) -> Pair:
    # 1. Sessions in the order of the samples: what is allocated first may lie better in memory.
    if candidate_first:
        candidate_run = candidate()
        reference_run = reference()
    else:
        reference_run = reference()
        candidate_run = candidate()
    # 2. A warm-up, unless a run is slow; then how often a short run is repeated for one sample.
    start = clocks.wall()
    samples = [clocks.both(reference_run, candidate_run, 1, candidate_first=candidate_first)]
    if (clocks.wall() - start) / 2 < _SLOW_SECONDS:
        samples = [clocks.both(reference_run, candidate_run, 1, candidate_first=candidate_first)]
        repeats = max(1, math.ceil(_SAMPLE_SECONDS / max(samples[0])))
        samples = []
    else:
        repeats = 1
    # 3. Samples by turns, and the median of their ratios.
    samples += _by_turns(
        reference_run, candidate_run, repeats, clocks, samples_before=len(samples), candidate_first=not candidate_first
    )
    array = np.array(samples)
    log_ratio = float(np.median(np.log(array[:, 1] / array[:, 0])))
    return Pair(log_ratio, *(float(seconds) for seconds in np.median(array, axis=0)))


def _by_turns(  # noqa: PLR0913 - the inner loop
    reference: Run, candidate: Run, repeats: int, clocks: _Clocks, *, samples_before: int, candidate_first: bool
) -> list[tuple[float, float]]:
    """Sample the two by turns until there are enough samples or the time is up; one at least, with those before."""
    samples: list[tuple[float, float]] = []
    start = clocks.wall()
    collecting = gc.isenabled()  # a collection inside a sample would be timed with it
    gc.disable()
    try:
        while True:
            # Enough samples in enough time, or no time for another one.
            now = clocks.wall()
            count = len(samples)
            if count >= _LEAST_SAMPLES and now - start >= _PAIR_SECONDS:
                break
            per_sample = (now - start) / count if count else 0.0
            if count + samples_before and now + per_sample > clocks.deadline:
                break
            samples.append(clocks.both(reference, candidate, repeats, candidate_first=candidate_first))
            candidate_first = not candidate_first
    finally:
        if collecting:
            gc.enable()
    return samples
