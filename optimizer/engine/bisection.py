"""Finding what to leave out of a stage that fails a check: the pass, then its step, then the single place.

Each search halves a list in the order in which things were done: it looks for the shortest prefix that already
fails, whose last element is to blame. That takes about log2(passes) + log2(steps) + log2(places) attempts. LLVM's
``opt-bisect-limit`` and MLIR's ``DebugCounter`` bisect a compiler in the same way, by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optimizer.engine.attempt import Attempt, Failure, Restrictions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optimizer.recipes.spec import Stage

# A step that breaks more places than this is left out whole: it is wrong on this kind of graph, not at one node.
MOST_SITES = 3


@dataclass(frozen=True)
class Reverted:
    """What was left out: a pass, one of its steps, or one place of a step.

    Attributes:
        member: Index of the pass in its stage.
        step: The step; ``None`` for the whole pass.
        site: The place; ``None`` for the whole step.
        reason: The failure that it caused.
    """

    member: int
    step: str | None
    site: str | None
    reason: str


class OutOfAttemptsError(Exception):
    """The search has used up its attempts or its time."""


@dataclass(frozen=True)
class Repaired:
    """The attempt that holds, the limits that it needs, and what was left out on the way."""

    attempt: Attempt
    limits: tuple[Restrictions, ...]
    denials: tuple[Reverted, ...]


def repair(
    stage: Stage,
    limits: Sequence[Restrictions],
    probe: Callable[[Sequence[Restrictions]], Attempt],
    failed: Attempt,
    finest: str = "site",
) -> Repaired:
    """Leave out what breaks ``stage`` until an attempt holds; in the worst case every pass is left out.

    Args:
        stage: The stage that failed.
        limits: One for each pass: what was left out already.
        probe: Runs the stage within limits and judges it; raises ``OutOfAttemptsError`` when it has run too often.
        failed: The attempt that failed, with its failure.
        finest: ``site`` or ``step``: how far to go down.
    """
    current = list(limits)
    denials: list[Reverted] = []
    result = failed
    while result.failure is not None:
        failure = result.failure
        # 1. The pass, then its step and place, as far as there are attempts.
        member = _culprit_pass(current, probe, result)
        try:
            denial = _culprit_within(member, current, probe, result, finest)
        except OutOfAttemptsError:
            denial = Reverted(member, None, None, "")
        denial = _coarsened(replace(denial, reason=failure.reason), denials)
        denials.append(denial)
        current[member] = _denied(current[member], denial)
        # 2. Once more without it; without any pass where the attempts are used up.
        try:
            result = probe(current)
        except OutOfAttemptsError:
            current = [replace(limit, skip=True) for limit in current]
            denials += [Reverted(index, None, None, failure.reason) for index in range(len(stage.passes))]
            nothing = tuple(replace(run, changes={}, skipped="undone") for run in result.runs)
            result = Attempt(failed.model, nothing)
    return Repaired(result, tuple(current), tuple(denials))


def _denied(restrictions: Restrictions, denial: Reverted) -> Restrictions:
    if denial.step is None:
        return replace(restrictions, skip=True)
    if denial.site is None:
        return restrictions.without_steps([denial.step])
    return restrictions.without_site(denial.step, denial.site)


def _coarsened(denial: Reverted, earlier: Sequence[Reverted]) -> Reverted:
    """``denial``, of the whole step where that was denied at several places before."""
    same = [before for before in earlier if (before.member, before.step) == (denial.member, denial.step)]
    return replace(denial, site=None) if denial.site is not None and len(same) >= MOST_SITES else denial


def _culprit_pass(
    limits: Sequence[Restrictions], probe: Callable[[Sequence[Restrictions]], Attempt], failed: Attempt
) -> int:
    """The index of the pass that breaks the stage: the last one of the shortest sequence that fails."""
    if failed.failure is not None and failed.failure.member is not None:
        return failed.failure.member
    running = [index for index, limit in enumerate(limits) if not limit.skip]

    def fails(count: int) -> Failure | None:
        kept = set(running[:count])
        return probe([replace(limit, skip=index not in kept) for index, limit in enumerate(limits)]).failure

    try:
        return running[_shortest_failing(len(running), fails) - 1]
    except OutOfAttemptsError:
        return running[-1]


def _culprit_within(
    member: int,
    limits: Sequence[Restrictions],
    probe: Callable[[Sequence[Restrictions]], Attempt],
    failed: Attempt,
    finest: str,
) -> Reverted:
    """The step of pass ``member``, and the place, without which the stage would get further."""
    # 1. Without the passes behind it, unless it takes those to fail.
    through = [replace(limit, skip=True) if index > member else limit for index, limit in enumerate(limits)]
    whole = probe(through)
    if whole.failure is None:
        through, whole = list(limits), failed
    # 2. The step: the last one of the fewest that fail.
    steps = list(dict.fromkeys(step for step, _ in whole.runs[member].permitted))
    if not steps:
        return Reverted(member, None, None, "")

    def with_steps(count: int) -> list[Restrictions]:
        return _put(through, member, through[member].without_steps(steps[count:]))

    position = _shortest_failing(len(steps), lambda count: probe(with_steps(count)).failure)
    step, base = steps[position - 1], with_steps(position)
    # 3. The place, likewise, with the steps up to this one.
    sites = [site for touched_step, site in probe(base).runs[member].permitted if touched_step == step]
    if finest == "step" or not sites:
        return Reverted(member, step, None, "")

    def with_sites(count: int) -> list[Restrictions]:
        return _put(base, member, replace(base[member], only={step: frozenset(sites[:count])}))

    last = _shortest_failing(len(sites), lambda count: probe(with_sites(count)).failure)
    return Reverted(member, step, sites[last - 1], "")


def _put(limits: Sequence[Restrictions], member: int, value: Restrictions) -> list[Restrictions]:
    return [value if index == member else limit for index, limit in enumerate(limits)]


def _shortest_failing(size: int, fails: Callable[[int], Failure | None]) -> int:
    """The length of the shortest prefix of ``size`` elements that fails; the whole is known to fail."""
    low, high = 1, size
    while low < high:
        middle = (low + high) // 2
        if fails(middle) is not None:
            high = middle
        else:
            low = middle + 1
    return high
