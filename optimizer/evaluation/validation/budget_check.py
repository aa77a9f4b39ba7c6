"""How much of a budget a candidate uses: its outputs against the reference's on the same feeds, optimizations on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import ReferenceRunError
from optimizer.evaluation.runtime.session import prepare, session
from optimizer.evaluation.validation.budget import Part, parts
from optimizer.evaluation.validation.metrics import is_discrete
from optimizer.evaluation.validation.output_error import Difference, OutputError, Verdict, difference
from optimizer.evaluation.validation.task_metric import guidance

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.evaluation.validation.budget import Budget
    from optimizer.evaluation.validation.reference_outputs import ReferenceOutputs
    from optimizer.evaluation.validation.task_metric import Score, TaskMetric


_Key = tuple[str, Part]


class BudgetCheck:
    """Holds what the reference answers; any number of candidates are compared with it."""

    def __init__(self, reference: ir.Model, answers: ReferenceOutputs, random: frozenset[str] = frozenset()) -> None:
        """Read the outputs' parts off the graph; nothing runs yet.

        Args:
            reference: The model.
            answers: Its answers to the feeds, with optimizations on.
            random: Outputs of which only dtype and shape are compared.
        """
        self._answers = answers
        self._random = random
        self._names = tuple(value.name for value in reference.graph.outputs if value.name)
        self._parts = parts(reference)
        self._spreads: dict[tuple[str, str], float | None] | None = None
        self._points: tuple[TaskMetric, float] | None = None

    def points(self, metric: TaskMetric) -> float:
        """What the reference reaches; computed once.

        Raises:
            UsageError: If the metric fails on it.
        """
        if self._points is None or self._points[0] is not metric:
            outputs = [answer for _, answer in self._answers]
            self._answers.close()
            self._points = metric, metric.reference_points(outputs, self._answers.whole_feeds)
        return self._points[1]

    def verdict(self, candidate: ir.Model, budget: Budget, *, threads: int = 1) -> Verdict:
        """Hold ``candidate`` to ``budget``."""
        keys = {name: self._keys(name, budget) for name in self._names}
        outputs: list[dict[str, Any]] | None = None if budget.metric is None else []
        try:
            found = self._differences(candidate, keys, threads, outputs)
        except ReferenceRunError as error:
            return Verdict(ok=False, reason=f"the candidate: {error}", share=float("inf"), guide=float("inf"))
        spreads = self._reference_spreads() if budget.centered is not None else {}
        errors = tuple(
            OutputError(name) if name in self._random else value.error(name)
            for (name, part), value in found.items()
            if not part.label
        )
        reason, worst = "", 0.0
        for (name, part), value in found.items():
            spread, arg_max = spreads.get((name, part.label)), part.link in {"Softmax", "LogSoftmax"}
            for use in budget.uses(value, spread, arg_max=arg_max):
                if use.share > max(worst, 1.0):
                    reason = f"output {name!r} {part.label + ' ' if part.label else ''}{use.text}"
                worst = max(worst, use.share)
        if budget.metric is not None and outputs is not None:
            score = budget.metric.score(self.points(budget.metric), outputs, self._answers.whole_feeds)
            return _by_metric(score, errors, worst)
        return Verdict(ok=not reason, reason=reason, outputs=errors, share=worst, guide=worst)

    def _keys(self, name: str, budget: Budget) -> tuple[Part, ...]:
        has_parts = budget.parts and name not in self._random
        return (Part(), *(self._parts.get(name, ()) if has_parts else ()))

    def _differences(
        self,
        candidate: ir.Model,
        keys: Mapping[str, tuple[Part, ...]],
        threads: int,
        outputs: list[dict[str, Any]] | None,
    ) -> dict[_Key, Difference]:
        """The difference of each part of each output, over all feeds; its answers go to ``outputs``."""
        loaded = session(prepare(candidate), threads=threads)
        found = {(name, part): Difference() for name, chosen in keys.items() for part in chosen}
        for feed, answer in self._answers:
            theirs = loaded.run(feed)
            if outputs is not None:
                outputs.append(theirs)
            for name, part in found:
                if name not in theirs:
                    raise ReferenceRunError(f"it has no output {name!r}")
                left, right = _cut(part, answer[name], theirs[name])
                found[name, part] += difference(left, right, values=name not in self._random)
        self._answers.close()
        return found

    def _reference_spreads(self) -> dict[tuple[str, str], float | None]:
        """|r - m| / |r| of every part of every output, over feeds of one shape; computed once."""
        if self._spreads is None:
            spreads: dict[tuple[str, str], Spread] = {}
            for _, answer in self._answers:
                for name, value in answer.items():
                    if isinstance(value, np.ndarray) and not is_discrete(value.dtype) and value.dtype.kind != "c":
                        for part in (Part(), *self._parts.get(name, ())):
                            spreads.setdefault((name, part.label), Spread()).add(part.of(value))
            self._spreads = {key: spread.relative() for key, spread in spreads.items()}
        return self._spreads


def _by_metric(score: Score, errors: tuple[OutputError, ...], worst: float) -> Verdict:
    """The verdict where a task metric is the budget, and the others' ``worst`` share guides searches only."""
    guide = max(score.share, guidance(worst))
    return Verdict(
        ok=not score.failure, reason=score.failure, outputs=errors, share=score.share, guide=guide, score=score
    )


def _cut(part: Part, reference: Any, candidate: Any) -> tuple[Any, Any]:
    """The part of both; the whole of both where they are not comparable, so that the failure is seen."""
    if not part.label or not isinstance(reference, np.ndarray) or not isinstance(candidate, np.ndarray):
        return reference, candidate
    if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
        return reference, candidate
    return part.of(reference), part.of(candidate)


@dataclass
class Spread:
    """Collects arrays; what is not finite counts as zero."""

    moments: dict[tuple[int, ...], _Moments] = field(default_factory=dict)

    def add(self, array: NDArray[Any]) -> None:
        """Take in the output of one more feed."""
        numbers = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
        known = self.moments.setdefault(numbers.shape, _Moments(0, np.zeros(numbers.shape), 0.0))
        known.count += 1
        known.total += numbers
        known.squares += float(np.vdot(numbers, numbers))

    def relative(self) -> float | None:
        """|r - m| / |r| over all shapes that at least two feeds have; ``None`` if there is none."""
        groups = [group for group in self.moments.values() if group.count > 1]
        squares = sum(group.squares for group in groups)
        if not squares:
            return None
        around = sum(group.squares - float(np.vdot(group.total, group.total)) / group.count for group in groups)
        return float(np.sqrt(max(around, 0.0) / squares))


@dataclass
class _Moments:
    count: int
    total: NDArray[np.float64]
    squares: float
