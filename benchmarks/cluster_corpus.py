"""What codebooks of weights reach on real models: the presets `small` and `smallest`, and codebooks against integers.

    python benchmarks/cluster_corpus.py presets MODELS [--feeds FEEDS] [--models ID ...] [--presets small smallest]
    python benchmarks/cluster_corpus.py table MODELS --feeds FEEDS [--models ID ...]
    python benchmarks/cluster_corpus.py write

``MODELS`` holds a folder a model, ``FEEDS`` one with ``calib/`` and ``valid/`` for some of them; the others are judged
on generated inputs. Models without 32-bit float weights are left out. Each result goes to
``results/cluster_corpus.json`` as it comes, and an interrupted run goes on; ``write`` makes
``results/cluster_corpus.md`` of it.

presets    runs the preset as users do, within the default budget, with timing
table      stores all weights in one way, without a budget, and measures the error of the answers on validation inputs
           in floats (optimizations off), so that the error is that of the weights alone
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optimizer
from optimizer.algorithms.clustering.search import ClusterChoices
from optimizer.algorithms.quantization.linear import WEIGHT_INT8
from optimizer.algorithms.quantization.rows import quantize_rows
from optimizer.algorithms.quantization.weight_only.weights import StoredWeight, stored_weights
from optimizer.contract.passes import Context
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.errors import OnnxhoneError, PreconditionError
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.introspection import optimized_graphs
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.graph.constants import set_array
from optimizer.graph.graph_tree import GraphTree
from optimizer.io.model import byte_size, clone, load
from optimizer.recipes.spec import parse_stage
from simplify_corpus import HERE, commit
from weight_only import answers, rewritten, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
RESULTS = HERE / "results" / "cluster_corpus.json"
MOST_FEEDS = 8
PER_TENSOR = "per-tensor int8"
LEAST = 1 << 10  # elements: what all ways leave alone


@dataclass(frozen=True)
class Way:
    """One way of storing weights.

    Attributes:
        spec: Of the pass; none for ``PER_TENSOR``, which no pass does.
        weighted: Whether the calibration inputs are asked.
    """

    spec: str
    weighted: bool = False


WAYS = {
    PER_TENSOR: Way(""),
    "per-channel int8": Way("quantize-weights:block=0,compute=float"),
    "256 entries": Way("cluster-weights"),
    "256 entries, weighted": Way("cluster-weights", weighted=True),
    "64 entries": Way("cluster-weights:entries=64"),
    "64 entries, groups": Way("cluster-weights:entries=64,group=auto"),
    "int4, blocks of 32": Way("quantize-weights:bits=4,compute=float,block=32"),
    "32 entries": Way("cluster-weights:entries=32"),
    "32 entries, groups": Way("cluster-weights:entries=32,group=auto"),
    "32 entries, groups, weighted": Way("cluster-weights:entries=32,group=auto", weighted=True),
    "int4, blocks of 128": Way("quantize-weights:bits=4,compute=float,block=128"),
    "16 entries": Way("cluster-weights:entries=16"),
    "16 entries, groups": Way("cluster-weights:entries=16,group=auto"),
    "16 entries, groups, weighted": Way("cluster-weights:entries=16,group=auto", weighted=True),
    "256 vectors of 2": Way("cluster-weights:dims=2"),
}


def is_float(model: ir.Model) -> bool:
    """Whether it has 32-bit float weights and no quantized ones."""
    kinds = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits"}
    if any(node.op_type in kinds for node in model.graph.all_nodes()):
        return False
    return any(isinstance(found, StoredWeight) for found in stored_weights(GraphTree.of(model)))


def chosen(options: argparse.Namespace) -> Iterator[tuple[str, Path, Path | None]]:
    """Name, file and feeds of the models."""
    for folder in sorted(options.folder.iterdir()):
        files = sorted(folder.glob("*.onnx"))
        if not files or (options.models and folder.name not in options.models):
            continue
        feeds = options.feeds / folder.name if options.feeds else None
        yield folder.name, files[0], feeds if feeds is not None and feeds.is_dir() else None


def run_preset(path: Path, feeds: Path | None, preset: str, out: Path, seconds: float) -> dict[str, Any]:
    """What the preset makes of one model."""
    begun, cpu = time.monotonic(), time.process_time()
    limit = {"time_limit": seconds} if seconds else {"timing": False}
    report = optimizer.optimize(path, out, preset=preset, data=feeds, **limit).report
    stage = report.stages[-1]
    before, after = load(path), load(out)
    exact = optimizer.optimize(path, preset="exact", run=False).model
    worst_output = max((output.rel_l2 or 0.0 for output in report.outputs), default=0.0)
    return {
        "bytes": [report.before.bytes, report.after.bytes],
        "exact_bytes": byte_size(exact),
        "gzip": report.to_dict()["compressed_bytes"],
        "kept": stage.kept,
        "reason": stage.reason,
        "changes": dict(stage.changes),
        "rel_l2": worst_output,
        "latency": None if report.latency is None else report.latency.to_dict(),
        "ops_as_exact": operators(after) == operators(exact),
        "real_feeds": feeds is not None,
        "parameters": sum(weight.holder.tensor.size for weight in weights_of(before)),
        "cpu_of_stage": stage.seconds,
        "cpu": time.process_time() - cpu,
        "wall": time.monotonic() - begun,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "notes": [f"{note.subject}: {note.reason}" for record in stage.passes for note in record.notes],
    }


def operators(model: ir.Model) -> Counter[str]:
    """Nodes by operator after ONNX Runtime's own optimizations."""
    return Counter(node.op_type for graph in optimized_graphs(model) for node in graph.node)


