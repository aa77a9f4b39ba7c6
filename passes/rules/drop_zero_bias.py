"""Drop a bias that is 0 everywhere from Conv, ConvTranspose and Gemm: the file is smaller, its place is free.

Counterpart elsewhere: ``_remove_optional_bias`` of onnxscript's rewriter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_BIASLESS_GEMM = 11
_MAX_ELEMENTS = 1 << 20


class DropZeroBias(Rule):
    """A constant third input of zeros."""

    name: ClassVar[str] = "drop-zero-bias"
    summary: ClassVar[str] = "a bias of zeros of Conv, ConvTranspose or Gemm goes"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "ConvTranspose", "Gemm"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Drop the bias of ``node``."""
        tensor = constants.constant_tensor(node.inputs[2]) if len(node.inputs) > 2 else None
        if tensor is None or tensor.size > _MAX_ELEMENTS:
            return NO_MATCH
        bias = constants.float_array(node.inputs[2])
        if bias is None or bias.any():
            return NO_MATCH
        if node.op_type == "Gemm" and rewriter.opset(node) < _BIASLESS_GEMM:
            return Refusal("a Gemm before opset 11 has to have a bias")
        return self.apply(
            Edit(forms={node: changed_form(node, inputs=node.inputs[:2], without=["beta"])}), rewriter, node
        )


RULES: tuple[Rule, ...] = (DropZeroBias(),)
