"""Operators that keep numbers between two limits: Relu, Clip, and Min and Max with one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.graph import constants, queries

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = frozenset({"Relu", "Clip", "Min", "Max"})
_RANGES = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), (0.0, 1.0)),
    **dict.fromkeys(("Abs", "Exp"), (0.0, np.inf)),
}
ARE_INPUTS = 11  # from this opset on the limits of Clip are inputs
_MINMAX_BROADCASTS = 8


@dataclass(frozen=True)
class ClipBounds:
    """``min(max(source, low), high)``; infinite where there is no limit."""

    source: ir.Value
    low: float
    high: float

    def then(self, other: ClipBounds) -> ClipBounds:
        """These limits and then those of ``other``."""
        low, high = (min(max(limit, other.low), other.high) for limit in (self.low, self.high))
        return ClipBounds(self.source, low, high)


def clip_bounds(node: ir.Node, opset: int) -> ClipBounds | None:
    """What ``node`` limits and by which constants, if that is all it does."""
    source = node.inputs[0] if node.inputs else None
    if source is None or not queries.is_standard(node, *OPS) or queries.has_references(node):
        return None
    match node.op_type:
        case "Relu":
            return ClipBounds(source, 0.0, np.inf)
        case "Clip" if opset < ARE_INPUTS:
            low, high = node.attributes.get_float("min", -np.inf), node.attributes.get_float("max", np.inf)
            return ClipBounds(source, low, high)
        case "Clip":
            lowest, highest = _number(_input(node, 1), -np.inf), _number(_input(node, 2), np.inf)
            return None if lowest is None or highest is None else ClipBounds(source, lowest, highest)
    return _one_limit(node, opset)


def range_of(value: ir.Value | None, opset: int) -> tuple[float, float]:
    """Between which numbers all elements of ``value`` are, those that are NaN aside."""
    node = None if value is None else value.producer()
    if value is None or node is None or not queries.is_standard(node):
        return -np.inf, np.inf
    bounds = clip_bounds(node, opset)
    if bounds is not None and bounds.low <= bounds.high:
        return bounds.low, bounds.high
    return _RANGES.get(node.op_type, (-np.inf, np.inf)) if value.dtype in constants.FLOATS else (-np.inf, np.inf)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _one_limit(node: ir.Node, opset: int) -> ClipBounds | None:
    """A Min or Max of something and one number, which does not enlarge it."""
    if len(node.inputs) != 2 or opset < _MINMAX_BROADCASTS:
        return None
    for index, value in enumerate(node.inputs):
        source, shape = node.inputs[1 - index], constants.known_shape(value)
        number = None if shape is None or any(size != 1 for size in shape) else _number(value, None)
        if source is None or number is None or shape is None or len(shape) > (queries.rank(source) or 0):
            continue
        return ClipBounds(source, number, np.inf) if node.op_type == "Max" else ClipBounds(source, -np.inf, number)
    return None


def _number(value: ir.Value | None, default: float | None) -> float | None:
    """The one number of the constant ``value``; ``default`` if there is no value, ``None`` if it is none."""
    if value is None:
        return default
    shape = constants.known_shape(value)
    array = constants.float_array(value) if shape is not None and all(size == 1 for size in shape) else None
    return None if array is None or np.isnan(array).any() else float(array.reshape(()))
