"""The bias of a kernel: where it is, and how to add to it (bias correction: Nagel et al. 2019, arXiv:1906.04721).

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
from optimizer.graph.linear_nodes import as_linear, bias_input

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.graph.linear_nodes import LinearNode


@dataclass(frozen=True)
class Bias:
    """The bias of one kernel.

    Attributes:
        node: Its user: the kernel, or the Add behind it.
        position: The index of that input.
        value: The constant; ``None`` if there is none yet.
        channels: Number of output channels.
        factor: What the node multiplies it with.
    """

    node: ir.Node
    position: int
    value: ir.Value | None
    channels: int
    factor: float = 1.0

    def add(self, shift: NDArray[np.float64], model: ir.Model) -> bool:
        """Add ``shift``, (channels,); ``False``, and nothing changes, if the type of the bias cannot hold the sum."""
        array = self._array()
        if array is None:
            return False
        by_channel = np.broadcast_to(array, (*array.shape[:-1], self.channels))  # the channels lie along the last axis
        summed = by_channel.astype(np.float64) + shift / self.factor
        # Half precision ends at 65504
        with np.errstate(over="ignore"):
            rounded = summed.astype(array.dtype)
        if not np.isfinite(rounded).all():
            return False
        if self.value is not None:
            constants.set_array(self.value, rounded)
            return True
        new_bias = Rewriter(model, Sites()).constant(self.node, rounded, f"{self.node.outputs[0].name}_bias")
        self.node.resize_inputs(max(len(self.node.inputs), self.position + 1))
        self.node.replace_input_with(self.position, new_bias)
        return True

    def _array(self) -> NDArray[np.floating] | None:
        """The bias as it is; zeros of the weight's type if there is none."""
        if self.value is not None:
            return constants.float_array(self.value)
        source = weight_sources.origin_of(self.node.inputs[1])
        dtype = self.node.outputs[0].dtype if source is None else source.dtype
        return None if dtype not in constants.FLOATS else np.zeros(self.channels, dtype.numpy())


def bias_of(node: ir.Node) -> Bias | None:
    """The bias of the kernel ``node``; ``None`` if none can be changed without changing something else."""
    linear = as_linear(node)
    if linear is None:
        return None
    bias = bias_input(node)
    # A Gemm with beta = 0 ignores its bias
    factor = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    if bias is None or not factor or not (bias.value is None or _is_own_bias(bias.value, bias.node, linear)):
        return None
    return Bias(bias.node, bias.position, bias.value, linear.outputs, factor)


def _is_own_bias(value: ir.Value, node: ir.Node, linear: LinearNode) -> bool:
    """Whether ``value`` is a constant of one number a channel, along its last axis, whose only user is ``node``."""
    array = constants.float_array(value)
    if array is None or array.ndim == 0 or array.size not in {1, linear.outputs} or array.shape[-1] != array.size:
        return False
    return constants.is_only_read_by(value, (node,)) and queries.use_count(value) == 1
