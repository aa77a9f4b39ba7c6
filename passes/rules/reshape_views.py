"""Add or drop axes of 1 by Unsqueeze or Squeeze where a Reshape does it by a computed target.

::

    Reshape(x[a, b], Concat(a, 1, b)) = Unsqueeze(x, 1)       Reshape(x[a, 1, b], Concat(a, b)) = Squeeze(x, 1)

They need no target, so its arithmetic goes, and they work for any a and b, where a -1 could not be found for 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.edit import Edit
from optimizer.algorithms.rewriting.edit_bytes import nodes_removed
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.algorithms.rewriting.squeeze import view
from optimizer.analysis.symbolic.operators import dims
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class ReshapeViews(Rule):
    """Unsqueeze or Squeeze for a Reshape."""

    name: ClassVar[str] = "reshape-views"
    summary: ClassVar[str] = "Reshape by a computed target that only adds or drops ones becomes Unsqueeze or Squeeze"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Turn the Reshape ``node`` into what needs no target."""
        source = node.inputs[0] if len(node.inputs) == 2 else None
        if source is None or constants.constant_tensor(node.inputs[1]) is not None:
            return NO_MATCH
        needed = view(dims(source.shape), dims(node.outputs[0].shape))
        if needed is None:
            return NO_MATCH
        wanted = Edit(forms={node: needed.form_of(source, rewriter.opset(node))})
        if not nodes_removed(wanted):
            return Refusal("the computed target has other users")
        return self.apply(wanted, rewriter, node)


RULES: tuple[Rule, ...] = (ReshapeViews(),)
