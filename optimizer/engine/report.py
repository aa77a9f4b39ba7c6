"""The report of a run: its records as JSON values, or as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optimizer.engine.records import RunRecord

SCHEMA = 2  # 2 renamed keys of 1: metric, gzip, coverage, of passes undone, of notes left, of coverage left_float
READABLE = (1, 2)  # what --replay needs has the same keys in both


@dataclass(frozen=True)
class Report(RunRecord):
    """The whole report of one run; ``to_dict`` is what ``--report`` and ``--json`` write."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values, with the schema's version."""
        return {
            "schema": SCHEMA,
            "model": dict(self.model),
            "target": self.target,
            "versions": dict(self.versions),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "outputs": [output.to_dict() for output in self.outputs],
            "latency": self.latency.to_dict() if self.latency is not None else None,
            "stages": [stage.to_dict() for stage in self.stages],
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "verdict": self.verdict,
            "task_metric": self.score.to_dict() if self.score is not None else None,
            "compressed_bytes": (
                None if self.compressed is None else dict(zip(("before", "after"), self.compressed, strict=True))
            ),
            "integer_coverage": self.coverage.to_dict() if self.coverage is not None else None,
            "warnings": list(self.warnings),
        }

    def to_text(self) -> str:
        """The report as a table that a person can read, without colours."""
        from optimizer.engine.report_tables import to_text  # noqa: PLC0415 - rich is loaded only to print

        return to_text(self)
