"""Facts of a model: what it is made of and how large it is. Cheap ones in ``facts``, those that read weights apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable  # noqa: TC003 - an alias needs it at run time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer import graph, shapes
from optimizer.contents import equal_groups
from optimizer.model import byte_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

LEAST_WEIGHT = 2  # axes or elements: a scalar is a setting, not a parameter


@dataclass(frozen=True)
class Facts:
    """What a model is made of.

    Attributes:
        bytes: What it takes on disk, external data included.
        nodes: All nodes, in subgraphs and functions too.
        ops: Nodes by operator, sorted.
        parameters: Elements of all float and quantized weights, each tensor counted once.
        macs: Multiply-accumulates of one inference, unknown dimensions taken as 1; ``None`` if nothing is known.
        opsets: Version by domain.
        ir_version: Of the file format.
        producer: Who wrote it.
        inputs: Name, type and shape of each.
        outputs: Name, type and shape of each.
    """

    bytes: int
    nodes: int
    ops: Mapping[str, int]
    parameters: int
    macs: int | None
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "ops": dict(self.ops), "opsets": dict(self.opsets)}


@dataclass(frozen=True)
class WeightFacts:
    """What only reading the weights tells.

    Attributes:
        zeros: Zero elements of float weights.
        elements: All elements of float weights.
        duplicate_tensors: Tensors that equal an earlier one.
        duplicate_bytes: Their bytes.
    """

    zeros: int
    elements: int
    duplicate_tensors: int
    duplicate_bytes: int


def facts(model: ir.Model) -> Facts:
    """The facts of ``model`` that need no look into its weights."""
    return Facts(
        bytes=byte_size(model),
        nodes=count_nodes(model),
        ops=dict(sorted(Counter(_op_name(node) for node in graph.nodes(model)).items())),
        parameters=sum(tensor.size for tensor in weights(model) if tensor.size >= LEAST_WEIGHT and _is_weight(tensor)),
        macs=count_macs(model),
        opsets=dict(model.opset_imports),
        ir_version=model.ir_version or 0,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        inputs=_slots(model.graph.inputs),
        outputs=_slots(model.graph.outputs),
    )


def weight_facts(model: ir.Model) -> WeightFacts:
    """The facts of ``model`` for which every weight is read once."""
    tensors = list(weights(model))
    floats = [tensor for tensor in tensors if tensor.dtype.is_floating_point()]
    groups = equal_groups(tensors)
    return WeightFacts(
        zeros=sum(tensor.size - int(np.count_nonzero(tensor.numpy())) for tensor in floats),
        elements=sum(tensor.size for tensor in floats),
        duplicate_tensors=sum(len(group) - 1 for group in groups),
        duplicate_bytes=sum(tensors[index].nbytes for group in groups for index in group[1:]),
    )


def count_nodes(model: ir.Model) -> int:
    """All nodes, in subgraphs and functions too."""
    return sum(1 for _ in graph.nodes(model))


def weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor that is stored in an initializer or a Constant node."""
    for scope in graph.graphs(model):
        for value in scope.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in scope:
            tensor = graph.constant_tensor(node.outputs[0]) if graph.is_standard(node, "Constant") else None
            if tensor is not None:
                yield tensor


def count_macs(model: ir.Model) -> int | None:
    """Multiply-accumulates of Conv, ConvTranspose, Gemm, MatMul and their integer forms, for one inference."""
    counted = [node for node in graph.nodes(model) if graph.is_standard(node) and node.op_type in _COUNTERS]
    if not counted:
        return 0
    known = {value: shape for value, (_, shape) in shapes.inferred(model).items() if shape is not None}

    def dims(value: ir.Value | None) -> list[int] | None:
        if value is None:
            return None
        tensor = graph.constant_tensor(value)
        shape = known.get(value, value.shape) if tensor is None else tensor.shape
        return None if shape is None else [dim if isinstance(dim, int) else 1 for dim in shape]

    each = [_COUNTERS[node.op_type](node, dims) for node in counted]
    found = [count for count in each if count is not None]
    return sum(found) if found else None


Dims = Callable[["ir.Value | None"], "list[int] | None"]


def _conv(node: ir.Node, dims: Dims) -> int | None:
    kernel, out = dims(node.inputs[3 if node.op_type == "QLinearConv" else 1]), dims(node.outputs[0])
    return None if kernel is None or out is None else math.prod(out) * math.prod(kernel[1:])


def _conv_transpose(node: ir.Node, dims: Dims) -> int | None:
    kernel, data = dims(node.inputs[1]), dims(node.inputs[0])
    return None if kernel is None or data is None else math.prod(data) * math.prod(kernel[1:])


def _matmul(node: ir.Node, dims: Dims) -> int | None:
    left, out = dims(node.inputs[0]), dims(node.outputs[0])
    return None if not left or out is None else math.prod(out) * left[-1]


def _gemm(node: ir.Node, dims: Dims) -> int | None:
    left, out = dims(node.inputs[0]), dims(node.outputs[0])
    if left is None or len(left) != 2 or out is None:
        return None
    trans = node.attributes.get("transA")
    return math.prod(out) * left[0 if trans is not None and not trans.is_ref() and trans.as_int() else 1]


_COUNTERS: dict[str, Callable[[ir.Node, Dims], int | None]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
}


def _op_name(node: ir.Node) -> str:
    return node.op_type if node.domain in graph.STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"


def _is_weight(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8


def _slots(values: Any) -> tuple[tuple[str, str, str], ...]:
    return tuple((value.name or "", str(value.type), str(value.shape)) for value in values)
