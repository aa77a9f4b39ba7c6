"""Compute each shape once: a small integer tensor whose elements are those of an earlier one is that one.

    Concat(Shape(x)[0], 64) and Concat(Shape(Relu(x))[0], 64)

are equal at every run, though no two of their nodes are. Elements are compared as
``optimizer.analysis.symbolic.shape_values`` knows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.analysis.symbolic.operators import EVALUATORS
from optimizer.contract.refusal import Refusal

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class ReuseShapes(Rule):
    """A shape tensor that is there already."""

    name: ClassVar[str] = "reuse-shapes"
    summary: ClassVar[str] = "shape arithmetic that comes to what is known already is not done again"
    ops: ClassVar[frozenset[str]] = frozenset(EVALUATORS)

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let the users of ``node`` read an earlier value with the same elements."""
        output = node.outputs[0]
        array = rewriter.values.computed(output)
        if len(node.outputs) != 1 or array is None or output.dtype is None:
            return NO_MATCH
        earlier = rewriter.first_like((output.dtype, array.shape, tuple(array.flat)), output)
        if earlier is output:
            return NO_MATCH
        if not rewriter.sees(node, earlier):
            return Refusal("the equal value is in a graph that the node does not see")
        return self.bypass(node, earlier, rewriter)


RULES: tuple[Rule, ...] = (ReuseShapes(),)
