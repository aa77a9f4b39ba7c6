"""The rows that a kernel multiplies its weight with: a convolution as a product of matrices (im2col).

::

    output[p, o] = rows[g, p] . matrix[g, o] + bias[o]          for each group g and each output channel o of it

A position p is one place of the output: a pixel of one example of a Conv or ConvTranspose, a row of the left side of a
Gemm or MatMul. Its row has K numbers, in the order (input channel of the group, *window); those that lie in the
padding, or between the strides of a ConvTranspose, are 0. A Gemm's ``alpha`` is in the rows.

Positions are drawn before anything is gathered, so a large map is never unfolded as a whole. Definitions of the
operators: the ONNX operator specification; unfolding: Chellapilla, Puri, Simard 2006, "High performance convolutional
neural networks for document processing".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.graph.linear_nodes import as_linear
from optimizer.statistics.conv_windows import WindowAxis, padding

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.graph.linear_nodes import LinearNode

_PRODUCTS = frozenset({"Gemm", "MatMul"})


def refusal(node: ir.Node) -> str | None:
    """Why the rows of ``node`` cannot be told; ``None`` if they can."""
    linear_node = as_linear(node)
    if linear_node is None:
        return "it is no Conv, ConvTranspose, Gemm (transA = 0) or MatMul with a weight of known shape and rank"
    if node.op_type == "ConvTranspose":
        automatic = node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
        if automatic or "output_shape" in node.attributes:
            return "the padding of this ConvTranspose follows from the size of its output"
    return None


def width(node: ir.Node) -> tuple[int, int]:
    """The number of groups and K, the length of a row."""
    linear_node = _required(node)
    return linear_node.groups, linear_node.inputs // linear_node.groups * math.prod(_window(linear_node))


def key(node: ir.Node) -> Hashable:
    """Equal for kernels that have the same rows when they read the same value."""
    linear_node = _required(node)
    if node.op_type in _PRODUCTS:
        return "product", linear_node.inputs, node.attributes.get_float("alpha", 1.0)
    attributes = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
    return node.op_type, linear_node.groups, linear_node.inputs, _window(linear_node), attributes


def count(node: ir.Node, shape: Sequence[int]) -> int:
    """How many rows an input of ``shape`` has."""
    linear_node = _required(node)
    if node.op_type in _PRODUCTS:
        return math.prod(shape[:-1])
    return shape[0] * math.prod(axis.outputs for axis in _axes(linear_node, shape))


def sample(node: ir.Node, shape: Sequence[int], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most ``most`` positions of an input of ``shape``, drawn without repetition, in order; all if they are few."""
    total = count(node, shape)
    if total <= most:
        return np.arange(total, dtype=np.int64)
    return np.sort(rng.choice(total, most, replace=False, shuffle=False))


