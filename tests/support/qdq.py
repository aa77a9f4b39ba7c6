"""Build small models with QuantizeLinear / DequantizeLinear by hand, and see what ONNX Runtime makes of them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

KINDS = {"u8": np.uint8, "s8": np.int8, "u16": np.uint16, "s16": np.int16}
MIDDLE = {"u8": 128, "s8": 0, "u16": 32768, "s16": 0}
ARM = {"session.qdqisint8allowed": "1"}  # what ONNX Runtime does by itself on Arm: pairs of int8 stay int8


class Qdq:
    """A model in the making; each method adds to it and returns the name of the new value.

    ``act`` and ``weight`` are the integer types, ``channels`` says whether weights have a scale for each channel.
    """

    def __init__(self, opset=21, act="u8", weight="s8", channels=True, domain=""):
        self.opset, self.act, self.weight_type, self.channels, self.domain = opset, act, weight, channels, domain
        self.nodes, self.initializers, self.inputs, self.outputs = [], [], [], []
        self._count = 0

    def name(self, stem):
        self._count += 1
        return f"{stem}{self._count}"

    def constant(self, array):
        name = self.name("c")
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type, *inputs, outputs=1, domain="", **attributes):
        names = [self.name("t") for _ in range(outputs)]
        name = self.name(op_type)
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def input(self, *shape, kind=TensorProto.FLOAT):
        name = self.name("x")
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def pair(self, value, scale=0.02, zero_point="middle", act=None):
        """``value`` behind a Q and a DQ; ``zero_point`` a number, ``middle`` or ``qmin``."""
        act = act or self.act
        kind = KINDS[act]
        numbers = {"middle": MIDDLE[act], "qmin": int(np.iinfo(kind).min)}
        parameters = [self.constant(np.float32(scale)), self.constant(kind(numbers.get(zero_point, zero_point)))]
        integers = self.node("QuantizeLinear", value, *parameters, domain=self.domain)
        return self.node("DequantizeLinear", integers, *parameters, domain=self.domain)

    def quantized_input(self, *shape, **options):
        return self.pair(self.input(*shape), **options)

    def dequantized(self, integers, scale, zero_point=0, axis=None):
        """A constant behind a DQ."""
        integers, scale = np.asarray(integers), np.asarray(scale, np.float32)
        zero_points = np.full(scale.shape, zero_point, integers.dtype)
        attributes = {"axis": axis} if scale.ndim else {}
        inputs = [self.constant(integers), self.constant(scale), self.constant(zero_points)]
        return self.node("DequantizeLinear", *inputs, domain=self.domain, **attributes)

    def weight(self, *shape, axis=0, kind=None):
        """A weight of half the range, so that nothing saturates without VNNI; scales along ``axis`` differ."""
        kind = kind or self.weight_type
        random, middle = np.random.default_rng(0), MIDDLE[kind]
        integers = random.integers(middle - 63, middle + 64, shape).astype(KINDS[kind])
        if not self.channels:
            return self.dequantized(integers, 0.01, middle)
        return self.dequantized(integers, np.linspace(0.005, 0.02, shape[axis]), middle, axis)

    def bias(self, size, kind="int32"):
        """Of int32 behind a DQ, or float."""
        if kind == "float":
            return self.constant(np.linspace(-1, 1, size, dtype=np.float32))
        scales = 0.02 * np.linspace(0.005, 0.02, size) if self.channels else 0.02 * 0.01
        return self.dequantized(np.arange(size, dtype=np.int32) * 100, scales, axis=0)

    def output(self, *values, kind=TensorProto.FLOAT):
        self.outputs += [helper.make_tensor_value_info(value, kind, None) for value in values]

    def model(self):
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def optimized(model, entries=None):
    """ONNX Runtime's optimized graph; ``entries`` are settings of the session."""
    with tempfile.TemporaryDirectory() as folder:
        options = _options(entries)
        options.optimized_model_filepath = str(Path(folder, "m.onnx"))
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath).graph


def ops(model, entries=None):
    """Operators of the optimized graph without the Transposes between its layouts."""
    counts = Counter(node.op_type for node in optimized(model, entries).node)
    layout = {"Transpose", "ReorderInput", "ReorderOutput"} - {node.op_type for node in model.graph.node}
    return {op_type: count for op_type, count in sorted(counts.items()) if op_type not in layout}


def largest_difference(model, entries=None):
    """Between the answers with ONNX Runtime's optimizations on and off, and the largest number among the latter."""
    off = _options({})
    off.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    answers = []
    for options in (_options(entries), off):
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {arg.name: _feed(arg) for arg in session.get_inputs()}))
    differences = [np.abs(a.astype(np.float64) - b).max() for a, b in zip(*answers, strict=True)]
    return max(differences), max(np.abs(answer).max() for answer in answers[1])


def _feed(arg):
    random = np.random.default_rng(1)
    if arg.type == "tensor(bool)":
        return random.random(arg.shape) > 0.5
    return (random.standard_normal(arg.shape) * 1.5).astype(np.float32)


def _options(entries):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    return options
