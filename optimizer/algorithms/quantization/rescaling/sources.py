"""Sources: nodes that can divide the channels of what they make, by their own constants.

::

    kernel               its output channels, and its bias
    LayerNormalization   gain and bias, over the last axis
    Mul by a vector      the vector: the last step of a normalization that was taken apart

Constants that others read too are left alone, since the others would change; but for a bias of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.channels.axes import Channels
from optimizer.algorithms.channels.homogeneous import HomogeneousShift
from optimizer.graph import constants as weights
from optimizer.graph import linear_nodes, queries
from optimizer.graph.constants import constant_tensor

if TYPE_CHECKING:
    from optimizer.graph.linear_nodes import LinearNode


@dataclass(frozen=True)
class ScalableNode:
    """What makes the channels of a region.

    Attributes:
        node: The node.
        kernel: The node as a kernel, if it is one.
        shifts: Constants that scale with its output: bias, gain.
        channels: Where the channels lie in what it makes.
    """

    node: ir.Node
    kernel: LinearNode | None
    shifts: tuple[HomogeneousShift, ...]
    channels: Channels


def from_end(kernel: LinearNode) -> int:
    """The axis of channels in what ``kernel`` reads and makes, counted from the end."""
    return len(kernel.shape) - 1 if kernel.axis == 1 else 1


def kernel_source(node: ir.Node) -> ScalableNode | str | None:
    """A kernel as a source."""
    kernel = linear_nodes.as_linear(node)
    if kernel is None:
        return None
    if reason := weight_obstacle(kernel):
        return reason
    channels = Channels(kernel.outputs, from_end(kernel))
    if kernel.bias is None:
        return ScalableNode(node, kernel, (), channels)
    shape = weights.known_shape(kernel.bias)
    if shape is None or (reason := shift_obstacle(kernel.bias, node)):
        return reason if shape is not None else "has a computed bias"
    if shape != () and shape[-1] not in {1, kernel.outputs}:
        return "has a bias of another shape"
    return ScalableNode(node, kernel, (HomogeneousShift(kernel.bias, Channels(kernel.outputs, 1)),), channels)


def norm_source(node: ir.Node) -> ScalableNode | str | None:
    """A normalization as a source: LayerNormalization over the last axis, or a Mul by a vector."""
    constants = _gains(node)
    lengths = {shape for shape in map(weights.known_shape, constants) if shape is not None}
    if not constants or len(lengths) != 1 or any(weights.known_shape(value) is None for value in constants):
        return None
    shape = lengths.pop()
    if len(shape) != 1 or shape[0] < 2:
        return None
    channels = Channels(shape[0], 1)
    reasons = [shift_obstacle(value, node) for value in constants]
    shifts = tuple(HomogeneousShift(value, channels) for value in constants)
    return next(filter(None, reasons), None) or ScalableNode(node, None, shifts, channels)


def _gains(node: ir.Node) -> list[ir.Value]:
    """The constants of ``node`` that scale with its output, if it is a normalization."""
    if queries.has_references(node):
        return []
    if queries.is_standard(node, "LayerNormalization"):
        has_more = any(queries.has_uses(output) for output in node.outputs[1:])
        if has_more or node.attributes.get_int("axis", -1) != -1:
            return []
        return [value for value in node.inputs[1:] if value is not None]
    if not queries.is_standard(node, "Mul"):
        return []
    return [value for value in node.inputs if value is not None and constant_tensor(value) is not None]


def weight_obstacle(kernel: LinearNode) -> str:
    """Why the weight of ``kernel`` may not be scaled; empty if it may."""
    tensor = constant_tensor(kernel.weight)
    if tensor is None:
        return "has a computed weight"
    if tensor.dtype is not ir.DataType.FLOAT:
        return f"has a weight of type {tensor.dtype.name.lower()}"
    uses = queries.use_count(kernel.weight)
    return "" if uses == 1 and weights.is_only_read_by(kernel.weight, [kernel.node]) else "shares its weight"


def shift_obstacle(value: ir.Value, node: ir.Node) -> str:
    """Why the constant ``value`` that ``node`` adds or multiplies may not be scaled; empty if it may."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype is not ir.DataType.FLOAT:
        return "has a computed bias" if tensor is None else f"has a bias of type {tensor.dtype.name.lower()}"
    if queries.use_count(value) == 1 and weights.is_only_read_by(value, [node]):
        return ""
    return "shares its bias" if np.any(tensor.numpy()) else ""