def weights_of(model: ir.Model) -> list[StoredWeight]:
    """Those that every way stores."""
    found = [one for one in stored_weights(GraphTree.of(model)) if isinstance(one, StoredWeight)]
    return [one for one in found if one.holder.tensor.size >= LEAST]


def per_tensor(original: ir.Model) -> tuple[ir.Model, int]:
    """Weights with one int8 scale each, as floats, and what they would take with the integers in the file."""
    model, saved = clone(original), 0
    for weight in weights_of(model):
        array = weight.holder.tensor.numpy()
        set_array(weight.holder.value, quantize_rows(array.reshape(1, -1), WEIGHT_INT8).floats().reshape(array.shape))
        saved += 3 * array.size
    return model, byte_size(original) - saved


def stored(original: ir.Model, way: Way, evaluator: RuntimeEvaluator) -> tuple[ir.Model, int]:
    """All weights in one way, and the size of the file."""
    if not way.spec:
        return per_tensor(original)
    if not way.weighted:
        model = rewritten(original, way.spec)[0]
        return model, byte_size(model)
    (member,) = parse_stage(way.spec).passes
    context = Context(original, evaluator=evaluator, choices=ClusterChoices(level=0, wide=()))
    try:
        member.requires(original, context)
    except PreconditionError:
        (upgrade,) = parse_stage("upgrade-opset:version=21").passes
        original = upgrade.run(clone(original), Context(original)).model
    model = member.run(clone(original), context).model
    return model, byte_size(model)


