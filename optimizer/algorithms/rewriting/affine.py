"""Nodes that scale and shift by constants, one idea for six operators.

::

    BatchNormalization(x, g, b, m, v)   g / sqrt(v + eps) * x + (b - m * g / sqrt(v + eps))
    Mul(x, c)  Div(x, c)  Neg(x)        c * x    x / c    -x
    Add(x, c)  Sub(x, c)  Sub(c, x)     x + c    x - c    -x + c
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.graph import constants, queries

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

SCALES = frozenset({"Mul", "Div", "Neg"})
SHIFTS = frozenset({"Add", "Sub"})
OPS = SCALES | SHIFTS | {"BatchNormalization"}
_MAX_ELEMENTS = 1 << 22  # larger constants are weights
OLDEST_OPSET = 7  # before it, Add and Mul broadcast by attribute and BatchNormalization knew a test mode


@dataclass(frozen=True)
class Affine:
    """``scale * source + shift``, with one number for all or one for each channel.

    Attributes:
        node: The node that computes it.
        source: What is scaled and shifted.
        scale: Shape () or (channels,); ``None`` is 1.
        shift: Shape () or (channels,); ``None`` is 0.
    """

    node: ir.Node
    source: ir.Value
    scale: NDArray[np.float64] | None
    shift: NDArray[np.float64] | None

    def same_scale(self, other: Affine) -> bool:
        """Whether both scale by exactly the same numbers."""
        if self.scale is None or other.scale is None:
            return self.scale is other.scale
        return np.array_equal(self.scale, other.scale)


def as_affine(node: ir.Node, operand: int, axis: int, channels: int, rank: int | None) -> Affine | None:
    """``node`` as a scaling and shift of its input ``operand``, if it is one.

    Args:
        node: Of one of the operators above, at opset 7 or later.
        operand: Which input is scaled and shifted; the others have to be constants.
        axis: The axis of the channels in that input.
        channels: How many there are.
        rank: Rank of that input; unknown ranks allow only constants that broadcast to all of them.
    """
    source = node.inputs[operand] if operand < len(node.inputs) else None
    if source is None or any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    if node.op_type == "Neg":
        return Affine(node, source, np.array(-1.0), None)
    if node.op_type == "BatchNormalization":
        second = axis == 1 or (axis == -1 and rank == 2)
        return _batch_norm(node, source, channels) if operand == 0 and second else None
    if len(node.inputs) != 2:
        return None
    constant = constants.per_channel(node.inputs[1 - operand], axis, channels, rank)
    return None if constant is None else _binary(node, operand, source, constant)


def _binary(node: ir.Node, operand: int, source: ir.Value, constant: NDArray[np.float64]) -> Affine | None:
    match node.op_type, operand:
        case "Mul", _:
            return Affine(node, source, constant, None)
        case "Div", 0 if np.all(constant != 0):
            return Affine(node, source, 1.0 / constant, None)
        case "Add", _:
            return Affine(node, source, None, constant)
        case "Sub", 0:
            return Affine(node, source, None, -constant)
        case "Sub", 1:
            return Affine(node, source, np.array(-1.0), constant)
    return None


def _batch_norm(node: ir.Node, source: ir.Value, channels: int) -> Affine | None:
    """A BatchNormalization at test time, whose statistics are constants."""
    attributes = node.attributes
    trains = attributes.get_int("training_mode", 0) or not attributes.get_int("spatial", 1)
    if trains or len(node.inputs) != 5 or any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return None
    arrays = [constants.float_array(value) for value in node.inputs[1:]]
    if any(array is None or array.shape != (channels,) for array in arrays):
        return None
    gain, offset, mean, variance = (array.astype(np.float64) for array in arrays if array is not None)
    with np.errstate(all="ignore"):
        scale = gain / np.sqrt(variance + attributes.get_float("epsilon", 1e-5))
        shift = offset - mean * scale
    return Affine(node, source, scale, shift)


@dataclass(frozen=True, eq=False)
class AffineStep:
    """``source * array`` if it scales, else ``source + array``; the constant has any shape and may enlarge.

    Attributes:
        node: The node that computes it.
        source: What is scaled or shifted.
        array: By what.
        scales: Whether it is scaled.
    """

    node: ir.Node
    source: ir.Value
    array: NDArray[np.float64]
    scales: bool


def affine_step(node: ir.Node) -> AffineStep | None:
    """``node`` as a scaling or shift by a constant of a float type, if it is one."""
    if not queries.is_standard(node, *SCALES, *SHIFTS):
        return None
    if node.op_type == "Neg":
        source = node.inputs[0]
        is_float = source is not None and source.dtype in constants.FLOATS
        return AffineStep(node, source, np.array(-1.0), scales=True) if source is not None and is_float else None
    for operand in (0, 1) if node.op_type in {"Add", "Mul"} else (0,):
        source, array = node.inputs[operand], _constant(node.inputs[1 - operand])
        if source is None or array is None or constants.constant_tensor(source) is not None:
            continue
        match node.op_type:
            case "Div":
                return AffineStep(node, source, 1.0 / array, scales=True) if np.all(array != 0) else None
            case "Sub":
                return AffineStep(node, source, -array, scales=False)
        return AffineStep(node, source, array, scales=node.op_type == "Mul")
    return None


def _constant(value: ir.Value | None) -> NDArray[np.float64] | None:
    tensor = constants.constant_tensor(value)
    if tensor is None or tensor.size > _MAX_ELEMENTS:
        return None
    array = constants.float_array(value)
    return None if array is None else array.astype(np.float64)
