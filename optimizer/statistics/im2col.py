"""The rows that a linear node multiplies its weight with: a convolution as a product of matrices (im2col).

::

    output[p, o] = rows[g, p] . matrix[g, o] + bias[o]          for each group g and each output channel o of it

A position p is one place of the output: a pixel of one example of a Conv or ConvTranspose, a row of the left side of a
Gemm or MatMul. Its row has K numbers, in the order (input channel of the group, *window); those that lie in the
padding, or between the strides of a ConvTranspose, are 0. A Gemm's ``alpha`` is in the rows.

Positions are drawn before anything is gathered, so a large map is never unfolded as a whole; ``torch.nn.Unfold`` gives
all columns. Definitions of the operators: the ONNX operator specification; unfolding: Chellapilla, Puri, Simard 2006,
"High performance convolutional neural networks for document processing".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.graph.linear_nodes import as_linear
from optimizer.graph.operators import Trait, having
from optimizer.statistics.conv_windows import WindowAxis, padding

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.graph.linear_nodes import LinearNode

_PRODUCTS = having(Trait.PRODUCT)


def refusal(node: ir.Node) -> str | None:
    """Why the rows of ``node`` are not known; ``None`` if they are."""
    linear = as_linear(node)
    if linear is None:
        return "it is not a Conv, ConvTranspose, Gemm (transA = 0) or MatMul with a weight of known shape and rank"
    if node.op_type == "ConvTranspose":
        automatic = node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
        if automatic or "output_shape" in node.attributes:
            return "the padding of this ConvTranspose follows from the size of its output"
    return None


def width(node: ir.Node) -> tuple[int, int]:
    """The number of groups and K, the length of a row."""
    linear = _required(node)
    return linear.groups, linear.inputs // linear.groups * math.prod(_window(linear))


def key(node: ir.Node) -> Hashable:
    """Equal for nodes that have the same rows when they read the same value."""
    linear = _required(node)
    if node.op_type in _PRODUCTS:
        return "product", linear.inputs, node.attributes.get_float("alpha", 1.0)
    attributes = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
    return node.op_type, linear.groups, linear.inputs, _window(linear), attributes


def row_count(node: ir.Node, shape: Sequence[int]) -> int:
    """How many rows an input of ``shape`` has."""
    linear = _required(node)
    if node.op_type in _PRODUCTS:
        return math.prod(shape[:-1])
    return shape[0] * math.prod(axis.outputs for axis in _axes(linear, shape))


def sample(node: ir.Node, shape: Sequence[int], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most ``most`` positions of an input of ``shape``, drawn without repetition, in order; all if they are few."""
    total = row_count(node, shape)
    if total <= most:
        return np.arange(total, dtype=np.int64)
    return np.sort(rng.choice(total, most, replace=False, shuffle=False))


