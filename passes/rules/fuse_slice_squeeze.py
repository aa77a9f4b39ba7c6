"""Pick one slice by a Gather: ``Squeeze(Slice(x, i, i + 1, axis), axis) = Gather(x, i, axis)``.

Only of floats: ONNX Runtime and its fusions look for slices of shapes as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting import replacement
from optimizer.algorithms.rewriting.edit import Edit, form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, permutations, queries

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

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Turn the Squeeze ``node`` into a Gather from what is sliced before it."""
        source = node.inputs[0] if node.inputs else None
        producer = None if source is None else source.producer()
        if producer is None or not queries.is_standard(producer, "Slice") or producer.graph is not node.graph:
            return NO_MATCH
        if queries.has_references(producer):
            return NO_MATCH
        pick = _pick(producer, rewriter.opset(node))
        if pick is None:
            return Refusal("the Slice is not known to take one element of one axis")
        if pick.source.dtype not in constants.FLOATS:
            return Refusal("what is sliced is not of floats: ONNX Runtime looks for slices of shapes as they are")
        if queries.only_consumer(source) is not node:
            return Refusal("what is sliced has other users")
        if not _is_squeezed(pick, permutations.axes_of(node)):
            return Refusal("other axes are squeezed than the one that is sliced")
        if pick.index < 0 and rewriter.opset(node) < _NEGATIVE_INDICES:
            return Refusal("a Gather before opset 11 does not count from the end")
        if not rewriter.may_hold(node, ir.DataType.INT64):
            return Refusal("a Constant node before opset 9 holds floats only")
        spares = replacement.constants_only_read_by({node, producer})
        index = replacement.replacement_for(np.array(pick.index, np.int64), "index", spares)
        axis = [ir.AttrInt64("axis", pick.axis)] if pick.axis else []
        return self.apply(Edit(forms={node: form("Gather", [pick.source, index], *axis)}), rewriter, node)


def _pick(node: ir.Node, opset: int) -> _Pick | None:
    """``node`` as the choice of one element along one axis."""
    if opset < _LIMITS_ARE_INPUTS:
        limits = [node.attributes.get_ints(name, ()) for name in ("starts", "ends", "axes")]
        return _pick_within(node, limits)
    steps = [1] if len(node.inputs) < 5 or node.inputs[4] is None else constants.constant_ints(node.inputs[4])
    limits = [constants.constant_ints(value) or [] for value in node.inputs[1:4]]
    return _pick_within(node, limits) if steps == [1] and len(limits) == 3 else None


def _pick_within(node: ir.Node, limits: Sequence[Sequence[int]]) -> _Pick | None:
    if any(len(numbers) != 1 for numbers in limits) or node.inputs[0] is None:
        return None
    start, end, axis = (numbers[0] for numbers in limits)
    is_one = end == start + 1 if start != -1 else end >= _BEYOND
    return _Pick(node.inputs[0], start, axis) if is_one else None


def _is_squeezed(pick: _Pick, axes: Sequence[int] | None) -> bool:
    """Whether ``axes`` is the axis of ``pick`` alone."""
    if axes is None or len(axes) != 1:
        return False
    rank = queries.rank(pick.source)
    return pick.axis == axes[0] or (rank is not None and pick.axis % rank == axes[0] % rank)


RULES: tuple[Rule, ...] = (FuseSliceSqueeze(),)
