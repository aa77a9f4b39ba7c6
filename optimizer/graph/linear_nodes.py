"""Kernels: the weights of Conv, ConvTranspose, Gemm and MatMul, and where their channels lie.

::

    operator        weight                        axis of output channels    of input channels
    Conv            (out, in / groups, *window)   0                          1, within the group
    ConvTranspose   (in, out / groups, *window)   1, within the group        0
    Gemm            (in, out), transB: (out, in)  1, transB: 0               0, transB: 1
    MatMul          (in, out)                     1                          0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from optimizer.graph import constants, queries
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

BIAS = 2  # the position of the bias, where the operator has one
OPS = having(Trait.LINEAR)


@dataclass(frozen=True)
class LinearNode:
    """A node that multiplies its first input with a weight.

    Attributes:
        node: The node.
        weight: Its second input; constant or not.
        shape: The weight's shape.
        groups: Number of groups of channels, 1 for Gemm and MatMul.
        transposed: Whether a Gemm reads its weight transposed.
    """

    node: ir.Node
    weight: ir.Value
    shape: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        match self.node.op_type:
            case "Conv":
                return self.shape[0]
            case "ConvTranspose":
                return self.shape[1] * self.groups
        return self.shape[0 if self.transposed else 1]

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        match self.node.op_type:
            case "Conv":
                return self.shape[1] * self.groups
            case "ConvTranspose":
                return self.shape[0]
        return self.shape[1 if self.transposed else 0]

    @property
    def axis(self) -> int:
        """The axis of the channels in what the node reads and writes."""
        return 1 if self.node.op_type in {"Conv", "ConvTranspose"} else -1

    @property
    def rank(self) -> int | None:
        """The rank of what the node reads and writes, if it is known."""
        match self.node.op_type:
            case "MatMul":
                return queries.rank(self.node.inputs[0]) or queries.rank(self.node.outputs[0])
            case "Gemm":
                return 2
        return len(self.shape)

    @property
    def bias(self) -> ir.Value | None:
        """The third input, if there is one."""
        return BiasInput(self.node, BIAS).value

    @property
    def output_axis(self) -> int:
        """The axis of the weight along which its output channels lie (within a group, for ConvTranspose)."""
        return 0 if self.node.op_type == "Conv" or self.transposed else 1

    def weight_array(self) -> NDArray[np.floating] | None:
        """The weight, if it is a constant of a float type."""
        return constants.float_array(self.weight)

    def bias_array(self) -> NDArray[np.float64] | None:
        """The bias times a Gemm's ``beta``, one number for all or for each output channel.

        Returns:
            0 if there is no bias, ``None`` if it is no such constant.
        """
        if self.bias is None:
            return np.zeros(())
        rank = 2 if self.node.op_type == "Gemm" else 1
        array = constants.per_channel(self.bias, -1, self.outputs, rank)
        return None if array is None else array * self.node.attributes.get_float("beta", 1.0)


def as_linear(node: ir.Node | None) -> LinearNode | None:
    """``node`` as a kernel, if it is one with a weight of known shape and sensible attributes."""
    if node is None or not queries.is_standard(node, *OPS) or len(node.inputs) < 2:
        return None
    weight = node.inputs[1]
    shape = constants.known_shape(weight)
    if weight is None or shape is None or 0 in shape or any(a.is_ref() for a in node.attributes.values()):
        return None
    if node.op_type in {"Gemm", "MatMul"}:
        if len(shape) != 2 or node.attributes.get_int("transA", 0) != 0:
            return None
        return LinearNode(node, weight, shape, transposed=node.attributes.get_int("transB", 0) != 0)
    groups = node.attributes.get_int("group", 1)
    if len(shape) < 3 or groups < 1 or shape[0] % groups:
        return None
    return LinearNode(node, weight, shape, groups)


class BiasInput(NamedTuple):
    """Where the bias of a linear node is read: by ``node``, as its input at ``position``, which may be missing."""

    node: ir.Node
    position: int

    @property
    def value(self) -> ir.Value | None:
        """What is read there."""
        return self.node.inputs[self.position] if self.position < len(self.node.inputs) else None


def bias_input(node: ir.Node) -> BiasInput | None:
    """Where the bias of the linear ``node`` is read, or would be.

    A MatMul has that of an Add of the same graph that alone reads its output; ``None`` if there is no such Add. What
    is added there may be anything.
    """
    if node.op_type != "MatMul":
        return BiasInput(node, BIAS)
    output = node.outputs[0]
    add = queries.only_consumer(output, same_graph=True)
    if add is None or not queries.is_standard(add, "Add"):
        return None
    return BiasInput(add, 1 if add.inputs[0] is output else 0)


def scaled_outputs(linear: LinearNode, array: NDArray[np.floating], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight ``weight_array`` of ``linear`` with each output channel times its factor.

    Args:
        linear: The kernel.
        array: Its weight.
        scale: One factor, or one for each output channel.
    """
    if scale.size == 1:
        return array * scale.reshape(())
    if linear.node.op_type != "ConvTranspose":
        factors = [1] * array.ndim
        factors[linear.output_axis] = -1
        return array * scale.reshape(factors)
    grouped = array.reshape(linear.groups, -1, *array.shape[1:])
    factors = [linear.groups, 1, array.shape[1], *[1] * (array.ndim - 2)]
    return (grouped * scale.reshape(factors)).reshape(array.shape)


def scaled_inputs(linear: LinearNode, array: NDArray[np.floating], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight ``weight_array`` of ``linear`` with each input channel times its factor; see ``scaled_outputs``."""
    if scale.size == 1:
        return array * scale.reshape(())
    if linear.node.op_type != "Conv":
        factors = [1] * array.ndim
        factors[1 if linear.transposed else 0] = -1
        return array * scale.reshape(factors)
    grouped = array.reshape(linear.groups, -1, *array.shape[1:])
    factors = [linear.groups, 1, array.shape[1], *[1] * (array.ndim - 2)]
    return (grouped * scale.reshape(factors)).reshape(array.shape)


def response(linear: LinearNode, array: NDArray[np.floating], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the kernel ``linear`` answers to the constant input ``shift``, one number for each output channel.

    Only for Conv, Gemm and MatMul: a ConvTranspose answers differently at its borders.
    """
    filled = scaled_inputs(linear, array, shift)
    others = tuple(axis for axis in range(array.ndim) if axis != linear.output_axis)
    return np.asarray(filled.sum(axis=others))
