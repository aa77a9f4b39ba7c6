"""Calibration with 10 and with 1,000 feeds: the peak of resident memory of each, in a process of its own.

    python benchmarks/calibration_memory.py [MODEL] [--feeds 10 1000] [--shape NAME:1,3,224,224 ...]

Every value of the model that is no constant is observed, with histograms. The feeds are random numbers made when asked
for, each of another seed; with ``--lengths`` the first dynamic dimension of each takes another size, so that ONNX
Runtime has to allocate anew.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGITS = Path(__file__).parents[1] / "models" / "digits.onnx"
GOAL = 1.2


def measure(path: Path, count: int, shapes: Sequence[str], *, lengths: bool) -> dict[str, float]:
    """Calibrate in this process; peaks in MB, before and after, and seconds."""
    from optimizer.evaluation.calibration.sweep import observe  # noqa: PLC0415 - only the measured process needs it
    from optimizer.evaluation.feeds.loading import FeedSet, parse_shapes  # noqa: PLC0415 - as above
    from optimizer.evaluation.runtime.session import session  # noqa: PLC0415 - as above
    from optimizer.io.model import load  # noqa: PLC0415 - as above

    model, given = load(path), parse_shapes(shapes)
    slots = session(model).inputs

    def made(number: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(number)
        feed = {}
        for slot in slots:
            free = 1 + number % 4 if lengths else 1
            size = given.get(slot.name) or tuple(dim if isinstance(dim, int) else free for dim in slot.shape)
            feed[slot.name] = random.standard_normal(size, np.float32)
        return feed

    names = [value.name for node in model.graph if node.op_type != "Constant" for value in node.outputs if value.name]
    before, began = _peak(), time.perf_counter()
    found = observe(model, [slot.name for slot in slots] + names, FeedSet(made, range(count)))
    seconds = time.perf_counter() - began
    return {"values": len(found), "before_mb": before, "peak_mb": _peak(), "seconds": seconds}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure each number of feeds, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, nargs="?", default=DIGITS, help="a model whose inputs are all float32")
    parser.add_argument("--feeds", type=int, nargs=2, default=[10, 1000], metavar=("FEW", "MANY"))
    parser.add_argument("--shape", action="append", default=[], metavar="NAME:SIZES", help="of an input; dynamic are 1")
    parser.add_argument("--lengths", action="store_true", help="give dynamic dimensions another size in each feed")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.model, options.measure, options.shape, lengths=options.lengths)))
        return
    peaks = []
    for count in options.feeds:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(count)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        peaks.append(found["peak_mb"])
        print(
            f"{count:6} feeds  {found['values']} values  {found['seconds']:.1f} s"
            f"  peak {found['peak_mb']:.0f} MB, {found['before_mb']:.0f} MB before"
        )
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.3f}, {'at most' if ratio <= GOAL else 'MORE THAN'} {GOAL}")


if __name__ == "__main__":
    main()
