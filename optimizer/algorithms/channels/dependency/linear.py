"""Where channel axes end and begin: at kernels (``optimizer.algorithms.channels.dependency.operators``)."""

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
    linear_node = _with_constant_weight(node)
    if linear_node is None:
        return f"read by {node.op_type} with a computed weight"
    channel_axis = groups.axis_of(node.inputs[0])
    if channel_axis is not None and (
        channel_axis.from_end != len(linear_node.shape) - 1 or channel_axis.size != linear_node.inputs
    ):
        return f"read by {node.op_type} with its channels elsewhere"
    if linear_node.bias is not None and _bias_axis(linear_node) is None:
        return f"read by {node.op_type} with a computed bias"
    if linear_node.groups > 1:
        _grouped(groups, linear_node, channel_axis)
    else:
        _dense(groups, linear_node, channel_axis)
    return ""


def gemm(groups: ChannelGroups, node: ir.Node) -> str:
    """Gemm, which adds a bias of one number, or one for each output channel."""
    linear_node = _with_constant_weight(node)
    if linear_node is None:
        return "read by Gemm with a computed weight"
    channel_axis = groups.axis_of(node.inputs[0])
    if channel_axis is not None and (channel_axis.from_end != 1 or channel_axis.size != linear_node.inputs):
        return "read by Gemm with its channels elsewhere"
    if linear_node.bias is not None and _bias_axis(linear_node) is None:
        return "read by Gemm with a bias of another shape"
    _dense(groups, linear_node, channel_axis)
    return ""


def matmul(groups: ChannelGroups, node: ir.Node) -> str:
    """MatMul with a constant second operand, or of two activations."""
    linear_node = _with_constant_weight(node)
    if linear_node is None:
        return _product(groups, node)
    channel_axis = groups.axis_of(node.inputs[0])
    if channel_axis is not None and channel_axis.size == linear_node.inputs and channel_axis.from_end == 1:
        _dense(groups, linear_node, channel_axis)
        return ""
    _dense(groups, linear_node, None)
    return "" if channel_axis is None else "read by MatMul with its channels elsewhere"


def recurrent(groups: ChannelGroups, node: ir.Node) -> str:
    """GRU, LSTM or RNN: the channel axis of its input ends; its units begin one, if that is asked for."""
    channel_axis, weight = groups.axis_of(node.inputs[0]), node.inputs[1]
    tensor = constants.constant_tensor(weight)
    if any(groups.axis_of(value) is not None for value in node.inputs[1:]):
        return f"read by {node.op_type} as its state"
    # The units begin an axis, whether or not the input has one
    produced = begin_units(groups, node) if groups.prunes_states else np.zeros(0, np.int64)
    if channel_axis is None or weight is None:
        return ""
    if tensor is None or channel_axis.from_end != 1 or tensor.shape[2] != channel_axis.size:
        return f"read by {node.op_type} with its channels elsewhere"
    groups.slice_parameter(node, 1, 2, channel_axis.channel_ids)
    groups.consumers.append(ChannelConsumer(node, channel_axis, weight, 2, produced, 1))
    return ""


def _with_constant_weight(node: ir.Node) -> LinearNode | None:
    linear_node = linear_nodes.as_linear(node)
    return None if linear_node is None or constants.constant_tensor(linear_node.weight) is None else linear_node


def _bias_axis(linear_node: LinearNode) -> int | None:
    """The axis of a bias of one number, or one for each output channel; ``None`` if it is another, or computed."""
    tensor = constants.constant_tensor(linear_node.bias)
    if tensor is None:
        return None
    sizes = tuple(tensor.shape.numpy())
    return len(sizes) - 1 if tensor.size == 1 or tensor.size == linear_node.outputs == sizes[-1] else None


