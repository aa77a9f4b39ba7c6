"""Simplify one model with one other tool, as its users do; runs in an environment that has the tool, not onnxhone.

    python peer_simplify.py TOOL IN.onnx OUT.onnx RESULT.json

The result holds the CPU seconds of load, rewriting and save; imports are done before the clock starts.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = {
    "onnxslim": "onnxslim",
    "onnxsim": "onnxsim",
    "onnxscript": "onnxscript.optimizer",
    "ort_basic": "onnxruntime",
}


def save(model: onnx.ModelProto, out: Path) -> None:
    """Write one file; only what does not fit into one goes to external data."""
    big = model.ByteSize() > 1_900_000_000
    onnx.save(model, out, save_as_external_data=big, location=f"{out.name}.data" if big else None)


def with_onnxslim(path: Path, out: Path) -> None:
    """``onnxslim.slim`` with its defaults."""
    import onnxslim  # noqa: PLC0415 - imported before the clock starts, by ``main``

    save(onnxslim.slim(str(path)), out)


def with_onnxsim(path: Path, out: Path) -> None:
    """``onnxsim.simplify`` with its defaults."""
    import onnxsim  # noqa: PLC0415 - imported before the clock starts, by ``main``

    simplified, _checked = onnxsim.simplify(onnx.load(path))
    save(simplified, out)


def with_onnxscript(path: Path, out: Path) -> None:
    """``onnxscript.optimizer.optimize`` with its defaults."""
    import onnxscript.optimizer  # noqa: PLC0415 - imported before the clock starts, by ``main``

    save(onnxscript.optimizer.optimize(onnx.load(path)), out)


def with_ort_basic(path: Path, out: Path) -> None:
    """ONNX Runtime's offline optimization at its basic level."""
    import onnxruntime  # noqa: PLC0415 - imported before the clock starts, by ``main``

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    if any(tensor.external_data for tensor in onnx.load(path, load_external_data=False).graph.initializer):
        # else it writes references to the input's data file, which dangle in another folder
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{out.name}.data")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "onnxslim": with_onnxslim,
    "onnxsim": with_onnxsim,
    "onnxscript": with_onnxscript,
    "ort_basic": with_ort_basic,
}


def cpu_seconds() -> float:
    """User and system time of this process and its children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> int:
    """Run one tool and write what came of it."""
    tool, path, out, result = sys.argv[1], *map(Path, sys.argv[2:])
    importlib.import_module(MODULES[tool])
    began, error = cpu_seconds(), None
    try:
        TOOLS[tool](path, out)
    except Exception as raised:  # noqa: BLE001 - a tool that fails is a result
        error = " ".join(f"{type(raised).__name__}: {raised}".split())[:200]
    record = {
        "seconds": round(cpu_seconds() - began, 3),
        "error": error,
        "version": version(MODULES[tool].split(".")[0]),
    }
    result.write_text(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
