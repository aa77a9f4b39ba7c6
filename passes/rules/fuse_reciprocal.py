"""Divide instead of multiplying with a reciprocal: ``(1 / y) * x = x / y``, which also rounds once less.

Not where the product is quantized as the model runs: there the last bit of one element decides the steps of all, and
what comes of that is as far from the original as quantization itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting import affine
from optimizer.algorithms.rewriting.edit import Edit, form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


_MOVING = frozenset({"Mul", "Add", "Cast", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})
_QUANTIZING = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})
_MAX_VALUES = 16  # that are looked at on the way to a quantization


class FuseReciprocal(Rule):
    """Mul with the result of ``1 / y`` or Reciprocal."""

    name: ClassVar[str] = "fuse-reciprocal"
    summary: ClassVar[str] = "Mul with a reciprocal into a Div"
    ops: ClassVar[frozenset[str]] = frozenset({"Mul"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Turn ``node`` into a Div if one of its inputs is a reciprocal that has no other users."""
        refusal = NO_MATCH
        for index, value in enumerate(node.inputs):
            divisor = _divisor(value, node)
            if divisor is None or rewriter.opset(node) < affine.OLDEST_OPSET:
                continue
            if queries.only_consumer(value) is not node:
                refusal = Refusal("the reciprocal has other users")
                continue
            if _is_quantized(node.outputs[0]):
                return Refusal("the product is quantized as the model runs")
            return self.apply(Edit(forms={node: form("Div", [node.inputs[1 - index], divisor])}), rewriter, node)
        return refusal


def _divisor(value: ir.Value | None, user: ir.Node) -> ir.Value | None:
    """The ``y`` of ``value`` = 1 / y."""
    node = None if value is None else value.producer()
    if node is None or node.graph is not user.graph:
        return None
    if queries.is_standard(node, "Reciprocal"):
        return node.inputs[0]
    if not queries.is_standard(node, "Div") or len(node.inputs) != 2:
        return None
    shape, rank = constants.known_shape(node.inputs[0]), queries.rank(node.inputs[1])
    if shape is None or any(size != 1 for size in shape) or len(shape) > (rank or 0):
        return None
    dividend = constants.float_array(node.inputs[0])
    return node.inputs[1] if dividend is not None and bool(np.all(dividend == 1)) else None


def _is_quantized(value: ir.Value) -> bool:
    """Whether ``value`` is quantized, perhaps after something was added to it or multiplied with it."""
    reached = [value]
    for each in reached:  # grows while it is walked over
        for node in each.consumers():
            if queries.is_standard(node, *_QUANTIZING):
                return True
            if queries.is_standard(node, *_MOVING) and len(reached) < _MAX_VALUES:
                reached.append(node.outputs[0])
    return False


RULES: tuple[Rule, ...] = (FuseReciprocal(),)
