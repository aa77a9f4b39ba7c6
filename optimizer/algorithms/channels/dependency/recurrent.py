"""The hidden units of GRU, LSTM and RNN as channels (``optimizer.algorithms.channels.dependency.groups``).

::

    W  (directions, gates x units, inputs)     B  (directions, 2 x gates x units)      P  (directions, 3 x units)
    R  (directions, gates x units, units)      initial h and c  (…, units)             outputs  (…, units)

A unit goes with its gates, its column of the recurrence, and its place in the states; the same unit of all directions
at once, since they lie at one position of the outputs. Gates are in front of units in all weights (ONNX operator
specification). An initial state is a constant, or one number spread to a shape that counts the units, as exporters
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
        Their channel ids by position of the gates of all directions; empty where a state or a weight is computed.
    """
    read = [at for at in (*_WEIGHTS, _BIAS, *_STATES, _PEEPHOLES) if at < len(node.inputs) and node.inputs[at]]
    shapes = {at: shape for at in read if (shape := _shape(node, at)) is not None}
    if not all(at in shapes or at in _STATES for at in read):
        return np.zeros(0, np.int64)
    directions, gates, units = shapes[2]
    spread = [_counted(node, at, units) for at in read if at not in shapes]
    if None in spread:
        return np.zeros(0, np.int64)
    unit_ids = groups.new_channel_ids(units)
    groups.producers[node] = groups.units[node] = unit_ids
    for output in node.outputs:
        groups.put(output, ChannelAxis(1, unit_ids))
    gated = np.tile(unit_ids, gates // units)
    groups.slice_parameter(node, 1, 1, gated)
    groups.slice_parameter(node, 2, 1, gated)
    groups.slice_parameter(node, 2, 2, unit_ids)
    for counted in spread:
        if counted is not None:
            groups.add_size_constant(*counted, unit_ids)
    for at in shapes.keys() - set(_WEIGHTS):
        *_, last = shapes[at]
        groups.slice_parameter(node, at, len(shapes[at]) - 1, np.tile(unit_ids, last // units))
    return np.tile(gated, directions)


def multiplications(node: ir.Node) -> tuple[int, int, int] | None:
    """Inputs, units, and how many weights a pair of them has, over gates and directions; ``None`` if not known."""
    weight, recurrence = (_shape(node, at) for at in _WEIGHTS)
    if weight is None or recurrence is None:
        return None
    (directions, gates, inputs), units = weight, recurrence[2]
    return inputs, units, directions * gates // units


def _counted(node: ir.Node, at: int, units: int) -> tuple[ir.Node, int, int] | None:
    """Where the size of a state that is one number, spread for ``node`` alone, is told: a node, its input, the element.

    ``None`` if it is no such state.
    """
    value = node.inputs[at]
    maker = None if value is None else value.producer()
    if value is None or maker is None or any(use.node is not node for use in value.uses()):
        return None
    index, shape = _spread_to(maker)
    producers = [state.producer() for state in node.inputs[_STATES[0] : _STATES[1] + 1] if state is not None]
    if shape is None or any(use.node not in producers for use in shape.uses()):
        return None
    source_element = element(maker, index, 2)
    if source_element is None or source_element[3] != units or source_element[0] not in {maker, shape.producer()}:
        return None
    return source_element[:3]


def _spread_to(maker: ir.Node) -> tuple[int, ir.Value | None]:
    """Which input of ``maker`` tells the shape to which it spreads one number, and it; ``None`` if it does not."""
    if queries.is_standard(maker, "ConstantOfShape"):
        return 0, maker.inputs[0]
    tensor = constants.constant_tensor(maker.inputs[0]) if queries.is_standard(maker, "Expand") else None
    return 1, maker.inputs[1] if tensor is not None and tensor.size == 1 else None


def _shape(node: ir.Node, at: int) -> tuple[int, ...] | None:
    """The shape of a constant that ``node`` reads."""
    tensor = constants.constant_tensor(node.inputs[at]) if at < len(node.inputs) else None
    return None if tensor is None else tuple(tensor.shape.numpy())
