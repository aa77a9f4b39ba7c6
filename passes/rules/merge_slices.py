"""Slice of a Slice of other axes as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.replacement import ReplacementConstant
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MergeSlices(Rule):
    """Slices of different axes.

    Case 1: all steps are 1, and are left out.
    Case 2: a step is another one, and all are given.
    """

    name: ClassVar[str] = "merge-slices"
    summary: ClassVar[str] = "Slice of a Slice of other axes becomes one"
    ops: ClassVar[frozenset[str]] = frozenset({"Slice"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let ``node`` slice what the node before it reads."""
        inner = queries.producer_of_first_input(node, "Slice")
        if inner is None:
            return NO_MATCH
        if queries.only_consumer(inner.outputs[0]) is not node:
            return Refusal("what is between the two has other users")
        rank = queries.rank(node.outputs[0])
        first, second = (None, None) if rank is None else (_limits(inner, rank), _limits(node, rank))
        if first is None or second is None:
            return Refusal("starts, ends, axes or steps are not constant, or the rank is not known")
        if first.keys() & second.keys():
            return Refusal("both slice the same axis")
        both = {**first, **second}
        starts, ends, steps = (np.array(column, np.int64) for column in zip(*both.values(), strict=True))
        arrays = [starts, ends, np.array(list(both), np.int64)]
        if np.any(steps != 1):
            arrays.append(steps)  # case 2
        inputs = [inner.inputs[0], *(ReplacementConstant(array, "s") for array in arrays)]
        return self.apply(Edit(forms={node: changed_form(node, inputs=inputs)}), rewriter, node)


def _limits(node: ir.Node, rank: int) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis, if all are constants."""
    if len(node.inputs) < 3:
        return None
    columns = [constants.constant_ints(value) for value in node.inputs[1:] if value is not None]
    if len(columns) != len(node.inputs) - 1 or any(column is None for column in columns):
        return None
    starts, ends, *optional = [column for column in columns if column is not None]
    axes = optional[0] if optional else list(range(len(starts)))
    steps = optional[1] if len(optional) > 1 else [1] * len(starts)
    return {axis % rank: limits for axis, *limits in zip(axes, starts, ends, steps, strict=True)}  # type: ignore[misc]  # three numbers, which a starred name forgets


RULES: tuple[Rule, ...] = (MergeSlices(),)
