"""Compare a rewritten model with its original, independently of onnxhone's own gates.

    python measure_candidate.py ORIGINAL.onnx CANDIDATE.onnx RESULT.json [--feeds DIR] [--seconds 30]

- outputs: both run in ONNX Runtime, all optimizations, one thread, on real feeds if a folder is given, else on
  generated ones. Shapes, types and the places of NaN and infinities must agree; then the relative L2 over all feeds
  counts, of integers the share of elements that differ. The limit is fixed before the candidate runs: 1e-4 (1e-2 for
  fp16), or four times what the original itself moves when the optimizations are switched off, at most 1e-2.
- size with external data, nodes in subgraphs and functions too, signature, metadata;
- latency ratio candidate / original, paired (``optimizer.timing``).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime

from optimizer.evaluation.feeds.loading import generate, load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.runtime.timing import clock_for, compare
from optimizer.io.model import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Feeds = Sequence[Mapping[str, Any]]
    Outputs = list[list[Any]]  # by feed, then by output

FLOOR = {np.dtype(np.float16): 1e-2}
USUAL_FLOOR, CAP = 1e-4, 1e-2


def open_session(path: Path, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """A session of its own, on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs_of(path: Path, feeds: Feeds, *, optimize: bool = True) -> Outputs:
    """All outputs on all feeds."""
    opened = open_session(path, optimize=optimize)
    return [[np.asarray(array) for array in opened.run(None, dict(feed))] for feed in feeds]


def difference(references: Sequence[Any], candidates: Sequence[Any]) -> float:
    """Relative L2 over all feeds of one output; infinite where shapes, types or non-finite values disagree."""
    error = power = count = 0.0
    for one, other in zip(references, candidates, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return float("inf")
        if one.dtype.kind != "f":
            error, power = error + float(np.sum(one != other)), power + one.size
            continue
        finite = np.isfinite(one)
        if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
            return float("inf")
        exact, found = one[finite].astype(np.float64), other[finite].astype(np.float64)
        error, power, count = error + float(np.sum((exact - found) ** 2)), power + float(np.sum(exact**2)), count + 1
    share = error / power if power else error
    return float(np.sqrt(share)) if count else share


def differences(references: Outputs, candidates: Outputs) -> list[float]:
    """The difference of each output."""
    if len(references[0]) != len(candidates[0]):
        return [float("inf")]
    columns = zip(zip(*references, strict=True), zip(*candidates, strict=True), strict=True)
    return [difference(one, other) for one, other in columns]


def limits(references: Outputs, unoptimized: Outputs) -> list[float]:
    """What each output may differ."""
    floors = [FLOOR.get(array.dtype, USUAL_FLOOR) for array in references[0]]
    own = differences(references, unoptimized)
    return [max(floor, min(4 * moved, CAP)) for floor, moved in zip(floors, own, strict=True)]


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of initializers and attributes, in subgraphs and functions too."""
    yield from (tensor for graph in subgraphs(model.graph) for tensor in graph.initializer)
    yield from (attribute.t for node in nodes(model) for attribute in node.attribute if attribute.HasField("t"))


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all below it."""
    yield graph
    for node in graph.node:
        yield from (inner for child in children(node) for inner in subgraphs(child))


def children(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of a node."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, in subgraphs and functions too."""
    tops = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in tops:
        yield node
        yield from (inner for child in children(node) for graph in subgraphs(child) for inner in graph.node)


def structure(path: Path) -> dict[str, Any]:
    """Bytes of all files, number of nodes, and what must not change."""
    model = onnx.load(path, load_external_data=False)
    locations = {entry.value for tensor in tensors(model) for entry in tensor.external_data if entry.key == "location"}
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    return {
        "bytes": sum((path.parent / name).stat().st_size for name in {path.name, *locations}),
        "nodes": sum(1 for _ in nodes(model)),
        "signature": [str(value) for value in (*inputs, *model.graph.output)],
        "metadata": [
            sorted((entry.key, entry.value) for entry in model.metadata_props),
            [model.producer_name, model.producer_version, model.domain, model.model_version, model.doc_string],
            [model.graph.name, model.graph.doc_string],
        ],
    }


def runner(path: Path, feeds: Feeds) -> Callable[[], Callable[[], object]]:
    """A factory of fresh sessions, each running the feeds by turns."""

    def make() -> Callable[[], object]:
        opened, turn, ready = open_session(path), -1, [dict(feed) for feed in feeds]

        def run() -> object:
            nonlocal turn
            turn += 1
            return opened.run(None, ready[turn % len(ready)])

        return run

    return make


def measure(original: Path, candidate: Path, folder: Path | None, seconds: float) -> dict[str, Any]:
    """Everything about the candidate."""
    reference = load(original)
    split = generate(reference) if folder is None else load_feeds(folder, session(reference).inputs)
    feeds = list(split.validation)
    before, after = structure(original), structure(candidate)
    same = {f"{key}_same": before.pop(key) == after.pop(key) for key in ("signature", "metadata")}
    record: dict[str, Any] = {"feeds": split.origin, "before": before, "after": after, **same}
    wanted = outputs_of(original, feeds)
    allowed = limits(wanted, outputs_of(original, feeds, optimize=False))
    try:
        found = differences(wanted, outputs_of(candidate, feeds))
    except Exception as error:  # noqa: BLE001 - a candidate that does not load is a result
        return {**record, "loads": False, "error": " ".join(str(error).split())[:200]}
    worst = max(zip(found, allowed, strict=False), key=lambda pair: pair[0] / pair[1])
    record |= {"loads": True, "difference": worst[0], "allowed": worst[1], "equal": worst[0] <= worst[1]}
    if record["equal"] and seconds > 0:
        pair = runner(original, feeds), runner(candidate, feeds)
        record["latency"] = compare(*pair, clock=clock_for(1), time_limit=seconds).to_dict()
    return record


def main() -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("original", "candidate", "result"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--feeds", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    record = measure(options.original, options.candidate, options.feeds, options.seconds)
    options.result.write_text(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
