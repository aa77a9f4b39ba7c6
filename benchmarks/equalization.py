"""How much of the error of weights with one scale equalization and bias correction take back; what smoothing does.

    python benchmarks/equalization.py --feeds DIR [--models DIR] [--only ID ...] [--bits 7 8] [--most 64]

The corpus is in models/corpus or $ONNXHONE_CORPUS (see models/README.md); ``--feeds`` is a folder of real inputs:
ID/calib to quantize by, ID/valid to judge by. Every kernel that can run in int8 does, whatever it costs: there is no
budget and no search. Columns, each a relative L2 over all judged inputs, of the worst output:

- error: with ONNX Runtime's optimizations off, where it computes in floats what the file says;
- as run: with optimizations on, in the integer kernels of this machine: without VNNI, 8-bit weights saturate;
- gap closed: (first row - this) / (first row - the same rounding with a scale for each channel), by the error.

The result goes to benchmarks/results/equalization.md, row by row.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optimizer
from optimizer.contract.passes import Context
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import clone, load
from optimizer.recipes.spec import parse_stage
from simplify_corpus import HERE, ROOT, commit, machine
from weight_only import answers, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
BEFORE = ("dedup-initializers", "simplify", "dedup-initializers", "upgrade-opset:version=13+unique-names+simplify")
NEAREST = "rounding=nearest"
WEIGHTS, ACTIVATIONS, SMOOTHED = (f"equalize-channels:method={one}" for one in ("weights", "activations", "smooth"))
# What runs in front, options of insert-qdq; the first row of a model is where the gap begins, a row named in the third
# part is its end.
TENSOR = (
    ("", f"granularity=tensor,{NEAREST},correct-bias=false", "nearest"),
    ("", f"granularity=tensor,{NEAREST}", "nearest"),
    (WEIGHTS, f"granularity=tensor,{NEAREST},correct-bias=false", "nearest"),
    (WEIGHTS, f"granularity=tensor,{NEAREST}", "nearest"),
    ("", "granularity=tensor", "adaptive"),
    (WEIGHTS, "granularity=tensor", "adaptive"),
)
CHANNEL = (
    ("", f"{NEAREST},correct-bias=false", ""),
    ("", NEAREST, "nearest"),
    (ACTIVATIONS, NEAREST, ""),
    ("", "", "adaptive"),
    (ACTIVATIONS, "", ""),
)
SMOOTH = (("", NEAREST, ""), (SMOOTHED, NEAREST, ""), ("", "", ""), (SMOOTHED, "", ""))
BITS = {7: "reduced-range=true", 8: "reduced-range=false"}


@dataclass(frozen=True)
class Row:
    """What one stage gave."""

    spec: str
    error: float
    as_run: float
    ranges: str
    changes: Mapping[str, int]
    left: tuple[str, ...] = ()

    def cells(self, start: float, end: float | None) -> list[str]:
        """Its cells, with the share of the gap from ``start`` to ``end`` that it closes."""
        closed = "" if end is None else f"{(start - self.error) / (start - end):.0%}"
        changes = ", ".join(f"{count} {kind}" for kind, count in self.changes.items())
        return [
            f"`{self.spec}`",
            f"{self.error:.4f}",
            f"{self.as_run:.4f}",
            closed,
            self.ranges,
            changes,
        ]


class Bench:
    """One model, its inputs, and what the original answers."""

    def __init__(self, path: Path, feeds: Path, most: int) -> None:
        """Simplify the model and run the original."""
        original = load(path)
        self.model = load(optimizer.optimize(load(path), passes=BEFORE, run=False).model)
        split = load_feeds(feeds, session(original).inputs)
        self.feeds = split.validation[:most]
        self.wanted = answers(original, self.feeds, optimize=True)
        self.evaluator = RuntimeEvaluator(original, split, Budget(), is_timed=False, time_limit=float("inf"))
        self.counts = f"{len(split.calibration)} inputs to quantize by, {len(self.feeds)} to judge by"

    def row(self, before: str, options: str, bits: int) -> Row:
        """Rescale, if ``before`` says so, quantize and judge."""
        model, changes, left = clone(self.model), {}, ()
        for member in parse_stage(before).passes if before else ():
            result = member.run(model, Context(self.model, evaluator=self.evaluator))
            model, changes = result.model, dict(result.changes)
            left = tuple(f"{note.subject}: {note.reason}" for note in result.notes)
        spec = f"insert-qdq:search=false,{BITS[bits]}" + (f",{options}" if options else "")
        (member,) = parse_stage(spec).passes
        result = member.run(model, Context(self.model, evaluator=self.evaluator))
        self.evaluator.memo.clear()  # candidates of other options are of no use
        error, as_run = (self._error(result.model, optimize=optimize) for optimize in (False, True))
        shown = "+".join(filter(None, (before, f"insert-qdq:{options}" if options else "insert-qdq")))
        ranges = result.choices.ranges if result.choices is not None else ""
        return Row(shown, error, as_run, ranges, changes | dict(result.changes), left)

    def _error(self, model: ir.Model, *, optimize: bool) -> float:
        return worst(self.wanted, answers(model, self.feeds, optimize=optimize))


def granularity(bench: Bench, bits: int) -> Iterator[tuple[Row, list[str]]]:
    """Rows of weights with a scale for each channel, and with one, by how much of the gap between them they close."""
    ends: dict[str, float] = {}
    for before, options, name in CHANNEL:
        row = bench.row(before, options, bits)
        ends[name] = row.error
        yield row, row.cells(0.0, None)
    start: float | None = None
    for before, options, name in TENSOR:
        row = bench.row(before, options, bits)
        start = row.error if start is None else start
        yield row, row.cells(start, ends[name])


def smoothing(bench: Bench, bits: int) -> Iterator[tuple[Row, list[str]]]:
    """Rows without and with smoothing."""
    for before, options, _ in SMOOTH:
        row = bench.row(before, options, bits)
        yield row, row.cells(0.0, None)


def table(title: str, rows: Sequence[tuple[Row, list[str]]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield from ("", f"## {title}", "")
    yield "| stage, with `search=false` | error | as run | gap closed | ranges | changes |"
    yield "| --- | ---: | ---: | ---: | --- | --- |"
    for _, cells in rows:
        yield f"| {' | '.join(cells)} |"
    left = dict.fromkeys(note for row, _ in rows for note in row.left)
    yield from ("", *(f"- {note}" for note in left)) if left else ()


CASES: Mapping[str, Any] = {"effnet_lite0_ts": granularity, "minilm_fp32_ts": smoothing}


def head() -> list[str]:
    """What the figures were taken with."""
    features = ", ".join(machine()["features"]) or "none of interest"
    return [
        "# Equalization, bias correction and smoothing",
        "",
        f"`python benchmarks/equalization.py` at commit {commit()};",
        f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}; CPU features: {features}.",
        "",
        "Every kernel that can be is in int8. The columns are explained in the script. *Gap closed* is counted from",
        "weights with one scale, rounded to nearest, without bias correction, to those with a scale for each channel,",
        "rounded alike and with bias correction.",
    ]


def main() -> int:
    """Measure, printing and writing row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=os.environ.get("ONNXHONE_CORPUS") or ROOT / "models/corpus")
    parser.add_argument("--feeds", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(CASES), metavar="ID")
    parser.add_argument("--bits", nargs="*", type=int, default=list(BITS), choices=list(BITS), help="of weights")
    parser.add_argument("--most", type=int, default=64, help="inputs to judge by, of each model")
    parser.add_argument("--out", type=Path, default=HERE / "results/equalization.md")
    options = parser.parse_args()
    lines = head()
    for name in options.only:
        bench = Bench(options.models / name / f"{name}.onnx", options.feeds / name, options.most)
        for bits in options.bits:
            rows: list[tuple[Row, list[str]]] = []
            for row in CASES[name](bench, bits):
                rows.append(row)
                print(f"{name} {bits}: {' | '.join(row[1])}", flush=True)
                found = [*lines, *table(f"{name}, weights of {bits} bits ({bench.counts})", rows)]
                options.out.write_text("\n".join(found) + "\n", encoding="utf-8")
            lines = found
    return 0


if __name__ == "__main__":
    sys.exit(main())
