"""A model with a state, rolled out over many calls: the outputs of each step are the states of the next.

The reference is rolled out first: as it is, with everything one ulp away at each step, and with ONNX Runtime's
optimizations off. From what that changes come the limits of each step, so rounding that grows from call to call is
allowed for; the rollout ends where it grows so far that a limit would mean nothing. Then candidates are rolled out,
each on its own states.
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

    Outputs = Mapping[str, Any]
    Run = Callable[[Mapping[str, Any]], Outputs]

STEPS = 20
_FEWEST = 2  # the first step is a single call
_SECONDS = 4.0  # for the reference's first rollout
_MOST_BYTES = 256 << 20  # of its outputs


@dataclass(frozen=True)
class Rollout:
    """How a model is fed, step by step.

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

    def steps(self, run: Run) -> Iterator[Outputs]:
        """The outputs of each step; the first one takes its states from the feed."""
        states: Mapping[str, Any] = {}
        for step in range(STEPS):
            outputs = run(next_feed(self.feeds[step % len(self.feeds)], states, self.inputs))
            yield outputs
            states = {into: outputs[out] for into, out in self.pairs.items()}


@dataclass(frozen=True)
class ReferenceRollout:
    """The outputs of the reference when it is fed its own states.

    Attributes:
        rollout: How it is fed.
        outputs: By step.
        limits: By step, then by output; outputs without limits are compared in dtype and shape.
        unstable: Where integers change from one of the reference's rollouts to another, by step.
    """

    rollout: Rollout
    outputs: Sequence[Outputs]
    limits: Sequence[Mapping[str, Tolerance]]
    unstable: UnstableElements

    def failure(self, candidate: Session) -> str:
        """By which limit ``candidate`` fails; empty if it holds.

        Raises:
            ReferenceRunError: If it does not run.
        """
        steps = zip(self.outputs, self.limits, self.rollout.steps(candidate.run), strict=False)
        for step, (expected, limits, actual) in enumerate(steps):
            for name, reference in expected.items():
                # Random outputs have no limit: dtype and shape are compared alone.
                limit = limits.get(name)
                stable = self.unstable.without_unstable(step, name, reference, actual[name])
                error = difference(reference, stable, values=limit is not None)
                failure = error.failure if limit is None else limit.failure(error)
                if failure:
                    return f"output {name!r} {failure}, in step {step + 1} of a chain feeding {self.rollout}"
        return ""


def reference_rollout(
    optimized: ReferenceOutputs,
    unoptimized: ReferenceOutputs | None,
    feeds: Sequence[Mapping[str, Any]],
    noise: ReferenceNoise,
) -> tuple[ReferenceRollout | None, str]:
    """Roll out the reference, if it has states; the rollout, and what the report should say of it.

    Args:
        optimized: Loads the reference.
        unoptimized: Loads it without ONNX Runtime's optimizations; ``None`` if candidates are not run so.
        feeds: Validation feeds.
        noise: What is known of single calls.
    """
    # 1. Which outputs feed which inputs; feeds of one shape, so that states fit.
    pairs = {into: out for into, out in state_pairs(noise.inputs, noise.outputs).items() if out not in noise.random}
    first_feed = feeds[0]
    if not pairs.keys() <= first_feed.keys() or not pairs:
        return None, ""
    same_shapes = (feed for feed in feeds if _shapes(feed, pairs) == _shapes(first_feed, pairs))
    rollout = Rollout(pairs, noise.inputs, list(itertools.islice(same_shapes, STEPS)))
    # 2. As it is, one ulp away, and without optimizations: pairs of outputs by step.
    try:
        rollout, outputs = _longest(optimized.session().run, rollout)
        pairs_of_rollouts = [list(zip(outputs, rollout.steps(_noisy(optimized.session().run)), strict=False))]
        optimized.close()
        if unoptimized is not None:
            pairs_of_rollouts.append(list(zip(outputs, rollout.steps(unoptimized.session().run), strict=False)))
            unoptimized.close()
    except ReferenceRunError as error:
        return None, f"exact checks cover no chained steps, feeding {rollout}: {error}"
    # 3. The limits of each step, as far as they mean something.
    limits, unstable = _limits(pairs_of_rollouts, noise)
    if len(limits) < _FEWEST:
        return None, f"exact checks cover no chained steps, feeding {rollout}: rounding alone changes what comes of it"
    return (
        ReferenceRollout(rollout, outputs[: len(limits)], limits, unstable),
        f"exact checks cover {len(limits)} chained steps too, feeding {rollout}",
    )


