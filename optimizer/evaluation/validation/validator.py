"""The reference against candidates on the same feeds: limits first, then verdicts.

The reference runs with ONNX Runtime's optimizations on and off and with its inputs one ulp away. From what that changes
come the tolerances (``optimizer.evaluation.validation.tolerance``), before any candidate runs. An exact candidate is
held to them with optimizations on and off, each against the reference run the same way, and over a rollout if outputs
feed inputs again; a lossy one is held to a budget with optimizations on. Polygraphy's ``Comparator`` compares runs in
the same way, with tolerances that the user gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optimizer.errors import DataError, ReferenceRunError
from optimizer.evaluation.runtime.session import prepare, session
from optimizer.evaluation.validation.budget import Budget
from optimizer.evaluation.validation.budget_check import BudgetCheck
from optimizer.evaluation.validation.output_error import Difference, OutputError, Verdict, difference
from optimizer.evaluation.validation.reference_noise import measure_noise
from optimizer.evaluation.validation.reference_outputs import ReferenceOutputs
from optimizer.evaluation.validation.stateful import reference_rollout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.evaluation.runtime.session import Session
    from optimizer.evaluation.validation.task_metric import TaskMetric

__all__ = ["Budget", "OutputError", "Validator", "Verdict"]

_FEW_FEEDS = 8


class Validator:
    """Holds the reference's outputs, and the tolerances.

    Attributes:
        tolerances: By output name; outputs that are random have none.
        random: Outputs that differ from run to run; only their dtype and shape are compared.
        constant: Outputs that are the same for all feeds; compared as all others are.
        notes: What the report should say about the data and the checks.
    """

    def __init__(self, reference: ir.Model, feeds: Sequence[Mapping[str, Any]], *, threads: int = 1) -> None:
        """Run the reference and set the tolerances.

        Args:
            reference: The model as loaded; it must not change afterwards.
            feeds: Validation feeds.
            threads: Threads of ONNX Runtime.

        Raises:
            DataError: If there are no feeds.
            ReferenceRunError: If ONNX Runtime cannot load or run the reference.
        """
        if not len(feeds):
            raise DataError("there are no validation feeds; give some with --data")
        self._threads = threads
        loadable = prepare(reference)
        self._on = ReferenceOutputs(loadable, feeds, optimize=True, threads=threads)
        try:
            noise = measure_noise(
                reference, self._on, ReferenceOutputs(loadable, feeds, optimize=False, threads=threads)
            )
        except ReferenceRunError as error:
            raise ReferenceRunError(f"{error}; --no-run optimizes without running it") from error
        self.random, self.tolerances = noise.random, noise.tolerances
        self._unstable, self._off = noise.unstable, noise.unoptimized
        self._budget = BudgetCheck(reference, self._on, self.random)
        self.constant = noise.constant
        self._rollout, rollout_note = reference_rollout(self._on, self._off, feeds, noise)
        self.notes: tuple[str, ...] = (*self._data_notes(len(feeds)), *filter(None, (noise.skipped, rollout_note)))

    def check_exact(self, candidate: ir.Model) -> Verdict:
        """Hold ``candidate`` to the tolerances, with optimizations on and off, and where it is fed its own states."""
        verdict = self._exact(candidate, self._on, "")
        if not verdict.ok or self._off is None:
            return verdict
        without = self._exact(candidate, self._off, " without ONNX Runtime's optimizations")
        return verdict if without.ok else Verdict(ok=False, reason=without.reason, outputs=verdict.outputs)

    def check_budget(self, candidate: ir.Model, budget: Budget) -> Verdict:
        """Hold ``candidate`` to ``budget``, with optimizations on."""
        return self._budget.verdict(candidate, budget, threads=self._threads)

    def points(self, metric: TaskMetric) -> float:
        """The reference's points.

        Raises:
            UsageError: If the metric fails on it.
        """
        return self._budget.points(metric)

    def _exact(self, candidate: ir.Model, reference_outputs: ReferenceOutputs, condition: str) -> Verdict:
        try:
            loaded = session(prepare(candidate), optimize=reference_outputs is not self._off, threads=self._threads)
            differences = self._differences(loaded, reference_outputs)
        except ReferenceRunError as error:
            return Verdict(ok=False, reason=f"the candidate: {error}{condition}")
        errors = tuple(
            OutputError(name) if name in self.random else output_difference.error(name)
            for name, output_difference in differences.items()
        )
        for name, output_difference in differences.items():
            limits = self.tolerances.get(name)
            failure = limits.failure(output_difference) if limits is not None else output_difference.failure
            if failure:
                return Verdict(ok=False, reason=f"output {name!r} {failure}{condition}", outputs=errors)
        reason = self._rollout_failure(loaded) if reference_outputs is self._on else ""
        return Verdict(ok=not reason, reason=reason, outputs=errors)

    def _rollout_failure(self, loaded: Session) -> str:
        try:
            return "" if self._rollout is None else self._rollout.failure(loaded)
        except ReferenceRunError as error:
            return f"the candidate: {error}, where it is fed its own states"

    def _differences(self, loaded: Session, reference_outputs: ReferenceOutputs) -> dict[str, Difference]:
        """The difference of each output over all feeds, without the elements that are unstable in the reference."""
        differences = {name: Difference() for name in (*self.tolerances, *self.random)}
        for number, (feed, expected) in enumerate(reference_outputs):
            actual = loaded.run(feed)
            for name in differences:
                if name not in actual:
                    raise ReferenceRunError(f"it has no output {name!r}")
                stable = self._unstable.without_unstable(number, name, expected[name], actual[name])
                differences[name] += difference(expected[name], stable, values=name not in self.random)
        reference_outputs.close()
        return differences

    def _data_notes(self, count: int) -> Iterator[str]:
        if self.random:
            named = ", ".join(sorted(self.random))
            yield f"compared in dtype and shape only, since they differ from run to run: {named}"
        if self.constant:
            yield f"the same for all {count} validation feeds: {', '.join(sorted(self.constant))}"
        if count < _FEW_FEEDS:
            yield f"weak evidence: {count} validation feed{'s' if count != 1 else ''}, eight are enough"
