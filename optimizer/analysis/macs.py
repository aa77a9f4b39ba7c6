"""Multiply-accumulate operations of one inference.

    Conv             output elements x (input channels / groups) x kernel size
    ConvTranspose    input elements x (output channels / groups) x kernel size
    MatMul, Gemm     output elements x length of the axis that is summed over
    Einsum           product of all dimensions, once for each operand after the first
    LSTM, GRU, RNN   steps x batch x elements of W and R

and the same for their quantized and fused forms. Of an If the dearer branch counts; the body of a Loop or Scan counts
as often as it is known to run. Dimensions that are not known count as 1, the batch among them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from optimizer.analysis import shape_inference
from optimizer.analysis.symbolic.expressions import is_known
from optimizer.analysis.symbolic.shape_values import ShapeValues
from optimizer.graph import constants, queries, traversal
from optimizer.graph.operators import Trait, having
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Callable

    _Dims = Callable[[ir.Value | None], tuple[int, ...] | None]
    _Formula = Callable[[ir.Node, _Dims], int | None]

_ROUNDS = 3

# Operator -> (input that holds the data, input that holds the weight)
_CONV = {"Conv": (0, 1), "FusedConv": (0, 1), "ConvInteger": (0, 1), "NhwcConv": (0, 1), "QLinearConv": (0, 3)}
_RECURRENT = having(Trait.RECURRENT) | {"DynamicQuantizeLSTM"}
_MATMUL = {
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QLinearMatMul",
    "DynamicQuantizeMatMul",
    "FusedMatMul",
    "TransposeMatMul",
    "MatMulNBits",
}
_GEMM = {"Gemm", "FusedGemm", "QGemm"}


def count_macs(model: ir.Model) -> int | None:
    """The MACs of one inference of ``model``, which is not changed; dimensions and trips that are not known count as 1.

    Returns:
        ``None`` if there are operators that have some and no shape of them is known.
    """
    # Shapes that are computed from other shapes become constants, inference sees further, and more nodes can be counted
    copy = _inlined(clone(model))
    _bind_batch(copy)
    counter = _counted(copy)
    for _ in range(_ROUNDS):
        if not (counter.is_guessed or counter.uncounted_nodes) or not _fold_shapes(copy):
            break
        counter = _counted(copy)
    return None if counter.uncounted_nodes and not counter.counted_nodes else counter.total


def _counted(copy: ir.Model) -> _Counter:
    for value, (type_, shape) in shape_inference.inferred(copy).items():
        value.type = value.type or type_
        if shape is not None and (value.shape is None or not value.shape.is_static()):
            value.shape = shape
    counter = _Counter()
    counter.total = counter.graph(copy.graph)
    return counter


def _fold_shapes(copy: ir.Model) -> bool:
    """Make constants of computed shapes, through which inference does not see; whether there were any."""
    values = ShapeValues(copy)
    folded = 0
    for node in list(copy.graph):
        for value in node.outputs:
            array = values.computed(value) if value.uses() and not queries.is_standard(node, "Constant") else None
            if array is None or not all(map(is_known, array.flat)) or value.is_graph_output():
                continue
            tensor = ir.Tensor(array.astype(np.int64 if value.dtype is None else value.dtype.numpy()))
            value.replace_all_uses_with(constants.add_initializer(copy.graph, f"{value.name}.folded", tensor))
            folded += 1
    return folded > 0


def _inlined(model: ir.Model) -> ir.Model:
    """The bodies of functions in place of the calls, so that their shapes can be inferred."""
    if not model.functions:
        return model
    try:
        return InlinePass()(model).model
    except (ValueError, KeyError, ir.passes.PassError):
        return model


def _bind_batch(model: ir.Model) -> None:
    """Make the first dimension of each input 1 if it is not known, for shapes that are computed from it."""
    dynamic = [value for value in model.graph.inputs if value.shape and not isinstance(value.shape[0], int)]
    for value in dynamic:
        value.shape = ir.Shape([1, *(value.shape or ())[1:]])


class _Counter:
    """Sums the MACs of graphs and remembers what it had to guess."""

    def __init__(self) -> None:
        self.total = 0
        self.counted_nodes = 0
        self.uncounted_nodes = 0
        self.is_guessed = False

    def graph(self, graph: ir.Graph) -> int:
        """The MACs of one run of ``graph``."""
        return sum(self._node(node) for node in graph)

    def _node(self, node: ir.Node) -> int:
        inner = [self.graph(subgraph) for subgraph in traversal.subgraphs_of(node)]
        if inner:
            return max(inner) if node.op_type == "If" else sum(inner) * self._trips(node)
        formula = _formula(node.op_type)
        if formula is None:
            return 0
        count = formula(node, self._dims)
        if count is None:
            self.uncounted_nodes += 1
            return 0
        self.counted_nodes += 1
        return count

    def _trips(self, node: ir.Node) -> int:
        if node.op_type == "Loop":
            trips = constants.constant_ints(node.inputs[0])
            stops_early = node.inputs[1] is not None and constants.constant_tensor(node.inputs[1]) is None
            self.is_guessed |= trips is None or stops_early
            return trips[0] if trips else 1
        if node.op_type == "Scan":
            dims = self._dims(node.inputs[-1])
            return dims[0] if dims else self._guess()
        return self._guess()

    def _guess(self) -> int:
        self.is_guessed = True
        return 1

    def _dims(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The shape of ``value`` with 1 for what is not known; ``None`` if not even the rank is."""
        if value is None:
            return None
        if value.const_value is not None:
            return tuple(value.const_value.shape.numpy())
        if value.shape is None:
            return None
        self.is_guessed |= not value.shape.is_static()
        return tuple(dim if isinstance(dim, int) else 1 for dim in value.shape)


