"""Where channels lie behind a Reshape or Flatten (``optimizer.algorithms.channels.dependency.operators``).

In row-major order, element t of a tensor whose channel axis has ``size`` positions of P elements each belongs to
channel ``t // P % size``. So an axis of the result with Q elements behind each position has one channel at each
position if Q divides P; where it is the other way round, the axis is split in two (heads of an attention, groups of a
shuffle), and the channels that come to lie at one position are unified.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency.groups import ChannelAxis
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups

_UNKNOWN = "read by {} to a shape that is not known"


def reshape(groups: ChannelGroups, node: ir.Node) -> str:
    """Reshape or Flatten: the axis of the result that the channels lie on carries their ids."""
    channel_axis, source, output = groups.axis_of(node.inputs[0]), node.inputs[0], node.outputs[0]
    refusal = _UNKNOWN.format(node.op_type)
    if channel_axis is None or source is None:
        return ""
    if source.shape is None or output.shape is None:
        return refusal
    source_dims, output_dims = list(source.shape), list(output.shape)
    source_axis = len(source_dims) - channel_axis.from_end
    if source_dims[: source_axis + 1] == output_dims[: source_axis + 1] and all(
        _is_identifiable(size) for size in source_dims[: source_axis + 1]
    ):
        # Nothing changes up to the channels: their axis stays, however dynamic what follows is
        output_axis: ChannelAxis | None = ChannelAxis(len(output_dims) - source_axis, channel_axis.channel_ids)
    else:
        output_axis = _by_elements_behind(groups, output, channel_axis, source_dims, output_dims)
    if output_axis is None:
        return refusal
    if node.op_type == "Reshape" and not _target_follows(
        groups, node, output_axis, len(output_dims) - output_axis.from_end, source_axis
    ):
        return f"read by {node.op_type} to a computed shape"
    groups.put(output, output_axis)
    return ""


def _is_identifiable(size: int | ir.SymbolicDim) -> bool:
    """Whether a dimension is a number or has a name, so that it can be known to be another's."""
    return isinstance(size, int) or getattr(size, "value", None) is not None


def _by_elements_behind(
    groups: ChannelGroups,
    output: ir.Value,
    channel_axis: ChannelAxis,
    source_dims: Sequence[int | ir.SymbolicDim],
    output_dims: Sequence[int | ir.SymbolicDim],
) -> ChannelAxis | None:
    """The channel axis of the result, by how many elements lie behind each axis.

    Args:
        groups: Where channel ids are unified.
        output: The result.
        channel_axis: Of the source.
        source_dims: The shape of the source: numbers, or symbols.
        output_dims: That of the result.

    Returns:
        ``None`` if the channels end up on several axes, or on none for sure.
    """
    # P, and the elements of all channels, P * size
    channel_elements = _product(source_dims[len(source_dims) - channel_axis.from_end + 1 :])
    if channel_elements is None:
        return None
    total = channel_elements * channel_axis.size
    trailing = 1
    # From the last axis of the result to the first, with Q = trailing elements behind it
    for from_end, size in enumerate(reversed(output_dims), 1):
        if not isinstance(size, int):
            return None
        reach = trailing * size
        # 1. The axis holds all channels, one at a position: Q divides P
        if trailing <= channel_elements and reach >= total:
            first = np.arange(size) * trailing
            return (
                None
                if channel_elements % trailing
                else _repeated(groups, output, ChannelAxis(from_end, channel_axis.channel_ids), first, channel_elements)
            )
        # 2. Several channels at a position: P divides Q
        if channel_elements < trailing and reach == total:
            return (
                _unify_neighbours(groups, channel_axis, from_end, trailing // channel_elements)
                if trailing % channel_elements == 0
                else None
            )
        trailing = reach
    return None


def _repeated(
    groups: ChannelGroups, output: ir.Value, channel_axis: ChannelAxis, first: NDArray[np.int64], channel_elements: int
) -> ChannelAxis:
    """All channels come to lie on one axis, each once or several times.

    Args:
        groups: Where it is noted.
        output: The result of the reshape.
        channel_axis: The channels, on the axis of the result.
        first: The number of the first element that comes to lie at each position; (positions,).
        channel_elements: P, the number of elements of a channel in a row.
    """
    if first.size == channel_axis.size:
        return channel_axis
    positions = first // channel_elements % channel_axis.size
    groups.element_offsets[output] = first - positions * channel_elements  # which row, and which element of the channel
    return groups.select(output, channel_axis, positions)


def _unify_neighbours(groups: ChannelGroups, channel_axis: ChannelAxis, from_end: int, width: int) -> ChannelAxis:
    """``width`` channels in a row come to lie at one position of the axis, and on an axis behind it."""
    groups.unify(np.repeat(channel_axis.channel_ids[::width], width), channel_axis.channel_ids)
    return ChannelAxis(from_end, channel_axis.channel_ids[::width])


def _product(sizes: Sequence[int | ir.SymbolicDim]) -> int | None:
    numbers = [size for size in sizes if isinstance(size, int)]
    return math.prod(numbers) if len(numbers) == len(sizes) else None


def _target_follows(
    groups: ChannelGroups, node: ir.Node, channel_axis: ChannelAxis, position: int, source_axis: int
) -> bool:
    """Whether the target can follow when channels go: by itself (-1, or 0 for the same axis), or by a new constant."""
    source_element = element(node, 1, position)
    if source_element is None:
        return False
    reader, index, place, size = source_element
    copies = size == 0 and not node.attributes.get_int("allowzero", 0)
    if size == -1 or (copies and position == source_axis):
        return True
    if size != channel_axis.size:
        return False
    groups.add_size_constant(reader, index, place, channel_axis.channel_ids)
    return True


def element(node: ir.Node, index: int, position: int) -> tuple[ir.Node, int, int, int] | None:
    """The constant that element ``position`` of an input comes from, through Concats.

    Returns:
        The node that reads the constant, the index of that input, the position in it, and the number there.
    """
    value = node.inputs[index]
    constant = constants.constant_ints(value)
    if constant is not None:
        return (node, index, position, constant[position]) if position < len(constant) else None
    producer = None if value is None else value.producer()
    if producer is None or not queries.is_standard(producer, "Concat"):
        return None
    for number, operand in enumerate(producer.inputs):
        length = _length(operand)
        if length is None:
            return None
        if position < length:
            return element(producer, number, position)
        position -= length
    return None


def _length(value: ir.Value | None) -> int | None:
    tensor = constants.constant_tensor(value)
    if tensor is not None:
        return int(tensor.size)
    shape = queries.static_shape(value)
    return shape[0] if shape is not None and len(shape) == 1 else None
