"""What pruning by magnitude costs on real models, with and without the repair of the weights that stay.

    python benchmarks/prune_corpus.py run MODELS FEEDS [--models ID ...] [--ways NAME ...] [--bench DIR] [--peer PYTHON]
    python benchmarks/prune_corpus.py write

``MODELS`` holds a folder a model, ``FEEDS`` one with ``calib/`` and ``valid/`` for each of them. All kernels but the
first and the last are pruned as far as asked, whatever it costs, and the error is the largest relative L2 of an output
on validation inputs that nothing else looked at. ``DIR`` is a bench as for ``int8_corpus.py``, which judges by its own
metric on all of its validation inputs. ``PYTHON`` is an interpreter with onnxsim, whose pruning starts from the same
model with the same calibration inputs, within a limit of ``--seconds`` of CPU time each.

Each result goes to ``results/prune_corpus.json`` as it comes, and an interrupted run goes on; ``write`` makes
``results/prune_corpus.md`` of it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import optimizer
import prune_table
from agreement import BENCH, bench_tasks
from optimizer.algorithms.reconstruction.kernel_matrices import Prunable, prunable
from optimizer.contract.node_filter import NodeFilter
from optimizer.contract.passes import Context
from optimizer.contract.skipped import SkippedNodes
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import byte_size, clone, compressed_size, load, save
from optimizer.recipes.spec import parse_stage
from prune_table import OURS, THEIRS, WAYS
from simplify_corpus import HERE, commit
from weight_only import answers, worst

if TYPE_CHECKING:
    import onnx_ir as ir

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
RESULTS = HERE / "results" / "prune_corpus.json"
MOST_FEEDS = 24


class Bench:
    """One model, simplified, with its inputs, its answers and its task."""

    def __init__(self, path: Path, feeds: Path, options: argparse.Namespace) -> None:
        """Simplify the model, or load what an earlier run made of it, and run it on the validation inputs."""
        self.name, self.options = path.parent.name, options
        self.file = options.work / f"{self.name}.onnx"
        if not self.file.exists():
            options.work.mkdir(parents=True, exist_ok=True)
            save(optimizer.optimize(path, preset="exact", data=feeds, timing=False).model, self.file)
        self.start = load(self.file)
        self.free = {output for weight in _kernels(self.start, guard=True) for output in _outputs(weight)}
        self.split = load_feeds(feeds, session(self.start).inputs)
        valid = self.split.validation
        self.judged = [valid[number] for number in range(min(MOST_FEEDS, len(valid)))]
        self.expected = answers(self.start, self.judged, optimize=True)
        self.task = bench_tasks().TASKS[self.name] if options.bench else None

    def facts(self) -> dict[str, Any]:
        """What is known of the model as it was: bytes, also packed, and what its file as published scores."""
        known: dict[str, Any] = {"size": [byte_size(self.start), compressed_size(self.start)]}
        if self.task is not None:
            stored = iter(self.task.refs)
            known["metric"] = self.task.score(lambda _: next(stored))
        return known

    def judge(self, model: ir.Model) -> dict[str, Any]:
        """Error, score, zeros and bytes of a result; ``None`` where answers are not finite."""
        found = answers(model, self.judged, optimize=True)
        floats = [
            one for feed in found for one in feed.values() if isinstance(one, np.ndarray) and one.dtype.kind == "f"
        ]
        error = worst(self.expected, found) if all(np.isfinite(one).all() for one in floats) else math.nan
        known = {"error": _number(error), "zeros": self.zeros(model), "bytes": byte_size(model)}
        known["gzip"] = compressed_size(model)
        if self.task is not None:
            opened = session(model)
            known["metric"] = _number(self.task.score(lambda feed: list(opened.run(feed).values())))
        return known

    def ours(self, way: str) -> dict[str, Any]:
        """What the pass makes of the model, judged."""
        (member,) = parse_stage(OURS[way]).passes
        evaluator = RuntimeEvaluator(
            self.start, self.split, Budget.parse("rel_l2=1000")
        )  # all of it, whatever it costs
        begun = time.process_time()
        result = member.run(clone(self.start), Context(self.start, evaluator=evaluator))
        seconds = time.process_time() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": seconds, "peak": peak, "changes": dict(result.changes), **self.judge(result.model)}

    def theirs(self, way: str) -> dict[str, Any]:
        """What onnxsim makes of it, judged with first and last kernels put back: it has no option to spare them."""
        method, options = THEIRS[way]
        out = self.options.work / f"{self.name}.pruned.onnx"
        out.unlink(missing_ok=True)
        before = _children_seconds()
        failed = self._pruned_by_peer(method, options, out)
        spent = {"seconds": _children_seconds() - before}
        if failed:
            return {"failed": failed, **spent}
        model = load(out)
        missing = self._put_back(model)
        known = {**spent, "not put back": missing, **self.judge(model)}
        is_idle = known["zeros"][0] <= self.zeros(self.start)[0]
        return {**known, "failed": "nothing pruned"} if is_idle else known

    def _pruned_by_peer(self, method: str, options: dict[str, Any], out: Path) -> str | None:
        """Let onnxsim write ``out``; returns what went wrong."""
        script, limit = Path(__file__).with_name("peer_prune.py"), round(self.options.seconds)
        command = [self.options.peer, script, limit, method, json.dumps(options), self.file, out, self._exported()]
        try:
            done = subprocess.run(
                [str(part) for part in command], capture_output=True, text=True, timeout=4 * limit, check=False
            )
        except subprocess.TimeoutExpired:
            return f"out of time ({4 * limit} s)"
        if done.returncode == -signal.SIGXCPU:
            return f"out of time ({limit} s of CPU)"
        if done.returncode or not out.exists():
            return f"crash ({done.returncode}): {(done.stderr.strip().splitlines() or [''])[-1][:200]}"
        return None

    def measured(self, way: str) -> dict[str, Any]:
        """One way, the pass's or onnxsim's."""
        return self.ours(way) if way in OURS else self.theirs(way)

    def _exported(self) -> Path:
        """A folder with the calibration inputs, written once."""
        folder: Path = self.options.work / f"{self.name}.feeds"
        if not folder.exists():
            folder.mkdir()
            for number, feed in enumerate(self.split.calibration):
                np.savez(folder / f"{number:03d}.npz", **feed)
        return folder

    def zeros(self, model: ir.Model) -> tuple[int, int]:
        """How many weights are 0 of the kernels that the pass prunes, and of how many."""
        matrices = [one.matrix() for one in _kernels(model) if self.free & set(_outputs(one))]
        return sum(int((one == 0).sum()) for one in matrices), sum(one.size for one in matrices)

    def _put_back(self, model: ir.Model) -> list[str]:
        """Give ``model`` the first and last kernels of the start again; returns those that it has no more."""
        found = {output: weight for weight in _kernels(model) for output in _outputs(weight)}
        missing = []
        for weight in _kernels(self.start):
            for output in set(_outputs(weight)) - self.free:
                if output in found:
                    found[output].write(weight.matrix())
                else:
                    missing.append(output)
        return missing


def _outputs(weight: Prunable) -> list[str]:
    """The names of what its kernels give: a weight's own may be another after shared ones were copied."""
    return [str(node.outputs[0].name) for node in weight.nodes]


