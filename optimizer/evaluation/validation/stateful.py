"""A model with a state over many calls, each fed what the one before gave out.

The reference walks the chain first: as it is, with everything one ulp away at each step, and with ONNX Runtime's
optimizations off. From what that changes come the limits of each step, so rounding that grows from call to call is
allowed for; the chain ends where it grows so far that a limit would mean nothing. Then candidates feed themselves.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import ReferenceRunError
from optimizer.evaluation.validation.output_error import Difference, difference
from optimizer.evaluation.validation.reference_noise import UnstableElements
from optimizer.evaluation.validation.reference_outputs import held_bytes
from optimizer.evaluation.validation.state_pairs import next_feed, state_pairs
from optimizer.evaluation.validation.tolerance import SLACK, Tolerance, loosest, shrunk_by_an_ulp, tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from optimizer.evaluation.runtime.session import Session, Slot
    from optimizer.evaluation.validation.reference_noise import ReferenceNoise
    from optimizer.evaluation.validation.reference_outputs import ReferenceOutputs

    Answer = Mapping[str, Any]
    Run = Callable[[Mapping[str, Any]], Answer]

STEPS = 20
_FEWEST = 2  # the first step is a single call
_SECONDS = 4.0  # for the reference's first walk
_ROOM = 256 << 20  # bytes of answers


@dataclass(frozen=True)
class Rollout:
    """How a chain goes.

    Attributes:
        pairs: Outputs by the inputs that they feed.
        inputs: The reference's inputs.
        feeds: What the other inputs get, in turn.
    """

    pairs: Mapping[str, str]
    inputs: Sequence[Slot]
    feeds: Sequence[Mapping[str, Any]]

    def __str__(self) -> str:
        return ", ".join(f"{out} to {into}" for into, out in self.pairs.items())

    def steps(self, run: Run) -> Iterator[Answer]:
        """The answers of each step."""
        states: Mapping[str, Any] = {}
        for number in range(STEPS):
            answer = run(next_feed(self.feeds[number % len(self.feeds)], states, self.inputs))
            yield answer
            states = {into: answer[out] for into, out in self.pairs.items()}


@dataclass(frozen=True)
class ReferenceRollout:
    """What the reference answers when it is fed its own states.

    Attributes:
        course: How it is fed.
        answers: By step.
        limits: By step, then by output; outputs without limits are compared in dtype and shape.
        flips: Where integers change from one of the reference's walks to another, by step.
    """

    course: Rollout
    answers: Sequence[Answer]
    limits: Sequence[Mapping[str, Tolerance]]
    flips: UnstableElements

    def failure(self, candidate: Session) -> str:
        """Why ``candidate`` does not hold; empty if it does.

        Raises:
            ReferenceRunError: If it does not run.
        """
        known = zip(self.answers, self.limits, self.course.steps(candidate.run), strict=False)
        for number, (answer, limits, found) in enumerate(known):
            for name, value in answer.items():
                limit = limits.get(name)
                theirs = self.flips.excused(number, name, value, found[name])
                own = difference(value, theirs, values=limit is not None)
                failure = own.failure if limit is None else limit.failure(own)
                if failure:
                    return f"output {name!r} {failure}, in step {number + 1} of a chain feeding {self.course}"
        return ""


def chained(
    on: ReferenceOutputs, off: ReferenceOutputs | None, feeds: Sequence[Mapping[str, Any]], own: ReferenceNoise
) -> tuple[ReferenceRollout | None, str]:
    """Let the reference walk, if it has states; the chain, and what the report should say of it.

    Args:
        on: Loads the reference.
        off: Loads it without ONNX Runtime's optimizations; ``None`` if candidates are not run so.
        feeds: Validation feeds.
        own: What is known of single calls.
    """
    pairs = {into: out for into, out in state_pairs(own.inputs, own.outputs).items() if out not in own.random}
    first = feeds[0]
    if not pairs.keys() <= first.keys() or not pairs:
        return None, ""
    alike = (feed for feed in feeds if _shapes(feed, pairs) == _shapes(first, pairs))
    course = Rollout(pairs, own.inputs, list(itertools.islice(alike, STEPS)))
    try:
        course, answers = _longest(on.session().run, course)
        others = [list(zip(answers, course.steps(_noisy(on.session().run)), strict=False))]
        on.close()
        if off is not None:
            others.append(list(zip(answers, course.steps(off.session().run), strict=False)))
            off.close()
    except ReferenceRunError as error:
        return None, f"exact checks cover no chained steps, feeding {course}: {error}"
    limits, flips = _limits(others, own)
    if len(limits) < _FEWEST:
        return None, f"exact checks cover no chained steps, feeding {course}: rounding alone changes what comes of it"
    return (
        ReferenceRollout(course, answers[: len(limits)], limits, flips),
        f"exact checks cover {len(limits)} chained steps too, feeding {course}",
    )


def _shapes(feed: Mapping[str, Any], names: Iterable[str]) -> list[tuple[int, ...]]:
    return [np.shape(feed[name]) for name in names]


def _longest(run: Run, course: Rollout) -> tuple[Rollout, list[Answer]]:
    """The first walk, with all feeds in turn, or with the first alone where that gets further.

    Raises:
        ReferenceRunError: If neither gets beyond the first step.
    """
    found: list[tuple[Rollout, list[Answer]]] = []
    for one in (course, Rollout(course.pairs, course.inputs, course.feeds[:1])):
        answers, reason = _attempted(run, one)
        found.append((one, answers))
        if reason is None:
            break
    longest = max(found, key=lambda pair: len(pair[1]))
    if len(longest[1]) < _FEWEST:
        raise ReferenceRunError(reason or "a step takes too long, or gives out too much")
    return longest


def _attempted(run: Run, course: Rollout) -> tuple[list[Answer], str | None]:
    """The answers until time or room is used up or the model does not run; why it does not."""
    answers: list[Answer] = []
    begun, room = time.perf_counter(), _ROOM
    try:
        for answer in course.steps(run):
            room -= held_bytes(list(answer.values()))
            if room < 0:
                break
            answers.append(answer)
            if time.perf_counter() - begun > _SECONDS:
                break
    except ReferenceRunError as error:
        return answers, str(error)
    return answers, None


def _noisy(run: Run) -> Run:
    numbers = itertools.count()
    return lambda feed: run(shrunk_by_an_ulp(feed, next(numbers)))


def _limits(
    others: Sequence[Sequence[tuple[Answer, Answer]]], own: ReferenceNoise
) -> tuple[list[Mapping[str, Tolerance]], UnstableElements]:
    """The limits of all steps until rounding has grown too far, and where integers change."""
    limits: list[Mapping[str, Tolerance]] = []
    flips = UnstableElements()
    for number, walks in enumerate(zip(*others, strict=False)):
        step: dict[str, Tolerance] = {}
        for slot in own.outputs:
            if slot.name in own.random:
                continue
            changes = [difference(answer[slot.name], other[slot.name]) for answer, other in walks]
            is_sigmoid = slot.name in own.sigmoids
            found = [tolerance(slot.type, change, half=own.half, is_sigmoid=is_sigmoid) for change in changes]
            if number and any(map(_is_too_much, changes, found)):
                return limits, flips
            step[slot.name] = loosest([own.tolerances[slot.name], *found])
        for answer, other in walks:
            flips.note(number, answer, other)
        limits.append(step)
    return limits, flips


def _is_too_much(change: Difference, limit: Tolerance) -> bool:
    """Whether the reference's own change leaves no room below the cap of its limit."""
    relative = max(change.worst, change.floats.finite_rel_l2 if change.floats.reference2 else 0.0)
    return (
        bool(change.failure)
        or (SLACK * relative > limit.rel_l2 and change.rms > limit.rms)
        or SLACK * change.misplaced_share > limit.misplaced
    )
