"""Where a kernel's output gets a constant added for each channel, and how to add more to it.

The third input of Conv, ConvTranspose and Gemm, times a Gemm's ``beta``; a new one where there is none. A MatMul has
the constant of an Add behind it, if nothing else reads its output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.contract.passes import Sites
from optimizer.graph import constants, queries, weight_sources
from optimizer.graph.linear_nodes import as_linear

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.graph.linear_nodes import LinearNode


@dataclass(frozen=True)
class Bias:
    """The bias of one kernel.

    Attributes:
        node: Who reads it: the kernel, or the Add behind it.
        position: At which input.
        value: The constant; ``None`` if it is yet to be made.
        channels: Number of output channels.
        factor: What the node multiplies it with.
    """

    node: ir.Node
    position: int
    value: ir.Value | None
    channels: int
    factor: float = 1.0

    def add(self, shift: NDArray[np.float64], model: ir.Model) -> bool:
        """Add ``shift``, one number for each output channel, unless the type of the bias cannot hold the sum."""
        array = self._array()
        if array is None:
            return False
        wide = np.broadcast_to(array, (*array.shape[:-1], self.channels))  # the channels lie along the last axis
        summed = wide.astype(np.float64) + shift / self.factor
        with np.errstate(over="ignore"):
            fitting = summed.astype(array.dtype)
        if not np.isfinite(fitting).all():
            return False
        if self.value is not None:
            constants.set_array(self.value, fitting)
            return True
        made = Rewriter(model, Sites()).constant(self.node, fitting, f"{self.node.outputs[0].name}_bias")
        self.node.resize_inputs(max(len(self.node.inputs), self.position + 1))
        self.node.replace_input_with(self.position, made)
        return True

    def _array(self) -> NDArray[np.floating] | None:
        """What is there; zeros if there is nothing."""
        if self.value is not None:
            return constants.float_array(self.value)
        source = weight_sources.origin_of(self.node.inputs[1])
        kind = self.node.outputs[0].dtype if source is None else source.dtype
        return None if kind not in constants.FLOATS else np.zeros(self.channels, kind.numpy())


def bias_of(node: ir.Node) -> Bias | None:
    """The bias of the kernel ``node``; ``None`` if none can be changed without changing something else."""
    item = as_linear(node)
    if item is None:
        return None
    if node.op_type == "MatMul":
        return _behind(item)
    factor = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    if item.bias is None:
        return Bias(node, 2, None, item.outputs, factor) if factor else None
    return Bias(node, 2, item.bias, item.outputs, factor) if factor and _is_fitting(item.bias, node, item) else None


def _behind(item: LinearNode) -> Bias | None:
    add = queries.only_consumer(item.node.outputs[0])
    if add is None or not queries.is_standard(add, "Add") or add.graph is not item.node.graph:
        return None
    position = 1 if add.inputs[0] is item.node.outputs[0] else 0
    value = add.inputs[position]
    if value is None or not _is_fitting(value, add, item):
        return None
    return Bias(add, position, value, item.outputs)


def _is_fitting(value: ir.Value, reader: ir.Node, item: LinearNode) -> bool:
    """Whether it is a constant of one number a channel, along its last axis, that nobody else reads."""
    array = constants.float_array(value)
    if array is None or array.ndim == 0 or array.size not in {1, item.outputs} or array.shape[-1] != array.size:
        return False
    return constants.is_only_read_by(value, (reader,)) and queries.use_count(value) == 1
