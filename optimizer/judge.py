"""Runs candidates against the reference for the pass manager: outputs and latency, by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.attempt import Failure
from optimizer.runtime import prepare, session
from optimizer.timing import clock_for, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    import onnx_ir as ir

    from optimizer.budget import Budget
    from optimizer.spec import Stage
    from optimizer.timing import Latency
    from optimizer.validation import Validator, Verdict


@dataclass
class RuntimeJudge:
    """Judges candidates on validation feeds.

    Attributes:
        validator: Holds the reference's outputs and tolerances, set before any candidate ran.
        feeds: What latency is measured on.
        budget: What lossy stages may lose.
        threads: Threads of ONNX Runtime.
        time_limit: Seconds for one latency comparison.
    """

    validator: Validator
    feeds: Sequence[Mapping[str, Any]]
    budget: Budget | None = None
    threads: int = 1
    time_limit: float = 40.0
    _last: tuple[ir.Model, bool, Verdict] | None = field(default=None, init=False)

    def verdict(self, candidate: ir.Model, *, exact: bool) -> Verdict:
        """The errors of all outputs of ``candidate``, and whether they hold; the last one asked for is remembered."""
        if self._last is not None and self._last[0] is candidate and self._last[1] == exact:
            return self._last[2]
        if exact or self.budget is None:
            verdict = self.validator.check_exact(candidate)
        else:
            verdict = self.validator.check_budget(candidate, self.budget)
        self._last = (candidate, exact, verdict)
        return verdict

    def failure(self, candidate: ir.Model, stage: Stage) -> Failure | None:
        """Why the outputs of ``candidate`` do not hold after ``stage``; ``None`` if they do."""
        exact = stage.exact
        verdict = self.verdict(candidate, exact=exact)
        return None if verdict.ok else Failure("outputs" if exact else "budget", verdict.reason)

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
