"""Tables for people: the report of a run, facts of models side by side, a comparison of two models."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from optimizer.analysis.model_facts import Facts
    from optimizer.engine.records import PassRecord, RunRecord, StageRecord
    from optimizer.evaluation.runtime.timing import Latency
    from optimizer.evaluation.validation.task_metric import Score
    from optimizer.evaluation.validation.validator import OutputError

WIDTH = 110
MOST_NOTES = 8


def to_text(report: RunRecord) -> str:
    """The report as plain text of at most ``WIDTH`` columns."""
    return plain(report_table(report))


def plain(content: RenderableType) -> str:
    """``content`` without colours, as it would be printed on a wide terminal."""
    console = Console(file=io.StringIO(), width=WIDTH, no_color=True, highlight=False)
    console.print(content)
    file = console.file
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) if isinstance(file, io.StringIO) else ""


def report_table(report: RunRecord) -> RenderableType:
    """Before | after, then one line a pass, then what else should be known."""
    table = facts_table([("before", report.before), ("after", report.after)], only_changed_ops=True)
    title = Text(f"{report.model.get('label')}: {_verdict(report)}", style="bold")
    if report.compressed is not None:
        _add(table, "file size, gzip", *map(_bytes, report.compressed))
    _add(table, "latency", "1", _latency(report.latency))
    worst = max(report.outputs, key=lambda output: _order(output.rel_l2), default=None)
    _add(table, "error (relative L2)", "0", _error(worst))
    if report.score is not None:
        _add(table, report.score.metric, f"{report.score.reference:.6g}", _points(report.score))
    return Group(title, table, _stages(report.stages), *_refusals(report.stages), *_closing(report))


def facts_table(columns: Sequence[tuple[str, Facts]], *, only_changed_ops: bool = False) -> Table:
    """Facts of several models side by side, one column each."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for title, _ in columns:
        table.add_column(title, justify="right", overflow="fold")
    each = [facts for _, facts in columns]
    _add(table, "file size", *(_bytes(facts.bytes) for facts in each))
    _add(table, "nodes", *(f"{facts.nodes:,}" for facts in each))
    _add(table, "parameters", *(f"{facts.parameters:,}" for facts in each))
    _add(table, "MACs", *("?" if facts.macs is None else f"{facts.macs:,}" for facts in each))
    for op in sorted({op for facts in each for op in facts.ops}):
        counts = [facts.ops.get(op, 0) for facts in each]
        if not only_changed_ops or len(set(counts)) > 1:
            _add(table, f"  {op}", *(f"{count:,}" for count in counts))
    return table


def comparison_table(
    columns: Sequence[tuple[str, Facts]],
    outputs: Sequence[OutputError],
    latency: Latency | None,
    remarks: Sequence[str],
) -> RenderableType:
    """Facts of two models, the errors of each output of the second, and its paired latency."""
    table = facts_table(columns, only_changed_ops=True)
    _add(table, "latency", "1", _latency(latency))
    return Group(table, outputs_table(outputs), *(Text(line) for line in remarks))


def outputs_table(outputs: Iterable[OutputError]) -> Table:
    """The error measures of each output, a line each."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("output", "max abs", "relative L2", "SQNR dB", "cosine", "agreement"):
        table.add_column(title, justify="left" if title == "output" else "right", overflow="fold")
    for output in outputs:
        numbers = (output.max_abs, output.rel_l2, output.sqnr, output.cosine, output.agreement)
        table.add_row(Text(output.name), *("-" if number is None else f"{number:.4g}" for number in numbers))
    return table


def _add(table: Table, name: str, *cells: str) -> None:
    table.add_row(Text(name), *(Text(cell) for cell in cells))


def _verdict(report: RunRecord) -> str:
    saved = report.before.bytes - report.after.bytes
    if report.verdict == "unverified":
        return "unverified (not run)"
    if report.verdict == "unchanged":
        return "unchanged, nothing could be improved"
    nodes = f"{report.before.nodes:,} -> {report.after.nodes:,} nodes"
    return f"{report.verdict}, {nodes}, {_bytes(saved)} ({100 * saved / max(report.before.bytes, 1):.1f} %) smaller"


def _stages(stages: Sequence[StageRecord]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("pass", "", "changes", "CPU", "reason"):
        table.add_column(title, justify="right" if title == "CPU" else "left", overflow="fold")
    for stage in stages:
        for number, member in enumerate(stage.passes):
            state = "kept" if member.changes else "undone" if member.undone else "-"
            reason = "same stage" if number else stage.reason
            cells = (member.spec, state, _changes(member), f"{member.seconds:.2f} s", reason)
            table.add_row(*(Text(cell) for cell in cells))
    return table


def _changes(member: PassRecord) -> str:
    listed = sorted(member.changes.items(), key=lambda counted: -counted[1])
    return ", ".join(f"{count:,} {change}" for change, count in listed) or "none"


def _refusals(stages: Sequence[StageRecord]) -> list[Table]:
    """What the steps of passes refused, a line a reason; nothing where the run was not to be verbose."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("rule", "refused", "because", "for example"):
        table.add_column(title, justify="right" if title == "refused" else "left", overflow="fold")
    for stage in stages:
        for member in stage.passes:
            for refusal in sorted(member.refusals or (), key=lambda each: (each.step, -each.count)):
                cells = (refusal.step, f"{refusal.count:,}", refusal.reason, refusal.example)
                table.add_row(*(Text(cell) for cell in cells))
    return [table] if table.row_count else []


def _closing(report: RunRecord) -> list[RenderableType]:
    lines = [
        f"undone: {reverted.step or member.name}{f' at {reverted.site}' if reverted.site else ''}: {reverted.reason}"
        for stage in report.stages
        for member in stage.passes
        for reverted in member.undone
        if reverted.step or reverted.reason not in stage.reason  # the table says why a whole stage is gone
    ]
    notes = [
        f"{'left alone' if note.skipped else 'note'}: {note.subject}: {note.reason}"
        for stage in report.stages
        for member in stage.passes
        for note in sorted(member.notes, key=lambda note: note.skipped)
    ]
    lines += notes[:MOST_NOTES]
    if len(notes) > MOST_NOTES:
        lines.append(f"and {len(notes) - MOST_NOTES} notes more, see --report")
    if report.coverage is not None and report.coverage.is_quantized:
        lines.insert(0, report.coverage.text())
    lines += [f"note: {warning}" for warning in report.warnings]
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in report.seconds.items())
    return [Text(line) for line in (*lines, f"time: {seconds}")]


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "not measured"
    return f"{latency.ratio:.3f} ({latency.low:.3f} to {latency.high:.3f}), {latency.verdict}"


def _error(worst: OutputError | None) -> str:
    return "0" if worst is None else "-" if worst.rel_l2 is None else f"{worst.rel_l2:.2g}"


def _points(score: Score) -> str:
    if score.candidate is None or score.drop is None:
        return score.trouble
    moved = f"{abs(score.drop):.3g} {'gained' if score.drop < 0 else 'lost'}"
    return f"{score.candidate:.6g} ({moved}, {score.max_drop:g} allowed)"


def _order(error: float | None) -> float:
    return -1.0 if error is None or math.isnan(error) else error


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(count) >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:,} B"
