"""Cast of a Cast that lost nothing as one, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import queries

if TYPE_CHECKING:
    from optimizer.algorithms.rewriting.rewriter import Rewriter


_EXACT = {
    ir.DataType.BOOL: frozenset(
        {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}
    ),
    ir.DataType.FLOAT16: frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE}),
    ir.DataType.FLOAT: frozenset({ir.DataType.DOUBLE}),
    ir.DataType.INT32: frozenset({ir.DataType.INT64, ir.DataType.DOUBLE}),
    ir.DataType.INT8: frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE}),
    ir.DataType.UINT8: frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE}),
}


class MergeCasts(Rule):
    """Cast of a Cast that lost nothing."""

    name: ClassVar[str] = "merge-casts"
    summary: ClassVar[str] = "Cast of a Cast that lost nothing becomes one, or none"
    ops: ClassVar[frozenset[str]] = frozenset({"Cast"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let ``node`` cast what the node before it reads."""
        inner = queries.producer_of_first_input(node, "Cast")
        source = None if inner is None else inner.inputs[0]
        if inner is None or source is None or source.dtype is None:
            return False
        middle, last = inner.attributes.get_int("to", 0), node.attributes.get_int("to", 0)
        if middle not in _EXACT.get(source.dtype, ()) or last not in {*_EXACT[source.dtype], source.dtype}:
            return False
        if not self.permits(node, rewriter):
            return False
        node.replace_input_with(0, source)
        return True


RULES: tuple[Rule, ...] = (MergeCasts(),)
