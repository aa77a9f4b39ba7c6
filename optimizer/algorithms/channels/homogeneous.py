"""Operators through which a positive factor of a channel passes, and where the channel lies before and behind.

Positively homogeneous in each channel: ``f(c * x) = c * f(x)`` for every c > 0. Cross-layer equalization rests on it
(Nagel et al. 2019, arXiv:1906.04721).

::

    Relu  LeakyRelu  PRelu  Abs  Neg  Identity  Dropout     alone
    MaxPool  AveragePool  GlobalMaxPool  GlobalAveragePool  within a channel
    Pad with zeros, or copies of elements;  Resize          not along the channels
    ReduceMean  ReduceSum  ReduceMax  ReduceMin             not over the channels
    Transpose  Squeeze  Unsqueeze                           the axis moves
    Flatten, or a Reshape that is one                       a channel becomes a block
    Reshape that leaves the last axis alone                 channels on that axis
    Add  Sub                                                both operands scale, a constant with them
    Mul  Div                                                one operand scales, the other is any gate
    Clip between 0 and infinity                             a Relu

A Clip with another bound is left alone, even where no observed feed meets it: on other feeds of EfficientNet-Lite0,
scaling under Relu6 what 28 feeds left below 6 gave a relative L2 of 0.13 to 0.32 before anything was quantized.

What is missing scales otherwise (Sigmoid, Softmax, HardSwish, a product of x and x), or is not looked at (Concat).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.axes import MOVES, Channels, keeps_size, moved, reshaped
from optimizer.graph import constants, operators, queries
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

_UNARY = (having(Trait.UNARY) & having(Trait.HOMOGENEOUS)) | {"PRelu"}  # whose slope does not scale
# Powers and roots round: after an LpPool a power of two may change a bit.
_POOLS = having(Trait.POOLING) - {"LpPool", "GlobalLpPool"}
_NO_BOUND = 1e30  # exporters write the largest float where there is none
_MAX_RANK = 8


@dataclass(frozen=True)
class HomogeneousShift:
    """A constant that scales with the channels: one number, or an axis of them."""

    value: ir.Value
    channels: Channels


@dataclass(frozen=True)
class HomogeneousOperator:
    """Values that scale together.

    Attributes:
        values: They, and where their channels lie.
        shifts: Constants that scale with them.
    """

    values: tuple[tuple[ir.Value, Channels], ...]
    shifts: tuple[HomogeneousShift, ...] = ()


def as_homogeneous(node: ir.Node, value: ir.Value, channels: Channels) -> HomogeneousOperator | None:
    """What scales with ``value``, an input or the output of ``node``, because of ``node``; ``None`` if it is not known.

    Args:
        node: Any node but a kernel.
        value: Its channels are scaled.
        channels: Where they lie in it.
    """
    if not queries.is_standard(node) or queries.has_references(node) or not operators.has_one_output(node):
        return None
    # 1. Sums, in which all operands scale, and products, in which one does
    if node.op_type in {"Add", "Sub"}:
        return _sum(node, channels)
    if node.op_type in {"Mul", "Div"}:
        return _gated(node, value, channels)
    # 2. From here on only the first input scales; sizes, slopes and axes do not
    if not node.inputs or any(value is operand for operand in node.inputs[1:]):
        return None
    if node.op_type in _UNARY or (node.op_type in _LIKE and _LIKE[node.op_type](node, channels)):
        return _one_to_one(node, channels, channels)
    # 3. The channels lie elsewhere behind the node
    pair = _elsewhere(node, value, channels)
    return None if pair is None else _one_to_one(node, *pair)


def _elsewhere(node: ir.Node, value: ir.Value, channels: Channels) -> tuple[Channels, Channels] | None:
    if node.op_type in MOVES:
        return moved(node, value, channels)
    return reshaped(node, value, channels) if node.op_type in {"Flatten", "Reshape"} else None


def _one_to_one(node: ir.Node, before: Channels, behind: Channels) -> HomogeneousOperator | None:
    source = node.inputs[0]
    return None if source is None else HomogeneousOperator(((source, before), (node.outputs[0], behind)))


def _is_spatial(node: ir.Node, channels: Channels) -> bool:
    rank = queries.rank(node.inputs[0]) or queries.rank(node.outputs[0])
    return rank is not None and channels.from_end == rank - 1


def _is_idle(node: ir.Node, _channels: Channels) -> bool:
    """Whether a Dropout does nothing."""
    training = constants.constant_array(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    return training is not None and not training.any()


def pads_elsewhere(node: ir.Node, channels: Channels) -> bool:
    """Whether a Pad adds zeros or copies of elements, to other axes than that of channels."""
    mode = node.attributes.get_string("mode", "constant")
    has_amounts = len(node.inputs) > 1
    fill: float | None = node.attributes.get_float("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        array = constants.constant_array(node.inputs[2], 1)
        fill = None if array is None else float(array.reshape(-1)[0])
    amounts = list(node.attributes.get_ints("pads", ())) or constants.constant_ints(
        node.inputs[1] if has_amounts else None
    )
    if amounts is None or len(node.inputs) > 3 or len(amounts) < 2 * channels.from_end:
        return False
    # Amounts are all beginnings, then all ends: those of the axis of channels lie equally far from either end
    ends = (len(amounts) - channels.from_end, len(amounts) // 2 - channels.from_end)
    return (mode != "constant" or fill == 0.0) and all(amounts[index] == 0 for index in ends)


def resizes_elsewhere(node: ir.Node, channels: Channels) -> bool:
    """Whether a Resize leaves the axis of channels alone: its scale is 1, or its size stays the same."""
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return False
    by_size = len(node.inputs) > 3 and node.inputs[3] is not None
    factors = None if by_size else constants.constant_array(node.inputs[min(len(node.inputs) - 1, 2)], _MAX_RANK)
    if factors is None or factors.size < channels.from_end or "axes" in node.attributes:
        return by_size and keeps_size(node, channels)
    return bool(factors.reshape(-1)[-channels.from_end] == 1)


def _is_relu(node: ir.Node, _channels: Channels) -> bool:
    """Whether a Clip has no bounds but 0 and none."""
    low, high = clip_bounds(node)
    return (low == 0 and high >= _NO_BOUND) or (low <= -_NO_BOUND and high >= 0 and (high == 0 or high >= _NO_BOUND))


_LIKE: dict[str, Callable[[ir.Node, Channels], bool]] = {
    **dict.fromkeys(_POOLS, _is_spatial),
    "Dropout": _is_idle,
    "Pad": pads_elsewhere,
    "Resize": resizes_elsewhere,
    "Upsample": resizes_elsewhere,
    "Clip": _is_relu,
}


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """The bounds of a Clip, infinite where there are none; NaN where they are computed."""
    bounds = []
    for index, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        bound = node.attributes.get_float(name, default)
        if index < len(node.inputs) and node.inputs[index] is not None:
            array = constants.constant_array(node.inputs[index], 1)
            bound = math.nan if array is None else float(array.reshape(-1)[0])
        bounds.append(bound)
    return bounds[0], bounds[1]


def _sum(node: ir.Node, channels: Channels) -> HomogeneousOperator | None:
    values, shifts = [(node.outputs[0], channels)], []
    for operand in node.inputs:
        if operand is None:
            return None
        tensor = constants.constant_tensor(operand)
        if tensor is None:
            values.append((operand, channels))
        elif tensor.size == 1 or _axis_size(tensor.shape.numpy(), channels.from_end) == channels.size:
            shifts.append(HomogeneousShift(operand, channels))
        else:
            return None
    return HomogeneousOperator(tuple(values), tuple(shifts))


def _axis_size(shape: Sequence[int], from_end: int) -> int:
    return shape[-from_end] if len(shape) >= from_end else 1


def _gated(node: ir.Node, value: ir.Value, channels: Channels) -> HomogeneousOperator | None:
    """``x * g`` and ``x / g``: x scales, g is anything; it may not make more channels of one."""
    gate = gate_of(node)
    scaled = None if gate is None else node.inputs[1 - gate]
    # x * x scales by c^2, and so does a gate that is scaled
    if gate is None or scaled is None or node.inputs[gate] is value or node.inputs[gate] is scaled:
        return None
    return HomogeneousOperator(((scaled, channels), (node.outputs[0], channels))) if channels.size > 1 else None


def gate_of(node: ir.Node) -> int | None:
    """The operand of a Mul or Div that does not scale: the divisor, a constant, or one number a channel."""
    if node.op_type == "Div":
        return 1
    for index in (0, 1):
        if constants.constant_tensor(node.inputs[index]) is not None:
            return index
    # A squeeze-and-excitation block multiplies each channel by one number: that number is the gate
    narrow = [_is_narrow(operand) for operand in node.inputs]
    return narrow.index(True) if narrow.count(True) == 1 else None


def _is_narrow(value: ir.Value | None) -> bool:
    """Whether ``value`` has one number a channel: all axes behind the second have size 1."""
    rank = queries.rank(value)
    if value is None or value.shape is None or rank is None or rank < 3:
        return False
    return all(dim == 1 for dim in list(value.shape)[2:])
