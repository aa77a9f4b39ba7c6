"""What folding shared channels removes from real models, and whether that pays.

    python benchmarks/fold_corpus.py --models DIR [--feeds DIR] [--only ID ...]

``DIR`` has a folder with an ONNX file for each model; ``--feeds`` has folders of the same names with real inputs in
``calib/``. Each model is simplified first; then ``fold-shared-kernels`` runs on the result, once with ``multiple=1``
(all that can go) and once with ``multiple=auto`` (widths that kernels like), each through the command line with all
gates. The table has what was removed, whether it was kept, and the paired time against the simplified model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simplify_corpus import HERE, commit

ONNXHONE = str(Path(sys.executable).with_name("onnxhone"))
LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
SECONDS = 900


def main() -> int:
    """Fold every model both ways and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--feeds", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="*", default=[], metavar="ID")
    parser.add_argument("--out", type=Path, default=HERE / "results/fold_corpus.md")
    options = parser.parse_args()
    kept = options.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for folder in sorted(path for path in options.models.iterdir() if path.is_dir()):
        if folder.name in found or (options.only and folder.name not in options.only):
            continue
        feeds = None if options.feeds is None else options.feeds / folder.name / "calib"
        found[folder.name] = both(next(iter(sorted(folder.glob("*.onnx")))), feeds)
        kept.write_text(json.dumps(found, indent=1))
        print(row(folder.name, found[folder.name]), flush=True)
    options.out.write_text(page(found), encoding="utf-8")
    return 0


def both(model: Path, feeds: Path | None) -> dict[str, Any]:
    """The reports of both ways, on the simplified model."""
    data = ["--data", str(feeds)] if feeds is not None and feeds.is_dir() else []
    with tempfile.TemporaryDirectory() as scratch:
        simplified = Path(scratch) / "simplified.onnx"
        passes = ["-p", "dedup-initializers", "-p", "simplify"]
        run([str(model), "-o", str(simplified), *passes, *data, "--time-limit", "20"], Path(scratch))
        return {
            multiple: run(
                [str(simplified), "-o", f"{scratch}/out.onnx", "-p", f"fold-shared-kernels:multiple={multiple}", *data],
                Path(scratch),
            )
            for multiple in ("1", "auto")
        }


def run(arguments: list[str], scratch: Path) -> dict[str, Any]:
    """What one run of the command line reports, or why there is none."""
    report = scratch / "report.json"
    command = [ONNXHONE, "optimize", *arguments, "--report", str(report), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:200] if done.stderr else f"exit {done.returncode}"}
    told = json.loads(report.read_text())
    stage = told["stages"][-1]
    return {
        "changes": stage["passes"][0]["changes"],
        "kept": stage["kept"],
        "reason": stage["reason"],
        "latency": told["latency"],
        "parameters": [told["before"]["parameters"], told["after"]["parameters"]],
        "macs": [told["before"]["macs"], told["after"]["macs"]],
        "rel_l2": max((output["rel_l2"] or 0.0 for output in told["outputs"]), default=0.0),
        "rewrite_seconds": told["seconds"]["rewrite"],
    }


def page(found: dict[str, Any]) -> str:
    """The table of all models."""
    return "\n".join(
        [
            "# Shared channels of real models",
            "",
            f"`python benchmarks/fold_corpus.py` at commit {commit()};",
            f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}.",
            "",
            "Channels that went, what that took from parameters and MACs, and the time against the simplified model",
            "(1 is equal, with its interval); or why it was undone.",
            "",
            "| model | multiple=1 | multiple=auto | error | rewriting |",
            "| --- | --- | --- | --- | --- |",
            *(row(name, both_ways) for name, both_ways in found.items()),
            "",
        ]
    )


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    errors = [one["rel_l2"] for one in found.values() if one.get("kept")]
    seconds = max((one["rewrite_seconds"] for one in found.values() if "rewrite_seconds" in one), default=0.0)
    error = f"{max(errors):.1e}" if errors else ""
    return f"| {name} | {cell(found['1'])} | {cell(found['auto'])} | {error} | {seconds:.1f} s |"


def cell(found: dict[str, Any]) -> str:
    """What one way came to."""
    if "error" in found:
        return found["error"].replace("|", "/")
    if not found["kept"]:
        return found["reason"]
    went = ", ".join(f"{count} {kind.partition(' ')[0]}" for kind, count in found["changes"].items())
    shares = [f"{what} {less(found[what])}" for what in ("parameters", "macs") if found[what][0]]
    time = found["latency"]
    return f"{went}; {', '.join(shares)}; {time['ratio']:.3f} ({time['low']:.3f} to {time['high']:.3f})"


def less(pair: list[int | None]) -> str:
    """By how much a count fell."""
    before, after = pair
    return "?" if not before or after is None else f"-{100 * (1 - after / before):.2f} %"


if __name__ == "__main__":
    sys.exit(main())
