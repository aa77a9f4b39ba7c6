"""What the reference's own runs differ by, which decides what a candidate may differ by.

1. Twice on one feed: outputs that differ by more than rounding are random.
2. With a random half of its input elements one ulp nearer to zero: how much the model amplifies rounding.
3. With ONNX Runtime's optimizations off: what exact rewrites of another optimizer change.

2 and 3 are the noise that tolerances are set by (``optimizer.evaluation.validation.tolerance``). Where integers,
booleans and strings change under them, elements are unstable and not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.analysis.randomness import random_outputs
from optimizer.errors import ReferenceRunError
from optimizer.evaluation.validation.metrics import is_discrete
from optimizer.evaluation.validation.output_error import Difference, difference
from optimizer.evaluation.validation.tolerance import Tolerance, has_floats, loosest, shrunk_by_an_ulp, tolerance
from optimizer.graph import queries, traversal
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from optimizer.evaluation.runtime.session import Slot
    from optimizer.evaluation.validation.reference_outputs import ReferenceOutputs


_SLOW_SECONDS = 5.0  # runs without optimizations are skipped where one takes longer
_NOISE_FEEDS = 4
_MOVING = having(Trait.MOVING) - {"Concat"}  # which may join it with what else


@dataclass(frozen=True)
class ReferenceNoise:
    """What was learned from the reference before any candidate ran.

    Attributes:
        random: Outputs that differ from run to run; only their dtype and shape can be compared.
        tolerances: Of the other outputs, by name.
        unstable: Where integers, booleans and strings change.
        unoptimized: Outputs without optimizations; ``None`` if candidates cannot be checked so.
        skipped: Why they cannot; empty if they can.
        constant: Outputs that are the same for all feeds, of several.
        sigmoids: Outputs of the model that are those of a Sigmoid.
        half: Whether the reference computes in float16 inside.
        inputs: Its inputs.
        outputs: Its outputs.
    """

    random: frozenset[str]
    tolerances: Mapping[str, Tolerance]
    unstable: UnstableElements
    unoptimized: ReferenceOutputs | None
    skipped: str
    constant: frozenset[str]
    sigmoids: frozenset[str]
    half: bool
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]


def measure_noise(reference: ir.Model, optimized: ReferenceOutputs, unoptimized: ReferenceOutputs) -> ReferenceNoise:
    """Run ``reference`` in all ways; no session stays loaded.

    Args:
        reference: The model as loaded.
        optimized: Its outputs with ONNX Runtime's optimizations; all of them are computed.
        unoptimized: Its outputs without them; all of them are computed, unless a run takes too long.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot load it or run it with optimizations.
    """
    # 1. What is random, and what noise of one ulp changes.
    loaded = optimized.session()
    inputs, outputs = loaded.inputs, loaded.outputs
    types = {slot.name: slot.type for slot in outputs}
    half = _computes_in_half(reference)
    random = random_outputs(reference) | _unsteady(optimized, types, half=half)
    unstable = UnstableElements()
    ulp_noise, constant = _noise(optimized, unstable)
    del loaded
    # 2. What optimizations change. One session at a time: large models fit once.
    optimized.close()
    level_noise, skipped = _without_optimizations(optimized, unoptimized, unstable)
    unoptimized.close()
    # 3. For each output, the larger of the limits that the two need.
    sigmoids = frozenset(value.name for value in reference.graph.outputs if value.name and _is_sigmoid(value))
    tolerances = {
        name: loosest(
            [
                tolerance(text, noise.get(name, Difference()), half=half, is_sigmoid=name in sigmoids)
                for noise in (ulp_noise, level_noise)
            ]
        )
        for name, text in types.items()
        if name not in random
    }
    return ReferenceNoise(
        random,
        tolerances,
        unstable,
        None if skipped else unoptimized,
        skipped,
        constant - random,
        sigmoids,
        half,
        inputs,
        outputs,
    )


def _unsteady(optimized: ReferenceOutputs, types: Mapping[str, str], *, half: bool) -> frozenset[str]:
    """Outputs in which two runs of one feed differ by more than rounding ever explains; one feed is tried."""
    for feed, outputs in optimized:
        repeated = optimized.session().run(feed)
        noise_by_name = {name: difference(outputs[name], repeated[name]) for name in outputs}
        return frozenset(
            name for name, noise in noise_by_name.items() if tolerance(types[name], noise, half=half).failure(noise)
        )
    return frozenset()


def _noise(optimized: ReferenceOutputs, unstable: UnstableElements) -> tuple[dict[str, Difference], frozenset[str]]:
    """The change of each output under noise of one ulp, and the outputs that no feed changes.

    The outputs of every feed are computed on the way.
    """
    noise: dict[str, Difference] = {}
    first_outputs: Mapping[str, Any] = {}
    constant: frozenset[str] = frozenset()
    for number, (feed, outputs) in enumerate(optimized):
        if number == 1:
            constant = frozenset(outputs)
        constant = frozenset(name for name in constant if _same(first_outputs[name], outputs[name]))
        first_outputs = first_outputs or outputs
        # A few feeds tell how much rounding grows; which integers are unstable differs from feed to feed.
        discrete = _has_discrete(outputs)
        is_tried = number < (_NOISE_FEEDS if optimized.seconds < 1 else 1)
        if not has_floats(feed) or not (is_tried or discrete):
            continue
        for other_half in (False, True)[: 2 if discrete else 1]:  # every input has to move where places count
            noisy = optimized.session().run(shrunk_by_an_ulp(feed, number, other_half=other_half))
            _add_up(noise, outputs, noisy)
            unstable.add(number, outputs, noisy)
    return noise, constant


def _same(first: Any, second: Any) -> bool:
    error = difference(first, second)
    return not (error.failure or error.floats.differing or error.discrete.differing)


def _without_optimizations(
    optimized: ReferenceOutputs, unoptimized: ReferenceOutputs, unstable: UnstableElements
) -> tuple[dict[str, Difference], str]:
    """What switching optimizations off changes; and why candidates cannot be checked so, if they cannot."""
    noise: dict[str, Difference] = {}
    if optimized.seconds > _SLOW_SECONDS:
        return noise, _skipped(f"one run takes {optimized.seconds:.1f} s with them")
    try:
        for number, ((_, outputs), (_, unoptimized_outputs)) in enumerate(zip(optimized, unoptimized, strict=True)):
            _add_up(noise, outputs, unoptimized_outputs)
            unstable.add(number, outputs, unoptimized_outputs)
            if unoptimized.seconds > _SLOW_SECONDS:
                return noise, _skipped(f"one run takes {unoptimized.seconds:.1f} s")
    except ReferenceRunError as error:
        return {}, _skipped(f"the reference does not run so ({error})")
    return noise, ""


def _has_discrete(outputs: Mapping[str, Any]) -> bool:
    return any(hasattr(value, "dtype") and is_discrete(value.dtype) for value in outputs.values())


def _is_sigmoid(value: ir.Value) -> bool:
    """Whether ``value`` is the output of a Sigmoid, perhaps reshaped or moved."""
    node = value.producer()
    while node is not None and queries.is_standard(node, *_MOVING):
        node = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return node is not None and queries.is_standard(node, "Sigmoid")


def _computes_in_half(model: ir.Model) -> bool:
    half_types = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    return any(
        value.dtype in half_types for node in traversal.nodes(model) for value in (*node.inputs, *node.outputs) if value
    )


def _add_up(totals: dict[str, Difference], outputs: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    for name, value in outputs.items():
        totals[name] = totals.get(name, Difference()) + difference(value, others[name])


def _skipped(why: str) -> str:
    return f"not checked without ONNX Runtime's optimizations: {why}"


class UnstableElements:
    """Elements that differ between runs of the reference, by number of the feed and name of the output."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str], NDArray[np.bool_]] = {}

    def add(self, number: int, outputs: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        """Take in the outputs of two runs of the reference on feed ``number``."""
        for name, value in outputs.items():
            if not _comparable(value, others[name]):
                continue
            changed = np.asarray(value != others[name])
            if changed.any():
                before = self._places.get((number, name))
                self._places[number, name] = changed if before is None else before | changed

    def without_unstable(self, number: int, name: str, reference: Any, candidate: Any) -> Any:
        """``candidate`` with the reference's value in every unstable element."""
        places = self._places.get((number, name))
        if places is None or not _comparable(reference, candidate):
            return candidate
        return np.where(places, reference, candidate).astype(candidate.dtype)


def _comparable(reference: Any, candidate: Any) -> bool:
    return (
        isinstance(reference, np.ndarray)
        and isinstance(candidate, np.ndarray)
        and reference.shape == candidate.shape
        and reference.dtype == candidate.dtype
        and is_discrete(reference.dtype)
    )
