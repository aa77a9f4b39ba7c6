"""Cast of a Cast that lost nothing as one, or none.

Counterpart elsewhere: ``CastCast`` of onnxscript's rewriter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import queries

if TYPE_CHECKING:
    from optimizer.algorithms.rewriting.rewriter import Rewriter


# From the type in the first column, those that hold each of its numbers exactly.
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
    """Cast of a Cast that lost nothing.

    Case 1: to another type that holds each number of the first one exactly. One Cast does it.
    Case 2: back to the first type. The Cast does nothing any more, and ``drop-identities`` drops it.
    """

    name: ClassVar[str] = "merge-casts"
    summary: ClassVar[str] = "Cast of a Cast that lost nothing becomes one, or none"
    ops: ClassVar[frozenset[str]] = frozenset({"Cast"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let ``node`` cast what the node before it reads."""
        inner = queries.producer_of_first_input(node, "Cast")
        source = None if inner is None else inner.inputs[0]
        if inner is None or source is None or source.dtype is None:
            return NO_MATCH
        middle, last = inner.attributes.get_int("to", 0), node.attributes.get_int("to", 0)
        exact = _EXACT.get(source.dtype, frozenset())
        if middle not in exact:
            return Refusal("the first Cast may lose something")
        if last not in exact and last != source.dtype:
            return Refusal("the second Cast may round otherwise than one from the first type")
        return self.apply(Edit(forms={node: changed_form(node, inputs=[source])}), rewriter, node)


RULES: tuple[Rule, ...] = (MergeCasts(),)
