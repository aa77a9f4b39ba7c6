"""What a run did, pass by pass and stage by stage, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optimizer.analysis.model_facts import Facts
    from optimizer.contract.passes import Note
    from optimizer.contract.refusal import RefusalCount
    from optimizer.engine.bisection import Reverted
    from optimizer.evaluation.runtime.integer_coverage import Coverage
    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.evaluation.validation.task_metric import Score
    from optimizer.evaluation.validation.validator import OutputError


@dataclass(frozen=True)
class PassRecord:
    """One pass of a stage.

    Attributes:
        name: What specs call it.
        spec: The spec that repeats it.
        options: All options with their final values.
        exact: Whether outputs stay equal up to rounding.
        changes: Changes by kind.
        seconds: CPU seconds.
        notes: What it left alone, or wants said.
        skipped: Why it did not run, or was undone; ``None`` if it ran.
        undone: What was left out of it after a failed check.
        gain: What it is for.
        refusals: What its steps refused, by reason; ``None`` where the run was not to be verbose.
    """

    name: str
    spec: str
    options: Mapping[str, Any]
    exact: bool
    changes: Mapping[str, int]
    seconds: float
    notes: tuple[Note, ...] = ()
    skipped: str | None = None
    undone: tuple[Reverted, ...] = ()
    gain: str = ""
    refusals: tuple[RefusalCount, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            "name": self.name,
            "spec": self.spec,
            "options": dict(self.options),
            "exact": self.exact,
            "gain": self.gain,
            "changes": dict(self.changes),
            "seconds": round(self.seconds, 4),
            "skipped": self.skipped,
            "notes": [asdict(note) for note in self.notes],
            "reverted": [
                {"step": reverted.step, "site": reverted.site, "reason": reverted.reason} for reverted in self.undone
            ],
            "refusals": None if self.refusals is None else [refusal.to_dict() for refusal in self.refusals],
        }


@dataclass(frozen=True)
class StageRecord:
    """One stage: kept or undone, why, and the model's measures after it.

    Attributes:
        passes: Its passes.
        kept: Whether what it did is in the result.
        reason: Why it was kept, undone, or did nothing; one line.
        seconds: CPU seconds of its passes.
        bytes: File size after the stage, as if it were written then.
        nodes: Number of nodes after the stage.
        decisions: What ``--replay`` needs: for each pass the restrictions that it ran under.
    """

    passes: tuple[PassRecord, ...]
    kept: bool
    reason: str
    seconds: float
    bytes: int
    nodes: int
    decisions: tuple[Mapping[str, Any], ...] = ()

    @property
    def changes(self) -> dict[str, int]:
        """Changes of all its passes."""
        total: dict[str, int] = {}
        for member in self.passes:
            for change, count in member.changes.items():
                total[change] = total.get(change, 0) + count
        return total

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            "passes": [member.to_dict() for member in self.passes],
            "kept": self.kept,
            "changes": self.changes,
            "seconds": round(self.seconds, 4),
            "reason": self.reason,
            "notes": [asdict(note) for member in self.passes for note in member.notes],
            "bytes": self.bytes,
            "nodes": self.nodes,
            "decisions": [dict(decision) for decision in self.decisions],
        }


@dataclass(frozen=True)
class RunRecord:
    """Everything that is told of one run.

    Attributes:
        model: Path or kind of the source, and the digest that ``--replay`` compares.
        target: The machine that the result is for.
        versions: Of onnxhone and the libraries that decide the result.
        before: Facts of the reference.
        after: Facts of the result.
        outputs: Errors of each output of the result against the reference.
        latency: Paired latency ratio of the result against the reference, if it was measured.
        stages: In the order in which they ran.
        seconds: CPU seconds of ``load``, ``rewrite``, ``save`` and ``gates``, and ``wall``.
        verdict: ``improved``, ``unchanged`` or ``unverified``.
        score: What the user's task metric says of the reference and of the result, on the validation feeds.
        compressed: Bytes that gzip makes of the files before and after, where a lossy pass made them smaller.
        coverage: What of a quantized result runs in integers, as ONNX Runtime's optimized graph says.
        warnings: What the user should know: few feeds, random outputs, shapes that were chosen.
    """

    model: Mapping[str, Any]
    target: str
    versions: Mapping[str, str]
    before: Facts
    after: Facts
    outputs: tuple[OutputError, ...]
    latency: Latency | None
    stages: tuple[StageRecord, ...]
    seconds: Mapping[str, float]
    verdict: str
    score: Score | None = None
    compressed: tuple[int, int] | None = None
    coverage: Coverage | None = None
    warnings: tuple[str, ...] = field(default=())
