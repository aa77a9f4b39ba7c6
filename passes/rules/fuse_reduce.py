"""Fuse what undoes or repeats the dropping of reduced dimensions into the Reduce before it.

::

    Unsqueeze(Reduce(x, axes, keepdims=0), axes) = Reduce(x, axes, keepdims=1)
    Squeeze(Reduce(x, axes, keepdims=1), axes)   = Reduce(x, axes, keepdims=0)

ArgMax and ArgMin are such reductions along one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import editing, permutations, queries

_ONE_AXIS = frozenset({"ArgMax", "ArgMin"})
_REDUCTIONS = _ONE_AXIS | {
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
}

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class FuseReduceDims(Rule):
    """Squeeze and Unsqueeze of the reduced dimensions."""

    name: ClassVar[str] = "fuse-reduce-dims"
    summary: ClassVar[str] = "Squeeze or Unsqueeze of the reduced dimensions into the Reduce or ArgMax before it"
    ops: ClassVar[frozenset[str]] = frozenset({"Squeeze", "Unsqueeze"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let the reduction before ``node`` keep or drop its dimensions by itself."""
        source = node.inputs[0] if node.inputs else None
        before = None if source is None else source.producer()
        if before is None or not queries.is_standard(before, *_REDUCTIONS) or before.graph is not node.graph:
            return False
        if queries.only_consumer(source) is not node or queries.has_references(before):
            return False
        kept = before.attributes.get_int("keepdims", 1)
        rank = queries.rank(before.inputs[0])
        reduced, moved = _reduced(before), permutations.axes_of(node)
        if rank is None or not reduced or not moved or (kept == 1) != (node.op_type == "Squeeze"):
            return False
        if sorted(axis % rank for axis in reduced) != sorted(axis % rank for axis in moved):
            return False
        if not self.permits(node, rewriter):
            return False
        before.attributes.add(ir.AttrInt64("keepdims", 1 - kept))
        before.outputs[0].shape = node.outputs[0].shape
        return editing.bypass(node, before.outputs[0])


def _reduced(node: ir.Node) -> Sequence[int] | None:
    if node.op_type in _ONE_AXIS:
        return [node.attributes.get_int("axis", 0)]
    return permutations.axes_of(node)


RULES: tuple[Rule, ...] = (FuseReduceDims(),)
