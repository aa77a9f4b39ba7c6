"""Removes channels: every constant that holds them is sliced, every size and group that counts them is corrected.

Which those are is in ``optimizer.algorithms.channels.dependency.groups``. Torch-Pruning does the same with the pruning
functions of its dependency graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.channels.dependency import elementwise
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import TypeAlias

    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.algorithms.rewriting.rewriter import Rewriter

    # From channel ids, (size,), to whether each stays, (size,)
    Stays: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
    # Constant (or the weight that a new bias belongs to) and new bytes -> the new constant
    Replacements: TypeAlias = "dict[tuple[ir.Value | None, bytes], ir.Value | None]"


def remove(groups: ChannelGroups, gone: Collection[int], rewriter: Rewriter) -> int:
    """Remove the channel ids ``gone``, given by their roots, from the graph that ``groups`` were found in.

    Args:
        groups: Not to be used any more afterwards.
        gone: None of them frozen; every channel axis keeps some.
        rewriter: Makes constants.

    Returns:
        How many output channels kernels have lost.
    """
    removed = np.asarray(sorted(gone), np.int64)

    def stays(channel_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return ~np.isin(groups.roots(channel_ids), removed)

    # 1. Attributes and indices of nodes, 2. elements of shapes: while all axes have their old sizes
    _update_nodes(groups, stays, rewriter)
    _update_size_constants(groups, stays, rewriter)
    # 3. Weights in place; vectors for each consumer, since others may read them whole
    replacements: Replacements = {}
    count = sum(int(np.count_nonzero(~stays(channel_ids))) for channel_ids in groups.producers.values())
    for parameter in groups.sliced_parameters.values():
        mask = stays(parameter.channel_ids)
        if mask.all():
            continue
        if parameter.is_vector:
            for node, index in parameter.readers:
                replace_input(
                    node, index, _array(node.inputs[index]).compress(mask, parameter.axis), rewriter, replacements
                )
        else:
            constants.set_array(parameter.value, _array(parameter.value).compress(mask, parameter.axis))
    # 4. Shapes of values
    for value, channel_axis in groups.channel_axes.items():
        _resize(value, channel_axis.from_end, int(np.count_nonzero(stays(channel_axis.channel_ids))))
    return count


def _remove_constant(value: ir.Value) -> None:
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
    node: ir.Node, index: int, array: NDArray[Any], rewriter: Rewriter, replacements: Replacements | None = None
) -> None:
    """Let ``node`` read ``array``, in place of its constant where it alone reads that, as a new constant else.

    Args:
        node: The consumer.
        index: Which of its inputs; it is given more inputs if it has not so many.
        array: The data.
        rewriter: Makes constants.
        replacements: Constants that were made for other consumers before, and are shared by this one.
    """
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    value = node.inputs[index]
    key = node.inputs[1] if value is None else value, array.tobytes()  # a new bias belongs to a weight
    if replacements is not None and key in replacements:
        node.replace_input_with(index, replacements[key])
    elif value is not None and constants.is_only_read_by(value, [node]) and queries.use_count(value) == 1:
        constants.set_array(value, array)
    else:
        hint = "channels" if value is None or not value.name else value.name
        node.replace_input_with(index, rewriter.constant(node, array, hint))
    if replacements is not None:
        replacements[key] = node.inputs[index]
        if value is not None and not queries.has_uses(value):
            _remove_constant(value)


def _resize(value: ir.Value, from_end: int, size: int) -> None:
    if value.shape is None or len(value.shape) < from_end:
        return
    sizes: list[int | ir.SymbolicDim] = list(value.shape)
    sizes[-from_end] = size
    value.shape = ir.Shape(sizes)


def _update_size_constants(groups: ChannelGroups, stays: Stays, rewriter: Rewriter) -> None:
    """Change elements of constants that count channels."""
    for size_constant in groups.size_constants:
        numbers = constants.constant_ints(size_constant.node.inputs[size_constant.index])
        size = int(np.count_nonzero(stays(size_constant.channel_ids)))
        if numbers is None or size == size_constant.channel_ids.size:
            continue
        numbers[size_constant.position] = size
        replace_input(size_constant.node, size_constant.index, np.array(numbers, np.int64), rewriter)


def _update_nodes(groups: ChannelGroups, stays: Stays, rewriter: Rewriter) -> None:
    """Change attributes and indices of nodes that count channels, as long as channel axes have their old sizes."""
    for node, channel_ids in groups.group_ids.items():
        node.attributes.add(ir.AttrInt64("group", int(np.count_nonzero(stays(channel_ids)))))
    for node, channel_ids in groups.hidden_units.items():
        node.attributes.add(ir.AttrInt64("hidden_size", int(np.count_nonzero(stays(channel_ids)))))
    for value in groups.selected:
        producer = value.producer()
        channel_axis = None if producer is None else groups.axis_of(producer.inputs[0])
        if (
            producer is None
            or channel_axis is None
            or producer.op_type not in _UPDATES
            or value is not producer.outputs[0]
        ):
            continue
        if not stays(channel_axis.channel_ids).all():
            _UPDATES[producer.op_type](groups, producer, stays, rewriter)


def _split(groups: ChannelGroups, node: ir.Node, stays: Stays, rewriter: Rewriter) -> None:
    channel_axes = [groups.axis_of(output) for output in node.outputs]
    sizes = [
        int(np.count_nonzero(stays(channel_axis.channel_ids)))
        for channel_axis in channel_axes
        if channel_axis is not None
    ]
    if "split" in node.attributes or groups.opset < elementwise.SPLIT_INPUT_SINCE:
        node.attributes.add(ir.AttrInt64s("split", sizes))
        return
    node.attributes.pop("num_outputs", None)
    replace_input(node, 1, np.array(sizes, np.int64), rewriter)


def _slice(groups: ChannelGroups, node: ir.Node, stays: Stays, rewriter: Rewriter) -> None:
    channel_axis, rank = groups.axis_of(node.inputs[0]), queries.rank(node.inputs[0])
    bounds = None if rank is None else elementwise.slice_bounds(node, rank)
    if channel_axis is None or rank is None or bounds is None:
        raise ValueError(f"{queries.site(node)} cuts what is not known")
    axis = rank - channel_axis.from_end
    position = list(bounds).index(axis)
    # A bound moves to the left by as many channels as go in front of it
    begin, end, _ = bounds[axis].indices(channel_axis.size)
    mask = stays(channel_axis.channel_ids)
    new_bounds = (int(np.count_nonzero(mask[:begin])), int(np.count_nonzero(mask[:end])))
    for index, (name, number) in enumerate(zip(("starts", "ends"), new_bounds, strict=True), 1):
        if name in node.attributes:
            numbers = list(node.attributes.get_ints(name, ()))
            numbers[position] = number
            node.attributes.add(ir.AttrInt64s(name, numbers))
            continue
        array = constants.constant_array(node.inputs[index])
        if array is not None:
            updated = array.copy()
            updated[position] = number
            replace_input(node, index, updated, rewriter)


def _gather(groups: ChannelGroups, node: ir.Node, stays: Stays, rewriter: Rewriter) -> None:
    channel_axis, selected = groups.axis_of(node.inputs[0]), groups.selected[node.outputs[0]]
    array = constants.constant_array(node.inputs[1])
    if channel_axis is None or array is None:
        raise ValueError(f"{queries.site(node)} takes what is not known")
    mask = stays(channel_axis.channel_ids)
    # A channel that stays moves to the left by as many as go in front of it
    new_positions = np.cumsum(mask) - 1
    replace_input(node, 1, new_positions[selected[mask[selected]]].astype(array.dtype), rewriter)


_UPDATES = {"Split": _split, "Slice": _slice, "Gather": _gather}
