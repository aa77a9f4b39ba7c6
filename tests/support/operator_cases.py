"""Operators whose definition changed between opsets 7 and 21, with inputs and attributes that tell the versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_RANDOM = np.random.default_rng(0)
_SCALES = np.array([1, 1, 2, 2], np.float32)
_TURNED = np.array([[0, 1, 2], [2, 1, 0]])


def numbers(*shape, kind=np.float32):
    return (_RANDOM.standard_normal(shape) * 2).astype(kind)


def ints(*values):
    return np.array(values, np.int64)


X = numbers(2, 4, 6, 6)


@dataclass(frozen=True)
class Case:
    """One node: arrays in ``given`` are inputs of the model, those in ``held`` initializers; ``None`` is left out."""

    op_type: str
    opset: int
    inputs: tuple[np.ndarray | None, ...]
    held: frozenset[int] = frozenset()
    outputs: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        shown = ",".join(f"{key}={value}" for key, value in self.attributes.items() if not hasattr(value, "dims"))
        return f"{self.op_type}-{self.opset}({shown})"

    def model(self):
        """The model of the node, types and shapes inferred."""
        names = [f"i{number}" if array is not None else "" for number, array in enumerate(self.inputs)]
        node = helper.make_node(
            self.op_type, names, [f"o{number}" for number in range(self.outputs)], **self.attributes
        )
        arrays = {f"i{number}": array for number, array in enumerate(self.inputs) if array is not None}
        held = {f"i{number}" for number in self.held}
        graph = helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in arrays.items()
                if name not in held
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output],
            [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in held],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)

    def feeds(self):
        """The inputs by name."""
        return {
            f"i{number}": array
            for number, array in enumerate(self.inputs)
            if array is not None and number not in self.held
        }


def _cases(op_type, opsets, *inputs, held=(), outputs=1, **attributes):
    return [Case(op_type, opset, inputs, frozenset(held), outputs, attributes) for opset in opsets]


def _flattening():
    for op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (0, 1, 2, 3):
            yield from _cases(op_type, (7, 11, 12), X, axis=axis)
        yield from _cases(op_type, (11, 12), X, axis=-2)
        yield from _cases(op_type, (7, 12), X)
        yield from _cases(op_type, (12,), numbers(3, 5))


def _axes():
    yield from _cases("Squeeze", (7, 12), numbers(1, 3, 1), axes=[0, 2])
    yield from _cases("Squeeze", (11,), numbers(1, 3, 1))
    yield from _cases("Unsqueeze", (7, 12), numbers(3), axes=[0, 2])
    for op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceProd", "ReduceL2", "ReduceSumSquare"):
        newest = (13, 17) if op_type != "ReduceSum" else ()  # whose axes became an input in 13
        yield from _cases(op_type, (7, 12, *newest), X, axes=[1, 3], keepdims=0)
        yield from _cases(op_type, (7, 12), X, axes=[1, 2])
        yield from _cases(op_type, (7, 12), X)
    yield from _cases("DFT", (17, 19), numbers(1, 8, 4, 1), axis=2)
    yield from _cases("DFT", (17, 19), numbers(1, 8, 4, 1))


def _resizing():
    for mode in ("nearest", "linear"):
        yield from _cases("Upsample", (7, 8), X, mode=mode, scales=[1.0, 1.0, 2.0, 2.0])
        yield from _cases("Upsample", (9,), X, _SCALES, held={1}, mode=mode)
        yield from _cases("Upsample", (9,), X, _SCALES, mode=mode)
        for scales in ([1, 1, 2, 2], [1, 1, 0.5, 0.4], [1, 1, 1.7, 2.3]):
            yield from _cases("Resize", (10,), X, np.array(scales, np.float32), held={1}, mode=mode)
        for how in ("half_pixel", "asymmetric", "align_corners"):
            sizes, nothing = ints(2, 4, 9, 7), np.array([], np.float32)
            shared = {"mode": mode, "coordinate_transformation_mode": how}
            yield from _cases("Resize", (11, 12), X, nothing, _SCALES, held={1, 2}, **shared)
            yield from _cases("Resize", (13, 15), X, None, _SCALES, held={2}, **shared)
            yield from _cases("Resize", (11, 13, 18), X, nothing, nothing, sizes, held={1, 2, 3}, **shared)
    for mode in ("bilinear", "bicubic", "nearest"):
        yield from _cases("GridSample", (16, 19), X, np.tanh(numbers(2, 3, 3, 2)), mode=mode)


def _attributes_that_became_inputs():
    for kind in (np.float32, np.float16, np.float64):
        yield from _cases("Pad", (7, 10), X.astype(kind), pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)
    yield from _cases("Pad", (10,), X, pads=[0, 0, 1, 2, 0, 0, 0, 1], mode="reflect")
    yield from _cases("Pad", (11, 13), X, ints(0, 0, 1, 2, 0, 0, 0, 1), held={1})
    for limits in ({"min": -1.0, "max": 1.0}, {"min": 0.0}, {"max": 0.5}, {}):
        yield from _cases("Clip", (7, 10), X, **limits)
    yield from _cases("Clip", (10,), X.astype(np.float16), min=-1.0, max=1.0)
    yield from _cases("Clip", (11, 12), X, None, np.array(1, np.float32), held={2})
    yield from _cases("Slice", (7, 9), X, starts=[1, 0], ends=[3, -1], axes=[1, 3])
    yield from _cases("Slice", (10,), X, ints(1), ints(4), ints(3), ints(2), held={1, 2, 3, 4})
    yield from _cases("TopK", (7, 9), X, axis=2, k=3, outputs=2)
    yield from _cases("TopK", (10, 11), X, ints(2), held={1}, outputs=2)
    yield from _cases("Split", (7, 11, 12), X, axis=1, split=[1, 3], outputs=2)
    yield from _cases("Split", (7, 12, 13, 17), X, axis=2, outputs=2)
    yield from _cases("Split", (13, 17), X, ints(1, 3), held={1}, axis=1, outputs=2)
    yield from _cases("Dropout", (7, 9, 11), X, ratio=0.3)
    yield from _cases("Scatter", (9, 10), numbers(3, 3), _TURNED, numbers(2, 3), held={1}, axis=0)


def _others():
    norm = [numbers(4), numbers(4), numbers(4), np.abs(numbers(4))]
    yield from _cases("BatchNormalization", (7, 9, 13, 14), X, *norm, held={1, 2, 3, 4}, epsilon=1e-3, momentum=0.8)
    yield from _cases("Gemm", (7, 9, 11), numbers(3, 4), numbers(5, 4), numbers(1, 5), alpha=0.5, beta=2.0, transB=1)
    yield from _cases("Conv", (7, 11), X, numbers(5, 4, 3, 3), numbers(5), held={1, 2}, pads=[1, 1, 1, 1])
    yield from _cases("MaxPool", (7, 8, 10, 11), X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    yield from _cases("AveragePool", (7, 10, 18), X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    yield from _cases("AveragePool", (10, 18), X, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    weights = numbers(1, 16, 3), numbers(1, 16, 4), numbers(1, 32)
    yield from _cases("LSTM", (7, 13), numbers(5, 2, 3), *weights, held={1, 2, 3}, outputs=3, hidden_size=4)
    states = None, None, numbers(1, 2, 4), numbers(1, 2, 4)
    yield from _cases("LSTM", (7,), numbers(5, 2, 3), *weights[:2], *states, held={1, 2}, hidden_size=4)
    yield from _cases("QuantizeLinear", (10, 13, 18), X, np.float32(0.1), np.uint8(128), held={1, 2})
    yield from _cases("DequantizeLinear", (13, 19), numbers(2, 4).astype(np.int8), numbers(4), held={1}, axis=1)
    for op_type in ("Relu", "Identity", "Add", "Equal", "ArgMax", "Cast", "Concat", "Reshape"):
        extra = {"Add": [numbers(6)], "Equal": [X], "Concat": [X], "Reshape": [ints(2, -1)]}.get(op_type, [])
        attributes = {"Cast": {"to": 6}, "Concat": {"axis": 1}, "ArgMax": {"axis": 2, "keepdims": 0}}.get(op_type, {})
        opsets = (11, 12) if op_type == "Equal" else (7, 12)
        yield from _cases(op_type, opsets, X, *extra, held={1} if op_type == "Reshape" else (), **attributes)
    yield from _cases("RoiAlign", (10,), X, np.array([[0, 0, 4, 4]], np.float32), ints(1), output_height=2)


CASES = [*_flattening(), *_axes(), *_resizing(), *_attributes_that_became_inputs(), *_others()]
