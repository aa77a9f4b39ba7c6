"""How long a pair of convolutions runs as the number of channels between them falls from 64.

    python benchmarks/channel_widths.py

Why ``fold-shared-kernels`` and ``prune-channels`` keep widths multiples of four by default. Times are medians of
ratios to 64 channels, taken in turn in one run, on one thread.
"""

from __future__ import annotations

import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (64, 63, 62, 61, 60, 58, 56, 52, 48, 44, 40, 32)
ROUNDS = 60
SIZE, CHANNELS = 56, 64


def session(width: int, taps: int) -> ort.InferenceSession:
    """Conv to ``width`` channels, Relu, Conv back."""
    random = np.random.default_rng(0)
    shapes = {"w1": (width, CHANNELS, taps, taps), "w2": (CHANNELS, width, taps, taps)}
    constants = [numpy_helper.from_array(random.normal(size=s).astype(np.float32), name) for name, s in shapes.items()]
    pads = [taps // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=pads),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["y"], pads=pads),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "pair", [given], [wanted], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Print the ratios."""
    x = np.random.default_rng(1).normal(size=(1, CHANNELS, SIZE, SIZE)).astype(np.float32)
    for taps in (3, 1):
        sessions = {width: session(width, taps) for width in WIDTHS}
        times: dict[int, list[float]] = {width: [] for width in WIDTHS}
        for _ in range(ROUNDS):
            for width, one in sessions.items():
                start = time.thread_time()
                one.run(None, {"x": x})
                times[width].append(time.thread_time() - start)
        first = np.array(times[WIDTHS[0]])
        ratios = {width: float(np.median(np.array(taken) / first)) for width, taken in times.items()}
        print(f"{taps}x{taps}", {width: round(ratio, 3) for width, ratio in ratios.items()})


if __name__ == "__main__":
    main()