def _dense(groups: ChannelGroups, linear_node: LinearNode, channel_axis: ChannelAxis | None) -> None:
    """The channel axis of what is read ends; the output channels begin one."""
    # 1. New ids on the output, 2. on the weight's and the bias's axis of outputs, 3. the old ones on that of inputs
    output_axis = groups.begin(
        linear_node.node,
        linear_node.outputs,
        -linear_node.axis if linear_node.axis < 0 else len(linear_node.shape) - linear_node.axis,
    )
    groups.slice_parameter(linear_node.node, 1, linear_node.output_axis, output_axis.channel_ids)
    _slice_bias(groups, linear_node, output_axis.channel_ids)
    if channel_axis is not None:
        groups.slice_parameter(linear_node.node, 1, 1 - linear_node.output_axis, channel_axis.channel_ids)
        groups.consumers.append(
            ChannelConsumer(
                linear_node.node,
                channel_axis,
                linear_node.weight,
                1 - linear_node.output_axis,
                output_axis.channel_ids,
                linear_node.output_axis,
            )
        )


def _slice_bias(groups: ChannelGroups, linear_node: LinearNode, channel_ids: np.ndarray) -> None:
    tensor, axis = constants.constant_tensor(linear_node.bias), _bias_axis(linear_node)
    if tensor is not None and axis is not None and (tensor.size > 1 or channel_ids.size == 1):
        groups.slice_parameter(linear_node.node, 2, axis, channel_ids)


def _grouped(groups: ChannelGroups, linear_node: LinearNode, channel_axis: ChannelAxis | None) -> None:
    """All inputs and outputs of a group are unified; of a depthwise kernel, each output carries its input's id on."""
    input_ids = groups.new_channel_ids(linear_node.inputs) if channel_axis is None else channel_axis.channel_ids
    if channel_axis is None:
        groups.freeze(input_ids, f"{queries.site(linear_node.node)} reads channels of unknown origin in groups")
    width = linear_node.inputs // linear_node.groups
    groups.unify(np.repeat(input_ids[::width], width), input_ids)
    output_ids = np.repeat(input_ids[::width], linear_node.outputs // linear_node.groups)
    groups.put(linear_node.node.outputs[0], ChannelAxis(len(linear_node.shape) - 1, output_ids))
    groups.slice_parameter(linear_node.node, 1, 0, output_ids if linear_node.node.op_type == "Conv" else input_ids)
    _slice_bias(groups, linear_node, output_ids)
    groups.group_ids[linear_node.node] = input_ids[::width]


def _product(groups: ChannelGroups, node: ir.Node) -> str:
    """A product of two activations carries the batches of both, rows of the first and columns of the second."""
    first_operand, second_operand = node.inputs
    if (queries.rank(first_operand) or 0) < 2 or (queries.rank(second_operand) or 0) < 2:
        return "read by MatMul of unknown rank"
    first_axis, second_axis = groups.axis_of(first_operand), groups.axis_of(second_operand)
    if (first_axis is not None and first_axis.from_end == 1) or (second_axis is not None and second_axis.from_end == 2):
        return "summed over by MatMul"
    # A @ B sums over the last axis of A and the last but one of B, and carries the rows of A and the columns of B
    rows, columns = (
        first_axis is not None and first_axis.from_end == 2,
        second_axis is not None and second_axis.from_end == 1,
    )
    channel_axis = first_axis or second_axis
    if channel_axis is None:
        return ""
    if rows or columns:
        if first_axis is not None and second_axis is not None:
            return "read by MatMul along two axes"
    # Otherwise the channels lie on a batch axis, which both operands have, or broadcast
    elif first_axis is not None and second_axis is not None:
        if (first_axis.from_end, first_axis.size) != (second_axis.from_end, second_axis.size):
            return "read by MatMul along two axes"
        groups.unify(first_axis.channel_ids, second_axis.channel_ids)
    elif not has_no_channels(second_operand if first_axis is not None else first_operand, channel_axis):
        return "read by MatMul with a batch of unknown size"
    groups.put(node.outputs[0], channel_axis)
    return ""
