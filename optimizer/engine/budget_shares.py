"""A lossy stage's share of the budget, and new tries with a stricter aim."""

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
    """The share of the budget that a stage may use: an equal part of the squared error that is left.

    Args:
        used: The share that the stages before it use.
        stages_left: Lossy stages still to run, this one among them.
    """
    return math.sqrt(used**2 + max(1 - used**2, 0.0) / stages_left)


def within_budget(probe: Callable[[float], Attempt], limit: float) -> Attempt:
    """The first attempt that holds, each aiming lower than the one before; the last one if none does.

    Args:
        probe: Runs and judges the stage; its argument is the share of the budget to aim at.
        limit: The share that the stage may use.
    """
    aim = limit
    for _ in range(TRIES):
        result = probe(aim)
        if result.failure is None or result.failure.gate != "budget":
            break
        excess = result.failure.budget_used / limit
        aim *= min(max(_MARGIN / excess, _LEAST_STEP), _MOST_STEP) if math.isfinite(excess) else _LEAST_STEP
    return result
