"""Small float nets with random weights, for tests of what rewrites kernels."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """A model in the making; each method adds a node and returns the name of its output."""

    def __init__(self, *shape, seed=0, opset=17):
        self.random, self.opset = np.random.default_rng(seed), opset
        self.nodes, self.weights = [], []
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        self._count = 0

    def node(self, op_type, *inputs, **attributes):
        self._count += 1
        output = f"{op_type.lower()}{self._count}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"/{output}", **attributes))
        return output

    def weight(self, *shape, scale=None):
        self._count += 1
        scale = scale if scale is not None else 1 / np.sqrt(max(np.prod(shape[1:]), 1))
        array = (self.random.standard_normal(shape) * scale).astype(np.float32)
        return self.constant(array)

    def constant(self, array):
        self._count += 1
        name = f"w{self._count}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def conv(self, value, inputs, outputs, size=3, *, groups=1, bias=True, **attributes):
        weight = self.weight(outputs, inputs // groups, size, size)
        extra = [self.weight(outputs, scale=0.1)] if bias else []
        attributes = {"pads": [size // 2] * 4, "group": groups, **attributes}
        return self.node("Conv", value, weight, *extra, **attributes)

    def model(self, *outputs):
        values = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, values, self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        made = onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)
        onnx.checker.check_model(made)
        return made


def feeds(*shape, count=12, seed=1):
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(count)]
