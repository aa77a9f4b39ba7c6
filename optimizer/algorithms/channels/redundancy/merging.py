"""Lets other channels, or a bias, compensate for those that go.

    W_r <- W_r + sum_c s_c W_c        for channels x_c = s_c x_r
    b   <- b + sum_c k_c sum W_c      for channels x_c = k_c everywhere; W_c summed over the window

Which go is decided in ``optimizer.algorithms.channels.redundancy.redundant``. Sums are in float64, and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.channels.dependency.removal import replace_input
from optimizer.algorithms.channels.redundancy.linear_facts import array_of
from optimizer.graph import constants, editing, linear_nodes, queries
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelConsumer
    from optimizer.algorithms.channels.dependency.removal import Replacements
    from optimizer.algorithms.channels.redundancy.redundant import Reading, Redundancy
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_RECURRENT = having(Trait.RECURRENT)


@dataclass(frozen=True)
class BiasShift:
    """What constant channels add to the outputs of a kernel.

    Attributes:
        consumer: The kernel.
        added: One number for each output channel, (outputs,); for each gate of each direction of a recurrent node.
    """

    consumer: ChannelConsumer
    added: NDArray[np.float64]


def merge(redundancies: Redundancy) -> list[BiasShift]:
    """Change weights so that consumers do not need the units that go, but for their constants; nothing is removed yet.

    Returns:
        What is to be added to the outputs of kernels once the units are removed.

    Raises:
        OverflowError: If a weight does not fit into its type; the model is not to be used any more.
    """
    gone = np.array(sorted(redundancies.gone), np.int64)
    shifts: list[BiasShift] = []
    for reading in redundancies.readings:
        # Of the channels that go: constants into the bias, all others into a parallel channel, unused ones nowhere
        leaving = np.flatnonzero(np.isin(reading.roots, gone) & ~reading.unused)
        constant = leaving[~np.isnan(reading.shift[leaving])]
        shifts += _shifts(reading, constant[reading.shift[constant] != 0])
        _add_parallel(reading, np.setdiff1d(leaving, constant), gone)
    return shifts


def _shifts(reading: Reading, constant: NDArray[np.int64]) -> list[BiasShift]:
    """What the channels at positions ``constant`` add to each output."""
    # W_c summed over the window, times k_c; kernels that see a border of zeros are excluded by ``is_steady``
    if not constant.size:
        return []
    array, consumer = _array(reading.weight), reading.consumers[0]
    window_axes = tuple(
        window_axis for window_axis in range(array.ndim) if window_axis not in {consumer.axis, consumer.output_axis}
    )
    window_sums = np.moveaxis(array.sum(axis=window_axes, keepdims=True), consumer.axis, 0)[constant]
    if consumer.node.op_type in _RECURRENT:  # (directions, gates, inputs): no axis but that of inputs is summed over
        window_sums = np.moveaxis(array, consumer.axis, 0)[constant]
    added = np.tensordot(reading.shift[constant], window_sums, axes=1).reshape(-1)
    return [BiasShift(consumer, added) for consumer in reading.consumers]


def _add_parallel(reading: Reading, parallel: NDArray[np.int64], gone: NDArray[np.int64]) -> None:
    """Add the weights of channels that go to those of channels of the same value number that stay."""
    if not parallel.size:
        return
    scale, axis = reading.facts[0].scale, reading.consumers[0].axis
    # Each goes to the parallel channel of the largest scale that stays, by which factors are at most 1
    staying = np.flatnonzero(~np.isin(reading.roots, gone))
    # (input channels, all the rest)
    columns = np.moveaxis(_array(reading.weight), axis, 0)
    for position in parallel.tolist():
        parallel_staying = staying[reading.value_number[staying] == reading.value_number[position]]
        target = int(parallel_staying[np.argmax(scale[parallel_staying])])
        columns[target] += columns[position] * (scale[position] / scale[target])
    tensor = (
        reading.weight.const_value
        if reading.weight.const_value is not None
        else constants.constant_tensor(reading.weight)
    )
    rounded = constants.round_once(
        np.moveaxis(columns, 0, axis), np.dtype(np.float32) if tensor is None else tensor.dtype.numpy()
    )
    if rounded is None:
        raise OverflowError(f"the sum of weights in {reading.weight.name} does not fit into its type")
    constants.set_array(reading.weight, rounded)


def _array(value: ir.Value) -> NDArray[np.float64]:
    array = array_of(value)
    if array is None:
        raise ValueError(f"{value.name} is no constant")
    return array


def add_to_bias(
    node: ir.Node, shift: NDArray[np.float64], rewriter: Rewriter, replacements: Replacements | None = None
) -> None:
    """Add a number to each output channel of a kernel; ``replacements`` as for ``replace_input``."""
    if node.op_type in _RECURRENT:
        _add_to_gates(node, shift, rewriter)
        return
    weight = constants.constant_array(node.inputs[1])
    linear_node = linear_nodes.as_linear(node)
    bias = None if linear_node is None else linear_node.bias_array()
    if weight is None or bias is None:
        raise ValueError(f"the bias of {queries.site(node)} is not known")
    if node.op_type == "Gemm":  # alpha scales the product alone; ``bias`` has beta in it already
        shift = shift * node.attributes.get_float("alpha", 1.0)
        node.attributes.pop("beta", None)
    array = (np.broadcast_to(bias, shift.shape) + shift).astype(weight.dtype)
    if node.op_type == "MatMul":
        _add_behind(node, shift.astype(weight.dtype), rewriter)
    else:
        replace_input(node, 2, array, rewriter, replacements)


def _add_to_gates(node: ir.Node, shift: NDArray[np.float64], rewriter: Rewriter) -> None:
    """Add to the bias of a recurrent node, (directions, gates of the input, then of the state): to the first half."""
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
    # An Add behind it takes the shift up, if its constant broadcasts along the last axis
    bias = linear_nodes.bias_input(node)
    if bias is not None:
        array = constants.constant_array(bias.value)
        if array is not None and array.ndim <= 1 and array.size in {1, shift.size}:
            replace_input(*bias, np.broadcast_to(array, shift.shape) + shift, rewriter)
            return
    # Else a new Add, whose output takes over the name and the users of the product
    sum_value = ir.Value(name=rewriter.names.fresh(f"{output.name}_sum"))
    name = rewriter.names.fresh(f"{node.name}_bias") if node.name else ""
    add = ir.node("Add", [output, rewriter.constant(node, shift, "bias")], outputs=[sum_value], name=name)
    graph = node.graph
    if graph is None:
        raise ValueError(f"{queries.site(node)} is in no graph")
    graph.insert_after(node, add)
    editing.replace_under_its_name(sum_value, output, [use for use in output.uses() if use.node is not add])
