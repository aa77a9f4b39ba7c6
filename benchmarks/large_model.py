"""A model of 2.5 GB in external files: load, dedup-initializers and save, with the peak of resident memory.

    python benchmarks/large_model.py [--folder DIR] [--keep] [--validate]

The model is a stack of feed-forward blocks with random weights. A third of the blocks repeat the weights of an earlier
one, and the output projection is the embedding transposed. Load, pass and save run in a process of their own, whose
peak is printed next to what the imports alone take. ``--validate`` runs the whole command line on it as well, with
ONNX Runtime's sessions.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY, WIDTH, HIDDEN, BLOCKS = 61_440, 1_024, 8_192, 30
CHUNK_ROWS = 1_024


def write_model(folder: Path) -> Path:
    """Write the model and its data file, in chunks; returns the model's path."""
    path = folder / "large.onnx"
    shapes = {"embedding": (VOCABULARY, WIDTH), "projection": (WIDTH, VOCABULARY)}
    for block in range(BLOCKS):
        shapes[f"up_{block}"], shapes[f"down_{block}"] = (WIDTH, HIDDEN), (HIDDEN, WIDTH)
    initializers, offset = [], 0
    with (folder / "large.data").open("wb") as file:
        for name, shape in shapes.items():
            size = 4 * shape[0] * shape[1]
            initializers.append(_stub(name, shape, offset, size))
            _write(file, name, shape)
            offset += size
    path.write_bytes(_model(initializers).SerializeToString())
    return path


def _stub(name: str, shape: tuple[int, int], offset: int, size: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "large.data"), ("offset", offset), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _write(file: BinaryIO, name: str, shape: tuple[int, int]) -> None:
    step = 64 if name == "projection" else CHUNK_ROWS
    file.writelines(_rows(name, shape, slice(start, start + step)).tobytes() for start in range(0, shape[0], step))


def _rows(name: str, shape: tuple[int, int], rows: slice) -> np.ndarray:
    if name == "projection":
        return np.ascontiguousarray(_embedding(slice(None), rows).T)
    if name == "embedding":
        return _embedding(rows, slice(None))
    kind, number = name.split("_")
    block = int(number)
    original = block - 2 if block % 3 == 2 else block  # every third block repeats the one before the last
    random = np.random.default_rng([original, kind == "up", rows.start])
    return random.random((min(rows.stop, shape[0]) - rows.start, shape[1]), np.float32) * 0.02 - 0.01


def _embedding(rows: slice, columns: slice) -> np.ndarray:
    """A part of the embedding: products of two random vectors, modulo 1, so that every part can be made alone."""
    random = np.random.default_rng(0)
    left, right = random.random(VOCABULARY) * 1e4, random.random(WIDTH)
    return (np.outer(left[rows], right[columns]) % 1 - 0.5).astype(np.float32)


def _model(initializers: list[TensorProto]) -> onnx.ModelProto:
    nodes = [helper.make_node("Gather", ["embedding", "ids"], ["h0"])]
    for block in range(BLOCKS):
        h, u, a, d = f"h{block}", f"u{block}", f"a{block}", f"d{block}"
        nodes += [
            helper.make_node("MatMul", [h, f"up_{block}"], [u]),
            helper.make_node("Relu", [u], [a]),
            helper.make_node("MatMul", [a, f"down_{block}"], [d]),
            helper.make_node("Add", [h, d], [f"h{block + 1}"]),
        ]
    nodes.append(helper.make_node("MatMul", [f"h{BLOCKS}", "projection"], ["logits"]))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", VOCABULARY])
    graph = helper.make_graph(nodes, "large", [ids], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(source: Path, target: Path) -> dict[str, object]:
    """Load, dedup and save in this process; seconds, changes, bytes and peaks in MB."""
    from optimizer.contract.passes import Context  # noqa: PLC0415 - as above
    from optimizer.io.model import load, save  # noqa: PLC0415 - the peak of the imports is measured apart
    from passes.dedup_initializers import DedupInitializers  # noqa: PLC0415 - as above

    imports, began = _peak(), time.perf_counter()
    model = load(source)
    loaded, load_peak = time.perf_counter(), _peak()
    result = DedupInitializers().run(model, Context(model))
    passed, pass_peak = time.perf_counter(), _peak()
    written = save(result.model, target)
    return {
        "seconds": {"load": loaded - began, "pass": passed - loaded, "save": time.perf_counter() - passed},
        "changes": dict(result.changes),
        "bytes": {"before": _bytes(source.parent, "large"), "after": sum(path.stat().st_size for path in written)},
        "peak_mb": {"imports": imports, "load": load_peak, "pass": pass_peak, "save": _peak()},
    }


def _bytes(folder: Path, stem: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{stem}.*"))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _validate(source: Path, target: Path) -> str:
    command = [sys.executable, "-m", "optimizer.cli", "optimize", str(source), "-o", str(target)]
    done = subprocess.run(
        [*command, "-p", "dedup-initializers", "--no-timing", "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"exit code {done.returncode}: {done.stderr.strip()}"
    report = json.loads(done.stdout)
    return f"{report['verdict']}, outputs {report['outputs']}"


@contextmanager
def _workplace(folder: Path | None, *, keep: bool) -> Iterator[str]:
    if keep:
        yield tempfile.mkdtemp(dir=folder)
        return
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield made


def main() -> None:
    """Write the model, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    parser.add_argument("--keep", action="store_true", help="keep the files in --folder")
    parser.add_argument("--validate", action="store_true", help="also run the command line, with validation")
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    with _workplace(options.folder, keep=options.keep) as folder:
        source, target = write_model(Path(folder)), Path(folder) / "out.onnx"
        print(f"{_bytes(source.parent, 'large') / 1e9:.2f} GB written to {folder}")
        command = [sys.executable, __file__, "--measure", str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(json.dumps(json.loads(done.stdout), indent=1))
        if options.validate:
            print(f"command line: {_validate(source, target)}")


if __name__ == "__main__":
    main()
