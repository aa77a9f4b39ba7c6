"""The table of ``simplify_corpus.py`` and what it shows; computes from the records, measures nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

OURS = "onnxhone"
SLOWER = 1.02  # a whole latency interval above it is a loss
GATES_LIMIT = 180.0  # seconds a model
HEAVY = "rxnmap_transformer"  # one peer spends most of its time on it; sums are given without it too

Record = dict[str, Any]
Results = dict[str, dict[str, Record]]


def status(record: Record) -> str:
    """What came of a candidate: ok, crash, invalid or wrong."""
    if record["made"]["error"]:
        return f"crash ({record['made']['error']})"
    measured = record["measured"]
    if not measured.get("loads"):
        return f"invalid ({measured.get('error')})"
    return "ok" if measured["equal"] else f"wrong ({measured['difference']:.1e}, allowed {measured['allowed']:.1e})"


def is_ok(record: Record) -> bool:
    """Whether the candidate loads and equals its original."""
    return status(record) == "ok"


def grew(record: Record) -> int:
    """Bytes by which a measured candidate is larger than its original."""
    return int(record["measured"]["after"]["bytes"] - record["measured"]["before"]["bytes"])


def best_peer(row: dict[str, Record]) -> tuple[int, str] | None:
    """The least number of nodes of a peer's output that is valid, equal and no larger than the input."""
    counts = [
        (record["measured"]["after"]["nodes"], tool)
        for tool, record in row.items()
        if tool != OURS and is_ok(record) and grew(record) <= 0
    ]
    return min(counts, default=None)


def excess(row: dict[str, Record]) -> float | None:
    """How far our node count is above the best peer's, as a share; ``None`` without a peer or without our output."""
    peer = best_peer(row)
    if peer is None or not is_ok(row[OURS]):
        return None
    return float(row[OURS]["measured"]["after"]["nodes"] / peer[0] - 1)


def is_slower(record: Record) -> bool:
    """Whether the whole latency interval lies above the limit."""
    latency = record["measured"].get("latency")
    return bool(latency and latency["low"] > SLOWER)


def findings(results: Results) -> list[str]:
    """The verdicts, one line each: what is asked for, and what was found."""
    ours = {name: row[OURS] for name, row in results.items()}
    good = {name: record for name, record in ours.items() if is_ok(record)}
    total = len(ours)
    grown = [name for name, record in good.items() if grew(record) > 0]
    slow = [name for name, record in good.items() if is_slower(record)]
    changed = [
        name
        for name, record in good.items()
        if not (record["measured"]["signature_same"] and record["measured"]["metadata_same"])
    ]
    lines = [
        _line("loads and equals the original", total - len(good), total, sorted(set(ours) - set(good))),
        _line("the file does not grow", len(grown), len(good), grown),
        _line("not slower", len(slow), len(good), slow),
        _line("signature and metadata unchanged", len(changed), len(good), changed),
        *_node_findings(results),
        *_time_findings(results),
    ]
    gates = {name: record["made"]["spent"].get("gates", 0.0) for name, record in good.items()}
    if gates:
        slowest = max(gates, key=lambda name: gates[name])
        over = [name for name, seconds in gates.items() if seconds > GATES_LIMIT]
        lines.append(_line(f"gates within {GATES_LIMIT:.0f} s", len(over), len(good), over))
        most = f"at most {gates[slowest]:.0f} s ({slowest})"
        lines.append(f"       CPU of gates: {sum(gates.values()):.0f} s in all, {most}")
    return lines


def _line(claim: str, failed: int, total: int, names: list[str]) -> str:
    verdict = "holds" if total and not failed else "FAILS"
    return f"{verdict}  {claim}: {total - failed} of {total}{' (not: ' + ', '.join(names) + ')' if names else ''}"


def _node_findings(results: Results) -> list[str]:
    above = {name: share for name, row in results.items() if (share := excess(row)) is not None}
    if not above:
        return ["       nodes against the best peer: no peer was run"]
    fewer = [name for name, share in above.items() if share <= 0]
    worst = max(above, key=lambda name: above[name])
    more = [f"{name} {share:+.1%}" for name, share in above.items() if share > 0]
    three = "holds" if 4 * len(fewer) >= 3 * len(above) else "FAILS"
    five = "holds" if above[worst] <= 0.05 else "FAILS"
    listed = f" (not: {', '.join(more)})" if more else ""
    return [
        f"{three}  nodes not above the best peer on three of four: {len(fewer)} of {len(above)}{listed}",
        f"{five}  nodes at most 5 % above the best peer: at most {max(above[worst], 0.0):.1%}",
    ]


