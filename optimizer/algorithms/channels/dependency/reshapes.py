"""Where channels lie behind a Reshape or Flatten (``optimizer.algorithms.channels.dependency.operators``).

In row-major order, an axis of ``size`` positions in front of P elements says for element t of a row that its channel
is ``t // P % size``. So an axis of the result with Q elements behind each position has one channel at each position
if Q divides P; where it is the other way round, the axis is parted (heads of an attention, groups of a shuffle), and
the channels that come to lie at one position are tied.
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
    lane, source, output = groups.axis_of(node.inputs[0]), node.inputs[0], node.outputs[0]
    refusal = _UNKNOWN.format(node.op_type)
    if lane is None or source is None:
        return ""
    if source.shape is None or output.shape is None:
        return refusal
    before, behind = list(source.shape), list(output.shape)
    at = len(before) - lane.from_end
    if before[: at + 1] == behind[: at + 1] and all(_is_told(size) for size in before[: at + 1]):
        found: ChannelAxis | None = ChannelAxis(len(behind) - at, lane.channel_ids)
    else:
        found = _by_elements_behind(groups, output, lane, before, behind)
    if found is None:
        return refusal
    if node.op_type == "Reshape" and not _count(groups, node, found, len(behind) - found.from_end, at):
        return f"read by {node.op_type} to a computed shape"
    groups.put(output, found)
    return ""


def _is_told(size: object) -> bool:
    """Whether a dimension is a number or has a name, so that it can be known to be another's."""
    return isinstance(size, int) or getattr(size, "value", None) is not None


def _by_elements_behind(
    groups: ChannelGroups, output: ir.Value, lane: ChannelAxis, before: Sequence[object], behind: Sequence[object]
) -> ChannelAxis | None:
    inner = _product(before[len(before) - lane.from_end + 1 :])
    if inner is None:
        return None
    whole = inner * lane.size
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
                else _repeated(groups, output, ChannelAxis(from_end, lane.channel_ids), first, inner)
            )
        if inner < elements and reach == whole:
            return _parted(groups, lane, from_end, elements // inner) if elements % inner == 0 else None
        elements = reach
    return None


def _repeated(
    groups: ChannelGroups, output: ir.Value, lane: ChannelAxis, first: NDArray[np.int64], inner: int
) -> ChannelAxis:
    """All channels come to lie on one axis, each once or several times.

    Args:
        groups: Told of it.
        output: What is reshaped to.
        lane: The channels, on the axis of the result.
        first: The first element of a row that comes to lie at each position.
        inner: The number of elements in a row of each channel.
    """
    if first.size == lane.size:
        return lane
    taken = first // inner % lane.size
    groups.parts[output] = first - taken * inner  # which row, and which element of the channel
    return groups.select(output, lane, taken)


def _parted(groups: ChannelGroups, lane: ChannelAxis, from_end: int, width: int) -> ChannelAxis:
    """``width`` channels in a row come to lie at one position of the axis, and on an axis behind it."""
    groups.unify(np.repeat(lane.channel_ids[::width], width), lane.channel_ids)
    return ChannelAxis(from_end, lane.channel_ids[::width])


def _product(sizes: Sequence[object]) -> int | None:
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def _count(groups: ChannelGroups, node: ir.Node, lane: ChannelAxis, position: int, source_axis: int) -> bool:
    """Whether the target follows when channels go: by itself (-1, or 0 for the same axis), or by a new constant."""
    found = element(node, 1, position)
    if found is None:
        return False
    reader, index, place, size = found
    copies = size == 0 and not node.attributes.get_int("allowzero", 0)
    if size == -1 or (copies and position == source_axis):
        return True
    if size != lane.size:
        return False
    groups.add_size_constant(reader, index, place, lane.channel_ids)
    return True


def element(node: ir.Node, index: int, position: int) -> tuple[ir.Node, int, int, int] | None:
    """The constant that element ``position`` of an input comes from: its reader, input, place there and number."""
    value = node.inputs[index]
    known = constants.constant_ints(value)
    if known is not None:
        return (node, index, position, known[position]) if position < len(known) else None
    producer = None if value is None else value.producer()
    if producer is None or not queries.is_standard(producer, "Concat"):
        return None
    for number, part in enumerate(producer.inputs):
        length = _length(part)
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
