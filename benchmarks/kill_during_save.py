"""Kill a process with SIGKILL at random moments while it saves over a model, and check what is there afterwards.

    python benchmarks/kill_during_save.py [--times 20] [--megabytes 64]

Two models of one shape take turns at one path. After each kill the target must load, hold every weight of one of
the two, and no other; a save after the last kill must leave nothing behind. Both ways of storing are tried.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optimizer.io import atomic_files
from optimizer.io.model import load, save

SAVER = """
import sys
from optimizer.model import load, save
model = load(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
while True:
    save(model, sys.argv[2])
    print("saved", flush=True)
"""


def make(path: Path, filling: float, megabytes: int, *, external: bool) -> None:
    """A model whose weights all have one value."""
    weights = [
        numpy_helper.from_array(np.full(1 << 18, filling, np.float32), f"w{index}") for index in range(megabytes)
    ]
    vector = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [vector], [result], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data")


def fillings(path: Path) -> set[float]:
    """The values that the weights at ``path`` have."""
    tensors = [value.const_value for value in load(path).graph.initializers.values()]
    return {
        float(edge) for tensor in tensors if tensor is not None for edge in (tensor.numpy().min(), tensor.numpy().max())
    }


def kill_once(source: Path, target: Path, longest: float) -> tuple[float, int]:
    """Start a process that saves ``source`` to ``target`` over and over, kill it; seconds it had, and saves it did."""
    saver = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(source), str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if saver.stdin is None or saver.stdout is None:
        raise RuntimeError("no pipes")
    saver.stdout.readline()
    saver.stdin.write("go\n")
    saver.stdin.flush()
    seconds = random.uniform(0, longest)  # noqa: S311 - a moment, no secret
    time.sleep(seconds)
    saver.send_signal(signal.SIGKILL)
    saves = saver.communicate()[0].count("saved")
    return seconds, saves


def main() -> None:
    """Run both ways of storing and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    for external in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            sources = [folder / "a" / "m.onnx", folder / "b" / "m.onnx"]
            for filling, source in enumerate(sources, 1):
                source.parent.mkdir()
                make(source, filling, options.megabytes, external=external)
            target = folder / "out" / "m.onnx"
            target.parent.mkdir()
            save(load(sources[0]), target)
            began = time.monotonic()
            save(load(sources[0]), target)
            longest = 2 * (time.monotonic() - began)
            found = []
            for turn in range(options.times):
                seconds, saves = kill_once(sources[(turn + 1) % 2], target, longest)
                values = fillings(target)
                if values not in ({1.0}, {2.0}):
                    raise SystemExit(f"after {seconds:.3f} s and {saves} saves the target holds {values}")
                found.append((saves, values, len(list(target.parent.iterdir()))))
            for path in target.parent.glob(f"{atomic_files.PREFIX}*"):
                os.utime(path, (0, 0))
            save(load(sources[0]), target)
            left = sorted(path.name for path in target.parent.iterdir())
            kind = "external" if external else "inline"
            during = sum(1 for saves, _, _ in found if not saves)
            changed = sum(1 for (_, one, _), (_, two, _) in pairwise(found) if one != two)
            print(
                f"{kind}: {options.times} kills of a save of {options.megabytes} MB, {during} before it was done once, "
                f"target always whole ({changed} times another model than before); files "
                f"after one more save: {left}"
            )


if __name__ == "__main__":
    main()
