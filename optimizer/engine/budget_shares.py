"""A lossy stage: its share of the budget, new tries with a stricter aim, and whether it brings what it is for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optimizer.contract.passes import Gain

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.engine.attempt import Attempt
    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.recipes.spec import Stage

TRIES = 4
_MARGIN = 0.9
_LEAST_STEP, _MOST_STEP = 0.3, 0.95


def allowance(used: float, stages_left: int) -> float:
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
        excess = result.failure.share / limit
        aim *= min(max(_MARGIN / excess, _LEAST_STEP), _MOST_STEP) if math.isfinite(excess) else _LEAST_STEP
    return result


def worthless(stage: Stage, bytes_before: int, bytes_after: int, latency: Latency | None) -> str:
    """Why ``stage`` brings nothing of what its passes are for; empty if it brings some of it.

    Args:
        stage: The stage.
        bytes_before: File size before it, under gzip where it ``is_for_compression``.
        bytes_after: And after it.
        latency: Its model against the one before it; ``None`` where time is not measured.
    """
    gains = {member.gain for member in stage.passes if not member.exact}
    smaller = bytes_after < bytes_before
    faster = smaller if latency is None else latency.verdict == "faster"
    if (faster and Gain.LATENCY in gains) or (smaller and gains & {Gain.SIZE, Gain.COMPRESSED_SIZE}):
        return ""
    if gains <= {Gain.ACCURACY, Gain.ENABLING}:
        return ""
    size = f"{bytes_after / max(bytes_before, 1):.3f} times as large"
    if latency is None:
        return f"brings nothing: {size}"
    return f"brings nothing: {latency.ratio:.3f} times as long ({latency.low:.3f} to {latency.high:.3f}), {size}"


def is_for_compression(stage: Stage) -> bool:
    """Whether its size is to be told under gzip: a lossy pass of it leaves files as large as they are."""
    return any(member.gain is Gain.COMPRESSED_SIZE for member in stage.passes if not member.exact)


def needs_time(stage: Stage) -> bool:
    """Whether it takes a measurement of time to tell what ``stage`` brings."""
    return any(member.gain is Gain.LATENCY for member in stage.passes if not member.exact)


def changed_lossily(stage: Stage, result: Attempt) -> bool:
    """Whether a lossy pass of ``stage`` changed anything."""
    return any(ran.changes for member, ran in zip(stage.passes, result.runs, strict=True) if not member.exact)
