"""What `refit-weights` brings behind passes that change weights, on real models with real inputs.

    python benchmarks/refit_corpus.py run MODELS --feeds FEEDS [--models ID ...] [--again]
    python benchmarks/refit_corpus.py write

``MODELS`` holds a folder a model, ``FEEDS`` one with ``calib/`` and ``valid/`` for each. After the exact passes, each
of the ways below is gone once without a budget; then `refit-weights` runs behind it, as it is and with
``everything=true``. The errors are those of the answers on the validation inputs, against the model as it was. Each
result goes to ``results/refit_corpus.json`` as it comes, and an interrupted run goes on; ``write`` makes
``results/refit_corpus.md`` of it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optimizer
from optimizer.contract.passes import Context
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.errors import OnnxhoneError
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.io.model import clone, load
from optimizer.recipes.spec import parse_stage
from simplify_corpus import HERE, commit
from weight_only import answers, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
RESULTS = HERE / "results" / "refit_corpus.json"
MODELS = ("digit_cnn_ts", "dnsmos_sig_bak_ovr", "nudenet_yolov8n", "minilm_fp32_ts")
MOST_FEEDS = 16
WAYS = {
    "codebooks": "upgrade-opset:version=21+cluster-weights:entries=16,group=auto",
    "static int8": "upgrade-opset:version=13+unique-names+simplify+insert-qdq:search=false",
    "half of the weights 0": "prune-magnitude:sparsity=0.5,repair=false",
}
REFITS = {"refit-weights": "refit-weights", "everything=true": "refit-weights:everything=true"}


class Bench:
    """One model with its inputs and its answers."""

    def __init__(self, path: Path, feeds: Path) -> None:
        """Load both, and run the model on the validation inputs."""
        self.reference = load(path)
        split = load_feeds(feeds, session(self.reference).inputs)
        self.judged = list(split.validation[:MOST_FEEDS])
        self.plain = answers(self.reference, self.judged, optimize=True)
        self.evaluator = RuntimeEvaluator(self.reference, split, Budget(), is_timed=False, time_limit=3600)
        exact = optimizer.optimize(path, preset="exact", data=feeds, timing=False)
        self.start = exact.model

    def after(self, model: ir.Model, spec: str) -> tuple[ir.Model, dict[str, int], float]:
        """The model behind the passes of ``spec``, what the last one changed, and CPU seconds."""
        begun, changes = time.process_time(), {}
        for member in parse_stage(spec).passes:
            context = Context(self.reference, evaluator=self.evaluator, budget_limit=math.inf)
            member.requires(model, context)
            result = member.run(clone(model), context)
            model, changes = result.model, dict(result.changes)
        return model, changes, time.process_time() - begun

    def error(self, model: ir.Model) -> float:
        """The worst relative L2 of an output on the validation inputs."""
        return worst(self.plain, answers(model, self.judged, optimize=True))


def measured(bench: Bench, spec: str) -> dict[str, Any]:
    """The errors of one way, without and with each fit behind it."""
    model, changes, seconds = bench.after(bench.start, spec)
    found: dict[str, Any] = {"rel_l2": bench.error(model), "changes": changes, "cpu": seconds, "refits": {}}
    for name, refit in REFITS.items():
        fitted, changes, seconds = bench.after(model, refit)
        found["refits"][name] = {"rel_l2": bench.error(fitted), "changes": changes, "cpu": seconds}
    return found


def table(known: Mapping[str, Any]) -> Iterator[str]:
    """One line a model and way."""
    yield f"| model | behind | relative L2 | {' | '.join(REFITS)} | fitted | CPU |"
    yield f"| --- | --- | ---: |{' ---: |' * len(REFITS)} --- | ---: |"
    for model, ways in known.items():
        for way, one in ways.items():
            if "error" in one:
                yield f"| {model} | {way} | {one['error']} |"
                continue
            errors = (f"{refit['rel_l2']:.4f}" for refit in one["refits"].values())
            said = (_said(refit["changes"]) for refit in one["refits"].values())
            seconds = sum(refit["cpu"] for refit in one["refits"].values())
            cells = [model, way, f"{one['rel_l2']:.4f}", *errors, "; ".join(said), f"{seconds:.0f} s"]
            yield f"| {' | '.join(cells)} |"


def _said(changes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in changes.items()) or "nothing"


def write(known: Mapping[str, Any]) -> None:
    """The page."""
    lines = [
        "# `refit-weights` behind other passes",
        "",
        f"`python benchmarks/refit_corpus.py` at commit {known['commit']};",
        f"{', '.join(f'{name} {number}' for name, number in known['versions'].items())}.",
        f"Relative L2 of the worst output on {MOST_FEEDS} validation inputs or fewer, no budget. Where an error is the",
        "same, the fit was no better on the selection inputs and was taken back, or there was nothing to fit.",
        "",
        *table(known["models"]),
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "write"))
    parser.add_argument("folder", type=Path, nargs="?", metavar="MODELS")
    parser.add_argument("--feeds", type=Path)
    parser.add_argument("--models", nargs="*", default=MODELS, metavar="ID")
    parser.add_argument("--again", action="store_true", help="also what is known")
    options = parser.parse_args()
    known: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if options.what == "write":
        write(known)
        return 0
    for name in options.models:
        done = known.setdefault("models", {}).setdefault(name, {})
        missing = {way: spec for way, spec in WAYS.items() if options.again or way not in done}
        if not missing:
            continue
        bench = Bench(next(iter(sorted((options.folder / name).glob("*.onnx")))), options.feeds / name)
        for way, spec in missing.items():
            try:
                done[way] = measured(bench, spec)
            except OnnxhoneError as error:
                done[way] = {"error": str(error)}
            known["commit"], known["versions"] = commit(), {one: version(one) for one in LIBRARIES}
            RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            print(name, way, done[way], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
