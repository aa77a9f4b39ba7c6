"""What of a graph may run in int8, split into units that are quantized together or not at all.

A kernel unit is a Conv, MatMul or Gemm and those that share its weight; a glue unit is one elementwise operator that
has an integer kernel of its own. What only moves elements, or is absorbed by the QuantizeLinear behind it, follows
from its neighbours and belongs to no unit.

Softmax stays float: its answers reach over many decades, which 8 bits cannot. So do operators for which ONNX Runtime
has no integer kernel, LayerNormalization and HardSwish among them (see
``optimizer.algorithms.quantization.static.fusion_table``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.algorithms.quantization.static import fusion_table
from optimizer.algorithms.quantization.static.fusion_table import Role
from optimizer.graph import constants, queries, traversal

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_FLOAT = {"Softmax": "its answers reach over many decades"}
_WEIGHT_INPUT = 1
_BIAS_INPUT = 2


@dataclass(frozen=True)
class Unit:
    """Nodes that become int8 together.

    Attributes:
        name: Names the unit in reports: the site of its first node.
        outputs: The name of the first output of each node, which identifies it in every clone.
        is_kernel: Whether it multiplies weights or two activations.
        op_type: The operator.
    """

    name: str
    outputs: tuple[str, ...]
    is_kernel: bool
    op_type: str


@dataclass(frozen=True)
class LeftFloat:
    """A node that cannot become int8, and why."""

    name: str
    op_type: str
    reason: str


def find_units(model: ir.Model) -> tuple[list[Unit], list[LeftFloat]]:
    """The units of the main graph in order, and the kernels that belong to none."""
    units: list[Unit] = []
    left_float: list[LeftFloat] = []
    by_weight: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        role = fusion_table.role(node)
        if role is Role.KERNEL:
            reason = kernel_objection(node)
            weight = node.inputs[_WEIGHT_INPUT]
            if reason:
                left_float.append(LeftFloat(queries.site(node), node.op_type, reason))
            elif constants.constant_tensor(weight) is not None and weight is not None:
                by_weight.setdefault(weight, []).append(node)
            else:
                units.append(_unit([node], is_kernel=True))
        elif (
            role is Role.ELEMENTWISE
            and not is_quantized(node)
            and node.op_type not in _KEPT_FLOAT
            and _is_float32(node.outputs[0])
        ):
            units.append(_unit([node], is_kernel=False))
    units += [_unit(nodes, is_kernel=True) for nodes in by_weight.values()]
    left_float += _inner_kernels(model)
    order = {_id(node): index for index, node in enumerate(model.graph)}
    return sorted(units, key=lambda unit: order[unit.outputs[0]]), left_float


def _unit(nodes: list[ir.Node], *, is_kernel: bool) -> Unit:
    return Unit(queries.site(nodes[0]), tuple(map(_id, nodes)), is_kernel, nodes[0].op_type)


def kernel_objection(node: ir.Node) -> str:
    """Why the kernel ``node`` has to stay float; empty if it need not."""
    weight = node.inputs[_WEIGHT_INPUT]
    constant = constants.constant_tensor(weight)
    if is_quantized(node):
        return "it is quantized already"
    if node.op_type != "MatMul" and constant is None:
        return "its weight is computed"
    if constant is not None and constant.dtype is not ir.DataType.FLOAT:
        return f"its weight is {constant.dtype.name.lower()}"
    if constant is None and not _is_float32(weight):
        return "its second input is no float32"
    if weight is not None and queries.is_overridable(weight):
        return "its weight may be overridden by an input"
    if not _is_float32(node.inputs[0]) and not _is_float32(node.outputs[0]):
        return "its type is not known to be float32"
    bias = node.inputs[_BIAS_INPUT] if len(node.inputs) > _BIAS_INPUT else None
    if bias is not None and constants.constant_tensor(bias) is None:
        return "its bias is computed"
    if constants.constant_tensor(node.inputs[0]) is not None:
        return "both its inputs are constant" if constant is not None else "its first input is constant"
    return _gemm_objection(node) if node.op_type == "Gemm" else ""


def is_quantized(node: ir.Node) -> bool:
    """Whether an input of ``node`` comes from a DequantizeLinear."""
    makers = [value.producer() for value in node.inputs if value is not None]
    return any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)


def _gemm_objection(node: ir.Node) -> str:
    if node.attributes.get_int("transA", 0):
        return "transA is set"
    if node.attributes.get_float("alpha", 1.0) != 1.0 or node.attributes.get_float("beta", 1.0) != 1.0:
        return "alpha or beta is not 1"
    return ""


def _inner_kernels(model: ir.Model) -> Iterator[LeftFloat]:
    for inner in traversal.graphs(model):
        if inner is model.graph:
            continue
        for node in inner:
            if fusion_table.role(node) is Role.KERNEL:
                yield LeftFloat(queries.site(node), node.op_type, "it is inside a subgraph or function")


def _is_float32(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in {ir.DataType.FLOAT, None}


def _id(node: ir.Node) -> str:
    return node.outputs[0].name or ""
