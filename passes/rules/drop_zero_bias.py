"""Drop a bias that is 0 everywhere from Conv, ConvTranspose and Gemm: the file is smaller, its place is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_BIASLESS_GEMM = 11
_MOST_ELEMENTS = 1 << 20


class DropZeroBias(Rule):
    """A constant third input of zeros."""

    name: ClassVar[str] = "drop-zero-bias"
    summary: ClassVar[str] = "a bias of zeros of Conv, ConvTranspose or Gemm goes"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "ConvTranspose", "Gemm"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Drop the bias of ``node``."""
        if len(node.inputs) < 3 or (node.op_type == "Gemm" and rewriter.opset(node) < _BIASLESS_GEMM):
            return False
        tensor = constants.constant_tensor(node.inputs[2])
        if tensor is None or tensor.size > _MOST_ELEMENTS:
            return False
        bias = constants.float_array(node.inputs[2])
        if bias is None or bias.any() or not self.permits(node, rewriter):
            return False
        node.resize_inputs(2)
        node.attributes.pop("beta", None)
        return True


RULES: tuple[Rule, ...] = (DropZeroBias(),)
