"""Concat of Concats along one axis as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import editing, queries

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MergeConcats(Rule):
    """Concat of Concat."""

    name: ClassVar[str] = "merge-concats"
    summary: ClassVar[str] = "Concat of Concat along the same axis becomes one"
    ops: ClassVar[frozenset[str]] = frozenset({"Concat"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Take in the inputs of the Concats that ``node`` alone reads."""
        axis, rank = node.attributes.get_int("axis", 0), queries.rank(node.outputs[0])
        values: list[ir.Value | None] = []
        for value in node.inputs:
            inner = None if value is None or queries.only_consumer(value) is not node else value.producer()
            if inner is not None and queries.is_standard(inner, "Concat") and not queries.has_references(inner):
                other = inner.attributes.get_int("axis", 0)
                if other == axis or (rank is not None and (other - axis) % rank == 0):
                    values += inner.inputs
                    continue
            values.append(value)
        if len(values) == len(node.inputs) or not self.permits(node, rewriter):
            return False
        node.resize_inputs(len(values))
        editing.set_inputs(node, values)
        return True


RULES: tuple[Rule, ...] = (MergeConcats(),)
