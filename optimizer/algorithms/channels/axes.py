"""Where the channels of a value lie, and where they go when axes are moved, dropped or merged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optimizer.graph import constants, queries
from optimizer.graph.permutations import axes_of, permutation

if TYPE_CHECKING:
    import onnx_ir as ir

MOVES = frozenset({"Transpose", "Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"})


@dataclass(frozen=True)
class Channels:
    """Where the channels of a value lie.

    Attributes:
        count: How many there are.
        from_end: Their axis, counted from the end; 1 is the last.
        block: How many elements in a row belong to one channel, along that axis.
    """

    count: int
    from_end: int
    block: int = 1

    @property
    def size(self) -> int:
        """The size of the axis."""
        return self.count * self.block


def moved(node: ir.Node, value: ir.Value, channels: Channels) -> tuple[Channels, Channels] | None:
    """The channels before and behind an operator of ``MOVES``, by those of ``value``, its input or output."""
    sources = _sources(node)
    source = node.inputs[0]
    rank = queries.rank(source)
    if sources is None or source is None or rank is None:
        return None
    # From the input to the output, where the axis may be gone
    if value is source:
        axis = rank - channels.from_end
        if axis not in sources:
            return None
        return channels, replace(channels, from_end=len(sources) - sources.index(axis))
    # From the output to the input, where the axis may not have been
    if len(sources) < channels.from_end:
        return None
    source_axis = sources[len(sources) - channels.from_end]
    return None if source_axis is None else (replace(channels, from_end=rank - source_axis), channels)


def _sources(node: ir.Node) -> list[int | None] | None:
    """For each axis of the output, which axis of the input it is; ``None`` for those that are inserted or reduced."""
    rank, axes = queries.rank(node.inputs[0]), axes_of(node)
    if rank is None:
        return None
    if node.op_type == "Transpose":
        perm = permutation(node)
        return None if perm is None else list(perm)
    if axes is None:
        return None
    if node.op_type == "Unsqueeze":
        inserted = {axis % (rank + len(axes)) for axis in axes}
        source_axes = iter(range(rank))
        return [None if axis in inserted else next(source_axes) for axis in range(rank + len(axes))]
    removed = {axis % rank for axis in axes}
    if node.op_type != "Squeeze" and node.attributes.get_int("keepdims", 1) != 0:
        return [None if axis in removed else axis for axis in range(rank)]
    return [axis for axis in range(rank) if axis not in removed]


def reshaped(node: ir.Node, value: ir.Value, channels: Channels) -> tuple[Channels, Channels] | None:
    """The channels before and behind a Flatten or Reshape, by those of ``value``, its input or output."""
    source, output = node.inputs[0], node.outputs[0]
    if channels.from_end == 1 and keeps_size(node, channels):
        return channels, channels
    # (N, C, a, b) becomes (N, C * a * b): a channel is then a block of a * b elements
    rank = queries.rank(source)
    if rank is None or not _is_flatten(node):
        return None
    before = channels if value is source else Channels(channels.count, rank - 1)
    behind = dim(output, Channels(1, 1)) or _behind_first(source)
    if before.from_end != rank - 1 or dim(source, before) != before.size or not behind:
        return None
    return before, Channels(channels.count, 1, behind // channels.count)


def _is_flatten(node: ir.Node) -> bool:
    """Whether all axes behind the first become one."""
    if node.op_type == "Flatten":
        return node.attributes.get_int("axis", 1) == 1
    target = constants.constant_ints(node.inputs[1])
    if target is None or len(target) != 2:
        return False
    if target == [0, -1]:
        return not node.attributes.get_int("allowzero", 0)
    behind = _behind_first(node.inputs[0])
    return behind is not None and dim(node.outputs[0], Channels(1, 1)) == behind


def _behind_first(value: ir.Value | None) -> int | None:
    """How many elements the axes behind the first have."""
    if value is None or value.shape is None:
        return None
    dims = list(value.shape)[1:]
    return (
        math.prod(size for size in dims if isinstance(size, int))
        if all(isinstance(size, int) for size in dims)
        else None
    )


def dim(value: ir.Value | None, channels: Channels) -> int | None:
    """The size of the axis of channels, if it is known."""
    if value is None or value.shape is None or len(value.shape) < channels.from_end:
        return None
    size = value.shape[-channels.from_end]
    return size if isinstance(size, int) else None


def keeps_size(node: ir.Node, channels: Channels) -> bool:
    """Whether input and output are known to have the same channels."""
    return dim(node.inputs[0], channels) == dim(node.outputs[0], channels) == channels.size
