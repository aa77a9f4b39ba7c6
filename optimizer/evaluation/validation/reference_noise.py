"""What the reference's own runs differ by, which decides what a candidate may differ by.

The reference is run twice on one feed, with its inputs one ulp away, and with ONNX Runtime's optimizations off.
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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from optimizer.evaluation.runtime.session import Slot
    from optimizer.evaluation.validation.reference_outputs import ReferenceOutputs


_SLOW_SECONDS = 5.0  # runs without optimizations are skipped where one takes longer
_NOISE_FEEDS = 4
_MOVING = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice")


@dataclass(frozen=True)
class ReferenceNoise:
    """What was learned from the reference before any candidate ran.

    Attributes:
        random: Outputs that differ from run to run; only their dtype and shape can be compared.
        tolerances: Of the other outputs, by name.
        flips: Where integers, booleans and strings change.
        off: Answers without optimizations; ``None`` if candidates cannot be checked so.
        skipped: Why they cannot; empty if they can.
        constant: Outputs that are the same for all feeds, of several.
        sigmoids: Outputs that a Sigmoid gives out.
        half: Whether the reference computes in float16 inside.
        inputs: Its inputs.
        outputs: Its outputs.
    """

    random: frozenset[str]
    tolerances: Mapping[str, Tolerance]
    flips: UnstableElements
    off: ReferenceOutputs | None
    skipped: str
    constant: frozenset[str]
    sigmoids: frozenset[str]
    half: bool
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]


def own_changes(reference: ir.Model, on: ReferenceOutputs, off: ReferenceOutputs) -> ReferenceNoise:
    """Run ``reference`` in all ways; its answers are in ``on`` and ``off`` afterwards, no session stays loaded.

    Raises:
        ReferenceRunError: If ONNX Runtime cannot load it or run it with optimizations.
    """
    loaded = on.session()
    inputs, outputs = loaded.inputs, loaded.outputs
    types = {slot.name: slot.type for slot in outputs}
    half = _computes_in_half(reference)
    random = random_outputs(reference) | _unsteady(on, types, half=half)
    flips = UnstableElements()
    noise, constant = _noise(on, flips)
    del loaded
    on.close()  # one session at a time: large models fit once
    change, skipped = _without_optimizations(on, off, flips)
    off.close()
    sigmoids = frozenset(value.name for value in reference.graph.outputs if value.name and _is_sigmoid(value))
    tolerances = {
        name: loosest(
            [
                tolerance(text, own.get(name, Difference()), half=half, is_sigmoid=name in sigmoids)
                for own in (noise, change)
            ]
        )
        for name, text in types.items()
        if name not in random
    }
    return ReferenceNoise(
        random, tolerances, flips, None if skipped else off, skipped, constant - random, sigmoids, half, inputs, outputs
    )


def _unsteady(on: ReferenceOutputs, types: Mapping[str, str], *, half: bool) -> frozenset[str]:
    """Outputs in which two runs of one feed differ by more than rounding ever explains; one feed is tried."""
    for feed, answer in on:
        again = on.session().run(feed)
        found = {name: difference(answer[name], again[name]) for name in answer}
        return frozenset(name for name, own in found.items() if tolerance(types[name], own, half=half).failure(own))
    return frozenset()


def _noise(on: ReferenceOutputs, flips: UnstableElements) -> tuple[dict[str, Difference], frozenset[str]]:
    """The change of each output under noise of one ulp, and the outputs that no feed changes.

    Every feed's answer is computed on the way.
    """
    own: dict[str, Difference] = {}
    first: Mapping[str, Any] = {}
    constant: frozenset[str] = frozenset()
    for number, (feed, answer) in enumerate(on):
        if number == 1:
            constant = frozenset(answer)
        constant = frozenset(name for name in constant if _same(first[name], answer[name]))
        first = first or answer
        discrete = _has_discrete(answer)
        few = number < (_NOISE_FEEDS if on.seconds < 1 else 1)
        if not has_floats(feed) or not (few or discrete):
            continue
        for rest in (False, True)[: 2 if discrete else 1]:  # every input has to move where places count
            other = on.session().run(shrunk_by_an_ulp(feed, number, rest=rest))
            _add_up(own, answer, other)
            flips.note(number, answer, other)
    return own, constant


def _same(one: Any, other: Any) -> bool:
    found = difference(one, other)
    return not (found.failure or found.floats.differing or found.discrete.differing)


def _without_optimizations(
    on: ReferenceOutputs, off: ReferenceOutputs, flips: UnstableElements
) -> tuple[dict[str, Difference], str]:
    """What switching optimizations off changes; and why candidates cannot be checked so, if they cannot."""
    change: dict[str, Difference] = {}
    if on.seconds > _SLOW_SECONDS:
        return change, _skipped(f"one run takes {on.seconds:.1f} s with them")
    try:
        for number, ((_, answer), (_, plain)) in enumerate(zip(on, off, strict=True)):
            _add_up(change, answer, plain)
            flips.note(number, answer, plain)
            if off.seconds > _SLOW_SECONDS:
                return change, _skipped(f"one run takes {off.seconds:.1f} s")
    except ReferenceRunError as error:
        return {}, _skipped(f"the reference does not run so ({error})")
    return change, ""


def _has_discrete(answer: Mapping[str, Any]) -> bool:
    return any(hasattr(value, "dtype") and is_discrete(value.dtype) for value in answer.values())


def _is_sigmoid(value: ir.Value) -> bool:
    """Whether a Sigmoid made ``value``, moved perhaps."""
    node = value.producer()
    while node is not None and queries.is_standard(node, *_MOVING):
        node = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return node is not None and queries.is_standard(node, "Sigmoid")


def _computes_in_half(model: ir.Model) -> bool:
    kinds = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    return any(
        value.dtype in kinds for node in traversal.nodes(model) for value in (*node.inputs, *node.outputs) if value
    )


def _add_up(totals: dict[str, Difference], answer: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in answer.items():
        totals[name] = totals.get(name, Difference()) + difference(value, other[name])


def _skipped(why: str) -> str:
    return f"not checked without ONNX Runtime's optimizations: {why}"


class UnstableElements:
    """Collects the places, by number of the feed and name of the output."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str], NDArray[np.bool_]] = {}

    def note(self, number: int, answer: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        """Take in two answers of the reference to feed ``number``."""
        for name, value in answer.items():
            if not _comparable(value, other[name]):
                continue
            changed = np.asarray(value != other[name])
            if changed.any():
                known = self._places.get((number, name))
                self._places[number, name] = changed if known is None else known | changed

    def excused(self, number: int, name: str, reference: Any, candidate: Any) -> Any:
        """``candidate`` with the reference's own value wherever the reference flips."""
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
