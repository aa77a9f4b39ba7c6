"""Where lanes of channels end and begin: at kernels (``optimizer.algorithms.channels.dependency.operators``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency.elementwise import has_no_channels
from optimizer.algorithms.channels.dependency.groups import ChannelAxis, ChannelConsumer
from optimizer.algorithms.channels.dependency.recurrent import begin_units
from optimizer.graph import constants, linear_nodes, queries

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.graph.linear_nodes import LinearNode


def convolution(groups: ChannelGroups, node: ir.Node) -> str:
    """Conv or ConvTranspose."""
    item = _constant_kernel(node)
    if item is None:
        return f"read by {node.op_type} with a computed weight"
    lane = groups.axis_of(node.inputs[0])
    if lane is not None and (lane.from_end != len(item.shape) - 1 or lane.size != item.inputs):
        return f"read by {node.op_type} with its channels elsewhere"
    if item.bias is not None and _bias_axis(item) is None:
        return f"read by {node.op_type} with a computed bias"
    if item.groups > 1:
        _grouped(groups, item, lane)
    else:
        _dense(groups, item, lane)
    return ""


def gemm(groups: ChannelGroups, node: ir.Node) -> str:
    """Gemm, which adds a bias of one number, or one for each output channel."""
    item = _constant_kernel(node)
    if item is None:
        return "read by Gemm with a computed weight"
    lane = groups.axis_of(node.inputs[0])
    if lane is not None and (lane.from_end != 1 or lane.size != item.inputs):
        return "read by Gemm with its channels elsewhere"
    if item.bias is not None and _bias_axis(item) is None:
        return "read by Gemm with a bias of another shape"
    _dense(groups, item, lane)
    return ""


def matmul(groups: ChannelGroups, node: ir.Node) -> str:
    """MatMul with a constant second operand, or of two activations."""
    item = _constant_kernel(node)
    if item is None:
        return _product(groups, node)
    lane = groups.axis_of(node.inputs[0])
    if lane is not None and lane.size == item.inputs and lane.from_end == 1:
        _dense(groups, item, lane)
        return ""
    _dense(groups, item, None)
    return "" if lane is None else "read by MatMul with its channels elsewhere"


def recurrent(groups: ChannelGroups, node: ir.Node) -> str:
    """GRU, LSTM or RNN: the lane of its input ends; its units begin one, if that is asked for."""
    lane, weight = groups.axis_of(node.inputs[0]), node.inputs[1]
    tensor = constants.constant_tensor(weight)
    if any(groups.axis_of(value) is not None for value in node.inputs[1:]):
        return f"read by {node.op_type} as its state"
    produced = begin_units(groups, node) if groups.prunes_states else np.zeros(0, np.int64)
    if lane is None or weight is None:
        return ""
    if tensor is None or lane.from_end != 1 or tensor.shape[2] != lane.size:
        return f"read by {node.op_type} with its channels elsewhere"
    groups.slice_parameter(node, 1, 2, lane.channel_ids)
    groups.consumers.append(ChannelConsumer(node, lane, weight, 2, produced, 1))
    return ""


def _constant_kernel(node: ir.Node) -> LinearNode | None:
    item = linear_nodes.as_linear(node)
    return None if item is None or constants.constant_tensor(item.weight) is None else item


def _bias_axis(item: LinearNode) -> int | None:
    """The axis of a bias of one number, or one for each output channel; ``None`` if it is another, or computed."""
    tensor = constants.constant_tensor(item.bias)
    if tensor is None:
        return None
    sizes = tuple(tensor.shape.numpy())
    return len(sizes) - 1 if tensor.size == 1 or tensor.size == item.outputs == sizes[-1] else None


def _dense(groups: ChannelGroups, item: LinearNode, lane: ChannelAxis | None) -> None:
    """The lane of what is read ends; the output channels begin one."""
    own = groups.begin(item.node, item.outputs, -item.axis if item.axis < 0 else len(item.shape) - item.axis)
    groups.slice_parameter(item.node, 1, item.output_axis, own.channel_ids)
    _cut_bias(groups, item, own.channel_ids)
    if lane is not None:
        groups.slice_parameter(item.node, 1, 1 - item.output_axis, lane.channel_ids)
        groups.consumers.append(
            ChannelConsumer(item.node, lane, item.weight, 1 - item.output_axis, own.channel_ids, item.output_axis)
        )


def _cut_bias(groups: ChannelGroups, item: LinearNode, atoms: np.ndarray) -> None:
    tensor, axis = constants.constant_tensor(item.bias), _bias_axis(item)
    if tensor is not None and axis is not None and (tensor.size > 1 or atoms.size == 1):
        groups.slice_parameter(item.node, 2, axis, atoms)


def _grouped(groups: ChannelGroups, item: LinearNode, lane: ChannelAxis | None) -> None:
    """A group's inputs and outputs are one unit; where each group has one input, its atom is handed on."""
    read = groups.new_channel_ids(item.inputs) if lane is None else lane.channel_ids
    if lane is None:
        groups.freeze(read, f"{queries.site(item.node)} reads channels of unknown origin in groups")
    width = item.inputs // item.groups
    groups.unify(np.repeat(read[::width], width), read)
    made = np.repeat(read[::width], item.outputs // item.groups)
    groups.put(item.node.outputs[0], ChannelAxis(len(item.shape) - 1, made))
    groups.slice_parameter(item.node, 1, 0, made if item.node.op_type == "Conv" else read)
    _cut_bias(groups, item, made)
    groups.grouped[item.node] = read[::width]


def _product(groups: ChannelGroups, node: ir.Node) -> str:
    """A product of two activations carries the batches of both, rows of the first and columns of the second."""
    left, right = node.inputs
    if (queries.rank(left) or 0) < 2 or (queries.rank(right) or 0) < 2:
        return "read by MatMul of unknown rank"
    one, other = groups.axis_of(left), groups.axis_of(right)
    if (one is not None and one.from_end == 1) or (other is not None and other.from_end == 2):
        return "summed over by MatMul"
    rows, columns = one is not None and one.from_end == 2, other is not None and other.from_end == 1
    lane = one or other
    if lane is None:
        return ""
    if rows or columns:
        if one is not None and other is not None:
            return "read by MatMul along two axes"
    elif one is not None and other is not None:
        if (one.from_end, one.size) != (other.from_end, other.size):
            return "read by MatMul along two axes"
        groups.unify(one.channel_ids, other.channel_ids)
    elif not has_no_channels(right if one is not None else left, lane):
        return "read by MatMul with a batch of unknown size"
    groups.put(node.outputs[0], lane)
    return ""
