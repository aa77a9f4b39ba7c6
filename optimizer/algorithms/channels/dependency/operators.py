"""How operators unify, carry, begin and end the channels of values: one row an operator.

The words are those of ``optimizer.algorithms.channels.dependency.groups``::

    Conv, ConvTranspose, Gemm, MatMul           a kernel: the channel axis ends, its output channels begin one
      depthwise                                 carries the channel ids on
      other groups                              inputs and outputs of a group are unified
    GRU, LSTM, RNN                              a channel axis ends at their input weights; their units may begin one
    Relu, Sigmoid, Cast …, pools, Resize, Pad   carried, if the channels are not what they resize or pad
    BatchNormalization, InstanceNormalization   carried; their scales are sliced with them
    Add, Mul, Where …                           operands are unified; constants are sliced
    Softmax, LayerNormalization                 carried, if they do not go over the channels
    Transpose, Squeeze, Unsqueeze, Reduce…      the axis moves; a reduction over the channels freezes
    Reshape, Flatten                            ``optimizer.algorithms.channels.dependency.reshapes``
    Concat, Split, Slice, Gather                along the channels: axes are concatenated and split
    MatMul of two activations                   rows, columns and batches are carried; what it sums over is frozen
    everything else                             freezes

A rule gives ``""``, or why the channels that its node reads have to be frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.axes import Channels, moved
from optimizer.algorithms.channels.dependency import elementwise, linear
from optimizer.algorithms.channels.dependency.groups import ChannelAxis, ChannelGroups
from optimizer.algorithms.channels.dependency.reshapes import reshape
from optimizer.algorithms.channels.homogeneous import pads_elsewhere, resizes_elsewhere
from optimizer.graph import constants, queries, traversal
from optimizer.graph.operators import Trait, has_one_output, having

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import onnx_ir as ir

    Rule: TypeAlias = "Callable[[ChannelGroups, ir.Node], str]"

_SINCE_ONE_AXIS = 13  # from this opset on, Softmax goes over one axis


def channel_groups(graph: ir.Graph, opset: int, *, prunes_states: bool = False) -> ChannelGroups:
    """The channels of ``graph`` and what unifies them; shapes have to be inferred already.

    Args:
        graph: A graph whose nodes are in order.
        opset: The version of the standard operators that holds for it.
        prunes_states: Whether the hidden units of recurrent nodes are channels too. Each is read by the recurrence, so
            one without other consumers is still used.
    """
    # In the order of the graph, so that the axes of a node's inputs are known when it is looked at
    groups = ChannelGroups(opset, prunes_states)
    for node in graph:
        for captured in traversal.captured(node):
            _freeze(groups, captured, f"{captured.name} is read in a subgraph")
        refusal = _apply(groups, node)
        if refusal:
            for value in node.inputs:
                _freeze(groups, value, f"{refusal} ({queries.site(node)})")
    for output in graph.outputs:
        _freeze(groups, output, f"{output.name} is an output of the graph")
    groups.freeze_shared_parameters()
    return groups


def _freeze(groups: ChannelGroups, value: ir.Value | None, reason: str) -> None:
    channel_axis = groups.axis_of(value)
    if channel_axis is not None:
        groups.freeze(channel_axis.channel_ids, reason)


def _apply(groups: ChannelGroups, node: ir.Node) -> str:
    if not queries.is_standard(node) or queries.has_references(node) or node.op_type not in _RULES:
        return f"read by {node.op_type}"
    if node.op_type not in _SEVERAL and not has_one_output(node):
        return f"read by {node.op_type} with several outputs"
    return _RULES[node.op_type](groups, node)


def carried(groups: ChannelGroups, node: ir.Node) -> str:
    """The output has the channels of the first input; the other inputs have none."""
    channel_axis = groups.axis_of(node.inputs[0])
    if any(groups.axis_of(value) is not None for value in node.inputs[1:]):
        return f"read by {node.op_type}"
    if channel_axis is not None:
        groups.put(node.outputs[0], channel_axis)
    return ""


def _spatial(groups: ChannelGroups, node: ir.Node) -> str:
    return carried(groups, node) if _is_second_axis(groups, node) else f"read by {node.op_type} along the channels"


def _is_second_axis(groups: ChannelGroups, node: ir.Node) -> bool:
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    return channel_axis is None or (rank is not None and channel_axis.from_end == rank - 1)


def _dropout(groups: ChannelGroups, node: ir.Node) -> str:
    training = constants.constant_array(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    if training is None or training.any():
        return "read by Dropout in training"
    return carried(groups, node)


def _normalization(groups: ChannelGroups, node: ir.Node) -> str:
    """Batch or instance normalization: one of each parameter a channel."""
    channel_axis = groups.axis_of(node.inputs[0])
    if channel_axis is None:
        return ""
    # Four parameters, or two of an InstanceNormalization, each of one number a channel
    tensors = [constants.constant_tensor(value) for value in node.inputs[1:]]
    if not _is_second_axis(groups, node) or any(
        tensor is None or tensor.size != channel_axis.size for tensor in tensors
    ):
        return f"read by {node.op_type} along the channels"
    if node.attributes.get_int("training_mode", 0) or node.attributes.get_int("spatial", 1) != 1:
        return f"read by {node.op_type} in training"
    for index in range(1, len(node.inputs)):
        groups.slice_parameter(node, index, 0, channel_axis.channel_ids)
    groups.put(node.outputs[0], channel_axis)
    return ""


def _over_axes(groups: ChannelGroups, node: ir.Node) -> str:
    """Softmax or a layer normalization: carried where it does not go over the channels."""
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    if channel_axis is None:
        return ""
    is_softmax = node.op_type in {"Softmax", "LogSoftmax"}
    # Before opset 13 Softmax flattens from ``axis`` on, and layer normalization always goes over all axes from there
    is_single_axis = is_softmax and groups.opset >= _SINCE_ONE_AXIS
    default = 1 if is_softmax and not is_single_axis else -1
    axis = node.attributes.get_int("axis", default)
    if rank is None:
        return f"read by {node.op_type} of unknown rank"
    channel_dim = rank - channel_axis.from_end
    if channel_dim == axis % rank or (channel_dim > axis % rank and not is_single_axis):
        return f"read by {node.op_type} over the channels"
    # The scale of a normalization of later axes may still have an axis for the channels
    if not all(elementwise.has_no_channels(value, channel_axis) for value in node.inputs[1:]):
        return f"read by {node.op_type} with a parameter for each channel"
    return carried(groups, node)


def _moved(groups: ChannelGroups, node: ir.Node) -> str:
    channel_axis, source = groups.axis_of(node.inputs[0]), node.inputs[0]
    if channel_axis is None or source is None:
        return ""
    pair = moved(node, source, Channels(channel_axis.size, channel_axis.from_end))
    if pair is None:
        return f"read by {node.op_type} over the channels"
    groups.put(node.outputs[0], ChannelAxis(pair[1].from_end, channel_axis.channel_ids))
    return ""


def _pad(groups: ChannelGroups, node: ir.Node) -> str:
    channel_axis = groups.axis_of(node.inputs[0])
    if channel_axis is None or pads_elsewhere(node, Channels(channel_axis.size, channel_axis.from_end)):
        return carried(groups, node)
    return "read by Pad along the channels"


def _resize(groups: ChannelGroups, node: ir.Node) -> str:
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    if channel_axis is None:
        return ""
    if rank is None or not resizes_elsewhere(node, Channels(channel_axis.size, channel_axis.from_end)):
        return f"read by {node.op_type} along the channels"
    by_size = len(node.inputs) > 3 and node.inputs[3] is not None
    # A constant size has an element for the channels, which has to follow
    if by_size and "axes" not in node.attributes:
        if constants.constant_ints(node.inputs[3]) is None:
            return f"read by {node.op_type} with a computed size"
        groups.add_size_constant(node, 3, rank - channel_axis.from_end, channel_axis.channel_ids)
    return carried(groups, node)


def _shape(groups: ChannelGroups, node: ir.Node) -> str:
    """Shape: harmless where no consumer looks at the size of the channel axis."""
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    if channel_axis is None:
        return ""
    if rank is None or any(
        rank - channel_axis.from_end in _looked_at(use.node, use.idx, rank) for use in node.outputs[0].uses()
    ):
        return "read by Shape"
    return "read by Shape" if node.outputs[0].is_graph_output() or node.attributes else ""


def _looked_at(consumer: ir.Node, index: int, rank: int) -> range | set[int]:
    """Which elements of a shape of ``rank`` ``consumer`` takes; all, if that is not known."""
    if queries.is_standard(consumer, "Gather") and index == 0:
        positions = constants.constant_ints(consumer.inputs[1])
        if positions is not None:
            return {element % rank for element in positions}
    # A Slice of a shape, which has one axis
    if queries.is_standard(consumer, "Slice") and index == 0:
        bounds = elementwise.slice_bounds(consumer, rank)
        if bounds is not None and set(bounds) <= {0}:
            return set(range(rank)[bounds[0]]) if bounds else range(rank)
    return range(rank)


_SEVERAL = having(Trait.RECURRENT) | {"Split"}
_RULES: dict[str, Rule] = {
    **dict.fromkeys(having(Trait.UNARY), carried),
    **dict.fromkeys(having(Trait.BROADCASTING), elementwise.elementwise),
    **dict.fromkeys(having(Trait.POOLING), _spatial),
    **dict.fromkeys((*having(Trait.REDUCING), "Transpose", "Squeeze", "Unsqueeze"), _moved),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _normalization),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"), _over_axes),
    **dict.fromkeys(("Reshape", "Flatten"), reshape),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("Conv", "ConvTranspose"), linear.convolution),
    **dict.fromkeys(having(Trait.RECURRENT), linear.recurrent),
    "Dropout": _dropout,
    "Pad": _pad,
    "Shape": _shape,
    "Gemm": linear.gemm,
    "MatMul": linear.matmul,
    "Concat": elementwise.concat,
    "Split": elementwise.split,
    "Slice": elementwise.slice_,
    "Gather": elementwise.gather,
    "Constant": lambda _groups, _node: "",
}