def _formula(op_type: str) -> _Formula | None:
    if op_type in _CONV:
        return _conv
    if op_type in _MATMUL:
        return _matmul
    if op_type in _GEMM:
        return _gemm
    if op_type in _RECURRENT:
        return _recurrent
    return {"ConvTranspose": _conv_transpose, "Einsum": _einsum}.get(op_type)


def _conv(node: ir.Node, dims_of: _Dims) -> int | None:
    # The weight is (M, C / groups, kernel): an output element costs all but its first axis
    out, kernel = dims_of(node.outputs[0]), dims_of(node.inputs[_CONV[node.op_type][1]])
    return None if out is None or kernel is None else math.prod(out) * math.prod(kernel[1:])


def _conv_transpose(node: ir.Node, dims_of: _Dims) -> int | None:
    # The weight is (C, M / groups, kernel): an input element costs all but its first axis
    data, kernel = dims_of(node.inputs[0]), dims_of(node.inputs[1])
    return None if data is None or kernel is None else math.prod(data) * math.prod(kernel[1:])


def _matmul(node: ir.Node, dims_of: _Dims) -> int | None:
    out, data = dims_of(node.outputs[0]), dims_of(node.inputs[0])
    if out is None or not data:
        return None
    summed = data[-2] if node.attributes.get_int("transA", 0) and len(data) > 1 else data[-1]
    return math.prod(out) * summed


def _gemm(node: ir.Node, dims_of: _Dims) -> int | None:
    out, data = dims_of(node.outputs[0]), dims_of(node.inputs[0])
    if out is None or data is None or len(data) != 2:
        return None
    return math.prod(out) * data[0 if node.attributes.get_int("transA", 0) else 1]


def _recurrent(node: ir.Node, dims_of: _Dims) -> int | None:
    data, weight, recurrence = (dims_of(value) for value in node.inputs[:3])
    if data is None or weight is None or recurrence is None:
        return None
    return math.prod(data[:2]) * (math.prod(weight) + math.prod(recurrence))


def _einsum(node: ir.Node, dims_of: _Dims) -> int | None:
    # 1. "ij,jk->ik": the terms before the arrow, one an operand
    terms = node.attributes.get_string("equation", "").replace(" ", "").split("->")[0].split(",")
    operands = [dims_of(value) for value in node.inputs]
    sizes: dict[str, int] = {}
    for term, dims in zip(terms, operands, strict=True):
        labels = list(term.replace("...", ""))
        if dims is None:
            return None
        # 2. "..." stands for as many axes as are left, which broadcast from the last one: label them from the right
        broadcast_labels = [f"...{place}" for place in range(len(dims) - len(labels), 0, -1)]
        ellipsis = term.find("...")
        labels[max(ellipsis, 0) : max(ellipsis, 0)] = broadcast_labels if ellipsis >= 0 else []
        if len(labels) != len(dims):
            return None
        # 3. An axis of 1 broadcasts, so the larger size of a label counts
        for label, dim in zip(labels, dims, strict=True):
            sizes[label] = max(sizes.get(label, 1), dim)
    return math.prod(sizes.values()) * (len(operands) - 1)
