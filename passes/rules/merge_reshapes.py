"""Reshape, Flatten, Squeeze and Unsqueeze behind each other as one Reshape.

Counterparts elsewhere: ``ReshapeReshape`` and ``Flatten2Reshape`` of onnxscript's rewriter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, changed_form, form
from optimizer.algorithms.rewriting.replacement import ReplacementConstant
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.algorithms.rewriting.squeeze import view
from optimizer.analysis.symbolic.operators import dims
from optimizer.analysis.symbolic.reshape_targets import ReshapeTarget
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from optimizer.algorithms.rewriting.edit import NodeForm
    from optimizer.algorithms.rewriting.rewriter import Rewriter


_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_OLDEST_OPSET = 5  # before it, the target of a Reshape was an attribute


class MergeReshapes(Rule):
    """What only changes the shape, after what only changes the shape.

    Case 1: a Reshape by a constant that means the same of what the inner node reads. It skips the inner node, which
    may have other users.
    Case 2: a constant target says the whole step, with at most one -1. The node becomes a Reshape.
    Case 3: a -1 might not be found, but only ones come or go. The node becomes an Unsqueeze or Squeeze.
    """

    name: ClassVar[str] = "merge-reshapes"
    summary: ClassVar[str] = "Reshape, Flatten, Squeeze, Unsqueeze in a row become one Reshape"
    ops: ClassVar[frozenset[str]] = _MOVES

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let ``node`` reshape what the node before it reads."""
        inner = queries.producer_of_first_input(node, *_MOVES)
        source = None if inner is None else inner.inputs[0]
        if inner is None or source is None or rewriter.opset(node) < _OLDEST_OPSET:
            return NO_MATCH
        # Case 1
        if node.op_type == "Reshape" and _keeps_target(node, source):
            new = changed_form(node, inputs=[source, *node.inputs[1:]])
            return self.apply(Edit(forms={node: new}), rewriter, node)
        if queries.only_consumer(inner.outputs[0]) is not node:
            return Refusal("what is between the two has other users")
        merged = _merged(node, source, rewriter)
        return merged if isinstance(merged, Refusal) else self.apply(Edit(forms={node: merged}), rewriter, node)


def _merged(node: ir.Node, source: ir.Value, rewriter: Rewriter) -> NodeForm | Refusal:
    """A node that gives ``source`` the shape of what ``node`` computes."""
    wanted = dims(node.outputs[0].shape)
    if wanted is None:
        return Refusal("the shape that is made is not known")
    if 0 in wanted:
        return Refusal("a dimension that is made is 0")
    targets = ReshapeTarget(dims(source.shape), wanted, rewriter.nonzero(node)).targets()
    # Case 2
    if targets:
        if not rewriter.may_hold(node, ir.DataType.INT64):
            return Refusal("a Constant node before opset 9 holds floats only")
        return form("Reshape", [source, ReplacementConstant(np.array(targets[0], dtype=np.int64), "s")])
    # Case 3
    needed = view(dims(source.shape), wanted)
    if needed is None:
        return Refusal("more than one dimension of the target is open, or a dimension that is not may be 0")
    return needed.form_of(source, rewriter.opset(node))


def _keeps_target(node: ir.Node, source: ir.Value) -> bool:
    """Whether each 0 in the target of the Reshape ``node`` keeps the same dimension of ``source``."""
    target = constants.constant_ints(node.inputs[1])
    if target is None or node.attributes.get_int("allowzero", 0) != 0:
        return False
    before, after = dims(node.inputs[0].shape if node.inputs[0] else None), dims(source.shape)
    return all(
        size != 0 or (before is not None and after is not None and before[i : i + 1] == after[i : i + 1] != [])
        for i, size in enumerate(target)
    )


RULES: tuple[Rule, ...] = (MergeReshapes(),)
