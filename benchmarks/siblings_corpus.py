"""What sharing beyond channels brings on real models: batched branches, equal weights and rows.

    python benchmarks/siblings_corpus.py [--models DIR] [--feeds DIR] [--only ID ...] [--parts paying sharing]

The corpus is in models/corpus or $ONNXHONE_CORPUS (see models/README.md); ``--feeds`` is a folder of real inputs,
ID/calib for each model that has some; the others run on generated ones. Parts:

- paying: `batch-branches` on what the exact passes before it make of each model: the paired latency of the result
  against what it started from, on one thread, and what the manager decides (it measures for itself);
- sharing: bytes of equal constants before and after `exact`, and how much more equal or nearly equal rows of weights
  would save: the first axis of every float weight of at least 4 KiB, by content, all-zero rows apart; near is a row
  within a relative L2 distance of 0.1 of an earlier one of its weight, if that has at most 4,096 rows.

The result goes to benchmarks/results/siblings_corpus.md, row by row.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import optimizer
from optimizer.analysis.model_facts import constants_of, weight_facts
from optimizer.contract.passes import Context
from optimizer.engine.setup import set_up
from optimizer.graph.constants import FLOATS
from optimizer.io.model import byte_size, clone, load
from optimizer.recipes.spec import parse_pass
from simplify_corpus import HERE, ROOT, commit, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
SPEC = "batch-branches"
LEAST_BYTES = 4096
ROW_BYTES = 64  # shorter rows cost more as indices than they save
MOST_ROWS = 4096
NEAR = 0.1
HEADS = {
    "paying": "| model | changes | nodes | bytes | latency ratio | manager |\n| --- | --- | ---: | ---: | ---: | --- |",
    "sharing": "| model | file | repeated | after `exact` | repeated after | equal rows | near rows |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
}


def exact(path: Path) -> ir.Model:
    """What the preset makes of a model, unjudged: `simplify_corpus.py` judges that."""
    model: ir.Model = load(optimizer.optimize(load(path), run=False).model)
    return model


def paying(path: Path, feeds: Path | None, seconds: float) -> Iterator[list[str]]:
    """A row, if there are branches."""
    base = exact(path)
    result = parse_pass(SPEC).run(clone(base), Context(base))
    if not result.changes:
        return
    evidence = set_up(base, feeds, shapes=None, threads=1, seed=0)
    evidence.judge.time_limit = seconds
    found = evidence.judge.latency(base, result.model)
    stage = optimizer.optimize(base, passes=[SPEC], data=feeds, time_limit=3 * seconds).report.stages[0]
    yield [
        path.parent.name + ("" if feeds is None else ", real inputs"),
        ", ".join(f"{count} {kind}" for kind, count in result.changes.items()),
        f"{len(base.graph)} to {len(result.model.graph)}",
        f"{byte_size(result.model) - byte_size(base):+,}",
        f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}), {found.pairs} pairs",
        ("kept" if stage.kept else "undone") + f": {stage.reason.removeprefix('undone: ')}",
    ]


def sharing(path: Path, feeds: Path | None, seconds: float) -> Iterator[list[str]]:  # noqa: ARG001 - one signature
    """One row."""
    before = load(path)
    after = exact(path)
    equal, near = repeated_rows(after)
    yield [
        path.parent.name,
        f"{byte_size(before):,}",
        f"{weight_facts(before).duplicate_bytes / byte_size(before):.1%}",
        f"{byte_size(after):,}",
        f"{weight_facts(after).duplicate_bytes / byte_size(after):.2%}",
        f"{equal / byte_size(after):.2%}",
        f"{near / byte_size(after):.2%}",
    ]


def repeated_rows(model: ir.Model) -> tuple[int, int]:
    """Bytes of rows of large float weights that equal, and that are near, an earlier row, but for rows of zeros."""
    seen: set[bytes] = set()
    equal = near = 0
    for _, tensor in constants_of(model):
        shape = tuple(tensor.shape.numpy())
        if tensor.dtype not in FLOATS or tensor.nbytes < LEAST_BYTES or len(shape) < 2:
            continue
        matrix: np.ndarray[Any, Any] = np.ascontiguousarray(tensor.numpy()).reshape(shape[0], -1)
        if matrix.shape[1] * matrix.itemsize < ROW_BYTES:
            continue
        rows = matrix[matrix.any(axis=1)]
        near += near_rows(rows) * rows.strides[0] if len(rows) <= MOST_ROWS else 0
        for row in rows:
            key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            equal += row.nbytes if key in seen else 0
            seen.add(key)
    return equal, near


def near_rows(rows: np.ndarray[Any, Any]) -> int:
    """How many of ``rows`` are within a relative distance of ``NEAR`` of an earlier one."""
    exact_rows = rows.astype(np.float32)
    norms = (exact_rows**2).sum(axis=1)
    squares = norms[:, None] + norms[None, :] - 2 * exact_rows @ exact_rows.T
    return int((np.tril(squares <= NEAR**2 * norms[:, None], -1)).any(axis=1).sum())


PARTS = {"paying": paying, "sharing": sharing}


def head() -> list[str]:
    """What the figures were taken with."""
    features = ", ".join(machine()["features"]) or "none of interest"
    return [
        "# Siblings, branches, equal weights and rows",
        "",
        f"`python benchmarks/siblings_corpus.py` at commit {commit()};",
        f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}; CPU features: {features}.",
    ]


def main() -> int:
    """Measure, printing and writing row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=os.environ.get("ONNXHONE_CORPUS") or ROOT / "models/corpus")
    parser.add_argument("--feeds", type=Path)
    parser.add_argument("--only", nargs="*", metavar="ID")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each comparison of latencies")
    parser.add_argument("--out", type=Path, default=HERE / "results/siblings_corpus.md")
    options = parser.parse_args()
    found = sorted(options.models.glob("*/*.onnx"))
    paths = [path for path in found if not options.only or path.parent.name in options.only]
    lines = head()
    for part in options.parts:
        lines += ["", f"## {part.capitalize()}", "", HEADS[part]]
        for path in paths:
            real = None if options.feeds is None else options.feeds / path.parent.name / "calib"
            try:
                for row in PARTS[part](path, real if real is not None and real.is_dir() else None, options.seconds):
                    lines.append(f"| {' | '.join(row)} |")
                    print(lines[-1], flush=True)
            except optimizer.OnnxhoneError as error:
                print(f"{path.parent.name}: {error}", file=sys.stderr, flush=True)
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
