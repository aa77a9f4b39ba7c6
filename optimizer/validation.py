"""The reference against candidates on the same feeds: limits first, then verdicts.

The reference runs with ONNX Runtime's optimizations on and off and with its inputs one ulp away. From what that changes
come the tolerances (``tolerance``), before any candidate runs. An exact candidate is held to them with optimizations on
and off, each against the reference run the same way; a lossy one is held to a budget with optimizations on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.answers import Answers
from optimizer.budget import Budget, Part, parts
from optimizer.differences import Difference, OutputError, difference
from optimizer.errors import DataError, ReferenceRunError
from optimizer.measures import is_discrete
from optimizer.own_changes import own_changes
from optimizer.runtime import prepare, session
from optimizer.spread import Spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

__all__ = ["Budget", "OutputError", "Validator", "Verdict"]

_FEW_FEEDS = 8


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
            own = own_changes(reference, self._on, Answers(loadable, feeds, optimize=False, threads=threads))
        except ReferenceRunError as error:
            raise ReferenceRunError(f"{error}; --no-run optimizes without running it") from error
        self.random, self.tolerances, self._flips, self._off = own.random, own.tolerances, own.flips, own.off
        self._parts = parts(reference)
        self._spreads: dict[tuple[str, str], float | None] | None = None
        skipped = (own.skipped,) if own.skipped else ()
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
            found = self._differences(candidate, self._on, keys, excuse=False)
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
            found = self._differences(candidate, answers, keys, excuse=True)
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
        self, candidate: ir.Model, answers: Answers, keys: Mapping[str, Sequence[Part]], *, excuse: bool
    ) -> dict[tuple[str, Part], Difference]:
        """The difference of each part of each output, over all feeds; where the reference flips, if not excused."""
        loaded = session(prepare(candidate), optimize=answers is not self._off, threads=self._threads)
        found = {(name, part): Difference() for name, chosen in keys.items() for part in chosen}
        for number, (feed, answer) in enumerate(answers):
            theirs = loaded.run(feed)
            for name, part in found:
                if name not in theirs:
                    raise ReferenceRunError(f"it has no output {name!r}")
                value = self._flips.excused(number, name, answer[name], theirs[name]) if excuse else theirs[name]
                left, right = _cut(part, answer[name], value)
                found[name, part] += difference(left, right, values=name not in self.random)
        answers.close()
        return found

    def _errors(self, found: Mapping[tuple[str, Part], Difference]) -> tuple[OutputError, ...]:
        whole = {name: value for (name, part), value in found.items() if not part.label}
        return tuple(OutputError(name) if name in self.random else value.error(name) for name, value in whole.items())

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


def _cut(part: Part, reference: Any, candidate: Any) -> tuple[Any, Any]:
    """The part of both; the whole of both where they are not comparable, so that the failure is seen."""
    if not part.label or not isinstance(reference, np.ndarray) or not isinstance(candidate, np.ndarray):
        return reference, candidate
    if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
        return reference, candidate
    return part.of(reference), part.of(candidate)
