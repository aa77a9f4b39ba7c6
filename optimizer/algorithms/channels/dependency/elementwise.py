"""Where channel axes meet, are concatenated and split; see ``optimizer.algorithms.channels.dependency.operators``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency.groups import ChannelAxis
from optimizer.graph import operators, queries
from optimizer.graph.constants import constant_ints, constant_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups

SPLIT_INPUT_SINCE = 13  # the opset in which the sizes of a Split became an input


def elementwise(groups: ChannelGroups, node: ir.Node) -> str:
    """Operands with channels are unified; constants of one number a channel are sliced."""
    channel_axes = [groups.axis_of(value) for value in node.inputs]
    with_channels = [channel_axis for channel_axis in channel_axes if channel_axis is not None]
    if with_channels and not operators.broadcasts(node.op_type, groups.opset):
        return f"read by {node.op_type} of an opset that broadcasts by attribute"
    wide = [channel_axis for channel_axis in with_channels if channel_axis.size > 1] or with_channels
    if not wide:
        return ""
    first = wide[0]
    if any((channel_axis.from_end, channel_axis.size) != (first.from_end, first.size) for channel_axis in wide):
        return f"read by {node.op_type} along two axes"
    # 1. What is narrower than the channels has to be a constant of one number a channel, or broadcast over them
    narrow = [
        index
        for index, channel_axis in enumerate(channel_axes)
        if channel_axis is None or channel_axis.size != first.size
    ]
    constant_axes = {index: axis for index in narrow if (axis := _constant_axis(node.inputs[index], first)) is not None}
    if not all(index in constant_axes or has_no_channels(node.inputs[index], first) for index in narrow):
        return f"read by {node.op_type} beside a value of unknown channels"
    # 2. An axis of one channel that broadcasts over many is not one of them
    for channel_axis in channel_axes:
        if channel_axis is not None and channel_axis.size != first.size:
            groups.freeze(channel_axis.channel_ids, f"spread over channels by {queries.site(node)}")
    # 3. All wide axes are one; the constants are as wide
    for channel_axis in wide[1:]:
        groups.unify(first.channel_ids, channel_axis.channel_ids)
    for index, axis in constant_axes.items():
        groups.slice_parameter(node, index, axis, first.channel_ids)
    groups.put(node.outputs[0], first)
    return ""


def _constant_axis(value: ir.Value | None, channel_axis: ChannelAxis) -> int | None:
    """The axis of the constant ``value`` that meets the channels, if it has one of their size."""
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    sizes = tuple(tensor.shape.numpy())
    axis = len(sizes) - channel_axis.from_end
    return axis if axis >= 0 and sizes[axis] == channel_axis.size and channel_axis.size > 1 else None


def has_no_channels(value: ir.Value | None, channel_axis: ChannelAxis) -> bool:
    """Whether ``value`` is the same for all channels of ``channel_axis``: it has no such axis, or one of size 1."""
    if value is None:
        return True
    tensor = constant_tensor(value)
    sizes: Sequence[int | ir.SymbolicDim] | None = None if value.shape is None else list(value.shape)
    if tensor is not None:
        sizes = tuple(tensor.shape.numpy())
    return sizes is not None and (len(sizes) < channel_axis.from_end or sizes[-channel_axis.from_end] == 1)


def concat(groups: ChannelGroups, node: ir.Node) -> str:
    """Along the channels, channel axes lie behind each other; along another axis, all inputs are unified."""
    channel_axes = [groups.axis_of(value) for value in node.inputs]
    with_channels = [channel_axis for channel_axis in channel_axes if channel_axis is not None]
    ranks = [queries.rank(value) for value in node.inputs]
    rank = next((rank for rank in ranks if rank is not None), None)
    if not with_channels:
        return ""
    if rank is None or any(channel_axis.from_end != with_channels[0].from_end for channel_axis in with_channels):
        return "read by Concat along two axes"
    from_end = rank - node.attributes.get_int("axis", 0) % rank
    if from_end == with_channels[0].from_end:
        return _concatenated(groups, node, channel_axes, from_end)
    if len(with_channels) < len(channel_axes) or any(
        channel_axis.size != with_channels[0].size for channel_axis in with_channels
    ):
        return "read by Concat beside a value of unknown channels"
    for channel_axis in with_channels[1:]:
        groups.unify(with_channels[0].channel_ids, channel_axis.channel_ids)
    groups.put(node.outputs[0], with_channels[0])
    return ""


def _concatenated(
    groups: ChannelGroups, node: ir.Node, channel_axes: Sequence[ChannelAxis | None], from_end: int
) -> str:
    ids_of_inputs = []
    for value, channel_axis in zip(node.inputs, channel_axes, strict=True):
        sizes = None if value is None or value.shape is None else list(value.shape)
        size = None if sizes is None else sizes[-from_end]
        if channel_axis is None and not isinstance(size, int):
            return "read by Concat beside a value of unknown channels"
        ids_of_inputs.append(
            groups.new_channel_ids(int(str(size))) if channel_axis is None else channel_axis.channel_ids
        )
        if channel_axis is None:
            groups.freeze(ids_of_inputs[-1], f"{queries.site(node)} joins channels of unknown origin")
    groups.concatenated_sizes[node] = [ids.size for ids in ids_of_inputs]
    groups.put(node.outputs[0], ChannelAxis(from_end, np.concatenate(ids_of_inputs)))
    return ""


def split(groups: ChannelGroups, node: ir.Node) -> str:
    """Along the channels, each output has some of them; along another axis, all have all."""
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    if channel_axis is None:
        return ""
    if rank is None:
        return "read by Split of unknown rank"
    if rank - node.attributes.get_int("axis", 0) % rank != channel_axis.from_end:
        for output in node.outputs:
            groups.put(output, channel_axis)
        return ""
    sizes = split_sizes(node, channel_axis.size)
    if sizes is None or sum(sizes) != channel_axis.size or len(sizes) != len(node.outputs):
        return "read by Split into parts of unknown size"
    for output, positions in zip(
        node.outputs, np.split(np.arange(channel_axis.size), np.cumsum(sizes)[:-1]), strict=True
    ):
        groups.select(output, channel_axis, positions)
    return ""


def split_sizes(node: ir.Node, size: int) -> list[int] | None:
    """The sizes of the parts of a Split of an axis of ``size``; ``None`` if they are computed."""
    if "split" in node.attributes:
        return list(node.attributes.get_ints("split", ()))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return constant_ints(node.inputs[1])
    # Equal parts, rounded up, so that the last one may be smaller (Split, opset 18)
    equal_size = -(-size // len(node.outputs))
    return [min(equal_size, max(size - equal_size * index, 0)) for index in range(len(node.outputs))]


def slice_(groups: ChannelGroups, node: ir.Node) -> str:
    """Slice: some of the channels in a row, or all of them."""
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    if channel_axis is None:
        return ""
    axis = None if rank is None else rank - channel_axis.from_end
    if axis is not None and axis not in (_axes_of_slice(node, rank) or [axis]):
        groups.put(node.outputs[0], channel_axis)
        return ""
    bounds = None if rank is None else slice_bounds(node, rank)
    if bounds is None or axis is None or bounds[axis].step not in {None, 1}:
        return "read by Slice along the channels"
    groups.select(node.outputs[0], channel_axis, np.arange(channel_axis.size)[bounds[axis]])
    return ""


def _axes_of_slice(node: ir.Node, rank: int | None) -> list[int] | None:
    """The axes that a Slice cuts, from 0; ``None`` if they are not known."""
    if rank is None:
        return None
    if "starts" in node.attributes:
        return [axis % rank for axis in node.attributes.get_ints("axes", range(rank))]
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = constant_ints(node.inputs[3])
        return None if axes is None else [axis % rank for axis in axes]
    starts = constant_ints(node.inputs[1])
    return None if starts is None else list(range(len(starts)))


def slice_bounds(node: ir.Node, rank: int) -> dict[int, slice] | None:
    """The slice of each axis that a Slice cuts, by axis from 0; ``None`` if that is computed."""
    axes = _axes_of_slice(node, rank)
    if axes is None:
        return None
    if "starts" in node.attributes:
        starts, ends = (list(node.attributes.get_ints(name, ())) for name in ("starts", "ends"))
        steps = [1] * len(starts)
    else:
        limits = [constant_ints(value) for value in node.inputs[1:3]]
        has_steps = len(node.inputs) > 4 and node.inputs[4] is not None
        strides = constant_ints(node.inputs[4]) if has_steps else [1] * len(axes)
        if limits[0] is None or limits[1] is None or strides is None:
            return None
        starts, ends, steps = limits[0], limits[1], strides
    return {axis: slice(start, end, step) for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)}


def gather(groups: ChannelGroups, node: ir.Node) -> str:
    """Gather with constant indices along the channels, or along another axis."""
    data, indices = node.inputs
    channel_axis, rank = groups.axis_of(data), queries.rank(data)
    if groups.axis_of(indices) is not None:
        return "read by Gather as indices"
    if channel_axis is None:
        return ""
    index_rank = queries.rank(indices)
    if rank is None or index_rank is None:
        return "read by Gather of unknown rank"
    # Along another axis: the indices' axes take its place, and shift the channels if they lie in front of it
    axis, channel_dim = node.attributes.get_int("axis", 0) % rank, rank - channel_axis.from_end
    if axis != channel_dim:
        groups.put(
            node.outputs[0],
            ChannelAxis(
                channel_axis.from_end + (index_rank - 1 if axis > channel_dim else 0), channel_axis.channel_ids
            ),
        )
        return ""
    positions = constant_ints(indices)
    if positions is None or index_rank != 1:
        return "read by Gather along the channels"
    groups.select(node.outputs[0], channel_axis, np.asarray(positions) % channel_axis.size)
    return ""
