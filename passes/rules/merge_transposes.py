"""Transpose of Transpose as one, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import queries

if TYPE_CHECKING:
    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MergeTransposes(Rule):
    """Transpose of Transpose."""

    name: ClassVar[str] = "merge-transposes"
    summary: ClassVar[str] = "Transpose of Transpose becomes one, or none"
    ops: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let ``node`` transpose what the node before it reads."""
        inner = queries.producer_of_first_input(node, "Transpose")
        if inner is None or inner.inputs[0] is None:
            return False
        first, second = inner.attributes.get_ints("perm"), node.attributes.get_ints("perm")
        if first is None or second is None or len(first) != len(second) or not self.permits(node, rewriter):
            return False
        node.attributes.add(ir.AttrInt64s("perm", [first[axis] for axis in second]))
        node.replace_input_with(0, inner.inputs[0])
        return True


RULES: tuple[Rule, ...] = (MergeTransposes(),)
