"""Where channels lie behind a Reshape or Flatten (``optimizer.algorithms.channels.dependency.operators``).

In row-major order, an axis of ``size`` positions in front of P elements says for element t of a row that its channel
is ``t // P % size``. So an axis of the result with Q elements behind each position has one channel at each position
if Q divides P; where it is the other way round, the axis is parted (heads of an attention, groups of a shuffle), and
the channels that come to lie at one position are unified.
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
    """Find the axis of the result that the channels lie on."""
    channel_axis, source, output = groups.axis_of(node.inputs[0]), node.inputs[0], node.outputs[0]
    refusal = _UNKNOWN.format(node.op_type)
    if channel_axis is None or source is None:
        return ""
    if source.shape is None or output.shape is None:
        return refusal
    before, behind = list(source.shape), list(output.shape)
    at = len(before) - channel_axis.from_end
    if before[: at + 1] == behind[: at + 1] and all(_is_told(size) for size in before[: at + 1]):
        output_axis: ChannelAxis | None = ChannelAxis(len(behind) - at, channel_axis.channel_ids)
    else:
        output_axis = _by_elements_behind(groups, output, channel_axis, before, behind)
    if output_axis is None:
        return refusal
    if node.op_type == "Reshape" and not _count(groups, node, output_axis, len(behind) - output_axis.from_end, at):
        return f"read by {node.op_type} to a computed shape"
    groups.put(output, output_axis)
    return ""


def _is_told(size: object) -> bool:
    """Whether a dimension is a number or has a name, so that it can be known to be another's."""
    return isinstance(size, int) or getattr(size, "value", None) is not None


def _by_elements_behind(
    groups: ChannelGroups,
    output: ir.Value,
    channel_axis: ChannelAxis,
    before: Sequence[object],
    behind: Sequence[object],
) -> ChannelAxis | None:
    inner = _product(before[len(before) - channel_axis.from_end + 1 :])
    if inner is None:
        return None
    whole = inner * channel_axis.size
    elements = 1
    for from_end, size in enumerate(reversed(behind), 1):
        if not isinstance(size, int):
            return None
        reach = elements * size
        if elements <= inner and reach >= whole:
            first = np.arange(size) * elements
            return (
                None
                if inner % elements
                else _repeated(groups, output, ChannelAxis(from_end, channel_axis.channel_ids), first, inner)
            )
        if inner < elements and reach == whole:
            return _parted(groups, channel_axis, from_end, elements // inner) if elements % inner == 0 else None
        elements = reach
    return None


def _repeated(
    groups: ChannelGroups, output: ir.Value, channel_axis: ChannelAxis, first: NDArray[np.int64], inner: int
) -> ChannelAxis:
    """All channels come to lie on one axis, each once or several times.

    Args:
        groups: Told of it.
        output: What is reshaped to.
        channel_axis: The channels, on the axis of the result.
        first: The first element of a row that comes to lie at each position.
        inner: The number of elements in a row of each channel.
    """
    if first.size == channel_axis.size:
        return channel_axis
    taken = first // inner % channel_axis.size
    groups.parts[output] = first - taken * inner  # which row, and which element of the channel
    return groups.select(output, channel_axis, taken)


def _parted(groups: ChannelGroups, channel_axis: ChannelAxis, from_end: int, width: int) -> ChannelAxis:
    """``width`` channels in a row come to lie at one position of the axis, and on an axis behind it."""
    groups.unify(np.repeat(channel_axis.channel_ids[::width], width), channel_axis.channel_ids)
    return ChannelAxis(from_end, channel_axis.channel_ids[::width])


def _product(sizes: Sequence[object]) -> int | None:
    numbers = [size for size in sizes if isinstance(size, int)]
    return math.prod(numbers) if len(numbers) == len(sizes) else None


def _count(groups: ChannelGroups, node: ir.Node, channel_axis: ChannelAxis, position: int, source_axis: int) -> bool:
    """Whether the target follows when channels go: by itself (-1, or 0 for the same axis), or by a new constant."""
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
    """The constant that element ``position`` of an input comes from: its reader, input, place there and number."""
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
