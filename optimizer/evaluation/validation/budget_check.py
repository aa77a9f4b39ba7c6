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
    """Holds the reference's outputs; any number of candidates are compared with them."""

    def __init__(
        self, reference: ir.Model, reference_outputs: ReferenceOutputs, random: frozenset[str] = frozenset()
    ) -> None:
        """Read the outputs' parts off the graph; nothing runs yet.

        Args:
            reference: The model.
            reference_outputs: Its outputs for the feeds, with optimizations on.
            random: Outputs of which only dtype and shape are compared.
        """
        self._reference_outputs = reference_outputs
        self._random = random
        self._names = tuple(value.name for value in reference.graph.outputs if value.name)
        self._parts = parts(reference)
        self._relative_stds: dict[tuple[str, str], float | None] | None = None
        self._points: tuple[TaskMetric, float] | None = None

    def points(self, metric: TaskMetric) -> float:
        """The reference's points; computed once.

        Raises:
            UsageError: If the metric fails on it.
        """
        if self._points is None or self._points[0] is not metric:
            outputs = [reference for _, reference in self._reference_outputs]
            self._reference_outputs.close()
            self._points = metric, metric.reference_points(outputs, self._reference_outputs.whole_feeds)
        return self._points[1]

    def verdict(self, candidate: ir.Model, budget: Budget, *, threads: int = 1) -> Verdict:
        """Hold ``candidate`` to ``budget``."""
        # 1. The outputs, part by part; a metric needs all of them, kept.
        parts_by_output = {name: self._parts_of(name, budget) for name in self._names}
        outputs: list[dict[str, Any]] | None = None if budget.metric is None else []
        try:
            differences = self._differences(candidate, parts_by_output, threads, outputs)
        except ReferenceRunError as error:
            return Verdict(
                ok=False, reason=f"the candidate: {error}", budget_used=float("inf"), search_share=float("inf")
            )
        relative_stds = self._reference_relative_stds() if budget.centered is not None else {}
        errors = tuple(
            OutputError(name) if name in self._random else output_difference.error(name)
            for (name, part), output_difference in differences.items()
            if not part.label
        )
        # 2. The largest use of any limit; the reason is the limit that is exceeded most.
        reason, most_used = "", 0.0
        for (name, part), output_difference in differences.items():
            relative_std, arg_max = relative_stds.get((name, part.label)), part.link in {"Softmax", "LogSoftmax"}
            for use in budget.uses(output_difference, relative_std, arg_max=arg_max):
                if use.share > max(most_used, 1.0):
                    reason = f"output {name!r} {part.label + ' ' if part.label else ''}{use.text}"
                most_used = max(most_used, use.share)
        # 3. A metric takes the place of all limits.
        if budget.metric is not None and outputs is not None:
            score = budget.metric.score(self.points(budget.metric), outputs, self._reference_outputs.whole_feeds)
            return _by_metric(score, errors, most_used)
        return Verdict(ok=not reason, reason=reason, outputs=errors, budget_used=most_used, search_share=most_used)

    def _parts_of(self, name: str, budget: Budget) -> tuple[Part, ...]:
        has_parts = budget.parts and name not in self._random
        return (Part(), *(self._parts.get(name, ()) if has_parts else ()))

    def _differences(
        self,
        candidate: ir.Model,
        parts_by_output: Mapping[str, tuple[Part, ...]],
        threads: int,
        outputs: list[dict[str, Any]] | None,
    ) -> dict[_Key, Difference]:
        """The difference of each part of each output, over all feeds; what ``candidate`` gives goes to ``outputs``."""
        loaded = session(prepare(candidate), threads=threads)
        differences = {
            (name, part): Difference() for name, output_parts in parts_by_output.items() for part in output_parts
        }
        for feed, expected in self._reference_outputs:
            actual = loaded.run(feed)
            if outputs is not None:
                outputs.append(actual)
            for name, part in differences:
                if name not in actual:
                    raise ReferenceRunError(f"it has no output {name!r}")
                reference, candidate_part = _sliced(part, expected[name], actual[name])
                differences[name, part] += difference(reference, candidate_part, values=name not in self._random)
        self._reference_outputs.close()
        return differences

    def _reference_relative_stds(self) -> dict[tuple[str, str], float | None]:
        """|r - m| / |r| of every part of every output, over feeds of one shape; computed once."""
        if self._relative_stds is None:
            relative_stds: dict[tuple[str, str], RelativeStd] = {}
            for _, outputs in self._reference_outputs:
                for name, value in outputs.items():
                    if isinstance(value, np.ndarray) and not is_discrete(value.dtype) and value.dtype.kind != "c":
                        for part in (Part(), *self._parts.get(name, ())):
                            relative_stds.setdefault((name, part.label), RelativeStd()).add(part.of(value))
            self._relative_stds = {key: relative_std.value() for key, relative_std in relative_stds.items()}
        return self._relative_stds


def _by_metric(score: Score, errors: tuple[OutputError, ...], budget_share: float) -> Verdict:
    """The verdict where a task metric is the budget; of the default limits ``budget_share`` is used, for searches."""
    search_share = max(score.budget_used, guidance(budget_share))
    return Verdict(
        ok=not score.failure,
        reason=score.failure,
        outputs=errors,
        budget_used=score.budget_used,
        search_share=search_share,
        score=score,
    )


def _sliced(part: Part, reference: Any, candidate: Any) -> tuple[Any, Any]:
    """The part of both; the whole of both where they are not comparable, so that the failure is seen."""
    if not part.label or not isinstance(reference, np.ndarray) or not isinstance(candidate, np.ndarray):
        return reference, candidate
    if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
        return reference, candidate
    return part.of(reference), part.of(candidate)


@dataclass
class RelativeStd:
    """Collects the arrays of one output to say how much it varies over the feeds; what is not finite counts as zero.

    Attributes:
        moments: Sums by shape: only arrays of one shape have a mean.
    """

    moments: dict[tuple[int, ...], _Moments] = field(default_factory=dict)

    def add(self, array: NDArray[Any]) -> None:
        """Take in the output of one more feed."""
        numbers = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
        moments = self.moments.setdefault(numbers.shape, _Moments(0, np.zeros(numbers.shape), 0.0))
        moments.count += 1
        moments.total += numbers
        moments.squares += float(np.vdot(numbers, numbers))

    def value(self) -> float | None:
        """|r - m| / |r| over all shapes that at least two feeds have; ``None`` if there is none."""
        groups = [group for group in self.moments.values() if group.count > 1]
        squares = sum(group.squares for group in groups)
        if not squares:
            return None
        # sum |r - m|^2 = sum |r|^2 - |sum r|^2 / n, for each shape.
        around = sum(group.squares - float(np.vdot(group.total, group.total)) / group.count for group in groups)
        return float(np.sqrt(max(around, 0.0) / squares))


@dataclass
class _Moments:
    """Number of arrays, their sum, and the sum of their squares."""

    count: int
    total: NDArray[np.float64]
    squares: float
