"""The outcome of one comparison of a candidate with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.evaluation.validation.output_error import OutputError
    from optimizer.evaluation.validation.task_metric import Score


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate's outputs hold.

    Attributes:
        ok: Whether they do.
        reason: If not, one line: output, measure, limit.
        outputs: The errors of all outputs with optimizations on; empty if the candidate does not run.
        share: Of a lossy candidate: the largest share that it uses of any limit of the budget.
        guide: The same as a search counts it; differs where the budget is a task metric.
        score: What the task metric says, if the budget has one.
    """

    ok: bool
    reason: str
    outputs: tuple[OutputError, ...] = ()
    share: float = 0.0
    guide: float = 0.0
    score: Score | None = None