def _time_findings(results: Results) -> list[str]:
    lines = []
    for label, rows in (
        ("all models", results),
        (f"without {HEAVY}", {name: row for name, row in results.items() if name != HEAVY}),
    ):
        pairs = [
            (row[OURS]["made"]["seconds"], row["onnxslim"]["made"]["seconds"])
            for row in rows.values()
            if "onnxslim" in row and "seconds" in row[OURS]["made"] and "seconds" in row["onnxslim"]["made"]
        ]
        if pairs:
            ours, theirs = (sum(column) for column in zip(*pairs, strict=True))
            lines.append(
                f"{'holds' if ours < theirs else 'FAILS'}  CPU of load, rewriting and save below onnxslim's, {label}: "
                f"{ours:.1f} s against {theirs:.1f} s ({len(pairs)} models)"
            )
    return lines


def text(document: dict[str, Any]) -> str:
    """The result as Markdown."""
    results: Results = document["results"]
    tools = list(next(iter(results.values()), {OURS: {}}))
    versions = dict(document["versions"])
    for row in results.values():
        versions |= {tool: row[tool]["made"]["version"] for tool in tools if "version" in row[tool]["made"]}
    facts = document["machine"]
    cores = f"{facts['cores']} cores ({', '.join(facts['features'])})"
    lines = [
        "# `exact` on the corpus, against other simplifiers",
        "",
        "Made by `benchmarks/simplify_corpus.py`; do not edit. benchmarks/README.md says how it is measured.",
        "",
        f"- Commit {document['commit']}",
        f"- {', '.join(f'{name} {number}' for name, number in versions.items())}",
        f"- {facts['system']} on {facts['architecture']}, {cores}, Python {facts['python']}, one thread",
        "",
        "## What it shows",
        "",
        "```text",
        *findings(results),
        "```",
        "",
        "## Tools",
        "",
        *_tools_table(results, tools),
        "",
        "## Models",
        "",
        "Nodes after, size after / before, CPU seconds of load, rewriting and save. **Bold**: no more nodes than",
        "the best peer whose output is valid, equal and no larger than the input.",
        "",
        *_models_table(results, tools),
        "",
    ]
    return "\n".join(lines)


def _tools_table(results: Results, tools: list[str]) -> list[str]:
    head = ["tool", "valid and equal", "crash", "invalid", "wrong", "grown", "slower", "nodes in all", "CPU seconds"]
    rows = []
    for tool in tools:
        records = [row[tool] for row in results.values()]
        kinds = Counter(status(record).split(" ")[0] for record in records)
        good = [record for record in records if is_ok(record)]
        nodes = sum(record["measured"]["after"]["nodes"] for record in good)
        before = sum(record["measured"]["before"]["nodes"] for record in good)
        seconds = sum(record["made"].get("seconds", 0.0) for record in records)
        counts = [kinds[kind] for kind in ("crash", "invalid", "wrong")]
        rows.append([tool, f"{len(good)} of {len(records)}", *counts, sum(grew(record) > 0 for record in good),
                     sum(is_slower(record) for record in good), f"{nodes} of {before}", f"{seconds:.1f}"])  # fmt: skip
    return _table(head, rows)


def _models_table(results: Results, tools: list[str]) -> list[str]:
    rows = []
    for name, row in results.items():
        before = next((r["measured"]["before"] for r in row.values() if r["measured"].get("before")), {"nodes": "?"})
        above, spent = excess(row), row[OURS]["made"].get("spent", {})
        cells = [_cell(row[tool]) for tool in tools]
        if above is not None and above <= 0:
            cells[0] = f"**{cells[0]}**"
        latency = row[OURS]["measured"].get("latency")
        timed = f"{latency['ratio']:.2f} [{latency['low']:.2f}, {latency['high']:.2f}]" if latency else "-"
        rows.append([name, before["nodes"], *cells, timed, f"{spent.get('gates', 0):.0f} s"])
    return _table(["model", "nodes", *tools, "latency of ours", "our gates"], rows)


def _cell(record: Record) -> str:
    if not is_ok(record):
        return status(record).split(" ")[0]
    measured = record["measured"]
    size = measured["after"]["bytes"] / measured["before"]["bytes"]
    mark = " grown" if grew(record) > 0 else ""
    return f"{measured['after']['nodes']}, {size:.3f}{mark}, {record['made']['seconds']:.2f} s"


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in row) + " |" for row in cells]
