"""The preset ``int8`` with a task metric as its budget, on models with real inputs, judged on inputs it has not seen.

    python benchmarks/int8_metric.py --bench DIR [--models ID ...] [--again]

``DIR`` is a bench as for ``int8_corpus.py``. The metric is the agreement with the original's answers on the
calibration inputs (``agreement.py``), of which one point may be lost; the bench judges by its own metric on its
validation inputs, with their true labels where it has some.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from agreement import BENCH, LABEL, TASK
from int8_corpus import LIBRARIES, SECONDS
from simplify_corpus import HERE, commit

MAX_DROP = 1.0
TOOL = "onnxhone_metric"


def main() -> int:
    """Make one model for the bench, or run the bench and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", nargs="*", default=[], metavar="ID")
    parser.add_argument("--again", action="store_true", help="make all models anew")
    parser.add_argument("--make", nargs=3, type=Path, metavar=("MODEL", "OUT", "FEEDS"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results/int8_metric.md")
    options = parser.parse_args()
    if options.make:
        return make(options.bench, *options.make)
    done = subprocess.run(bench_command(options), check=False)
    if not done.returncode:
        options.out.write_text(page(json.loads(options.out.with_suffix(".json").read_text())), encoding="utf-8")
    return done.returncode


def bench_command(options: argparse.Namespace) -> list[str]:
    """The bench's command line; it calls this script again for each model."""
    template = f"{sys.executable} {Path(__file__).resolve()} --bench {options.bench} --make {{model}} {{out}} {{calib}}"
    wanted = [sys.executable, str(options.bench / "run.py"), "--suite", "quant", "--jobs", "1", "--tools", TOOL]
    wanted += ["--cmd", f"{TOOL}={template}", "--timeout", str(SECONDS), "--out", str(options.out.with_suffix(".json"))]
    wanted += ["--models", ",".join(options.models)] if options.models else []
    return [*wanted, "--force", TOOL] if options.again else wanted


def make(bench: Path, model: Path, out: Path, feeds: Path) -> int:
    """Run onnxhone with the metric, on the feeds with the original's outputs beside them."""
    with tempfile.TemporaryDirectory() as labelled:
        write_labelled(model, feeds, Path(labelled))
        command = [str(Path(sys.executable).with_name("onnxhone")), "optimize", str(model), "-o", str(out)]
        command += ["--preset", "int8", "--data", labelled, "--metric", "agreement:points", "--max-drop", str(MAX_DROP)]
        command += ["--report", f"{out}.report.json", "--quiet"]
        seen = {BENCH: str(bench.resolve()), TASK: feeds.parent.name, "PYTHONPATH": str(HERE)}
        return subprocess.run(command, check=False, env={**os.environ, **seen}).returncode


def write_labelled(model: Path, feeds: Path, target: Path) -> None:
    """Copy the feeds with what the model answers to them."""
    import onnxruntime as ort  # noqa: PLC0415 - the bench's process needs none

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for path in sorted(feeds.glob("*.npz")):
        with np.load(path) as stored:
            feed = dict(stored)
        answers = {LABEL.format(at): answer for at, answer in enumerate(session.run(None, feed))}
        np.savez(target / path.name, **feed, **answers)


def page(found: dict) -> str:
    """The table: what each model gained, and what it lost of the bench's metric."""
    results = {name: tools[TOOL] for name, tools in found["quant"]["results"].items() if TOOL in tools}
    rows = [row(name, result) for name, result in results.items()]
    gaining = sum(gain(result) > 1 for result in results.values())
    mean = math.exp(sum(math.log(gain(result)) for result in results.values()) / len(results))
    return "\n".join(
        [
            "# The preset `int8` with a task metric as its budget",
            "",
            f"`python benchmarks/int8_metric.py` at commit {commit()};",
            f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}.",
            "",
            f"At most {MAX_DROP:g} point of agreement with the original may be lost on the calibration inputs;",
            "points and errors here are of the validation inputs. A result that is not surely faster, or loses",
            "more than one point of the bench's metric, counts as 1.",
            "",
            f"Geometric mean: **{mean:.2f}**, {gaining} of {len(results)} gain.",
            "",
            "| model | times as fast | counts as | metric | of fp32 | relative L2 | size | made in s of CPU |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def gain(result: dict) -> float:
    """What a result counts as by speed and metric alone."""
    good = result.get("valid") and result["ci"][0] > 1 and result["metric_ref"] - result["metric"] <= 1
    return result["speedup"] if good else 1.0


def row(name: str, result: dict) -> str:
    """One line of the table."""
    if not result.get("valid"):
        return f"| {name} | {result.get('error', 'crash')} | 1 | | | | | |"
    times = f"{result['speedup']:.2f} ({result['ci'][0]:.2f} to {result['ci'][1]:.2f})"
    scores = f"{result['metric']:.2f} | {result['metric_ref']:.2f}"
    return (
        f"| {name} | {times} | {gain(result):.2f} | {scores} | {result['rel_l2']:.3f}"
        f" | {result['size_ratio']:.2f} | {result['made']['cpu_s']:.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
