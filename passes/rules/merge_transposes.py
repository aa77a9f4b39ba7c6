"""Transpose of Transpose as one, or none.

::

    Transpose(Transpose(x, p), q) = Transpose(x, [p[axis] for axis in q])

Counterpart elsewhere: ``TransposeTranspose`` of onnxscript's rewriter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import permutations, queries

if TYPE_CHECKING:
    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MergeTransposes(Rule):
    """Transpose of Transpose.

    Case 1: the second does not undo the first. One Transpose does both.
    Case 2: it does. The Transpose moves nothing any more, and ``drop-identities`` drops it.
    """

    name: ClassVar[str] = "merge-transposes"
    summary: ClassVar[str] = "Transpose of Transpose becomes one, or none"
    ops: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let ``node`` transpose what the node before it reads."""
        inner = queries.producer_of_first_input(node, "Transpose")
        if inner is None or inner.inputs[0] is None:
            return NO_MATCH
        first, second = inner.attributes.get_ints("perm"), node.attributes.get_ints("perm")
        if first is None or second is None or len(first) != len(second):
            return Refusal("a Transpose does not say how it permutes")
        both = ir.AttrInt64s("perm", permutations.then(first, second))
        return self.apply(Edit(forms={node: changed_form(node, None, inner.inputs, [both])}), rewriter, node)


RULES: tuple[Rule, ...] = (MergeTransposes(),)
