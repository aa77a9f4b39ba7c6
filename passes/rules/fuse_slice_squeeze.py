"""Pick one slice by a Gather: ``Squeeze(Slice(x, i, i + 1, axis), axis) = Gather(x, i, axis)``.

Only of floats: ONNX Runtime and its fusions look for slices of shapes as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting import replacement
from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, editing, permutations, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_LIMITS_ARE_INPUTS = 10
_NEGATIVE_INDICES = 11
_BEYOND = 2**31 - 1  # exporters write this, or more, for "to the end"


@dataclass(frozen=True)
class _Pick:
    """Element ``index`` along ``axis`` of ``source``."""

    source: ir.Value
    index: int
    axis: int


class FuseSliceSqueeze(Rule):
    """Slice of one element and Squeeze of that axis."""

    name: ClassVar[str] = "fuse-slice-squeeze"
    summary: ClassVar[str] = "a Slice of one element and the Squeeze after it into a Gather"
    ops: ClassVar[frozenset[str]] = frozenset({"Squeeze"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Turn the Squeeze ``node`` into a Gather from what is sliced before it."""
        source = node.inputs[0] if node.inputs else None
        before = None if source is None else source.producer()
        if before is None or not queries.is_standard(before, "Slice") or before.graph is not node.graph:
            return False
        if queries.only_consumer(source) is not node or queries.has_references(before):
            return False
        pick, squeezed = _pick(before, rewriter.opset(node)), permutations.axes_of(node)
        if pick is None or pick.source.dtype not in constants.FLOATS or squeezed is None or len(squeezed) != 1:
            return False
        rank = queries.rank(pick.source)
        same = pick.axis == squeezed[0] or (rank is not None and pick.axis % rank == squeezed[0] % rank)
        index = np.array(pick.index, np.int64)
        swap = replacement.replacement_for(index, "index", replacement.constants_only_read_by({node, before}))
        saved = replacement.bytes_saved([before], replacement.constants_only_read_by({node, before}), [swap])
        if not same or (pick.index < 0 and rewriter.opset(node) < _NEGATIVE_INDICES) or saved < 0:
            return False
        if not rewriter.may_hold(node, ir.DataType.INT64) or not self.permits(node, rewriter):
            return False
        _become_gather(node, pick, swap, rewriter)
        return True


def _pick(node: ir.Node, opset: int) -> _Pick | None:
    """``node`` as the choice of one element along one axis."""
    if opset < _LIMITS_ARE_INPUTS:
        limits = [node.attributes.get_ints(name, ()) for name in ("starts", "ends", "axes")]
        return _one(node, limits)
    steps = [1] if len(node.inputs) < 5 or node.inputs[4] is None else constants.constant_ints(node.inputs[4])
    limits = [constants.constant_ints(value) or [] for value in node.inputs[1:4]]
    return _one(node, limits) if steps == [1] and len(limits) == 3 else None


def _one(node: ir.Node, limits: Sequence[Sequence[int]]) -> _Pick | None:
    if any(len(numbers) != 1 for numbers in limits) or node.inputs[0] is None:
        return None
    start, end, axis = (numbers[0] for numbers in limits)
    is_one = end == start + 1 if start != -1 else end >= _BEYOND
    return _Pick(node.inputs[0], start, axis) if is_one else None


def _become_gather(node: ir.Node, pick: _Pick, swap: replacement.ReplacementConstant, rewriter: Rewriter) -> None:
    node.op_type = "Gather"
    node.attributes.clear()
    if pick.axis:
        node.attributes.add(ir.AttrInt64("axis", pick.axis))
    node.resize_inputs(2)
    editing.set_inputs(node, [pick.source, swap.put(node, rewriter)])


RULES: tuple[Rule, ...] = (FuseSliceSqueeze(),)
