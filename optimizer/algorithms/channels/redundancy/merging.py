"""Lets other channels, or a bias, compensate for those that go.

Which go is decided in ``optimizer.algorithms.channels.redundancy.redundant``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.channels.dependency.removal import replace_input
from optimizer.algorithms.channels.redundancy.linear_facts import array_of
from optimizer.graph import constants, editing, linear_nodes, queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelConsumer
    from optimizer.algorithms.channels.dependency.removal import Made
    from optimizer.algorithms.channels.redundancy.redundant import Reading, Redundancy
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_GATES = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True)
class BiasShift:
    """What constant channels added to the outputs of a kernel.

    Attributes:
        consumer: The kernel.
        added: One number for each output channel, or for each gate of each direction.
    """

    consumer: ChannelConsumer
    added: NDArray[np.float64]


def merge(redundant: Redundancy) -> list[BiasShift]:
    """Change weights so that no consumer misses the units that go, but for their constants; they are not removed yet.

    Returns:
        What is to be added to the outputs of kernels once the units are removed.

    Raises:
        OverflowError: If a weight does not fit into its type; the model is not to be used any more.
    """
    gone = np.array(sorted(redundant.gone), np.int64)
    shifts: list[BiasShift] = []
    for reading in redundant.readings:
        going = np.flatnonzero(np.isin(reading.roots, gone) & ~reading.unused)
        constant = going[~np.isnan(reading.shift[going])]
        shifts += _shifts(reading, constant[reading.shift[constant] != 0])
        _sum_up(reading, np.setdiff1d(going, constant), gone)
    return shifts


def _shifts(reading: Reading, constant: NDArray[np.int64]) -> list[BiasShift]:
    """What the channels at positions ``constant`` add to each output."""
    if not constant.size:
        return []
    array, consumer = _array(reading.weight), reading.consumers[0]
    window_axes = tuple(at for at in range(array.ndim) if at not in {consumer.axis, consumer.output_axis})
    summed = np.moveaxis(array.sum(axis=window_axes, keepdims=True), consumer.axis, 0)[constant]
    if consumer.node.op_type in _GATES:
        summed = np.moveaxis(array, consumer.axis, 0)[constant]
    added = np.tensordot(reading.shift[constant], summed, axes=1).reshape(-1)
    return [BiasShift(consumer, added) for consumer in reading.consumers]


def _sum_up(reading: Reading, parallel: NDArray[np.int64], gone: NDArray[np.int64]) -> None:
    """Add the weights of channels that go to those of channels of the same value number that stay."""
    if not parallel.size:
        return
    scale, axis = reading.facts[0].scale, reading.consumers[0].axis
    staying = np.flatnonzero(~np.isin(reading.roots, gone))
    columns = np.moveaxis(_array(reading.weight), axis, 0)
    for position in parallel.tolist():
        same = staying[reading.value_number[staying] == reading.value_number[position]]
        to = int(same[np.argmax(scale[same])])
        columns[to] += columns[position] * (scale[position] / scale[to])
    dtype = (
        reading.weight.const_value
        if reading.weight.const_value is not None
        else constants.constant_tensor(reading.weight)
    )
    rounded = constants.round_once(
        np.moveaxis(columns, 0, axis), np.dtype(np.float32) if dtype is None else dtype.dtype.numpy()
    )
    if rounded is None:
        raise OverflowError(f"the sum of weights in {reading.weight.name} does not fit into its type")
    constants.set_array(reading.weight, rounded)


def _array(value: ir.Value) -> NDArray[np.float64]:
    array = array_of(value)
    if array is None:
        raise ValueError(f"{value.name} is no constant")
    return array


def add_to_bias(node: ir.Node, shift: NDArray[np.float64], rewriter: Rewriter, replaced: Made | None = None) -> None:
    """Add a number to each output channel of a kernel; ``replaced`` as for ``replace_input``."""
    if node.op_type in _GATES:
        _add_to_gates(node, shift, rewriter)
        return
    weight = constants.constant_array(node.inputs[1])
    linear_node = linear_nodes.as_linear(node)
    bias = None if linear_node is None else linear_node.bias_array()
    if weight is None or bias is None:
        raise ValueError(f"the bias of {queries.site(node)} is not known")
    if node.op_type == "Gemm":
        shift = shift * node.attributes.get_float("alpha", 1.0)
        node.attributes.pop("beta", None)
    array = (np.broadcast_to(bias, shift.shape) + shift).astype(weight.dtype)
    if node.op_type == "MatMul":
        _add_behind(node, shift.astype(weight.dtype), rewriter)
    else:
        replace_input(node, 2, array, rewriter, replaced)


def _add_to_gates(node: ir.Node, shift: NDArray[np.float64], rewriter: Rewriter) -> None:
    """The bias of a recurrent node: (directions, gates of the input and gates of the state)."""
    weight = constants.constant_array(node.inputs[1])
    if weight is None:
        raise ValueError(f"the weight of {queries.site(node)} is not known")
    directions, gates = weight.shape[:2]
    value = node.inputs[3] if len(node.inputs) > 3 else None
    bias = np.zeros((directions, 2 * gates), weight.dtype) if value is None else constants.constant_array(value)
    if bias is None:
        raise ValueError(f"the bias of {queries.site(node)} is not known")
    array = bias.astype(np.float64)
    array[:, :gates] += shift.reshape(directions, gates)
    replace_input(node, 3, array.astype(weight.dtype), rewriter)


def _add_behind(node: ir.Node, shift: NDArray[np.generic], rewriter: Rewriter) -> None:
    """Put an Add behind a MatMul, or add to the constant of the one that is there."""
    output = node.outputs[0]
    reader = queries.only_consumer(output)
    if reader is not None and queries.is_standard(reader, "Add"):
        index = 1 if reader.inputs[0] is output else 0
        array = constants.constant_array(reader.inputs[index])
        if array is not None and array.ndim <= 1 and array.size in {1, shift.size}:
            replace_input(reader, index, np.broadcast_to(array, shift.shape) + shift, rewriter)
            return
    summed = ir.Value(name=rewriter.names.fresh(f"{output.name}_sum"))
    name = rewriter.names.fresh(f"{node.name}_bias") if node.name else ""
    add = ir.node("Add", [output, rewriter.constant(node, shift, "bias")], outputs=[summed], name=name)
    graph_of = node.graph
    if graph_of is None:
        raise ValueError(f"{queries.site(node)} is in no graph")
    graph_of.insert_after(node, add)
    editing.replace_under_its_name(summed, output, [use for use in output.uses() if use.node is not add])