def measure(path: Path, feeds: Path, ways: Mapping[str, Way]) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and error of each way."""
    original = load(path)
    split = load_feeds(feeds, session(original).inputs)
    judged = list(split.validation[:MOST_FEEDS])
    evaluator = RuntimeEvaluator(original, split, Budget(), is_timed=False)
    plain = answers(original, judged, optimize=False)
    for name, way in ways.items():
        try:
            model, size = stored(original, way, evaluator)
        except OnnxhoneError as error:
            yield name, {"error": str(error)}
            continue
        found = answers(model, judged, optimize=False)
        yield name, {"ratio": size / byte_size(original), "rel_l2": worst(plain, found)}


def remember(known: dict[str, Any], kind: str, model: str, name: str, result: Mapping[str, Any]) -> None:
    """Keep one result in the file."""
    known.setdefault(kind, {}).setdefault(model, {})[name] = dict(result)
    known["commit"], known["versions"] = commit(), {one: version(one) for one in LIBRARIES}
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def presets_table(results: Mapping[str, Any], name: str) -> Iterator[str]:
    """One line a model."""
    yield "| model | inputs | file | of `exact` | gzip | relative L2 | latency | as fp32 at run time | weights | CPU |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- | ---: |"
    for model, one in results.items():
        if name not in one:
            continue
        found = one[name]
        if "error" in found:
            yield f"| {model} | {found['error']} |"
            continue
        latency = found["latency"]
        packed = found["gzip"]
        kinds = ", ".join(f"{count} {kind}" for kind, count in found["changes"].items() if kind.startswith("weights"))
        cells = [
            model,
            "real" if found["real_feeds"] else "generated",
            f"{found['bytes'][1] / found['bytes'][0]:.3f}",
            f"{found['bytes'][1] / found['exact_bytes']:.3f}",
            "-" if packed is None else f"{packed['after'] / packed['before']:.3f}",
            f"{found['rel_l2']:.4f}",
            "-" if latency is None else f"{latency['ratio']:.2f} ({latency['low']:.2f} to {latency['high']:.2f})",
            "yes" if found["ops_as_exact"] else "no",
            kinds or found["reason"],
            f"{found['cpu_of_stage']:.1f} s",
        ]
        yield f"| {' | '.join(cells)} |"


def ways_table(results: Mapping[str, Any]) -> Iterator[str]:
    """One line a way, one column a model: relative L2 of the answers, and the size of the file."""
    models = list(results)
    yield f"| weights | {' | '.join(models)} | geometric mean | file, mean |"
    yield f"| --- | {' | '.join('---:' for _ in models)} | ---: | ---: |"
    for name in WAYS:
        found = [results[model].get(name, {}) for model in models]
        known = [one["rel_l2"] for one in found if one.get("rel_l2")]
        cells = [f"{one['rel_l2']:.4f} ({one['ratio']:.3f})" if "ratio" in one else "-" for one in found]
        mean = f"{math.exp(statistics.fmean(map(math.log, known))):.4f}" if known else "-"
        size = f"{statistics.fmean(one['ratio'] for one in found if 'ratio' in one):.3f}" if known else "-"
        yield f"| {name} | {' | '.join(cells)} | {mean} | {size} |"


def write(known: Mapping[str, Any]) -> None:
    """The table of all results."""
    lines = [
        "# Codebooks of weights",
        "",
        f"`python benchmarks/cluster_corpus.py` at commit {known['commit']};",
        f"{', '.join(f'{name} {number}' for name, number in known['versions'].items())}.",
    ]
    lines += [
        "",
        "Where the latency has no numbers it was not measured.",
    ]
    for preset in ("small", "smallest"):
        lines += ["", f"## The preset `{preset}`", "", *presets_table(known.get("presets", {}), preset)]
    lines += ["", "## Linear against non-uniform", "", *ways_table(known.get("table", {}))]
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("presets", "table", "write"))
    parser.add_argument("folder", type=Path, nargs="?", metavar="MODELS")
    parser.add_argument("--feeds", type=Path)
    parser.add_argument("--models", nargs="*", default=[], metavar="ID")
    parser.add_argument("--presets", nargs="*", default=["small", "smallest"])
    parser.add_argument("--out", type=Path, default=Path("clustered"), help="folder for the models that are made")
    parser.add_argument("--seconds", type=float, default=60.0, help="for searching and timing; 0 times nothing")
    parser.add_argument("--again", action="store_true", help="also what is known")
    options = parser.parse_args()
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.what == "write":
        write(known)
        return 0
    options.out.mkdir(exist_ok=True)
    for model, path, feeds in chosen(options):
        if not is_float(load(path)):
            print(f"{model}: left out, no float weights")
            continue
        done = {} if options.again else known.get(options.what, {}).get(model, {})
        if options.what == "table":
            missing = {name: way for name, way in WAYS.items() if name not in done}
            if feeds is None or not missing:
                continue
            for name, result in measure(path, feeds, missing):
                remember(known, "table", model, name, result)
                print(model, name, result, flush=True)
            continue
        for preset in (preset for preset in options.presets if preset not in done):
            try:
                result = run_preset(path, feeds, preset, options.out / f"{model}.{preset}.onnx", options.seconds)
            except OnnxhoneError as error:
                result = {"error": str(error)}
            remember(known, "presets", model, preset, result)
            print(model, preset, result, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
