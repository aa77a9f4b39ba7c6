"""Fuse what undoes or repeats the dropping of reduced dimensions into the Reduce before it.

::

    Unsqueeze(Reduce(x, axes, keepdims=0), axes) = Reduce(x, axes, keepdims=1)
    Squeeze(Reduce(x, axes, keepdims=1), axes)   = Reduce(x, axes, keepdims=0)

ArgMax and ArgMin are such reductions along one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import KEEPS_NAME, NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
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

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let the reduction before ``node`` keep or drop its dimensions by itself."""
        source = node.inputs[0] if node.inputs else None
        reduction = None if source is None else source.producer()
        if reduction is None or not queries.is_standard(reduction, *_REDUCTIONS) or reduction.graph is not node.graph:
            return NO_MATCH
        keepdims = reduction.attributes.get_int("keepdims", 1)
        if queries.has_references(reduction) or (keepdims == 1) != (node.op_type == "Squeeze"):
            return NO_MATCH
        if queries.only_consumer(source) is not node:
            return Refusal("what is reduced has other users")
        rank, reduced, moved = queries.rank(reduction.inputs[0]), _reduced_axes(reduction), permutations.axes_of(node)
        if rank is None or not reduced or not moved:
            return Refusal("the axes, or the rank of what is reduced, are not known")
        if sorted(axis % rank for axis in reduced) != sorted(axis % rank for axis in moved):
            return Refusal("other axes come or go than are reduced")
        if not editing.may_bypass(reduction.outputs[0], node.outputs[0]):
            return KEEPS_NAME
        new = changed_form(reduction, attributes=[ir.AttrInt64("keepdims", 1 - keepdims)]).of_other_shape()
        bypassed = {node.outputs[0]: reduction.outputs[0]}
        return self.apply(Edit(forms={reduction: new}, bypassed=bypassed), rewriter, node)


def _reduced_axes(node: ir.Node) -> Sequence[int] | None:
    if node.op_type in _ONE_AXIS:
        return [node.attributes.get_int("axis", 0)]
    return permutations.axes_of(node)


RULES: tuple[Rule, ...] = (FuseReduceDims(),)
