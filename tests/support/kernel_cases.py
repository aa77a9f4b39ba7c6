"""Single kernels of each kind, with inputs whose channels move together."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from optimizer.statistics import im2col
from optimizer.statistics.second_moments import SecondMoments


def kernel(op_type, shape, **attributes) -> ir.Node:
    node = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    weight = numpy_helper.from_array(np.zeros(shape, np.float32), "w")
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    opsets = [helper.make_opsetid("", 17)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8)).graph[0]


CASES = {
    "conv": ("Conv", (6, 4, 3, 3), {}, 0, (2, 4, 9, 9)),
    "grouped": ("Conv", (6, 2, 3), {"group": 3}, 0, (2, 6, 19)),
    "depthwise": ("Conv", (5, 1, 3, 3), {"group": 5, "pads": [1, 1, 1, 1]}, 0, (2, 5, 9, 9)),
    "transposed": ("ConvTranspose", (4, 3, 2, 2), {"group": 2, "pads": [1, 0, 0, 1]}, 1, (2, 4, 5, 5)),
    "gemm": ("Gemm", (8, 5), {}, 1, (90, 8)),
    "gemm transposed": ("Gemm", (5, 8), {"transB": 1}, 0, (90, 8)),
    "matmul": ("MatMul", (8, 5), {}, 1, (3, 30, 8)),
}


def moving_together(rng, shape, along):
    """Inputs of which those of all channels, and those of one example, have much in common."""
    channels, example = list(shape), [shape[0], *[1] * (len(shape) - 1)]
    channels[along] = 1
    parts = 0.3 * rng.standard_normal(shape), rng.standard_normal(channels), rng.standard_normal(example)
    return (sum(parts) + 1).astype(np.float32)


def moments_of(node: ir.Node, x):
    """All rows that ``node`` multiplies its weight with, and their second moments."""
    rows = im2col.rows(node, x, 10**6, np.random.default_rng(0))
    moments = SecondMoments.of(*im2col.width(node))
    moments.add(rows)
    return rows, moments
