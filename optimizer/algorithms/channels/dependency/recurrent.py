"""The hidden units of GRU, LSTM and RNN as channels (``optimizer.algorithms.channels.dependency.groups``).

::

    W  (directions, gates x units, inputs)     B  (directions, 2 x gates x units)      P  (directions, 3 x units)
    R  (directions, gates x units, units)      initial h and c  (…, units)             outputs  (…, units)

A unit goes with its gates, its column of the recurrence, and its place in the states; the same unit of all directions
at once, since they lie at one position of the outputs. Gates are in front of units in all weights (ONNX operator
specification). An initial state is a constant, or one number broadcast to a shape that counts the units, as exporters
write it for batches of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency.groups import ChannelAxis
from optimizer.algorithms.channels.dependency.reshapes import element
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups

_WEIGHTS = (1, 2)
_BIAS, _PEEPHOLES = 3, 7
_STATES = (5, 6)


def begin_units(groups: ChannelGroups, node: ir.Node) -> NDArray[np.int64]:
    """Begin the channel axis of the units of ``node``.

    Returns:
        Their channel ids by position of the gates of all directions, (directions * gates * units,); empty where a
        state or a weight is computed.
    """
    indices = [
        index for index in (*_WEIGHTS, _BIAS, *_STATES, _PEEPHOLES) if index < len(node.inputs) and node.inputs[index]
    ]
    shapes = {index: shape for index in indices if (shape := _shape(node, index)) is not None}
    if not all(index in shapes or index in _STATES for index in indices):
        return np.zeros(0, np.int64)
    # 1. Every input is a constant; or it is a state, and one element says how many units it has
    directions, gates, units = shapes[2]
    broadcast_sizes = [_size_constant_of_state(node, index, units) for index in indices if index not in shapes]
    if None in broadcast_sizes:
        return np.zeros(0, np.int64)
    # 2. One id a unit, which lies once on the outputs and once in each gate
    unit_ids = groups.new_channel_ids(units)
    groups.producers[node] = groups.hidden_units[node] = unit_ids
    for output in node.outputs:
        groups.put(output, ChannelAxis(1, unit_ids))
    gate_ids = np.tile(unit_ids, gates // units)
    groups.slice_parameter(node, 1, 1, gate_ids)
    groups.slice_parameter(node, 2, 1, gate_ids)
    groups.slice_parameter(node, 2, 2, unit_ids)
    # 3. Sizes of states; biases (two of each gate), peepholes and constant states, all units on their last axis
    for size_constant in broadcast_sizes:
        if size_constant is not None:
            groups.add_size_constant(*size_constant, unit_ids)
    for index in shapes.keys() - set(_WEIGHTS):
        *_, last = shapes[index]
        groups.slice_parameter(node, index, len(shapes[index]) - 1, np.tile(unit_ids, last // units))
    return np.tile(gate_ids, directions)


def multiplications(node: ir.Node) -> tuple[int, int, int] | None:
    """Inputs, units, and how many weights a pair of them has, over gates and directions; ``None`` if not known."""
    weight, recurrence = (_shape(node, index) for index in _WEIGHTS)
    if weight is None or recurrence is None:
        return None
    (directions, gates, inputs), units = weight, recurrence[2]
    return inputs, units, directions * gates // units


def _size_constant_of_state(node: ir.Node, index: int, units: int) -> tuple[ir.Node, int, int] | None:
    """Where the size of a state that is one number, broadcast for ``node`` alone, is said.

    Returns:
        A node, the index of its input, and the element of that; ``None`` if it is not such a state.
    """
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    if value is None or producer is None or any(use.node is not node for use in value.uses()):
        return None
    shape_index, shape = _broadcast_shape(producer)
    state_producers = [state.producer() for state in node.inputs[_STATES[0] : _STATES[1] + 1] if state is not None]
    if shape is None or any(use.node not in state_producers for use in shape.uses()):
        return None
    # A state is (directions, batch, units)
    source_element = element(producer, shape_index, 2)
    if source_element is None or source_element[3] != units or source_element[0] not in {producer, shape.producer()}:
        return None
    return source_element[:3]


def _broadcast_shape(producer: ir.Node) -> tuple[int, ir.Value | None]:
    """Which input of ``producer`` is the shape to which it broadcasts one number, and it; ``None`` if it does not."""
    if queries.is_standard(producer, "ConstantOfShape"):
        return 0, producer.inputs[0]
    tensor = constants.constant_tensor(producer.inputs[0]) if queries.is_standard(producer, "Expand") else None
    return 1, producer.inputs[1] if tensor is not None and tensor.size == 1 else None


def _shape(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """The shape of a constant that ``node`` reads."""
    tensor = constants.constant_tensor(node.inputs[index]) if index < len(node.inputs) else None
    return None if tensor is None else tuple(tensor.shape.numpy())
