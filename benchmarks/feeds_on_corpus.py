"""Does every real model run with generated feeds, how long does validation take, and what tolerances does it set?

A line a model: the shapes that were chosen, validation feeds, seconds for feeds, reference and one exact check of the
model against itself, the largest tolerance, and what the check said.

    python benchmarks/feeds_on_corpus.py FOLDER [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from optimizer.errors import OnnxhoneError
from optimizer.evaluation.feeds.loading import generate
from optimizer.evaluation.validation.budget import Budget
from optimizer.evaluation.validation.validator import Validator
from optimizer.io.model import load


def try_model(path: Path) -> dict[str, object]:
    """What happens with one model, with seconds."""
    model = load(path)
    begun = time.perf_counter()
    split = generate(model)
    made = time.perf_counter()
    validator = Validator(model, split.validation)
    ready = time.perf_counter()
    exact = validator.check_exact(model)
    checked = time.perf_counter()
    lossy = validator.check_budget(model, Budget())
    limits = [limit.rel_l2 for limit in validator.tolerances.values()]
    return {
        "shapes": split.notes,
        "feeds": len(split.validation),
        "seconds": {"feeds": made - begun, "reference": ready - made, "exact": checked - ready},
        "tolerance": max(limits, default=None),
        "ok": exact.ok and lossy.ok,
        "reason": exact.reason or lossy.reason,
        "notes": validator.notes,
    }


def main() -> int:
    """Command line; 1 if a model does not run or is not equal to itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    for path in sorted(options.folder.glob("*/*.onnx")):
        name = path.parent.name
        if options.only and name not in options.only:
            continue
        try:
            found[name] = try_model(path)
        except OnnxhoneError as error:
            found[name] = {"ok": False, "reason": str(error)}
        print(name, json.dumps(found[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    bad = [name for name, result in found.items() if not result["ok"]]
    print(f"{len(found) - len(bad)} of {len(found)} models run and are equal to themselves; not: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
