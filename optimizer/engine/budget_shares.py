"""How much of the budget a lossy stage may use, and new tries with a lower target.

Errors of independent stages add up in squares, so of the squared budget that is left each stage gets an equal part::

    limit^2 = used^2 + (1 - used^2) / stages left
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.engine.attempt import Attempt

TRIES = 4
_MARGIN = 0.9
_LEAST_STEP, _MOST_STEP = 0.3, 0.95


def share_for_stage(used: float, stages_left: int) -> float:
    """How much of the budget the model may use after a stage; 1 is all of it.

    Args:
        used: What it uses before the stage.
        stages_left: Lossy stages still to run, this one among them.
    """
    return math.sqrt(used**2 + max(1 - used**2, 0.0) / stages_left)


def within_budget(probe: Callable[[float], Attempt], limit: float) -> Attempt:
    """The first attempt that holds, each with a lower target than the one before; the last one if none does.

    Args:
        probe: Runs and judges the stage; its argument is the target, how much of the budget its searches may use.
        limit: How much of the budget the stage may use.
    """
    target = limit
    for _ in range(TRIES):
        result = probe(target)
        if result.failure is None or result.failure.gate != "budget":
            break
        # Lower by what was used too much, and a margin: passes judge by other feeds than the verdict.
        excess = result.failure.budget_used / limit
        target *= min(max(_MARGIN / excess, _LEAST_STEP), _MOST_STEP) if math.isfinite(excess) else _LEAST_STEP
    return result
