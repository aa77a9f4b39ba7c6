"""What pruning by magnitude costs on real models, with and without the repair of the weights that stay.

    python benchmarks/prune_corpus.py run MODELS FEEDS [--models ID ...] [--ways NAME ...]
    python benchmarks/prune_corpus.py write

``MODELS`` holds a folder a model, ``FEEDS`` one with ``calib/`` and ``valid/`` for each of them. All kernels but the
first and the last are pruned as far as asked, whatever it costs, and the error is the largest relative L2 of an output
on validation inputs that nothing else looked at. Each result goes to ``results/prune_corpus.json`` as it comes, and an
interrupted run goes on; ``write`` makes ``results/prune_corpus.md`` of it.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optimizer
from optimizer.budget import Budget
from optimizer.feeds import load_feeds
from optimizer.lab import RuntimeLab
from optimizer.model import byte_size, clone, compressed_size
from optimizer.pass_base import Context
from optimizer.runtime import session
from optimizer.spec import parse_stage
from simplify_corpus import HERE, commit
from weight_only import answers, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
RESULTS = HERE / "results" / "prune_corpus.json"
MOST_FEEDS = 24
_WANTED = {"50 %": "sparsity=0.5", "70 %": "sparsity=0.7", "2:4": "pattern='2:4'"}
PLAIN, REPAIRED = "{}, magnitude", "{}, repaired"
WAYS = {
    **{PLAIN.format(name): f"prune-magnitude:repair=false,{options}" for name, options in _WANTED.items()},
    **{REPAIRED.format(name): f"prune-magnitude:{options}" for name, options in _WANTED.items()},
    "50 %, by size, repaired": "prune-magnitude:sparsity=0.5,importance='l1'",
    "50 %, global, magnitude": "prune-magnitude:repair=false,sparsity=0.5,scope='global'",
    "50 %, global, repaired": "prune-magnitude:sparsity=0.5,scope='global'",
    "70 %, global, magnitude": "prune-magnitude:repair=false,sparsity=0.7,scope='global'",
    "70 %, global, repaired": "prune-magnitude:sparsity=0.7,scope='global'",
    "50 %, block4x1 by l1, magnitude": "prune-magnitude:repair=false,sparsity=0.5,pattern='block4x1'",
    "50 %, block4x1 by l2, magnitude": "prune-magnitude:repair=false,sparsity=0.5,pattern='block4x1',importance='l2'",
    "50 %, block4x1, repaired": "prune-magnitude:sparsity=0.5,pattern='block4x1'",
}


def measured(path: Path, feeds: Path, ways: Sequence[str], known: dict[str, Any]) -> None:
    """Add to ``known`` what is missing of ``ways`` for one model."""
    missing = [way for way in ways if way not in known]
    if not missing:
        return
    start = optimizer.optimize(path, preset="exact", data=feeds, timing=False).model
    inputs = session(start).inputs
    split = load_feeds(feeds, inputs)
    valid = [split.validation[number] for number in range(min(MOST_FEEDS, len(split.validation)))]
    expected = answers(start, valid, optimize=True)
    known["size"] = [byte_size(start), compressed_size(start)]
    for way in missing:
        (member,) = parse_stage(WAYS[way]).passes
        lab = RuntimeLab(start, split, Budget.parse("rel_l2=1000"))  # all of it, whatever it costs
        begun = time.process_time()
        result = member.run(clone(start), Context(start, lab=lab))
        known[way] = {
            "error": worst(expected, answers(result.model, valid, optimize=True)),
            "seconds": time.process_time() - begun,
            "gzip": compressed_size(result.model),
            "bytes": byte_size(result.model),
            "changes": dict(result.changes),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(path.parent.name, way, f"{known[way]['error']:.4f}", f"{known[way]['seconds']:.0f} s", flush=True)


def run(options: argparse.Namespace) -> None:
    """Measure what is missing."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"models": {}}
    for folder in sorted(options.folder.iterdir()):
        files, feeds = sorted(folder.glob("*.onnx")), options.feeds / folder.name
        if not files or not feeds.is_dir() or (options.models and folder.name not in options.models):
            continue
        known = results["models"].setdefault(folder.name, {})
        try:
            measured(files[0], feeds, options.ways, known)
        finally:
            results.update(commit=commit(), versions={name: version(name) for name in LIBRARIES})
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def ratio(models: Mapping[str, Any], one: str, other: str) -> tuple[float, int]:
    """The geometric mean of the error of ``one`` in parts of that of ``other``, and over how many models."""
    pairs = [
        (known[one]["error"], known[other]["error"]) for known in models.values() if one in known and other in known
    ]
    logs = [math.log(max(error, 1e-12) / max(before, 1e-12)) for error, before in pairs]
    return (math.exp(statistics.fmean(logs)) if logs else math.nan), len(pairs)


def write() -> None:
    """Make the table."""
    results = json.loads(RESULTS.read_text())
    models = results["models"]
    ways = [way for way in WAYS if any(way in known for known in models.values())]
    lines = [
        "# Pruning by magnitude, and its repair",
        "",
        f"Made by `benchmarks/prune_corpus.py` at {results['commit']}, with "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
        "Largest relative L2 of an output on validation inputs that nothing else looked at. All kernels but the first",
        "and the last are pruned, whatever it costs. `repaired`: weights chosen by what their loss costs, the others",
        "fitted anew.",
        "",
        "| model | " + " | ".join(ways) + " |",
        "| --- |" + " ---: |" * len(ways),
    ]
    for name, known in models.items():
        cells = [f"{known[way]['error']:.3f}" if way in known else "" for way in ways]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{len(models)} models were run so far, the smallest ones first: no fair sample of all with real inputs.",
    ]
    lines += ["", "Error with repair in parts of that without, geometric mean:", ""]
    for name in (*_WANTED, "50 %, global", "70 %, global"):
        found, count = ratio(models, REPAIRED.format(name), PLAIN.format(name))
        if count:
            lines.append(f"- {name}: {found:.2f} over {count} models")
    lines += ["", "Other pairs, the first in parts of the second:", ""]
    for one, other in (
        ("50 %, global, magnitude", "50 %, magnitude"),
        ("50 %, global, repaired", "50 %, repaired"),
        ("70 %, global, magnitude", "70 %, magnitude"),
        ("70 %, global, repaired", "70 %, repaired"),
        ("50 %, by size, repaired", "50 %, repaired"),
        ("50 %, block4x1 by l2, magnitude", "50 %, block4x1 by l1, magnitude"),
        ("50 %, block4x1, repaired", "50 %, block4x1 by l1, magnitude"),
    ):
        found, count = ratio(models, one, other)
        if count:
            lines.append(f"- {one} : {other}: {found:.2f} over {count} models")
    lines += ["", "| model | bytes, gzip | 50 % | 70 % | 2:4 | seconds of repair at 50 % | peak memory |",
              "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name, known in models.items():
        small = [
            f"{known[w]['gzip'] / known['size'][1]:.2f}" if (w := REPAIRED.format(k)) in known else "" for k in _WANTED
        ]
        last = known.get(REPAIRED.format("50 %"), {"seconds": math.nan, "peak": math.nan})
        lines.append(
            f"| {name} | {known['size'][1]:,} | {' | '.join(small)} | {last['seconds']:.0f}"
            f" | {last['peak'] / 1e6:.0f} MB |"
        )
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("feeds", type=Path)
    running.add_argument("--models", nargs="*")
    running.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    commands.add_parser("write")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        write()


if __name__ == "__main__":
    main()
