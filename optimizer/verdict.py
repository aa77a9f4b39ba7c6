"""The outcome of one comparison of a candidate with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.differences import OutputError


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate's outputs hold.

    Attributes:
        ok: Whether they do.
        reason: If not, one line: output, measure, limit.
        outputs: The errors of all outputs with optimizations on; empty if the candidate does not run.
        share: Of a lossy candidate: the largest share that it uses of any limit of the budget.
    """

    ok: bool
    reason: str
    outputs: tuple[OutputError, ...] = ()
    share: float = 0.0
