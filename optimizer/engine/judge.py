"""Runs candidates against the reference for the pass manager: outputs and latency, by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.engine.attempt import Failure
from optimizer.evaluation.runtime.session import prepare, session
from optimizer.evaluation.runtime.timing import clock_for, compare
from optimizer.evaluation.validation.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    import onnx_ir as ir

    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.evaluation.validation.task_metric import Score
    from optimizer.evaluation.validation.validator import Validator, Verdict
    from optimizer.recipes.spec import Stage


@dataclass
class RuntimeJudge:
    """Judges candidates on validation feeds.

    Attributes:
        validator: Holds the reference's outputs and tolerances, set before any candidate ran.
        feeds: What latency is measured on.
        budget: What lossy stages may lose.
        threads: Threads of ONNX Runtime.
        time_limit: Seconds for one latency comparison.
        verdicts: How often a lossy candidate was judged.
    """

    validator: Validator
    feeds: Sequence[Mapping[str, Any]]
    budget: Budget = field(default_factory=Budget)
    threads: int = 1
    time_limit: float = 40.0
    verdicts: int = field(default=0, init=False)
    _last: tuple[ir.Model, bool, Verdict] | None = field(default=None, init=False)

    def verdict(self, candidate: ir.Model, *, exact: bool) -> Verdict:
        """The errors of all outputs of ``candidate``, and whether they hold; the last verdict is kept."""
        # The manager asks for the failure, the budget used and the score of one candidate in turn.
        if self._last is not None and self._last[0] is candidate and self._last[1] == exact:
            return self._last[2]
        if exact:
            verdict = self.validator.check_exact(candidate)
        else:
            verdict = self.validator.check_budget(candidate, self.budget)
        self._last = (candidate, exact, verdict)
        return verdict

    def failure(self, candidate: ir.Model, stage: Stage, allowance: float = 1.0) -> Failure | None:
        """By which limit the outputs of ``candidate`` fail after ``stage``; ``None`` if they hold."""
        verdict = self.verdict(candidate, exact=stage.exact)
        self.verdicts += not stage.exact
        if not verdict.ok:
            return Failure("outputs" if stage.exact else "budget", verdict.reason, budget_used=verdict.budget_used)
        if not stage.exact and verdict.budget_used > allowance:
            reason = f"uses {verdict.budget_used:.0%} of the budget, this stage may use {allowance:.0%}"
            return Failure("budget", reason, budget_used=verdict.budget_used)
        return None

    def budget_used(self, candidate: ir.Model) -> float:
        """How much of the budget ``candidate`` uses; 1 is all of it."""
        return self.verdict(candidate, exact=False).budget_used

    def score(self, candidate: ir.Model) -> Score | None:
        """What the budget's task metric says of ``candidate``; ``None`` if it has none."""
        return None if self.budget.metric is None else self.verdict(candidate, exact=False).score

    def latency(self, reference: ir.Model, candidate: ir.Model) -> Latency:
        """The paired latency ratio of ``candidate`` to ``reference``."""
        return compare(
            self._runner(reference),
            self._runner(candidate),
            clock=clock_for(self.threads),
            time_limit=self.time_limit,
        )

    def _runner(self, model: ir.Model) -> Callable[[], Callable[[], object]]:
        loadable, feeds = prepare(model), list(self.feeds)
        return lambda: session(loadable, threads=self.threads).runner(feeds)
