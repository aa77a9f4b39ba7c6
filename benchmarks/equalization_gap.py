"""Where the error of weights with one scale lies in a net, and what its Relu6 keep equalization from.

    python benchmarks/equalization_gap.py MODEL.onnx --feeds DIR [--most 64]

First table: all kernels in int8 with one scale for each weight, but a scale for each channel where the row says so.
Second table: the same net with every Relu6 made a Relu, against itself in float: another net, whose channels
equalization may scale. Weights have 7 bits and are rounded to nearest; ranges are by mse; errors are the relative L2
of the worst output, with ONNX Runtime's optimizations off.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import optimizer
from equalization import BEFORE
from optimizer.algorithms.quantization.linear import UINT8, WEIGHT_INT7
from optimizer.algorithms.quantization.static.search import Int8Options, Int8Search
from optimizer.algorithms.quantization.static.units import find_units
from optimizer.contract.passes import Context
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.evaluation.feeds.loading import load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.validation.budget import Budget
from optimizer.graph import constants
from optimizer.graph.linear_nodes import as_linear
from optimizer.io.model import clone, load
from optimizer.recipes.spec import parse_pass
from weight_only import answers, worst

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from optimizer.evaluation.feeds.sets import Split


class Judge:
    """Quantizes one net and tells its error against the net in float."""

    def __init__(self, model: ir.Model, split: Split, most: int) -> None:
        """Run the float net."""
        self.model, self.feeds = model, split.validation[:most]
        self.wanted = answers(model, self.feeds, optimize=True)
        self.evaluator = RuntimeEvaluator(model, split, Budget(), is_timed=False, time_limit=float("inf"))

    def search(self, model: ir.Model, *, per_channel: bool, correct_bias: bool = True) -> Int8Search:
        """All units of ``model``, with one kind of weights."""
        options = Int8Options((UINT8, UINT8, WEIGHT_INT7), per_channel, correct_bias, adaptive=(), method="mse")
        return Int8Search.of(model, find_units(model)[0], self.evaluator, options)

    def error(self, search: Int8Search) -> float:
        """Of everything in int8."""
        return worst(self.wanted, answers(search.build(search.everything()), self.feeds, optimize=False))


def kind(node: ir.Node) -> str:
    """What kernel it is."""
    found = as_linear(node)
    if found is None:
        return "other"
    if node.op_type != "Conv":
        return node.op_type
    return "depthwise Conv" if found.groups > 1 else "Conv 1x1" if set(found.shape[2:]) == {1} else "Conv"


def by_kind(judge: Judge) -> None:
    """Print the first table."""
    channel, tensor = (judge.search(judge.model, per_channel=each) for each in (True, False))
    best, start = judge.error(channel), judge.error(tensor)
    whole = dict(tensor.candidates.weights)
    kinds = {node.outputs[0].name or "": kind(node) for node in judge.model.graph}
    print("| a scale for each channel in | kernels | error | gap closed |\n| --- | ---: | ---: | ---: |")
    print(f"| none | 0 | {start:.4f} | 0% |")
    for one in sorted({kinds[name] for name in whole}):
        chosen = {name: weight for name, weight in channel.candidates.weights.items() if kinds[name] == one}
        tensor.candidates.weights = {**whole, **chosen}
        error = judge.error(tensor)
        print(f"| {one} | {len(chosen)} | {error:.4f} | {(start - error) / (start - best):.0%} |", flush=True)
    print(f"| all | {len(whole)} | {best:.4f} | 100% |")


def without_relu6(model: ir.Model) -> int:
    """Make every Clip between 0 and 6 a Relu, in place; how many there were."""
    done = 0
    for node in model.graph:
        bounds = [constants.constant_array(value) for value in node.inputs[1:3]]
        if node.op_type == "Clip" and [None if bound is None else float(bound) for bound in bounds] == [0, 6]:
            node.op_type = "Relu"
            node.resize_inputs(1)
            done += 1
    return done


def equalized(judge: Judge) -> None:
    """Print the rows of the second table."""
    change = parse_pass("equalize-channels").run(clone(judge.model), Context(judge.model))
    print(f"\nEqualized: {dict(change.changes)}\n\n| weights | error | gap closed |\n| --- | ---: | ---: |")
    rows: dict[str, Callable[[], Int8Search]] = {
        "one scale, no bias correction": lambda: judge.search(judge.model, per_channel=False, correct_bias=False),
        "a scale for each channel": lambda: judge.search(judge.model, per_channel=True),
        "one scale": lambda: judge.search(judge.model, per_channel=False),
        "one scale, equalized, no bias correction": lambda: judge.search(
            change.model, per_channel=False, correct_bias=False
        ),
        "one scale, equalized": lambda: judge.search(change.model, per_channel=False),
    }
    errors = {name: judge.error(make()) for name, make in rows.items()}
    start, best, *_ = errors.values()
    for name, error in errors.items():
        print(f"| {name} | {error:.4f} | {(start - error) / (start - best):.0%} |")


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--feeds", type=Path, required=True)
    parser.add_argument("--most", type=int, default=64)
    options = parser.parse_args()
    model = load(optimizer.optimize(load(options.model), passes=BEFORE, run=False).model)
    split = load_feeds(options.feeds, session(model).inputs)
    by_kind(Judge(model, split, options.most))
    count = without_relu6(model)
    print(f"\n{count} Relu6 made a Relu.")
    equalized(Judge(model, split, options.most))
    return 0


if __name__ == "__main__":
    sys.exit(main())
