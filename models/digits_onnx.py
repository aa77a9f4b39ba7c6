"""Write the digit net as ONNX the way a naive exporter does, with the habits that real exports have.

- the input's scale is a Div of its own, BatchNormalization stays beside its Conv, Dropout and Identity stay in;
- the kernel of the second Conv stands in a Constant node (Paddle's exporter), the statistics of a
  BatchNormalization behind Identity nodes;
- flatten is written as shape arithmetic: Shape, Gather, Unsqueeze, Concat, Reshape (PyTorch's old exporter);
- a dense layer is MatMul and Add, and the tied layer's weight is written twice under two names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from digits_net import EPSILON, BatchNorm, Conv, Dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from digits_net import Layer


class Writer:
    """Nodes and initializers of the graph being written, and the name of the value that was written last."""

    def __init__(self, source: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.last = source

    def weight(self, name: str, array: NDArray[np.generic]) -> str:
        """Add an initializer, floats as float32."""
        kind = np.float32 if array.dtype == np.float64 else array.dtype
        self.initializers.append(numpy_helper.from_array(array.astype(kind, order="C"), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def then(self, op: str, others: list[str], output: str, **attributes: Any) -> None:
        """Add a node behind the last value."""
        self.last = self.node(op, [self.last, *others], output, **attributes)


def _conv(writer: Writer, layer: Conv, name: str, *, in_node: bool) -> None:
    maps = layer.kernel.value.shape[1]
    kernel = layer.kernel.value.reshape(3, 3, -1, maps).transpose(3, 2, 0, 1)
    if in_node:
        tensor = numpy_helper.from_array(kernel.astype(np.float32, order="C"))
        weight = writer.node("Constant", [], f"{name}.weight", value=tensor)
    else:
        weight = writer.weight(f"{name}.weight", kernel)
    writer.then("Conv", [weight], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def _batch_norm(writer: Writer, layer: BatchNorm, name: str, *, behind_identity: bool) -> None:
    arrays = {"scale": layer.scale.value, "bias": layer.shift.value, "mean": layer.mean, "var": layer.variance}
    names = [writer.weight(f"{name}.{key}", array) for key, array in arrays.items()]
    if behind_identity:
        names = [writer.node("Identity", [each], f"{each}.identity") for each in names]
    writer.then("BatchNormalization", names, name, epsilon=EPSILON)


def _dense(writer: Writer, layer: Dense, name: str) -> None:
    writer.then("MatMul", [writer.weight(f"{name}.weight", layer.weight.value)], f"{name}.product")
    writer.then("Add", [writer.weight(f"{name}.bias", layer.bias.value)], name)


def _flatten(writer: Writer, name: str) -> None:
    shape = writer.node("Shape", [writer.last], f"{name}.shape")
    first = writer.weight(f"{name}.first", np.array(0, dtype=np.int64))
    batch = writer.node("Gather", [shape, first], f"{name}.batch", axis=0)
    axes = writer.weight(f"{name}.axes", np.array([0], dtype=np.int64))
    rows = writer.node("Unsqueeze", [batch, axes], f"{name}.rows")
    rest = writer.weight(f"{name}.rest", np.array([-1], dtype=np.int64))
    writer.then("Reshape", [writer.node("Concat", [rows, rest], f"{name}.target", axis=0)], name)


def export(layers: list[Layer]) -> onnx.ModelProto:
    """The trained net as a model: ``image`` (N, 1, 8, 8) with pixels 0 to 16 -> ``scores`` (N, 10)."""
    convs = [layer for layer in layers if isinstance(layer, Conv)]
    norms = [layer for layer in layers if isinstance(layer, BatchNorm)]
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    writer = Writer("image")
    writer.then("Div", [writer.weight("sixteen", np.array(16.0))], "scaled")
    for number, (conv, norm) in enumerate(zip(convs, norms, strict=True), start=1):
        _conv(writer, conv, f"conv{number}", in_node=number == 2)
        _batch_norm(writer, norm, f"norm{number}", behind_identity=number == 2)
        writer.then("Relu", [], f"relu{number}")
        writer.then("MaxPool", [], f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
    _flatten(writer, "flat")
    writer.then("Dropout", [], "dropout")
    _dense(writer, dense[0], "dense1")
    for number in (2, 3):
        _dense(writer, dense[number - 1], f"dense{number}")
        writer.then("Relu", [], f"hidden{number}")
    _dense(writer, dense[3], "dense4")
    writer.then("Identity", [], "scores")
    return _model(writer)


def _model(writer: Writer) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8], "pixels from 0 to 16")
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10], "the highest is the digit")
    graph = helper.make_graph(writer.nodes, "digits", [image], [scores], writer.initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="train_digits.py"
    )
    helper.set_model_props(model, {"data": "scikit-learn's digits", "seed": "see models/train_digits.py"})
    onnx.checker.check_model(model, full_check=True)
    return model
