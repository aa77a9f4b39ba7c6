"""Prune one model with onnxsim's own pruning; runs in an environment that has onnxsim, not onnxhone.

    python peer_prune.py SECONDS METHOD OPTIONS IN.onnx OUT.onnx FEEDS

``METHOD`` is a part of the function's name, ``OPTIONS`` its arguments as JSON. ``FEEDS`` is a folder of ``.npz``.
The process is ended by SIGXCPU after ``SECONDS`` of CPU time.
"""

from __future__ import annotations

import inspect
import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim

FUNCTION = "apply_{}_pruning"


def feeds_of(folder: Path) -> list[dict[str, Any]]:
    """All feeds of the folder, in order."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            found.append(dict(stored))
    return found


def main() -> None:
    """Prune, and write the result."""
    seconds, method, options, source, out, feeds = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    prune = getattr(onnxsim, FUNCTION.format(method))
    takes_data = "calibration_data" in inspect.signature(prune).parameters
    data = {"calibration_data": feeds_of(Path(feeds))} if takes_data else {}
    onnx.save(prune(onnx.load(source), **json.loads(options), **data), out)


if __name__ == "__main__":
    main()
