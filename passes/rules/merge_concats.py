"""Concat of Concats along one axis as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import queries

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.edit import Input
    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MergeConcats(Rule):
    """Concat of Concat.

    Case 1: an inner Concat along the same axis that has no other users. Its inputs come in its place.
    Case 2: any other input stays as it is.
    """

    name: ClassVar[str] = "merge-concats"
    summary: ClassVar[str] = "Concat of Concat along the same axis becomes one"
    ops: ClassVar[frozenset[str]] = frozenset({"Concat"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Take in the inputs of the Concats that ``node`` alone reads."""
        axis, rank = node.attributes.get_int("axis", 0), queries.rank(node.outputs[0])
        inputs: list[Input] = []
        refusal = NO_MATCH
        for value in node.inputs:
            inner = _concat_along(value, axis, rank)
            if inner is not None and queries.only_consumer(value) is node:
                inputs += inner.inputs  # case 1
                continue
            if inner is not None:
                refusal = Refusal("the inner Concat has other users")
            inputs.append(value)  # case 2
        if len(inputs) == len(node.inputs):
            return refusal
        return self.apply(Edit(forms={node: changed_form(node, inputs=inputs)}), rewriter, node)


def _concat_along(value: ir.Value | None, axis: int, rank: int | None) -> ir.Node | None:
    """The Concat along ``axis`` that computes ``value``."""
    inner = None if value is None else value.producer()
    if inner is None or not queries.is_standard(inner, "Concat") or queries.has_references(inner):
        return None
    inner_axis = inner.attributes.get_int("axis", 0)
    return inner if inner_axis == axis or (rank is not None and (inner_axis - axis) % rank == 0) else None


RULES: tuple[Rule, ...] = (MergeConcats(),)
