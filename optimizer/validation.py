"""The reference against candidates on the same feeds: limits first, then verdicts.

The reference runs with ONNX Runtime's optimizations on and off and with its inputs one ulp away. From what that changes
come the tolerances (``tolerance``), before any candidate runs. An exact candidate is held to them with optimizations on
and off, each against the reference run the same way; a lossy one is held to a budget with optimizations on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer import graph
from optimizer.answers import Answers
from optimizer.budget import Budget, Part, parts
from optimizer.differences import Difference, OutputError, difference
from optimizer.errors import DataError, ReferenceRunError
from optimizer.measures import is_discrete
from optimizer.randomness import random_outputs
from optimizer.runtime import Session, prepare, session
from optimizer.spread import Spread
from optimizer.tolerance import Tolerance, has_floats, loosest, shrunk_by_an_ulp, tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Budget", "OutputError", "Validator", "Verdict"]

_SLOW_SECONDS = 5.0  # runs without optimizations are skipped where one takes longer
_FEW_FEEDS = 8
_NOISE_FEEDS = 4


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate's outputs hold.

    Attributes:
        ok: Whether they do.
        reason: If not, one line: output, measure, limit.
        outputs: The errors of all outputs with optimizations on; empty if the candidate does not run.
    """

    ok: bool
    reason: str
    outputs: tuple[OutputError, ...] = ()


