"""Runs stages one after the other, judges each, and keeps or undoes it.

Structure is checked after every pass; signature, size and outputs are checked once per stage. A stage that fails is
bisected (see ``optimizer.engine.bisection``) and what holds of it is kept. Exact stages are timed together at the end;
only a loss sends the manager back to time them one by one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from optimizer.contract.progress import Progress
from optimizer.engine import budget_shares, worth
from optimizer.engine.attempt import Attempt, Failure, Restrictions, attempt
from optimizer.engine.bisection import OutOfAttemptsError, repair
from optimizer.engine.gates import signature_failure, size_failure
from optimizer.engine.stage_runs import StageRun, record, settled, undone
from optimizer.engine.worth import must_pay, unpaid
from optimizer.errors import CheckFailedError
from optimizer.io.model import byte_size, compressed_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Context
    from optimizer.engine.records import StageRecord
    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.recipes.spec import Stage

MOST_ATTEMPTS = 48


class Judge(Protocol):
    """Compares a candidate with the reference by running both; ``None`` where the outputs hold."""

    def failure(self, candidate: ir.Model, stage: Stage, allowance: float) -> Failure | None:
        """Why the outputs of ``candidate`` do not hold after ``stage``, which may use ``allowance`` of the budget."""

    def budget_used(self, candidate: ir.Model) -> float:
        """The share of the budget that ``candidate`` uses."""

    def latency(self, reference: ir.Model, candidate: ir.Model) -> Latency:
        """The paired latency ratio of ``candidate`` to ``reference``."""


@dataclass(frozen=True)
class Settings:
    """How the manager decides.

    Attributes:
        strict: Raise on the first failed check instead of undoing.
        timing: Whether latency is measured and decides.
        time_limit: Seconds for searching and timing; the checks themselves always run.
    """

    strict: bool = False
    timing: bool = True
    time_limit: float = 150.0


@dataclass
class Stopwatch:
    """CPU seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Add the CPU time of the block to ``kind``."""
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.process_time() - started


@dataclass(frozen=True)
class Outcome:
    """The model that came out of all stages, their records, and the latency ratio, if it was measured."""

    model: ir.Model
    stages: tuple[StageRecord, ...]
    latency: Latency | None


@dataclass
class PassManager:
    """Runs stages on a reference; the judge is missing where nothing may be run.

    Attributes:
        reference: The model as it was loaded.
        context: Handed to every pass.
        judge: Runs and times models.
        settings: How to decide.
        stopwatch: Collects the CPU seconds of ``rewrite`` and ``gates``, the search for what fails
            among the latter.
        progress: Told what is being done.
        keep: Called with the stage's number and the model after each stage.
        clock: Seconds, for the time limit.
    """

    reference: ir.Model
    context: Context
    judge: Judge | None = None
    settings: Settings = Settings()
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    progress: Progress = field(default_factory=Progress)
    keep: Callable[[int, ir.Model], None] = lambda _number, _model: None
    clock: Callable[[], float] = time.monotonic

    def run(self, stages: Sequence[Stage], decisions: Sequence[Sequence[Restrictions]] | None = None) -> Outcome:
        """Run ``stages``; ``decisions`` (of an earlier run's report) are limits to start from."""
        self._deadline = self.clock() + self.settings.time_limit
        self._repeats = decisions is not None
        limits = decisions or [[Restrictions()] * len(stage.passes) for stage in stages]
        runs = self._run_from(self.reference, list(zip(stages, limits, strict=True)))
        latency = None
        if self.judge is not None and self.settings.timing and any(run.attempt.changed for run in runs):
            runs, latency = self._timed(runs)
        model = runs[-1].attempt.model if runs else self.reference
        return Outcome(model, tuple(record(run) for run in runs), latency)

    def _run_from(self, base: ir.Model, stages: Sequence[tuple[Stage, Sequence[Restrictions]]]) -> list[StageRun]:
        runs: list[StageRun] = []
        for number, (stage, limits) in enumerate(stages):
            self.progress.at(f"stage {number + 1} of {len(stages)}", str(stage))
            lossy_left = sum(not later.exact for later, _ in stages[number:])
            run = (
                self._run_stage(base, stage, limits)
                if stage.exact
                else self._run_lossy(base, stage, limits, lossy_left)
            )
            runs.append(run)
            base = runs[-1].attempt.model
            self.keep(len(runs), base)
        return runs

    def _run_stage(self, base: ir.Model, stage: Stage, limits: Sequence[Restrictions]) -> StageRun:
        probe = self._probe(base, stage, timed=False)
        first = probe(limits)
        if first.failure is None:
            return self._paying(StageRun(stage, base, settled(first, base), tuple(limits)))
        if self.settings.strict:
            raise CheckFailedError(f"{stage}: {first.failure.reason}")
        self.progress.at(*self.progress.place[:1], f"finding what fails the {first.failure.gate} check")
        repaired = repair(stage, limits, probe, first)
        return self._paying(StageRun(stage, base, settled(repaired.attempt, base), repaired.limits, repaired.denials))

    def _paying(self, run: StageRun) -> StageRun:
        """``run``, undone if a pass that must pay changed something and it does not."""
        if self._repeats or not must_pay(run.stage, run.attempt):
            return run  # what is repeated paid in the run that decided it
        sizes = byte_size(run.base), byte_size(run.attempt.model)
        reason = unpaid(*sizes, self._alone(run), named=run.stage.named)
        return undone(run, run.base, reason) if reason else run

    def _alone(self, run: StageRun) -> Latency | None:
        """The latency ratio of ``run`` to what it started from; ``None`` where time is not measured."""
        if self.judge is None or not self.settings.timing:
            return None
        self.progress.at(*self.progress.place[:1], "timing it")
        with self.stopwatch.measure("gates"):
            return self.judge.latency(run.base, run.attempt.model)

    def _run_lossy(self, base: ir.Model, stage: Stage, limits: Sequence[Restrictions], lossy_left: int) -> StageRun:
        """Run ``stage`` inside its part of budget and time; if its user did not name it, undo it unless it pays."""
        used = self.judge.budget_used(base) if self.judge is not None and base is not self.reference else 0.0
        allowance = budget_shares.share_for_stage(used, lossy_left)
        if self.context.evaluator is not None:
            self.context.evaluator.begin_stage(lossy_left)

        def aimed(aim: float) -> Attempt:
            return self._probe(base, stage, timed=False, aim=aim, allowance=allowance)(limits)

        first = budget_shares.within_budget(aimed, allowance)
        run = StageRun(stage, base, settled(first, base), tuple(limits))
        if first.failure is not None:
            if self.settings.strict:
                raise CheckFailedError(f"{stage}: {first.failure.reason}")
            if first.failure.gate == "budget":
                return undone(run, base, first.failure.reason)
            repaired = repair(stage, limits, self._probe(base, stage, timed=False, allowance=allowance), first)
            run = StageRun(stage, base, settled(repaired.attempt, base), repaired.limits, repaired.denials)
        return self._worth(run)

    def _worth(self, run: StageRun) -> StageRun:
        """``run``, with a remark if it brings nothing, or undone if besides nobody named it."""
        if not run.attempt.changed or any(limit.choices is not None for limit in run.limits):
            return run  # what is repeated was found worth it by the run that decided it
        if not worth.changed_lossily(run.stage, run.attempt):
            return undone(run, run.base, "its lossy passes changed nothing, so the others have no purpose")
        latency = self._alone(run) if worth.needs_time(run.stage) else None
        size = compressed_size if worth.is_for_compression(run.stage) else byte_size
        reason = worth.worthless(run.stage, size(run.base), size(run.attempt.model), latency)
        if not reason:
            return run
        return replace(run, remark=reason) if run.stage.named else undone(run, run.base, reason)

    def _probe(
        self, base: ir.Model, stage: Stage, *, timed: bool, aim: float = 1.0, allowance: float = 1.0
    ) -> Callable[[Sequence[Restrictions]], Attempt]:
        """A function that runs and judges ``stage`` within limits; it stops after too many calls or too late."""
        context = replace(self.context, budget_limit=aim)
        bytes_before = byte_size(base)
        calls = 0

        def probe(limits: Sequence[Restrictions]) -> Attempt:
            nonlocal calls
            calls += 1
            if calls > 1 and (calls > MOST_ATTEMPTS or self.clock() > self._deadline):
                raise OutOfAttemptsError
            with self.stopwatch.measure("rewrite" if calls == 1 else "gates"):
                result = attempt(base, stage, limits, context)
            if result.failure is not None or not result.changed:
                return result
            with self.stopwatch.measure("gates"):
                failure = self._failure(result.model, stage, bytes_before, allowance)
                if failure is None and timed:
                    failure = self._slower(base, result.model)
            return replace(result, failure=failure)

        return probe

    def _failure(self, candidate: ir.Model, stage: Stage, bytes_before: int, allowance: float) -> Failure | None:
        failure = signature_failure(self.reference, candidate)
        if failure is None and stage.exact:
            failure = size_failure(bytes_before, byte_size(candidate))
        if failure is None and self.judge is not None:
            failure = self.judge.failure(candidate, stage, allowance)
        return failure

    def _slower(self, base: ir.Model, candidate: ir.Model) -> Failure | None:
        """A failure if two independent comparisons both call ``candidate`` slower than ``base``."""
        if self.judge is None:
            return None
        for _ in range(2):
            latency = self.judge.latency(base, candidate)
            if latency.verdict != "slower":
                return None
        return Failure(
            "latency", f"slower: {latency.ratio:.3f} times as long ({latency.low:.3f} to {latency.high:.3f})"
        )

    def _timed(self, runs: list[StageRun]) -> tuple[list[StageRun], Latency | None]:
        """Time the result against the reference; while it is slower, find the stage and undo it."""
        if self.judge is None:
            return runs, None
        for _ in range(len(runs) + 1):
            self.progress.at("timing the result against the reference")
            with self.stopwatch.measure("gates"):
                latency = self.judge.latency(self.reference, runs[-1].attempt.model)
                if latency.verdict == "slower":
                    latency = self.judge.latency(self.reference, runs[-1].attempt.model)
            if latency.verdict != "slower" or any(_may_be_slower(run) for run in runs):
                return runs, latency
            faster = self._without_slowest(runs)
            if faster is None:
                break
            runs = faster
            if not any(run.attempt.changed for run in runs):
                return runs, None
        reason = f"slower as a whole: {latency.ratio:.3f} times as long ({latency.low:.3f} to {latency.high:.3f})"
        return [undone(replace(run, base=self.reference), self.reference, reason) for run in runs], None

    def _without_slowest(self, runs: list[StageRun]) -> list[StageRun] | None:
        """The runs with the first slow stage repaired and those after it run again; ``None`` if no stage is slow."""
        for index, run in enumerate(runs):
            if not run.attempt.changed or not run.stage.exact or self.clock() > self._deadline:
                continue
            self.progress.at(f"timing {run.stage} alone")
            with self.stopwatch.measure("gates"):
                failure = self._slower(run.base, run.attempt.model)
            if failure is None:
                continue
            if self.settings.strict:
                raise CheckFailedError(f"{run.stage}: {failure.reason}")
            probe = self._probe(run.base, run.stage, timed=True)
            failed = replace(run.attempt, failure=failure)
            repaired = repair(run.stage, run.limits, probe, failed, finest="step")
            held = settled(repaired.attempt, run.base)
            again = StageRun(run.stage, run.base, held, repaired.limits, run.denials + repaired.denials)
            later = [(other.stage, other.limits) for other in runs[index + 1 :]]
            return [*runs[:index], again, *self._run_from(held.model, later)]
        return None


def _may_be_slower(run: StageRun) -> bool:
    """Whether a lossy stage was kept that is for something else than speed, or that its user named."""
    return run.attempt.changed and not run.stage.exact and (run.stage.named or not worth.needs_time(run.stage))
