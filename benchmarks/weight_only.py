"""What weights in 8 and 4 bits cost and bring, the error of ONNX Runtime's kernels apart from that of the weights.

    python benchmarks/weight_only.py MODEL.onnx [--feeds DIR] [--seconds 20] [--spec quantize-weights:bits=8 ...]

A spec is run without a budget, so that nothing is held back; models too old for one are upgraded first. Columns:

- file: bytes with external data, candidate / original;
- weights: relative L2 of the worst output with ONNX Runtime's optimizations off, where it computes in floats what the
  file says: the error of the weights alone (of quantize-dynamic: of weights and activations);
- kernels: the candidate with optimizations on against itself with them off: what MatMulNBits, which quantizes its
  activations, adds;
- both: the candidate against the original, optimizations on, as users run it;
- time: paired ratio candidate / original, with its interval.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.contract.passes import Context
from optimizer.errors import OnnxhoneError, PreconditionError
from optimizer.evaluation.feeds.loading import generate, load_feeds
from optimizer.evaluation.runtime.session import session
from optimizer.evaluation.runtime.timing import clock_for, compare
from optimizer.io.model import byte_size, clone, load
from optimizer.recipes.spec import parse_stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from optimizer.evaluation.runtime.timing import Factory

SPECS = ("quantize-weights", "quantize-weights:compute=integer", "quantize-weights:bits=4", "quantize-dynamic")
UPGRADE = "upgrade-opset:version=21"
MOST_FEEDS = 8


def answers(model: ir.Model, feeds: Sequence[Mapping[str, Any]], *, optimize: bool) -> list[dict[str, Any]]:
    """All outputs on all feeds."""
    opened = session(model, optimize=optimize)
    return [opened.run(feed) for feed in feeds]


def worst(references: Sequence[Mapping[str, Any]], candidates: Sequence[Mapping[str, Any]]) -> float:
    """The largest relative L2 of an output, over all feeds."""
    found = [0.0]
    for name, first in references[0].items():
        if not isinstance(first, np.ndarray) or first.dtype.kind != "f":
            continue
        pairs = [(one[name].astype(np.float64), two[name]) for one, two in zip(references, candidates, strict=True)]
        error = sum(float(np.sum((one - two) ** 2)) for one, two in pairs)
        power = sum(float(np.sum(one**2)) for one, _ in pairs)
        found.append(math.sqrt(error / power) if power else math.sqrt(error))
    return max(found)


def rewritten(original: ir.Model, spec: str) -> tuple[ir.Model, Mapping[str, int], bool]:
    """The candidate, what was changed, and whether it had to be upgraded."""
    try:
        return *applied(original, spec), False
    except PreconditionError:
        upgraded, _ = applied(original, UPGRADE)
        return *applied(upgraded, spec), True


def applied(original: ir.Model, spec: str) -> tuple[ir.Model, Mapping[str, int]]:
    """The result of one pass, without a check."""
    (member,) = parse_stage(spec).passes
    context = Context(original)
    member.requires(original, context)
    result = member.run(clone(original), context)
    return result.model, result.changes


def factory(model: ir.Model, feeds: Sequence[Mapping[str, Any]]) -> Factory:
    """Makes fresh sessions."""
    return lambda: session(model).runner(feeds[:2])


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--feeds", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--spec", action="append")
    options = parser.parse_args()
    original = load(options.model)
    slots = session(original).inputs
    split = generate(original) if options.feeds is None else load_feeds(options.feeds, slots)
    feeds = list(split.validation[:MOST_FEEDS])
    plain = {optimize: answers(original, feeds, optimize=optimize) for optimize in (False, True)}
    print(f"{options.model.name}, {split.origin} feeds\n| spec | changes | file | weights | kernels | both | time |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for spec in options.spec or SPECS:
        try:
            candidate, changes, upgraded = rewritten(original, spec)
        except OnnxhoneError as error:
            print(f"| {spec} | {error} |")
            continue
        found = {optimize: answers(candidate, feeds, optimize=optimize) for optimize in (False, True)}
        errors = (worst(plain[False], found[False]), worst(found[False], found[True]), worst(plain[True], found[True]))
        pair = factory(original, feeds), factory(candidate, feeds)
        time = compare(*pair, clock=clock_for(1), time_limit=options.seconds) if options.seconds > 0 else None
        cells = [
            spec + (" (opset raised)" if upgraded else ""),
            ", ".join(f"{count} {kind}" for kind, count in changes.items()) or "none",
            f"{byte_size(candidate) / byte_size(original):.3f}",
            *(f"{error:.4f}" for error in errors),
            "" if time is None else f"{time.ratio:.2f} ({time.low:.2f} to {time.high:.2f})",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
