"""Whether a stage is worth keeping, and what has to be known for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.contract.passes import Gain

if TYPE_CHECKING:
    from optimizer.engine.attempt import Attempt
    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.recipes.spec import Stage


def must_pay(stage: Stage, result: Attempt) -> bool:
    """Whether a pass changed something that is kept only where it measures faster."""
    return any(ran.changes and member.must_pay for member, ran in zip(stage.passes, result.runs, strict=True))


def unpaid(bytes_before: int, bytes_after: int, latency: Latency | None, *, named: bool) -> str:
    """Why an exact stage that must pay does not; empty if it does.

    Args:
        bytes_before: File size before it.
        bytes_after: And after it.
        latency: Its model against the one before it; ``None`` where time is not measured.
        named: Whether the user asked for the stage, so that without a time a smaller file is enough.
    """
    if latency is None:
        return "" if named and bytes_after < bytes_before else f"is not timed{', and the file is no smaller' * named}"
    if latency.verdict == "faster":
        return ""
    return f"no faster: {latency.ratio:.3f} times as long ({latency.low:.3f} to {latency.high:.3f})"


def worthless(stage: Stage, bytes_before: int, bytes_after: int, latency: Latency | None) -> str:
    """Why ``stage`` brings nothing of what its passes are for; empty if it brings some of it.

    Args:
        stage: The stage.
        bytes_before: File size before it, under gzip where it ``is_for_compression``.
        bytes_after: And after it.
        latency: Its model against the one before it; ``None`` where time is not measured.
    """
    # 1. One of the gains that lossy passes are for is enough. Without times, a smaller file stands for a faster one.
    gains = {member.gain for member in stage.passes if not member.exact}
    smaller = bytes_after < bytes_before
    faster = smaller if latency is None else latency.verdict == "faster"
    if (faster and Gain.LATENCY in gains) or (smaller and gains & {Gain.SIZE, Gain.COMPRESSED_SIZE}):
        return ""
    # 2. Accuracy and what enables others is not measured here.
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
