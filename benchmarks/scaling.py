"""How time grows with the number of nodes: load, every exact pass, save; 10,000 against 50,000 nodes.

    python benchmarks/scaling.py [--sizes 10000 50000] [--repeat N]

Two shapes of graph: a *chain*, in which every node reads the one before, and a *fan*, in which half of the nodes read
one value and one weight, and a tree adds up what they make. Weights repeat, so that there is something to merge, and
some nodes do nothing, so that there is something to simplify. Linear is 5; the limit is 6. Times are CPU seconds, the
least of N runs, and are to be read as ratios.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optimizer.contract.passes import Context
from optimizer.io.model import clone, load, save
from optimizer.recipes.registry import load_pass, pass_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.contract.passes import Pass

LIMIT = 6.0
WEIGHTS, WIDTH = 97, 8


def chain(size: int) -> onnx.ModelProto:
    """Each node reads the one before; every tenth does nothing."""
    cycle = ("Add", "Sigmoid", "Mul", "Tanh", "Sub", "Softplus", "Add", "Elu", "Mul", "Identity")
    nodes, last = [], "x"
    for index in range(size):
        op, name = cycle[index % len(cycle)], f"v{index}"
        reads = [last, f"w{index}"] if op in {"Add", "Mul", "Sub"} else [last]
        nodes.append(helper.make_node(op, reads, [name], name=f"node_{index}"))
        last = name
    return _model(nodes, last)


def fan(size: int) -> onnx.ModelProto:
    """Half of the nodes read one value and one weight; a tree adds up their results."""
    leaves = size // 2
    nodes = [helper.make_node("Mul", ["x", "w0"], [f"v{index}"], name=f"node_{index}") for index in range(0, leaves, 2)]
    nodes += [helper.make_node("Add", ["x", f"w{index}"], [f"v{index}"]) for index in range(1, leaves, 2)]
    level = [f"v{index}" for index in range(leaves)]
    while len(level) > 1:
        pairs = list(zip(level[::2], level[1::2], strict=False))
        sums = [f"{left}_{number}" for number, (left, _) in enumerate(pairs)]
        nodes += [helper.make_node("Add", list(pair), [name]) for pair, name in zip(pairs, sums, strict=True)]
        level = sums + level[2 * len(pairs) :]
    return _model(nodes, level[0])


def _model(nodes: list[onnx.NodeProto], output: str) -> onnx.ModelProto:
    names = sorted({name for node in nodes for name in node.input if name.startswith("w")})
    random = np.random.default_rng(0)
    contents = random.standard_normal((WEIGHTS, WIDTH)).astype(np.float32)
    initializers = [numpy_helper.from_array(contents[int(name[1:]) % WEIGHTS], name) for name in names]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", output)]
    graph = helper.make_graph(nodes, "scaling", ports[:1], ports[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seconds(proto: onnx.ModelProto, passes: list[Pass], folder: Path, repeat: int) -> dict[str, float]:
    """CPU seconds of load, of each pass and of save, the least of ``repeat`` runs each."""
    source = folder / "m.onnx"
    source.write_bytes(proto.SerializeToString())
    model = load(source)
    work: dict[str, Callable[[], object]] = {"load": lambda: load(source)}
    work |= {one.name: lambda one=one: one.run(clone(model), Context(model)) for one in passes}
    work |= {"save": lambda: save(model, folder / "out.onnx")}
    return {name: min(_time(run) for _ in range(repeat)) for name, run in work.items()}


def _time(run: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    """Measure both shapes at both sizes and print the ratios; exit code 1 if one is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs=2, type=int, default=[10_000, 50_000], metavar=("SMALL", "LARGE"))
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    options = parser.parse_args()
    passes = [one for one in (load_pass(name)() for name in pass_names()) if one.exact]
    small, large = options.sizes
    limit = LIMIT * large / small / 5
    too_slow = False
    print(f"{'shape':6} {'what':20} {f'{small:,} nodes':>14} {f'{large:,} nodes':>14} {'ratio':>6}")
    for shape in (chain, fan):
        with tempfile.TemporaryDirectory() as folder:
            few, many = (seconds(shape(size), passes, Path(folder), options.repeat) for size in options.sizes)
        for what, least in few.items():
            ratio = many[what] / least
            too_slow |= ratio > limit
            print(f"{shape.__name__:6} {what:20} {least:12.2f} s {many[what]:12.2f} s {ratio:6.2f}")
    sys.exit(too_slow)


if __name__ == "__main__":
    main()