def rows(node: ir.Node, array: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[Any]:
    """At most ``most`` of the rows of the input ``array``; see ``sample`` and ``gather``."""
    return gather(node, array, sample(node, array.shape, most, rng))


def gather(node: ir.Node, array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """The rows of ``node`` at ``positions``.

    Args:
        node: A kernel without ``refusal``.
        array: Its first input.
        positions: Numbers below ``count``.

    Returns:
        (groups, positions, K), of the type of ``array``.
    """
    linear_node = _required(node)
    if node.op_type in _PRODUCTS:
        alpha = array.dtype.type(node.attributes.get_float("alpha", 1.0))
        return np.asarray(array.reshape(-1, array.shape[-1])[positions][np.newaxis] * alpha)
    # 1. Where the positions lie: example, and place along each axis of the map
    axes = _axes(linear_node, array.shape)
    batch, *places = np.unravel_index(positions, (array.shape[0], *(axis.outputs for axis in axes)))
    # 2. Indices that broadcast to (positions, *window): for each axis, what each tap reads at each place
    ones = [1] * len(axes)
    index: list[Any] = [batch.reshape(-1, *ones), slice(None)]
    inside = np.ones((len(positions), *ones), np.bool_)
    for number, (axis, place) in enumerate(zip(axes, places, strict=True)):
        spread = (-1, *ones[:number], axis.taps, *ones[number + 1 :])
        read, is_there = axis.read_at(place)
        index.append(read.reshape(spread))
        inside = inside & is_there.reshape(spread)
    # 3. Gathered at once; taps in the padding read element 0 and become 0
    windows = array[tuple(index)]  # positions, *window, channels
    windows[~inside] = 0
    # 4. (input channel, *window) for each group: the order of the weight
    unfolded = np.moveaxis(windows, -1, 1).reshape(len(positions), linear_node.groups, -1)
    return np.ascontiguousarray(unfolded.swapaxes(0, 1))


def outputs_at(node: ir.Node, output: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """What ``node`` answered at ``positions``: (groups, positions, output channels of a group)."""
    linear_node = _required(node)
    if node.op_type in _PRODUCTS:
        return output.reshape(-1, linear_node.outputs)[positions][np.newaxis]
    flat = output.reshape(output.shape[0], linear_node.outputs, -1)
    batch, place = np.divmod(positions, flat.shape[2])
    return flat[batch, :, place].reshape(len(positions), linear_node.groups, -1).swapaxes(0, 1)


def as_matrix(node: ir.Node, weight: NDArray[Any]) -> NDArray[Any]:
    """``weight``, of the shape that ``node`` reads, as (groups, output channels of a group, K)."""
    linear_node = _required(node)
    match node.op_type:
        case "Conv":
            return weight.reshape(linear_node.groups, linear_node.outputs // linear_node.groups, -1)
        case "ConvTranspose":
            grouped = weight.reshape(
                linear_node.groups,
                linear_node.inputs // linear_node.groups,
                linear_node.outputs // linear_node.groups,
                -1,
            )
            return grouped.swapaxes(1, 2).reshape(linear_node.groups, linear_node.outputs // linear_node.groups, -1)
    # Gemm with transB holds (out, K) already
    return (weight if linear_node.transposed else weight.T)[np.newaxis]


def from_matrix(node: ir.Node, matrix: NDArray[Any]) -> NDArray[Any]:
    """The weight of which ``matrix`` is ``as_matrix``."""
    linear_node = _required(node)
    match node.op_type:
        case "Conv":
            return matrix.reshape(linear_node.shape)
        case "ConvTranspose":
            grouped = matrix.reshape(
                linear_node.groups,
                linear_node.outputs // linear_node.groups,
                linear_node.inputs // linear_node.groups,
                -1,
            )
            return grouped.swapaxes(1, 2).reshape(linear_node.shape)
    return np.ascontiguousarray(matrix[0] if linear_node.transposed else matrix[0].T)


def _required(node: ir.Node) -> LinearNode:
    linear_node = as_linear(node)
    if linear_node is None:
        raise ValueError(f"{node.op_type} {node.name!r}: {refusal(node)}")
    return linear_node


def _window(linear_node: LinearNode) -> tuple[int, ...]:
    return () if linear_node.node.op_type in _PRODUCTS else linear_node.shape[2:]


def _axes(linear_node: LinearNode, shape: Sequence[int]) -> list[WindowAxis]:
    """The axes of the map, of an input of ``shape``."""
    window, attributes = _window(linear_node), linear_node.node.attributes
    ones, zeros = [1] * len(window), [0] * len(window)
    strides, dilations = attributes.get_ints("strides", ones), attributes.get_ints("dilations", ones)
    extra = attributes.get_ints("output_padding", zeros)
    is_transposed = linear_node.node.op_type == "ConvTranspose"
    axes = []
    for number, (size, taps) in enumerate(zip(shape[2:], window, strict=True)):
        before, after = padding(linear_node.node, number, size, taps)
        axes.append(
            WindowAxis(size, taps, strides[number], dilations[number], before, after, extra[number], is_transposed)
        )
    return axes