def _shapes(feed: Mapping[str, Any], names: Iterable[str]) -> list[tuple[int, ...]]:
    return [np.shape(feed[name]) for name in names]


def _longest(run: Run, rollout: Rollout) -> tuple[Rollout, list[Outputs]]:
    """The first rollout, with all feeds in turn, or with the first alone where that gets further.

    Raises:
        ReferenceRunError: If neither gets beyond the first step.
    """
    # Feeds in turn may change a size that the state has taken over; one feed cannot.
    attempts: list[tuple[Rollout, list[Outputs]]] = []
    for attempted in (rollout, Rollout(rollout.pairs, rollout.inputs, rollout.feeds[:1])):
        outputs, reason = _attempted(run, attempted)
        attempts.append((attempted, outputs))
        if reason is None:
            break
    longest = max(attempts, key=lambda pair: len(pair[1]))
    if len(longest[1]) < _FEWEST:
        raise ReferenceRunError(reason or "a step takes too long, or gives out too much")
    return longest


def _attempted(run: Run, rollout: Rollout) -> tuple[list[Outputs], str | None]:
    """The outputs of the steps until time or room is used up or the model does not run; why it does not."""
    outputs_of_steps: list[Outputs] = []
    start, bytes_left = time.perf_counter(), _MOST_BYTES
    try:
        for outputs in rollout.steps(run):
            bytes_left -= held_bytes(list(outputs.values()))
            if bytes_left < 0:
                break
            outputs_of_steps.append(outputs)
            if time.perf_counter() - start > _SECONDS:
                break
    except ReferenceRunError as error:
        return outputs_of_steps, str(error)
    return outputs_of_steps, None


def _noisy(run: Run) -> Run:
    """``run`` with another half of the input elements one ulp nearer to zero at each step."""
    seeds = itertools.count()
    return lambda feed: run(shrunk_by_an_ulp(feed, next(seeds)))


def _limits(
    paired_steps: Sequence[Sequence[tuple[Outputs, Outputs]]], noise: ReferenceNoise
) -> tuple[list[Mapping[str, Tolerance]], UnstableElements]:
    """The limits of all steps until rounding has grown too far, and where integers change."""
    limits: list[Mapping[str, Tolerance]] = []
    unstable = UnstableElements()
    # Each step has as many pairs as there are noisy rollouts; it ends with the shortest of them.
    for step, pairs in enumerate(zip(*paired_steps, strict=False)):
        step_limits: dict[str, Tolerance] = {}
        for slot in noise.outputs:
            if slot.name in noise.random:
                continue
            differences = [difference(outputs[slot.name], others[slot.name]) for outputs, others in pairs]
            # From the second step on, noise may have grown too large for any limit.
            is_sigmoid = slot.name in noise.sigmoids
            tolerances = [
                tolerance(slot.type, change, half=noise.half, is_sigmoid=is_sigmoid) for change in differences
            ]
            if step and any(map(_is_too_much, differences, tolerances)):
                return limits, unstable
            step_limits[slot.name] = loosest([noise.tolerances[slot.name], *tolerances])
        for outputs, others in pairs:
            unstable.add(step, outputs, others)
        limits.append(step_limits)
    return limits, unstable


def _is_too_much(noise: Difference, limit: Tolerance) -> bool:
    """Whether the reference's noise leaves no room below the cap of its limit."""
    relative = max(noise.worst_rel_l2, noise.floats.finite_rel_l2 if noise.floats.reference2 else 0.0)
    return (
        bool(noise.failure)
        or (SLACK * relative > limit.rel_l2 and noise.worst_rms > limit.rms)
        or SLACK * noise.misplaced_share > limit.misplaced
    )
