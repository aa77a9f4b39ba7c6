"""Two models on the same feeds, for ``onnxhone compare``: outputs, size, paired latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimizer.analysis.model_facts import Facts, facts
from optimizer.contract.progress import Progress
from optimizer.engine.report_tables import comparison_table
from optimizer.engine.setup import set_up
from optimizer.io.model import ingest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from optimizer.contract.progress import Show
    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.evaluation.validation.validator import Verdict


@dataclass(frozen=True)
class Comparison:
    """How the second model differs from the first.

    Attributes:
        names: Of the two models.
        facts: Of the two models.
        verdict: The errors of the second model's outputs, and whether they are rounding.
        latency: Paired latency of the second model against the first; ``None`` if it was not measured.
        warnings: What the user should know of the data and the checks.
    """

    names: tuple[str, str]
    facts: tuple[Facts, Facts]
    verdict: Verdict
    latency: Latency | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "models": list(self.names),
            "facts": [facts.to_dict() for facts in self.facts],
            "equal": self.verdict.ok,
            "reason": self.verdict.reason,
            "outputs": [output.to_dict() for output in self.verdict.outputs],
            "latency": None if self.latency is None else self.latency.to_dict(),
            "warnings": list(self.warnings),
        }

    def table(self) -> RenderableType:
        """As a table for people."""
        columns = list(zip(self.names, self.facts, strict=True))
        remarks = [self.verdict.reason or "equal within rounding", *self.warnings]
        return comparison_table(columns, self.verdict.outputs, self.latency, remarks)


def compare_models(  # noqa: PLR0913 - each option of the command, by keyword only
    first: Path,
    second: Path,
    *,
    data: Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int = 1,
    timing: bool = True,
    seed: int = 0,
    observe: Show = lambda _doing, _share: None,
) -> Comparison:
    """Compare ``second`` with ``first``, the reference.

    Raises:
        OnnxhoneError: If a model or the feeds cannot be read, or the reference cannot be run.
    """
    progress = Progress(observe)
    progress.begin("loading")
    sources = ingest(first), ingest(second)
    progress.begin("running the reference")
    setup = set_up(sources[0].model, data, shapes=shapes, threads=threads, seed=seed)
    judge = setup.judge
    progress.begin("running the candidate")
    verdict = judge.verdict(sources[1].model, exact=True)
    progress.begin("timing")
    latency = judge.latency(sources[0].model, sources[1].model) if timing and verdict.outputs else None
    return Comparison(
        (sources[0].label, sources[1].label),
        (facts(sources[0].model), facts(sources[1].model)),
        verdict,
        latency,
        setup.notes,
    )
