"""Make initializers of Constant nodes: fewer nodes, fewer bytes, the same values.

The size does not matter: what is computed from a weight in a Constant node is not found by rewrites that look for
initializers. Functions have no initializers, before IR version 4 an initializer would have to be an input, and a
Constant that is a graph output stays a node. Small constants that are there already are not stored twice.

Counterpart elsewhere: ``LiftConstantsToInitializersPass`` of onnx-ir.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.rules import APPLIED, NO_MATCH, NOT_PERMITTED, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class LiftConstants(Rule):
    """A Constant node becomes an initializer of its graph, which always takes fewer bytes."""

    name: ClassVar[str] = "lift-constants"
    summary: ClassVar[str] = "Constant nodes become initializers"
    ops: ClassVar[frozenset[str]] = frozenset({"Constant"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Lift the constant of ``node``."""
        output = node.outputs[0]
        tensor = constants.constant_tensor(output)
        if not output.name:
            return NO_MATCH
        if tensor is None:
            return Refusal("what the Constant holds is not a tensor")
        if output.is_graph_output():
            return Refusal("the Constant is a graph output")
        if not rewriter.may_lift(node):
            return Refusal("functions, and models before IR version 4, have no initializers")
        if not self.permits(node, rewriter):
            return NOT_PERMITTED
        rewriter.replace_by_constant(output, tensor)
        return APPLIED


RULES: tuple[Rule, ...] = (LiftConstants(),)
