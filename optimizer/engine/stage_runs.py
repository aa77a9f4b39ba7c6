"""A stage as it stands while a run is under way, and the record that the report keeps of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optimizer.engine.attempt import Attempt, Restrictions
from optimizer.engine.bisection import Reverted
from optimizer.engine.records import PassRecord, StageRecord
from optimizer.engine.replay import decision_of
from optimizer.graph import traversal
from optimizer.io.model import byte_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.recipes.spec import Stage


@dataclass(frozen=True)
class StageRun:
    """A stage as it stands: where it started from, the attempt that holds, what was left out for it, and a remark."""

    stage: Stage
    base: ir.Model
    attempt: Attempt
    limits: tuple[Restrictions, ...]
    denials: tuple[Reverted, ...] = ()
    remark: str = ""


def settled(result: Attempt, base: ir.Model) -> Attempt:
    """An attempt that changed nothing gives back the very model that it started from."""
    return result if result.changed else replace(result, model=base)


def undone(run: StageRun, base: ir.Model, reason: str) -> StageRun:
    """``run`` with every pass left out, and why."""
    denials = tuple(Reverted(index, None, None, reason) for index in range(len(run.stage.passes)))
    limits = tuple(replace(limit, skip=True) for limit in run.limits)
    nothing = tuple(replace(member, changes={}, skipped="undone") for member in run.attempt.runs)
    return StageRun(run.stage, base, Attempt(base, nothing), limits, run.denials + denials)


def record(run: StageRun) -> StageRecord:
    """What the report says of ``run``."""
    members = tuple(
        PassRecord(
            name=member.name,
            spec=str(member),
            options=member.options(),
            exact=member.exact,
            changes=ran.changes,
            seconds=ran.seconds,
            notes=tuple(ran.notes),
            skipped=ran.skipped,
            undone=tuple(denial for denial in run.denials if denial.member == index),
            gain=member.gain.value,
            refusals=ran.refusals,
        )
        for index, (member, ran) in enumerate(zip(run.stage.passes, run.attempt.runs, strict=True))
    )
    return StageRecord(
        passes=members,
        kept=run.attempt.changed,
        reason=_reason(run, members),
        seconds=sum(ran.seconds for ran in run.attempt.runs),
        bytes=byte_size(run.attempt.model),
        nodes=traversal.count_nodes(run.attempt.model),
        decisions=tuple(decision_of(*pair) for pair in zip(run.limits, run.attempt.runs, strict=True)),
    )


def _reason(run: StageRun, members: Sequence[PassRecord]) -> str:
    undone = [denial for member in members for denial in member.undone]
    if run.attempt.changed and not undone:
        return f"checked; {run.remark}" if run.remark else "checked"
    if run.attempt.changed:
        return f"checked; {len(undone)} undone: {undone[0].reason}"
    if undone:
        return f"undone: {undone[0].reason}"
    skipped = [member.skipped for member in members if member.skipped]
    return f"skipped: {skipped[0]}" if skipped else "nothing to do"
