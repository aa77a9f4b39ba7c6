"""Facts of several models side by side, for ``onnxhone inspect``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from optimizer.analysis.model_facts import Facts, WeightFacts, facts, weight_facts
from optimizer.engine.report_tables import facts_table
from optimizer.io.model import ingest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.table import Table


@dataclass(frozen=True)
class Inspected:
    """One model's name and all its facts."""

    name: str
    facts: Facts
    weights: WeightFacts

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"model": self.name, **self.facts.to_dict(), **asdict(self.weights)}


def inspect_models(paths: Sequence[Path]) -> list[Inspected]:
    """Load and measure each model.

    Raises:
        ModelError: If one cannot be read.
    """
    sources = [ingest(path) for path in paths]
    return [Inspected(source.label, facts(source.model), weight_facts(source.model)) for source in sources]


def inspection_table(models: Sequence[Inspected]) -> Table:
    """The facts as a table, a column a model."""
    table = facts_table([(model.name, model.facts) for model in models])
    table.add_section()
    table.add_row("zeros in weights", *(f"{model.weights.zeros:,} of {model.weights.elements:,}" for model in models))
    table.add_row("duplicate tensors", *(f"{model.weights.duplicate_tensors:,}" for model in models))
    table.add_row("duplicate bytes", *(f"{model.weights.duplicate_bytes:,}" for model in models))
    table.add_row("opsets", *(_opsets(model.facts) for model in models))
    table.add_row("IR version", *(str(model.facts.ir_version) for model in models))
    table.add_row("producer", *(model.facts.producer for model in models))
    for direction in ("inputs", "outputs"):
        table.add_row(
            direction,
            *(Text("\n".join(" ".join(slot) for slot in getattr(model.facts, direction))) for model in models),
        )
    return table


def _opsets(measured: Facts) -> str:
    return ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in measured.opsets.items())
