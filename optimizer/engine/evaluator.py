"""Runs models for lossy passes: statistics over the calibration feeds, errors on the selection feeds, coarse times."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from optimizer.contract.memo import Memo
from optimizer.contract.progress import Progress
from optimizer.evaluation.calibration import moments
from optimizer.evaluation.calibration import sweep as calibration
from optimizer.evaluation.runtime.introspection import profile
from optimizer.evaluation.runtime.session import prepare, session
from optimizer.evaluation.runtime.timing import clock_for
from optimizer.evaluation.validation.budget_check import BudgetCheck
from optimizer.evaluation.validation.reference_outputs import ReferenceOutputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.evaluation.feeds.sets import Split
    from optimizer.evaluation.validation.budget import Budget
    from optimizer.statistics.cross_moments import CrossMoments
    from optimizer.statistics.second_moments import SecondMoments
    from optimizer.statistics.tensor_statistics import Observation

_MOST_SELECTION = 12  # a search asks for the error many times
_MOST_FOR_METRIC = 48  # a task metric over a dozen feeds tells next to nothing
_TIMED_SECONDS = 0.5
_TIMED_RUNS = (5, 200)


class RuntimeEvaluator:
    """What ``Context.evaluator`` is where models may be run; see ``optimizer.contract.evaluator.Evaluator``."""

    def __init__(  # noqa: PLR0913 - what it runs, by what it judges, how it times
        self,
        reference: ir.Model,
        split: Split,
        budget: Budget,
        *,
        random: frozenset[str] = frozenset(),
        allow_generated: bool = False,
        threads: int = 1,
        is_timed: bool = True,
        time_limit: float = 600.0,
        progress: Progress | None = None,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing runs yet.

        Args:
            reference: The model that errors are counted against.
            split: The feeds; those for validation are not touched.
            budget: What errors are counted in.
            random: Outputs that are random.
            allow_generated: Whether generated feeds may calibrate.
            threads: Threads of ONNX Runtime.
            is_timed: Whether times may decide.
            time_limit: Seconds for searches, from now on.
            progress: Told how far sweeps over the calibration feeds are.
            wall: Seconds.
        """
        self.calibration: Sequence[dict[str, Any]] = split.calibration
        self.has_data = split.origin != "generated" or allow_generated
        self.is_timed = is_timed
        self.memo = Memo()
        self._fitting = split.fitting
        self._selection = split.selection.spread(_MOST_SELECTION if budget.metric is None else _MOST_FOR_METRIC)
        answers = ReferenceOutputs(prepare(reference), self._selection, optimize=True, threads=threads)
        self._check = BudgetCheck(reference, answers, random)
        self._budget, self._threads = budget, threads
        self._wall, self._deadline = wall, wall() + time_limit
        self._until = self._deadline
        self._progress = progress or Progress()

    def observe(
        self, model: ir.Model, values: Sequence[str], channel_axes: Mapping[str, int] | None = None
    ) -> Mapping[str, Observation]:
        """Statistics of values by name over the calibration feeds; of channels too where an axis is given."""
        self._progress.begin(f"ranges of {len(values)} values over {len(self.calibration)} feeds")
        return calibration.observe(
            model,
            values,
            self.calibration,
            channel_axes=channel_axes or {},
            threads=self._threads,
            progress=self._progress,
        )

    def second_moments(self, model: ir.Model, kernels: Sequence[str]) -> Iterator[tuple[str, SecondMoments]]:
        """Second moments of the rows that kernels multiply with, by first output, over the feeds to fit to."""
        sweep, work = f"inputs of {len(kernels)} kernels over {len(self._fitting)} feeds", "kernels, one by one"

        def told(share: float) -> None:
            if self._progress.doing != sweep:
                self._progress.begin(sweep)
            self._progress(share)

        sums = moments.second_moments(model, kernels, self._fitting, threads=self._threads, progress=told)
        for number, found in enumerate(sums):
            if self._progress.doing != work:
                self._progress.begin(work)
            self._progress(number / len(kernels))
            yield found
        self._progress.begin("")

    def cross_moments(
        self, model: ir.Model, reference: ir.Model, kernels: Sequence[str]
    ) -> Iterator[tuple[str, CrossMoments]]:
        """Moments of what kernels of ``model`` read with what ``reference`` answers under their outputs' names."""
        self._progress.begin(f"inputs and answers of {len(kernels)} kernels over {len(self._fitting)} feeds")
        yield from moments.cross_moments(
            model, reference, kernels, self._fitting, threads=self._threads, progress=self._progress
        )

    def budget_used(self, model: ir.Model) -> float:
        """The largest share of any limit of the budget that ``model`` uses on the selection feeds."""
        return self._check.verdict(model, self._budget, threads=self._threads).search_share

    def seconds(self, model: ir.Model) -> float:
        """The median time of one inference, over short samples of one session."""
        clock = clock_for(self._threads)
        run = session(model, threads=self._threads).runner(list(self._selection[:2]))
        run()
        begun = clock()
        run()
        once = clock() - begun
        least, most = _TIMED_RUNS
        samples = []
        for _ in range(min(max(int(_TIMED_SECONDS / max(once, 1e-6)), least), most)):
            begun = clock()
            run()
            samples.append(clock() - begun)
        return statistics.median(samples)

    def profile(self, model: ir.Model) -> Mapping[str, float]:
        """Seconds of one inference by node name, as far as ONNX Runtime keeps the names."""
        self._progress.begin("timing single nodes")
        return profile(model, list(self._selection[:2]), threads=self._threads)

    def begin_stage(self, stages_left: int) -> None:
        """A stage begins: it has an equal part of the time that is left for it and those after it."""
        now = self._wall()
        self._until = now + (self._deadline - now) / stages_left

    def time_left(self) -> float:
        """Seconds that a search may still take."""
        return self._until - self._wall()
