"""Add or drop axes of 1 by Unsqueeze or Squeeze where a Reshape does it by a computed target.

::

    Reshape(x[a, b], Concat(a, 1, b)) = Unsqueeze(x, 1)       Reshape(x[a, 1, b], Concat(a, b)) = Squeeze(x, 1)

They need no target, so its arithmetic goes, and they work for any a and b, where a -1 could not be found for 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.algorithms.rewriting.squeeze import view
from optimizer.analysis.symbolic.operators import dims
from optimizer.graph import constants, file_size
from optimizer.graph.file_size import bytes_removed_with, nodes_removed_with

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class ReshapeViews(Rule):
    """Unsqueeze or Squeeze for a Reshape."""

    name: ClassVar[str] = "reshape-views"
    summary: ClassVar[str] = "Reshape by a computed target that only adds or drops ones becomes Unsqueeze or Squeeze"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Turn the Reshape ``node`` into what needs no target."""
        source = node.inputs[0] if len(node.inputs) == 2 else None
        if (
            source is None
            or constants.constant_tensor(node.inputs[1]) is not None
            or len(nodes_removed_with([node])) < 2
        ):
            return False
        found = view(dims(source.shape), dims(node.outputs[0].shape))
        if found is None or found.cost(node, rewriter) + file_size.node_bytes(node) + 4 > bytes_removed_with([node]):
            return False
        if not self.permits(node, rewriter):
            return False
        found.put(node, source, rewriter)
        return True


RULES: tuple[Rule, ...] = (ReshapeViews(),)
