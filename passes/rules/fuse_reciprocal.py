"""Divide instead of multiplying with a reciprocal: ``(1 / y) * x = x / y``, which also rounds once less."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer import graph
from optimizer.algorithms import affine, weights
from optimizer.algorithms.sweep import Rule, Scope

if TYPE_CHECKING:
    import onnx_ir as ir


class FuseReciprocal(Rule):
    """Mul with the result of ``1 / y`` or Reciprocal."""

    name: ClassVar[str] = "fuse-reciprocal"
    summary: ClassVar[str] = "Mul with a reciprocal into a Div"
    ops: ClassVar[frozenset[str]] = frozenset({"Mul"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Turn ``node`` into a Div if one of its inputs is a reciprocal that nobody else reads."""
        for index, value in enumerate(node.inputs):
            divisor = _divisor(value, node)
            if divisor is None or scope.opset(node) < affine.OLDEST_OPSET:
                continue
            if not self.permits(node, scope):
                return False
            node.op_type = "Div"
            graph.set_inputs(node, [node.inputs[1 - index], divisor])
            return True
        return False


def _divisor(value: ir.Value | None, reader: ir.Node) -> ir.Value | None:
    """The ``y`` of ``value`` = 1 / y, if only ``reader`` reads it."""
    node = None if value is None else value.producer()
    if node is None or node.graph is not reader.graph or weights.reader(value) is not reader:
        return None
    if graph.is_standard(node, "Reciprocal"):
        return node.inputs[0]
    if not graph.is_standard(node, "Div") or len(node.inputs) != 2:
        return None
    shape, rank = weights.shape(node.inputs[0]), graph.rank(node.inputs[1])
    if shape is None or any(size != 1 for size in shape) or len(shape) > (rank or 0):
        return None
    one = weights.float_array(node.inputs[0])
    return node.inputs[1] if one is not None and bool(np.all(one == 1)) else None


RULES: tuple[Rule, ...] = (FuseReciprocal(),)