class Validator:
    """Holds what the reference answers, and the tolerances.

    Attributes:
        tolerances: By output name; outputs that are random have none.
        random: Outputs that differ from run to run; only their dtype and shape are compared.
        notes: What the report should say about the evidence.
    """

    def __init__(self, reference: ir.Model, feeds: Sequence[Mapping[str, Any]], *, threads: int = 1) -> None:
        """Run the reference and set the tolerances.

        Args:
            reference: The model as loaded; it must not change afterwards.
            feeds: Validation feeds.
            threads: Threads of ONNX Runtime.

        Raises:
            DataError: If there are no feeds.
            ReferenceRunError: If ONNX Runtime cannot load or run the reference.
        """
        if not len(feeds):
            raise DataError("there are no validation feeds; give some with --data")
        self._threads = threads
        loadable = prepare(reference)
        self._on = Answers(loadable, feeds, optimize=True, threads=threads)
        try:
            with_optimizations = self._on.session()
            self.random = random_outputs(reference) | self._unsteady(with_optimizations)
            noise = self._noise(with_optimizations)
        except ReferenceRunError as error:
            raise ReferenceRunError(f"{error}; --no-run optimizes without running it") from error
        change, skipped = self._without_optimizations(Answers(loadable, feeds, optimize=False, threads=threads))
        half = _computes_in_half(reference)
        self.tolerances: Mapping[str, Tolerance] = {
            slot.name: loosest(
                [tolerance(slot.type, own.get(slot.name, Difference()), half=half) for own in (noise, change)]
            )
            for slot in with_optimizations.outputs
            if slot.name not in self.random
        }
        self._parts = parts(reference)
        self._spreads: dict[tuple[str, str], float | None] | None = None
        self.notes: tuple[str, ...] = (*self._evidence(len(feeds)), *skipped)

    def check_exact(self, candidate: ir.Model) -> Verdict:
        """Hold ``candidate`` to the tolerances, with optimizations on and off."""
        verdict = self._exact(candidate, self._on, "")
        if not verdict.ok or self._off is None:
            return verdict
        without = self._exact(candidate, self._off, " without ONNX Runtime's optimizations")
        return verdict if without.ok else Verdict(ok=False, reason=without.reason, outputs=verdict.outputs)

    def check_budget(self, candidate: ir.Model, budget: Budget) -> Verdict:
        """Hold ``candidate`` to ``budget``, with optimizations on."""
        keys = self._budget_keys(budget)
        try:
            found = self._differences(candidate, self._on, keys)
        except ReferenceRunError as error:
            return Verdict(ok=False, reason=f"the candidate: {error}")
        spreads = self._reference_spreads() if budget.centered is not None else {}
        errors = self._errors(found)
        for (name, part), value in found.items():
            label = f"output {name!r}" + (f" {part.label}" if part.label else "")
            arg_max = part.link in {"Softmax", "LogSoftmax"}
            failure = budget.failure(value, spreads.get((name, part.label)), arg_max=arg_max)
            if failure:
                return Verdict(ok=False, reason=f"{label} {failure}", outputs=errors)
        return Verdict(ok=True, reason="", outputs=errors)

    def _exact(self, candidate: ir.Model, answers: Answers, how: str) -> Verdict:
        keys = {name: (Part(),) for name in (*self.tolerances, *self.random)}
        try:
            found = self._differences(candidate, answers, keys)
        except ReferenceRunError as error:
            return Verdict(ok=False, reason=f"the candidate: {error}{how}")
        errors = self._errors(found)
        for (name, _), value in found.items():
            limits = self.tolerances.get(name)
            failure = limits.failure(value) if limits is not None else value.failure
            if failure:
                return Verdict(ok=False, reason=f"output {name!r} {failure}{how}", outputs=errors)
        return Verdict(ok=True, reason="", outputs=errors)

    def _differences(
        self, candidate: ir.Model, answers: Answers, keys: Mapping[str, Sequence[Part]]
    ) -> dict[tuple[str, Part], Difference]:
        """The difference of each part of each output, over all feeds."""
        loaded = session(prepare(candidate), optimize=answers is not self._off, threads=self._threads)
        found = {(name, part): Difference() for name, chosen in keys.items() for part in chosen}
        for feed, answer in answers:
            theirs = loaded.run(feed)
            for name, part in found:
                if name not in theirs:
                    raise ReferenceRunError(f"it has no output {name!r}")
                left, right = _cut(part, answer[name], theirs[name])
                found[name, part] += difference(left, right, values=name not in self.random)
        return found

    def _errors(self, found: Mapping[tuple[str, Part], Difference]) -> tuple[OutputError, ...]:
        whole = {name: value for (name, part), value in found.items() if not part.label}
        return tuple(OutputError(name) if name in self.random else value.error(name) for name, value in whole.items())

    def _unsteady(self, loaded: Session) -> frozenset[str]:
        """Outputs that two runs of the same feed disagree on; one feed is tried."""
        for feed, answer in self._on:
            again = loaded.run(feed)
            return frozenset(name for name in answer if _differs(difference(answer[name], again[name])))
        return frozenset()

    def _noise(self, loaded: Session) -> dict[str, Difference]:
        """The change of each output under noise of one ulp; every feed's answer is computed on the way."""
        own: dict[str, Difference] = {}
        for number, (feed, answer) in enumerate(self._on):
            enough = number >= (_NOISE_FEEDS if self._on.seconds < 1 else 1)
            if not enough and has_floats(feed):
                _add_up(own, answer, loaded.run(shrunk_by_an_ulp(feed, number)))
        return own

    def _without_optimizations(self, answers: Answers) -> tuple[dict[str, Difference], tuple[str, ...]]:
        """What switching optimizations off changes; and a note if candidates cannot be checked so."""
        self._off: Answers | None = None
        change: dict[str, Difference] = {}
        if self._on.seconds > _SLOW_SECONDS:
            return change, (_skipped(f"one run takes {self._on.seconds:.1f} s with them"),)
        try:
            for (_, answer), (_, plain) in zip(self._on, answers, strict=True):
                _add_up(change, answer, plain)
                if answers.seconds > _SLOW_SECONDS:
                    return change, (_skipped(f"one run takes {answers.seconds:.1f} s"),)
        except ReferenceRunError as error:
            return {}, (_skipped(f"the reference does not run so ({error})"),)
        self._off = answers
        return change, ()

    def _evidence(self, count: int) -> Iterator[str]:
        if self.random:
            named = ", ".join(sorted(self.random))
            yield f"compared in dtype and shape only, since they differ from run to run: {named}"
        if count < _FEW_FEEDS:
            yield f"weak evidence: {count} validation feed{'s' if count != 1 else ''}, eight are enough"

    def _budget_keys(self, budget: Budget) -> dict[str, tuple[Part, ...]]:
        names = (*self.tolerances, *self.random)
        more = self._parts if budget.parts else {}
        return {name: (Part(), *(more.get(name, ()) if name not in self.random else ())) for name in names}

    def _reference_spreads(self) -> dict[tuple[str, str], float | None]:
        """|r - m| / |r| of every part of every output, over feeds of one shape; computed once."""
        if self._spreads is None:
            spreads: dict[tuple[str, str], Spread] = {}
            for _, answer in self._on:
                for name, value in answer.items():
                    if isinstance(value, np.ndarray) and not is_discrete(value.dtype) and value.dtype.kind != "c":
                        for part in (Part(), *self._parts.get(name, ())):
                            spreads.setdefault((name, part.label), Spread()).add(part.of(value))
            self._spreads = {key: spread.relative() for key, spread in spreads.items()}
        return self._spreads


def _computes_in_half(model: ir.Model) -> bool:
    kinds = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    return any(value.dtype in kinds for node in graph.nodes(model) for value in (*node.inputs, *node.outputs) if value)


def _cut(part: Part, reference: Any, candidate: Any) -> tuple[Any, Any]:
    """The part of both; the whole of both where they are not comparable, so that the failure is seen."""
    if not part.label or not isinstance(reference, np.ndarray) or not isinstance(candidate, np.ndarray):
        return reference, candidate
    if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
        return reference, candidate
    return part.of(reference), part.of(candidate)


def _differs(found: Difference) -> bool:
    return bool(found.failure or found.floats.differing or found.discrete.differing)


def _add_up(totals: dict[str, Difference], answer: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in answer.items():
        totals[name] = totals.get(name, Difference()) + difference(value, other[name])


def _skipped(why: str) -> str:
    return f"not checked without ONNX Runtime's optimizations: {why}"