def rows(node: ir.Node, array: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[Any]:
    """At most ``most`` of the rows of the input ``array``; see ``sample`` and ``gather``."""
    return gather(node, array, sample(node, array.shape, most, rng))


def gather(node: ir.Node, array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """The rows of ``node`` at ``positions``.

    Args:
        node: A node without ``refusal``.
        array: Its first input.
        positions: Numbers below ``count``.

    Returns:
        (groups, positions, K), of the type of ``array``.
    """
    linear = _required(node)
    # Gemm and MatMul: the rows of the left side as they are.
    if node.op_type in _PRODUCTS:
        alpha = array.dtype.type(node.attributes.get_float("alpha", 1.0))
        return np.asarray(array.reshape(-1, array.shape[-1])[positions][np.newaxis] * alpha)
    # 1. Each position as the example and the coordinates of its output pixel.
    axes = _axes(linear, array.shape)
    batch, *coordinates = np.unravel_index(positions, (array.shape[0], *(axis.outputs for axis in axes)))
    # 2. What each tap of the window reads. One index array an axis, each along a dimension of its own, so that they
    #    broadcast to (positions, *window); all channels at once.
    ones = [1] * len(axes)
    index: list[Any] = [batch.reshape(-1, *ones), slice(None)]
    inside = np.ones((len(positions), *ones), np.bool_)
    for dimension, (axis, coordinate) in enumerate(zip(axes, coordinates, strict=True)):
        window_shape = (-1, *ones[:dimension], axis.taps, *ones[dimension + 1 :])
        input_index, is_inside = axis.read_at(coordinate)
        index.append(input_index.reshape(window_shape))
        inside = inside & is_inside.reshape(window_shape)
    # 3. (positions, *window, channels): index arrays that a slice stands between put their dimensions first.
    windows = array[tuple(index)]
    windows[~inside] = 0  # padding, and what lies between the strides of a ConvTranspose
    # 4. (groups, positions, channels of a group * window).
    unfolded = np.moveaxis(windows, -1, 1).reshape(len(positions), linear.groups, -1)
    return np.ascontiguousarray(unfolded.swapaxes(0, 1))


def outputs_at(node: ir.Node, output: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """The output of ``node`` at ``positions``: (groups, positions, output channels of a group)."""
    linear = _required(node)
    if node.op_type in _PRODUCTS:
        return output.reshape(-1, linear.outputs)[positions][np.newaxis]
    flat = output.reshape(output.shape[0], linear.outputs, -1)
    batch, pixel = np.divmod(positions, flat.shape[2])
    return flat[batch, :, pixel].reshape(len(positions), linear.groups, -1).swapaxes(0, 1)


def as_matrix(node: ir.Node, weight: NDArray[Any]) -> NDArray[Any]:
    """``weight``, of the shape that ``node`` reads, as (groups, output channels of a group, K)."""
    linear = _required(node)
    match node.op_type:
        case "Conv":
            return weight.reshape(linear.groups, linear.outputs // linear.groups, -1)
        case "ConvTranspose":
            # (groups * in, out, *window) to (groups, out, in, window)
            grouped = weight.reshape(linear.groups, linear.inputs // linear.groups, linear.outputs // linear.groups, -1)
            return grouped.swapaxes(1, 2).reshape(linear.groups, linear.outputs // linear.groups, -1)
    return (weight if linear.transposed else weight.T)[np.newaxis]


def from_matrix(node: ir.Node, matrix: NDArray[Any]) -> NDArray[Any]:
    """The weight of which ``matrix`` is ``as_matrix``."""
    linear = _required(node)
    match node.op_type:
        case "Conv":
            return matrix.reshape(linear.shape)
        case "ConvTranspose":
            # (groups, out, in, window) to (groups, in, out, window)
            grouped = matrix.reshape(linear.groups, linear.outputs // linear.groups, linear.inputs // linear.groups, -1)
            return grouped.swapaxes(1, 2).reshape(linear.shape)
    return np.ascontiguousarray(matrix[0] if linear.transposed else matrix[0].T)


def _required(node: ir.Node) -> LinearNode:
    linear = as_linear(node)
    if linear is None:
        raise ValueError(f"{node.op_type} {node.name!r}: {refusal(node)}")
    return linear


def _window(linear: LinearNode) -> tuple[int, ...]:
    return () if linear.node.op_type in _PRODUCTS else linear.shape[2:]


def _axes(linear: LinearNode, shape: Sequence[int]) -> list[WindowAxis]:
    """The axes of the map behind batch and channels, of an input of ``shape``."""
    window, attributes = _window(linear), linear.node.attributes
    ones, zeros = [1] * len(window), [0] * len(window)
    strides, dilations = attributes.get_ints("strides", ones), attributes.get_ints("dilations", ones)
    extra = attributes.get_ints("output_padding", zeros)
    is_transposed = linear.node.op_type == "ConvTranspose"
    axes = []
    for dimension, (size, taps) in enumerate(zip(shape[2:], window, strict=True)):
        before, after = padding(linear.node, dimension, size, taps)
        axes.append(
            WindowAxis(
                size, taps, strides[dimension], dilations[dimension], before, after, extra[dimension], is_transposed
            )
        )
    return axes
