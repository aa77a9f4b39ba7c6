"""Removes channels: every constant, size and group that counts them is cut to what is left.

Which of them count a channel, ``optimizer.algorithms.channels.dependency.groups`` found out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.channels.dependency import elementwise
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import TypeAlias

    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.algorithms.rewriting.rewriter import Rewriter

    Made: TypeAlias = "dict[tuple[ir.Value | None, bytes], ir.Value | None]"


def remove(groups: ChannelGroups, gone: Collection[int], rewriter: Rewriter) -> int:
    """Remove the channel ids ``gone``, given by their roots, from the graph that ``groups`` were found in.

    Args:
        groups: Not to be used any more behind this.
        gone: None of them frozen; of no channel axis all.
        rewriter: Makes constants.

    Returns:
        How many channels kernels give out less.
    """
    removed = np.asarray(sorted(gone), np.int64)

    def left(channel_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return ~np.isin(groups.roots(channel_ids), removed)

    _cut_nodes(groups, left, rewriter)
    _cut_entries(groups, left, rewriter)
    replaced: Made = {}
    count = sum(int(np.count_nonzero(~left(channel_ids))) for channel_ids in groups.producers.values())
    for cut in groups.sliced_parameters.values():
        kept = left(cut.channel_ids)
        if kept.all():
            continue
        if cut.is_vector:
            for node, index in cut.readers:
                replace_input(node, index, _array(node.inputs[index]).compress(kept, cut.axis), rewriter, replaced)
        else:
            constants.set_array(cut.value, _array(cut.value).compress(kept, cut.axis))
    for value, channel_axis in groups.channel_axes.items():
        _resize(value, channel_axis.from_end, int(np.count_nonzero(left(channel_axis.channel_ids))))
    return count


def _drop(value: ir.Value) -> None:
    """Remove a constant that has no uses any more."""
    producer = value.producer()
    if producer is not None:
        editing.remove_unused([producer])
    elif value.graph is not None and not value.is_graph_input() and not value.is_graph_output():
        value.graph.initializers.pop(value.name or "", None)


def _array(value: ir.Value | None) -> NDArray[Any]:
    array = constants.constant_array(value)
    if array is None:
        raise ValueError(f"{'' if value is None else value.name} is no constant")
    return array


def replace_input(
    node: ir.Node, index: int, array: NDArray[Any], rewriter: Rewriter, replaced: Made | None = None
) -> None:
    """Let ``node`` read ``array``, in place of its constant where it alone reads that, as a new constant else.

    Args:
        node: The reader.
        index: Which of its inputs; it is given more inputs if it has not so many.
        array: The data.
        rewriter: Makes constants.
        replaced: What others were given in place of a constant, and is given to those that read it too.
    """
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    value = node.inputs[index]
    key = node.inputs[1] if value is None else value, array.tobytes()  # a new bias belongs to a weight
    if replaced is not None and key in replaced:
        node.replace_input_with(index, replaced[key])
    elif value is not None and constants.is_only_read_by(value, [node]) and queries.use_count(value) == 1:
        constants.set_array(value, array)
    else:
        hint = "channels" if value is None or not value.name else value.name
        node.replace_input_with(index, rewriter.constant(node, array, hint))
    if replaced is not None:
        replaced[key] = node.inputs[index]
        if value is not None and not queries.has_uses(value):
            _drop(value)


def _resize(value: ir.Value, from_end: int, size: int) -> None:
    if value.shape is None or len(value.shape) < from_end:
        return
    sizes: list[Any] = list(value.shape)
    sizes[-from_end] = size
    value.shape = ir.Shape(sizes)


def _cut_entries(groups: ChannelGroups, is_left: Any, rewriter: Rewriter) -> None:
    """Change elements of constants that count channels."""
    for entry in groups.size_constants:
        numbers = constants.constant_ints(entry.node.inputs[entry.index])
        size = int(np.count_nonzero(is_left(entry.channel_ids)))
        if numbers is None or size == entry.channel_ids.size:
            continue
        numbers[entry.position] = size
        replace_input(entry.node, entry.index, np.array(numbers, np.int64), rewriter)


def _cut_nodes(groups: ChannelGroups, is_left: Any, rewriter: Rewriter) -> None:
    """Change attributes and indices of nodes that count channels, as long as channel axes have their old sizes."""
    for node, channel_ids in groups.grouped.items():
        node.attributes.add(ir.AttrInt64("group", int(np.count_nonzero(is_left(channel_ids)))))
    for node, channel_ids in groups.units.items():
        node.attributes.add(ir.AttrInt64("hidden_size", int(np.count_nonzero(is_left(channel_ids)))))
    for value in groups.selected:
        cutter = value.producer()
        channel_axis = None if cutter is None else groups.axis_of(cutter.inputs[0])
        if cutter is None or channel_axis is None or cutter.op_type not in _CUTTERS or value is not cutter.outputs[0]:
            continue
        if not is_left(channel_axis.channel_ids).all():
            _CUTTERS[cutter.op_type](groups, cutter, is_left, rewriter)


def _split(groups: ChannelGroups, node: ir.Node, is_left: Any, rewriter: Rewriter) -> None:
    channel_axes = [groups.axis_of(output) for output in node.outputs]
    sizes = [
        int(np.count_nonzero(is_left(channel_axis.channel_ids)))
        for channel_axis in channel_axes
        if channel_axis is not None
    ]
    if "split" in node.attributes or groups.opset < elementwise.SPLIT_INPUT_SINCE:
        node.attributes.add(ir.AttrInt64s("split", sizes))
        return
    node.attributes.pop("num_outputs", None)
    replace_input(node, 1, np.array(sizes, np.int64), rewriter)


def _slice(groups: ChannelGroups, node: ir.Node, is_left: Any, rewriter: Rewriter) -> None:
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    bounds = None if rank is None else elementwise.slice_bounds(node, rank)
    if channel_axis is None or rank is None or bounds is None:
        raise ValueError(f"{queries.site(node)} cuts what is not known")
    axis = rank - channel_axis.from_end
    place = list(bounds).index(axis)
    begin, end, _ = bounds[axis].indices(channel_axis.size)
    kept = is_left(channel_axis.channel_ids)
    new = (int(np.count_nonzero(kept[:begin])), int(np.count_nonzero(kept[:end])))
    for index, (name, number) in enumerate(zip(("starts", "ends"), new, strict=True), 1):
        if name in node.attributes:
            numbers = list(node.attributes.get_ints(name, ()))
            numbers[place] = number
            node.attributes.add(ir.AttrInt64s(name, numbers))
            continue
        array = constants.constant_array(node.inputs[index])
        if array is not None:
            changed = array.copy()
            changed[place] = number
            replace_input(node, index, changed, rewriter)


def _gather(groups: ChannelGroups, node: ir.Node, is_left: Any, rewriter: Rewriter) -> None:
    channel_axis, taken = groups.axis_of(node.inputs[0]), groups.selected[node.outputs[0]]
    array = constants.constant_array(node.inputs[1])
    if channel_axis is None or array is None:
        raise ValueError(f"{queries.site(node)} takes what is not known")
    kept = is_left(channel_axis.channel_ids)
    places = np.cumsum(kept) - 1
    replace_input(node, 1, places[taken[kept[taken]]].astype(array.dtype), rewriter)


_CUTTERS = {"Split": _split, "Slice": _slice, "Gather": _gather}