def _kernels(model: ir.Model, *, guard: bool = False) -> list[Prunable]:
    """The kernels; the first and the last only where they are not guarded."""
    return prunable(model, NodeFilter((), ()), SkippedNodes(), guard=guard)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def too_long(known: dict[str, Any], way: str) -> dict[str, Any] | None:
    """A result that says so where the same method ran out of time before: it does not depend on how much goes."""
    method = THEIRS[way][0] if way in THEIRS else None
    for other in THEIRS:
        if THEIRS[other][0] == method and str(known.get(other, {}).get("failed", "")).startswith("out of time"):
            return {"failed": f"not tried: out of time at {other.split(',')[0]}"}
    return None


def keep(results: dict[str, Any]) -> None:
    """Write what is known."""
    results.update(commit=commit(), versions={name: version(name) for name in LIBRARIES})
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def run(options: argparse.Namespace) -> None:
    """Measure what is missing."""
    if options.bench:
        os.environ[BENCH] = str(options.bench)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"models": {}}
    for name in options.models or sorted(path.name for path in options.folder.iterdir()):
        files, feeds = sorted((options.folder / name).glob("*.onnx")), options.feeds / name
        if not files or not feeds.is_dir():
            continue
        known = results["models"].setdefault(name, {})
        missing = [way for way in options.ways if way not in known and (way in OURS or options.peer)]
        if not missing:
            continue
        bench = Bench(files[0], feeds, options)
        known.update(bench.facts())
        for way in missing:
            known[way] = too_long(known, way) or bench.measured(way)
            keep(results)
            print(name, way, {key: known[way].get(key) for key in ("failed", "error", "metric", "seconds")}, flush=True)


def main() -> None:
    """Run, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("feeds", type=Path)
    running.add_argument("--models", nargs="*")
    running.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    running.add_argument("--bench", type=Path, metavar="DIR")
    running.add_argument("--peer", type=Path, metavar="PYTHON", help="an interpreter with onnxsim")
    running.add_argument("--seconds", type=float, default=300.0, help="limit of CPU time for onnxsim, each time")
    running.add_argument("--work", type=Path, default=HERE / "work" / "prune_corpus")
    commands.add_parser("write")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        RESULTS.with_suffix(".md").write_text(prune_table.page(json.loads(RESULTS.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
