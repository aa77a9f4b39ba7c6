"""From a reference and its data to a judge: feeds read or generated, the reference run, tolerances set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.engine.judge import RuntimeJudge
from optimizer.errors import DataError, ReferenceRunError
from optimizer.evaluation.calibration import data_checks
from optimizer.evaluation.feeds.loading import generate, load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.evaluation.validation.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from optimizer.contract.progress import Progress
    from optimizer.evaluation.feeds.sets import Split


_CHECKED_FEEDS = 8  # for warnings about the data


@dataclass(frozen=True)
class EvaluationSetup:
    """What models are judged by.

    Attributes:
        judge: Knows the reference's outputs on the validation feeds.
        split: All feeds.
        notes: What the report should say about them.
    """

    judge: RuntimeJudge
    split: Split
    notes: tuple[str, ...]

    def data_warnings(self, reference: ir.Model) -> tuple[str, ...]:
        """Why the user's data may not suit the model, by some of the calibration feeds; nothing for generated ones."""
        if self.split.origin == "generated":
            return ()
        every = -(-len(self.split.calibration) // _CHECKED_FEEDS)
        try:
            warnings = data_checks.check(reference, self.split.calibration[::every], threads=self.judge.threads)
        except (ReferenceRunError, DataError) as error:
            return (f"whether the data suits the model is not known: {error}",)
        return tuple(f"data: {warning}" for warning in warnings)

    def evaluator(
        self, reference: ir.Model, *, allow_generated: bool, is_timed: bool, time_limit: float, progress: Progress
    ) -> RuntimeEvaluator:
        """What lossy passes run models with."""
        return RuntimeEvaluator(
            reference,
            self.split,
            self.judge.budget,
            random=frozenset(self.judge.validator.random),
            allow_generated=allow_generated,
            threads=self.judge.threads,
            is_timed=is_timed,
            time_limit=time_limit,
            progress=progress,
        )


def set_up(  # noqa: PLR0913 - the data, how it is made and run, and what may be lost
    reference: ir.Model,
    data: str | Path | Iterable[Mapping[str, Any]] | None,
    *,
    shapes: Mapping[str, Sequence[int]] | None,
    threads: int,
    seed: int,
    budget: Budget | None = None,
) -> EvaluationSetup:
    """Feeds, and a judge that knows the reference's outputs.

    Raises:
        UsageError: If the budget's task metric fails on the reference.
        DataError: If the data cannot be read or does not fit the model.
        ReferenceRunError: If ONNX Runtime cannot run the reference.
    """
    metric = budget.metric if budget is not None else None
    if data is None:
        split = generate(reference, shapes=shapes or {}, seed=seed, threads=threads)
    else:
        loaded = session(reference, threads=threads)
        split = load_feeds(data, loaded.inputs, loaded.overridable, extras=metric is not None)
    validator = Validator(reference, split.validation, threads=threads)
    if metric is not None:
        validator.points(metric)
    judge = RuntimeJudge(validator, split.validation, budget=budget or Budget(), threads=threads)
    return EvaluationSetup(judge, split, (*split.notes, *validator.notes))
