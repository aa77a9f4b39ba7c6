"""One attempt at a stage: its passes run in order on a clone, each within limits, the structure checked after each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from optimizer.contract.passes import Context, Note, Pass, Sites
from optimizer.contract.refusal import RefusalCount, RefusalLog
from optimizer.errors import CheckFailedError, ModelError, PreconditionError, UsageError
from optimizer.io.model import check_structure, clone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from optimizer.contract.choices import Choices
    from optimizer.recipes.spec import Stage


@dataclass(frozen=True)
class Restrictions:
    """What one pass must leave out.

    Attributes:
        skip: Leave the whole pass out.
        steps: Steps that may do nothing.
        sites: (step, site) pairs that may not be touched.
        only: For the steps named here, the only places that they may touch.
        choices: What a search of an earlier run decided; ``None`` if the pass decides itself.
    """

    skip: bool = False
    steps: frozenset[str] = frozenset()
    sites: frozenset[tuple[str, str]] = frozenset()
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    choices: Choices | None = None

    def without_steps(self, steps: Sequence[str]) -> Restrictions:
        """These limits, and ``steps`` may do nothing."""
        return replace(self, steps=self.steps | set(steps))

    def without_site(self, step: str, site: str) -> Restrictions:
        """These limits, and ``step`` may not touch ``site``."""
        return replace(self, sites=self.sites | {(step, site)})


@dataclass(frozen=True)
class Failure:
    """Why an attempt does not hold.

    Attributes:
        gate: ``raised``, ``structure``, ``signature``, ``size``, ``outputs``, ``latency`` or ``budget``.
        reason: One line with the numbers.
        member: The index of the pass that is to blame, where that is known.
        share: Of the budget, how much was used.
    """

    gate: str
    reason: str
    member: int | None = None
    budget_used: float = 0.0


@dataclass(frozen=True)
class PassRun:
    """What one pass did within an attempt.

    Attributes:
        changes: Changes by kind.
        notes: What it left alone, or wants said.
        seconds: CPU seconds that it took.
        permitted: The (step, site) pairs that it touched, in order.
        skipped: Why it did not run.
        choices: What a search of it decided.
        refusals: What its steps refused, by reason; ``None`` where nothing asked.
    """

    changes: Mapping[str, int]
    notes: Sequence[Note] = ()
    seconds: float = 0.0
    permitted: tuple[tuple[str, str], ...] = ()
    skipped: str | None = None
    choices: Choices | None = None
    refusals: tuple[RefusalCount, ...] | None = None


@dataclass(frozen=True)
class Attempt:
    """The model that came out, what each pass did, and the failure, if one is known."""

    model: ir.Model
    runs: tuple[PassRun, ...]
    failure: Failure | None = None

    @property
    def changed(self) -> bool:
        """Whether any pass changed anything."""
        return any(run.changes for run in self.runs)


def attempt(model: ir.Model, stage: Stage, limits: Sequence[Restrictions], context: Context) -> Attempt:
    """Run the passes of ``stage`` on a clone of ``model``; stops at the first pass that raises or breaks it."""
    candidate = clone(model)
    runs: list[PassRun] = []
    for index, (member, limit) in enumerate(zip(stage.passes, limits, strict=True)):
        if limit.skip:
            runs.append(PassRun({}, skipped="undone"))
            continue
        candidate, run, failure = _run_pass(member, candidate, limit, context)
        runs.append(run)
        if failure is not None:
            not_reached = [PassRun({}, skipped="not reached")] * (len(stage.passes) - len(runs))
            return Attempt(model, (*runs, *not_reached), replace(failure, member=index))
    return Attempt(candidate, tuple(runs))


def _run_pass(
    member: Pass, model: ir.Model, limit: Restrictions, context: Context
) -> tuple[ir.Model, PassRun, Failure | None]:
    refusals = RefusalLog() if context.verbose else None
    sites = Sites(limit.steps, limit.sites, limit.only, refusals=refusals)
    started = time.process_time()
    context.progress.at(*context.progress.place[:1], member.name)
    own_context = replace(context, sites=sites, choices=limit.choices)
    try:
        member.requires(model, own_context)
        result = member.run(model, own_context)
    except PreconditionError as reason:
        return model, PassRun({}, skipped=str(reason), seconds=time.process_time() - started), None
    except (UsageError, CheckFailedError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a pass raises, the model as it was is kept and the report says so
        failure = Failure("raised", f"{member.name} raised {type(error).__name__}: {_one_line(error)}")
        return model, PassRun({}, permitted=tuple(sites.permitted)), failure
    seconds = time.process_time() - started
    changes = {kind: count for kind, count in result.changes.items() if count}
    run = PassRun(
        changes,
        tuple(result.notes),
        seconds,
        tuple(sites.permitted),
        choices=result.choices,
        refusals=None if refusals is None else refusals.counts(),
    )
    return result.model, run, _structure_failure(member, result.model) if changes else None


def _structure_failure(member: Pass, model: ir.Model) -> Failure | None:
    try:
        check_structure(model)
    except ModelError as error:
        return Failure("structure", f"{member.name} broke the model: {error}")
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
