"""Make initializers of Constant nodes: fewer nodes, fewer bytes, the same values.

Functions have no initializers, before IR version 4 an initializer would have to be an input, and a Constant that is
a graph output stays a node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer import graph
from optimizer.algorithms.sweep import Rule, Scope, owner

if TYPE_CHECKING:
    import onnx_ir as ir

_FIRST_IR_VERSION = 4


class LiftConstants(Rule):
    """A Constant node becomes an initializer of its graph."""

    name: ClassVar[str] = "lift-constants"
    summary: ClassVar[str] = "Constant nodes become initializers"
    ops: ClassVar[frozenset[str]] = frozenset({"Constant"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Lift the constant of ``node``."""
        output = node.outputs[0]
        if scope.in_function(node) or output.is_graph_output() or (scope.model.ir_version or 0) < _FIRST_IR_VERSION:
            return False
        tensor = graph.constant_tensor(output)
        if tensor is None or not output.name or not self.permits(node, scope):
            return False
        scope.lift(output, tensor, owner(node))
        return True


RULES: tuple[Rule, ...] = (LiftConstants(),)
