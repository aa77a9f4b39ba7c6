"""Does ``exact`` give the same bytes again? Every model of the corpus, through the command line.

    python benchmarks/repeatable.py [--models DIR] [--only ID ...] [--run-below BYTES] [--out FILE.md]

- *again*: the same command a second time;
- *replay*: ``--replay`` of the first run's report;
- *own output*: the preset over what the first run wrote: no pass finds anything to change.

Each compares all bytes of all files that were written. Each run is a process of its own with another seed for Python's
hashes, so that no order of a set or of addresses can hide. All models go through this with ``--no-run``; those whose
files are below ``--run-below`` with ``--no-timing`` as well, since an output check that fails changes the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from simplify_corpus import HERE, ROOT, commit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
LIMIT = 900  # seconds
MODES = {"not run": ["--no-run"], "run": ["--no-timing"]}


def optimize(model: Path, folder: Path, seed: int, options: Sequence[str | Path]) -> dict[str, object]:
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


def problems(model: Path, mode: Sequence[str], work: Path) -> Iterator[str]:
    """What is not the same."""
    optimize(model, work / "first", 1, mode)
    expected = written(work / "first")
    optimize(model, work / "again", 2, mode)
    if written(work / "again") != expected:
        yield "again: other bytes"
    replayed = ["--replay", work / "first.json", *mode]
    optimize(model, work / "replay", 3, [option for option in replayed if option != "--no-timing"])
    if written(work / "replay") != expected:
        yield "replay: other bytes"
    report = optimize(work / "first" / "model.onnx", work / "own", 4, mode)
    changes = {kind: count for stage in report["stages"] for kind, count in stage["changes"].items()}  # type: ignore[attr-defined]  # JSON
    if changes:
        yield f"own output: {changes}"
    if written(work / "own") != expected:
        yield "own output: other bytes"


def examined(name: str, model: Path, options: argparse.Namespace) -> Iterator[tuple[str, str, list[str]]]:
    """The model, the mode, and what is not the same, for each mode that it goes through."""
    size = sum(path.stat().st_size for path in model.parent.iterdir() if path.is_file())
    for mode, arguments in MODES.items():
        if mode == "run" and size >= options.run_below:
            continue
        with tempfile.TemporaryDirectory() as work:
            try:
                yield name, mode, list(problems(model, arguments, Path(work)))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                yield name, mode, [str(error)]


def text(found: Sequence[tuple[str, str, list[str]]]) -> str:
    """The result as Markdown."""
    lines = [
        "# The preset `exact` again, replayed, and on its own output",
        "",
        f"`python benchmarks/repeatable.py` at commit {commit()};",
        f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}.",
        "",
    ]
    for mode in MODES:
        rows = [wrong for _, found_mode, wrong in found if found_mode == mode]
        lines.append(
            f"- {mode}: {len(rows) - sum(map(bool, rows))} of {len(rows)} models give the same bytes each time"
        )
    lines += ["", "| model | outputs | |", "| --- | --- | --- |"]
    lines += [f"| {name} | {mode} | {'; '.join(wrong) or 'same'} |" for name, mode, wrong in found]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run over the corpus and write what was found; 1 if something is not the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=os.environ.get("ONNXHONE_CORPUS") or ROOT / "models/corpus")
    parser.add_argument("--only", nargs="*", default=[], metavar="ID")
    parser.add_argument("--run-below", type=float, default=25e6, metavar="BYTES")
    parser.add_argument("--out", type=Path, default=HERE / "results/repeatable.md")
    options = parser.parse_args()
    found: list[tuple[str, str, list[str]]] = []
    for entry in json.loads((ROOT / "models/corpus.json").read_text())["models"]:
        name, model = entry["id"], options.models / entry["id"] / entry["files"][0]["name"]
        if (options.only and name not in options.only) or not model.exists():
            continue
        for item in examined(name, model, options):
            found.append(item)
            print(*item[:2], "; ".join(item[2]) or "same", flush=True)
    written_text = text(found)
    if not options.only:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(written_text, encoding="utf-8")
    return int(any(wrong for _, _, wrong in found))


if __name__ == "__main__":
    sys.exit(main())
