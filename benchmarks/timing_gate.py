"""Does the timing gate say "same" of a model against itself, and does it catch one that is 10 % slower?

For models of about 0.1, 3 and 100 ms, each 30 times: the model against itself must be "same" in at least 29, and
against one that really does 10 % more work "slower" in at least 29.

    python benchmarks/timing_gate.py [--times 30] [--only 0.1 3 100] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.evaluation.runtime.session import prepare, session
from optimizer.evaluation.runtime.timing import clock_for, compare

if TYPE_CHECKING:
    from optimizer.evaluation.runtime.session import Loadable
    from optimizer.evaluation.runtime.timing import Factory

LAYERS = 40
# ms, about: width of a layer, rows of the input, and layers that make it 10 % slower (a short run has a constant share)
SIZES = {"0.1": (64, 8, 6), "3": (256, 64, 4), "100": (640, 320, 4)}


def chain(width: int, layers: int) -> ir.Model:
    """MatMul and Relu, ``layers`` times, each with weights of its own."""
    rng = np.random.default_rng(0)
    start = value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", width]))
    nodes, weights = [], []
    for number in range(layers):
        tensor = ir.tensor(rng.standard_normal((width, width), np.float32) / np.float32(width**0.5), name=f"w{number}")
        weight = ir.Value(name=f"w{number}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        product = ir.node("MatMul", [value, weight])
        nodes += [product, ir.node("Relu", product.outputs)]
        weights.append(weight)
        value = nodes[-1].outputs[0]
    value.name, value.type, value.shape = "y", start.type, start.shape
    graph = ir.Graph([start], [value], nodes=nodes, initializers=weights, opset_imports={"": 17}, name="chain")
    return ir.Model(graph, ir_version=10)


def factory(model: Loadable, feed: dict[str, np.ndarray]) -> Factory:
    """Fresh sessions of ``model``."""
    return lambda: session(model).runner([feed])


def judge(label: str, times: int) -> dict[str, object]:
    """All comparisons of one size; prints a line for each kind."""
    width, rows, extra = SIZES[label]
    feed = {"x": np.random.default_rng(1).standard_normal((rows, width), np.float32)}
    model, more = (factory(prepare(chain(width, layers)), feed) for layers in (LAYERS, LAYERS + extra))
    found: dict[str, object] = {}
    for kind, other, wanted in (("itself", model, "same"), ("10 % slower", more, "slower")):
        begun = time.perf_counter()
        results = [compare(model, other, clock=clock_for(1)) for _ in range(times)]
        seconds = (time.perf_counter() - begun) / times
        verdicts = Counter(result.verdict for result in results)
        ratios = [result.ratio for result in results]
        found[kind] = {
            "verdicts": dict(verdicts),
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
            "pairs": statistics.mean(result.pairs for result in results),
            "seconds": seconds,
            "run_ms": 1e3 * statistics.median(result.reference_seconds for result in results),
        }
        print(
            f"{label:>4} ms against {kind:12}: {wanted} in {verdicts[wanted]} of {times};"
            f" ratios {min(ratios):.3f} to {max(ratios):.3f},"
            f" {statistics.mean(result.pairs for result in results):.1f} pairs, {seconds:.1f} s each",
            flush=True,
        )
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--only", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {label: judge(label, options.times) for label in options.only}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
