"""Slice of a Slice of other axes as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, editing, file_size, queries, tensors
from optimizer.graph.file_size import bytes_removed_with

if TYPE_CHECKING:
    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MergeSlices(Rule):
    """Slices of different axes."""

    name: ClassVar[str] = "merge-slices"
    summary: ClassVar[str] = "Slice of a Slice of other axes becomes one"
    ops: ClassVar[frozenset[str]] = frozenset({"Slice"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let ``node`` slice what the node before it reads."""
        inner = queries.producer_of_first_input(node, "Slice")
        rank = queries.rank(node.outputs[0])
        if inner is None or rank is None or queries.only_consumer(inner.outputs[0]) is not node:
            return False
        first, second = _slice_numbers(inner, rank), _slice_numbers(node, rank)
        if first is None or second is None or first.keys() & second.keys():
            return False
        both = {**first, **second}
        columns = [list(both), *(list(column) for column in zip(*both.values(), strict=True))]
        axes, starts, ends, steps = (np.array(column, dtype=np.int64) for column in columns)
        arrays = [starts, ends, axes, *([steps] if np.any(steps != 1) else [])]
        new = [array for array in arrays if rewriter.known_constant(node, array) is None]
        cost = sum(file_size.tensor_bytes(tensors.compact(array, ""), "s_99999") for array in new)
        if cost + 40 > bytes_removed_with([inner]) or not self.permits(node, rewriter):
            return False
        node.resize_inputs(1 + len(arrays))
        editing.set_inputs(node, [inner.inputs[0], *(rewriter.constant(node, array, "s") for array in arrays)])
        return True


def _slice_numbers(node: ir.Node, rank: int) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis, if all are constants."""
    if len(node.inputs) < 3:
        return None
    columns = [constants.constant_ints(value) for value in node.inputs[1:] if value is not None]
    if len(columns) != len(node.inputs) - 1 or any(column is None for column in columns):
        return None
    starts, ends, *rest = [column for column in columns if column is not None]
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    return {axis % rank: item for axis, *item in zip(axes, starts, ends, steps, strict=True)}  # type: ignore[misc]  # three items, which a starred name forgets


RULES: tuple[Rule, ...] = (MergeSlices(),)
