"""Does ``exact`` give the same bytes again? Every model of the corpus, through the command line.

    python benchmarks/repeatable.py [--models DIR] [--only ID ...] [--run-below BYTES] [--out FILE.md]

- *again*: the same command a second time;
- *replay*: ``--replay`` of the first run's report;
- *own output*: the preset over what the first run wrote: no pass changes anything. Where a gate undid a place in the
  first run, the pass finds that place again and the gate undoes it again: that is no change, and it is counted.

Each compares all bytes of all files that were written. Each run is a process of its own with another seed for Python's
hashes, so that no order of a set or of addresses can hide. All models go through this with ``--no-run``; those whose
files are below ``--run-below`` with ``--no-timing`` as well, since an output check that fails changes the result; and a
timed run of theirs, which no second run need repeat, is replayed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simplify_corpus import HERE, ROOT, commit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
LIMIT = 900  # seconds
MODES = {"not run": ["--no-run"], "run": ["--no-timing"], "timed": []}


def optimize(model: Path, folder: Path, seed: int, options: Sequence[str | Path]) -> dict[str, Any]:
    """Optimize into a new ``folder``; returns the report.

    Raises:
        RuntimeError: With the last line of what was printed, if the command fails.
    """
    folder.mkdir(parents=True)
    report = folder.with_suffix(".json")
    command = [Path(sys.executable).with_name("onnxhone"), "optimize", model, "-o", folder / "model.onnx", "--quiet"]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--report", report, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
        env=environment,
    )
    if done.returncode or done.stderr.strip():
        lines = (done.stderr or done.stdout).strip().splitlines() or [""]
        raise RuntimeError(f"exit code {done.returncode}: {lines[-1][:200]}")
    return dict(json.loads(report.read_text()))


def written(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@dataclass(frozen=True)
class Finding:
    """What came of one model in one mode: what is not the same, and what was undone in the first run and the last."""

    name: str
    mode: str
    wrong: Sequence[str]
    undone: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        first, last = self.undone
        said = f"; {first} undone in the first run" if first else ""
        said += f"; {last} undone on its own output" if last else ""
        return f"{'; '.join(self.wrong) or 'same'}{said}"


def examine(name: str, mode: str, model: Path, work: Path) -> Finding:
    """Optimize ``model`` up to four times and compare."""
    wrong, arguments = [], MODES[mode]
    first = optimize(model, work / "first", 1, arguments)
    expected = written(work / "first")
    replayed = ["--replay", work / "first.json", *arguments]
    optimize(model, work / "replay", 3, [option for option in replayed if option != "--no-timing"])
    if written(work / "replay") != expected:
        wrong.append("replay: other bytes")
    if mode == "timed":
        return Finding(name, mode, wrong, (undone(first), 0))
    optimize(model, work / "again", 2, arguments)
    if written(work / "again") != expected:
        wrong.append("again: other bytes")
    last = optimize(work / "first" / "model.onnx", work / "own", 4, arguments)
    changes = {kind: count for stage in last["stages"] for kind, count in stage["changes"].items()}
    if changes:
        wrong.append(f"own output: {changes}")
    if written(work / "own") != expected:
        wrong.append("own output: other bytes")
    return Finding(name, mode, wrong, (undone(first), undone(last)))


def undone(report: Mapping[str, Any]) -> int:
    """How many places, steps or passes were undone."""
    return sum(len(member["reverted"]) for stage in report["stages"] for member in stage["passes"])


def examined(name: str, model: Path, options: argparse.Namespace) -> Iterator[Finding]:
    """What was found of ``model`` in each mode that it goes through."""
    size = sum(path.stat().st_size for path in model.parent.iterdir() if path.is_file())
    for mode in MODES:
        if mode != "not run" and size >= options.run_below:
            continue
        with tempfile.TemporaryDirectory() as work:
            try:
                yield examine(name, mode, model, Path(work))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                yield Finding(name, mode, [str(error)])


def text(found: Sequence[Finding]) -> str:
    """The result as Markdown."""
    lines = [
        "# The preset `exact` again, replayed, and on its own output",
        "",
        f"`python benchmarks/repeatable.py` at commit {commit()};",
        f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}.",
        "",
    ]
    for mode in MODES:
        rows = [item for item in found if item.mode == mode]
        same = sum(not item.wrong for item in rows)
        lines.append(f"- {mode}: {same} of {len(rows)} models give the same bytes each time")
    lines += ["", "| model | outputs | |", "| --- | --- | --- |"]
    lines += [f"| {item.name} | {item.mode} | {item} |" for item in found]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run over the corpus and write what was found; 1 if something is not the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=os.environ.get("ONNXHONE_CORPUS") or ROOT / "models/corpus")
    parser.add_argument("--only", nargs="*", default=[], metavar="ID")
    parser.add_argument("--run-below", type=float, default=25e6, metavar="BYTES")
    parser.add_argument("--out", type=Path, default=HERE / "results/repeatable.md")
    options = parser.parse_args()
    found: list[Finding] = []
    for entry in json.loads((ROOT / "models/corpus.json").read_text())["models"]:
        name, model = entry["id"], options.models / entry["id"] / entry["files"][0]["name"]
        if (options.only and name not in options.only) or not model.exists():
            continue
        for item in examined(name, model, options):
            found.append(item)
            print(item.name, item.mode, item, flush=True)
    written_text = text(found)
    if not options.only:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(written_text, encoding="utf-8")
    return int(any(item.wrong for item in found))


if __name__ == "__main__":
    sys.exit(main())
