"""The preset ``exact`` on the whole corpus, against four other simplifiers: one table, and what it shows.

    python benchmarks/simplify_corpus.py --peers-python PATH/bin/python [--only ID ...] [--feeds DIR] [--work DIR]

The peers want an environment of their own: `pip install onnx onnxruntime onnxslim onnxsim onnxscript sympy`. The corpus
is in models/corpus or $ONNXHONE_CORPUS (see models/README.md); a model that is not there is left out, and said.
``--feeds`` is a folder of real inputs, ID/calib and ID/valid; where it has none for a model, inputs are generated.

Candidates' measurements are kept in ``--work`` (default: benchmarks/work), so an interrupted run goes on where it
stopped; ``--again TOOL`` makes and measures that tool's anew. The results go to benchmarks/results/simplify_corpus.md
and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import simplify_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OURS = "onnxhone"
PEERS = ("onnxslim", "onnxsim", "onnxscript", "ort_basic")
MAKE_LIMIT, MEASURE_LIMIT = 900, 1200  # seconds
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def run(command: list[str | Path], log: Path, limit: int) -> str | None:
    """Run a command on one thread of the libraries that listen; returns what went wrong."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log.open("w") as out:
        try:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, timeout=limit, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            return f"time limit of {limit} s"
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or [""]
        return f"exit code {done.returncode}: {lines[-1][:200]}"
    return None


def make_ours(model: Path, folder: Path, feeds: Path | None) -> dict[str, Any]:
    """The candidate of onnxhone, through its command line, and the CPU seconds that its report gives."""
    report = folder / "report.json"
    command: list[str | Path] = [
        Path(sys.executable).with_name("onnxhone"),
        "optimize",
        model,
        "-o",
        folder / "model.onnx",
    ]
    command += ["--preset", "exact", "--report", report, "--quiet", *(["--data", feeds] if feeds else [])]
    error = run(command, folder / "make.log", MAKE_LIMIT)
    if error:
        return {"error": error}
    document = json.loads(report.read_text())
    spent = document["seconds"]
    work = sum(spent.get(part, 0.0) for part in ("load", "rewrite", "save"))
    undone = [f"{one['step'] or one['site'] or item['name']}: {one['reason']}"
              for stage in document["stages"] for item in stage["passes"] for one in item["reverted"]]  # fmt: skip
    return {"error": None, "seconds": round(work, 3), "spent": spent, "undone": undone, "version": version("onnxhone")}


def make_peer(tool: str, python: Path, model: Path, folder: Path) -> dict[str, Any]:
    """The candidate of another tool, in its own environment."""
    result = folder / "peer.json"
    error = run(
        [python, HERE / "peer_simplify.py", tool, model, folder / "model.onnx", result], folder / "make.log", MAKE_LIMIT
    )
    return {"error": error} if error else dict(json.loads(result.read_text()))


def candidate(tool: str, model: Path, folder: Path, feeds: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """Make and measure one candidate, or read what an earlier run found."""
    kept = folder / "record.json"
    if kept.exists() and tool not in options.again:
        return dict(json.loads(kept.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = make_ours(model, folder, feeds) if tool == OURS else make_peer(tool, options.peers_python, model, folder)
    measured: dict[str, Any] = {}
    if made["error"] is None:
        result = folder / "measured.json"
        command: list[str | Path] = [
            sys.executable,
            HERE / "measure_candidate.py",
            model,
            folder / "model.onnx",
            result,
        ]
        command += ["--seconds", str(options.seconds if tool == OURS else options.peer_seconds)]
        command += ["--feeds", feeds] if feeds else []
        error = run(command, folder / "measure.log", MEASURE_LIMIT)
        measured = {"loads": False, "error": error} if error else json.loads(result.read_text())
    record = {"made": made, "measured": measured}
    text = json.dumps(record)
    for path, name in ((folder, "OUT"), (model.parent, "IN")):
        text = text.replace(str(path.resolve()), name).replace(str(path), name)  # results name no machine's folders
    kept.write_text(text)
    for file in folder.glob("model.onnx*"):
        file.unlink()  # 28 models five times are gigabytes
    return dict(json.loads(text))


def machine() -> dict[str, Any]:
    """What of the machine matters for the figures; nothing that tells one machine from another of its kind."""
    cpu = Path("/proc/cpuinfo")
    flags = set(cpu.read_text().split()) if cpu.exists() else set()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "features": [name for name in FEATURES if name in flags],
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of the checkout, marked if it was changed."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no", "optimizer", "passes"],
                             capture_output=True, text=True, check=False).stdout  # fmt: skip
    return f"{head}{' with changes' if changed else ''}"


def chosen_tools(options: argparse.Namespace) -> tuple[str, ...]:
    """Ours, and the peers where their environment is given."""
    return (OURS, *PEERS) if options.peers_python else (OURS,)


def main() -> int:
    """Make, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=os.environ.get("ONNXHONE_CORPUS") or ROOT / "models/corpus")
    parser.add_argument("--peers-python", type=Path)
    parser.add_argument("--only", nargs="*", default=[], metavar="ID")
    parser.add_argument("--again", nargs="*", default=[], metavar="TOOL")
    parser.add_argument("--feeds", type=Path)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--out", type=Path, default=HERE / "results/simplify_corpus")
    parser.add_argument("--seconds", type=float, default=40.0, help="for the latency of ours, a model")
    parser.add_argument("--peer-seconds", type=float, default=10.0, help="the same for a peer; 0 leaves it out")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for entry in json.loads((ROOT / "models/corpus.json").read_text())["models"]:
        name, model = entry["id"], options.models / entry["id"] / entry["files"][0]["name"]
        if options.only and name not in options.only:
            continue
        if not model.exists():
            print(f"{name}: not fetched, left out", flush=True)
            continue
        feeds = options.feeds / name if options.feeds and (options.feeds / name).is_dir() else None
        results[name] = {}
        for tool in chosen_tools(options):
            record = results[name][tool] = candidate(tool, model, options.work / name / tool, feeds, options)
            print(f"{name} {tool}: {simplify_table.status(record)}", flush=True)
    libraries = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
    versions = {library: version(library) for library in libraries}
    document = {"commit": commit(), "machine": machine(), "versions": versions, "results": results}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(simplify_table.text(document))
    print("\n".join(simplify_table.findings(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
