"""Do without an axis that is only made to be transposed and dropped.

::

    Squeeze(Transpose(Unsqueeze(x)))  = Transpose(x)                     where the Squeeze drops what was added
    Squeeze(Transpose(Reshape(x, s))) = Transpose(Reshape(x, s'))        s' is s without the ones that are dropped
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting import replacement
from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, permutations, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class FuseViews(Rule):
    """Unsqueeze, Transpose and Squeeze in a row."""

    name: ClassVar[str] = "fuse-views"
    summary: ClassVar[str] = "an axis that is made, transposed and squeezed away is not made"
    ops: ClassVar[frozenset[str]] = frozenset({"Squeeze"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Turn the Squeeze ``node`` into a Transpose of what has not those axes."""
        transpose = _before(node, "Transpose")
        view = None if transpose is None else _before(transpose, "Unsqueeze", "Reshape")
        if transpose is None or view is None or view.inputs[0] is None:
            return False
        perm, dropped = permutations.permutation(transpose), permutations.axes_of(node)
        if perm is None or not dropped:
            return False
        gone = sorted(perm[axis % len(perm)] for axis in dropped)
        left = permutations.reduced(perm, gone)
        if view.op_type == "Unsqueeze":
            same = gone == sorted(axis % len(perm) for axis in permutations.axes_of(view) or ())
            return same and self.permits(node, rewriter) and _become_transpose(node, view.inputs[0], left)
        target = constants.constant_ints(view.inputs[1])
        if target is None or 0 in target or any(target[axis] != 1 for axis in gone):
            return False
        shorter = np.array([size for axis, size in enumerate(target) if axis not in gone], np.int64)
        swap = replacement.replacement_for(shorter, "shape", replacement.constants_only_read_by({view}))
        saved = replacement.bytes_saved(
            [transpose], replacement.constants_only_read_by({view, transpose, node}), [swap]
        )
        if saved < 0 or not rewriter.may_hold(node, ir.DataType.INT64) or not self.permits(node, rewriter):
            return False
        view.replace_input_with(1, swap.put(view, rewriter))
        view.outputs[0].shape = None
        return _become_transpose(node, view.outputs[0], left)


def _before(node: ir.Node, *op_types: str) -> ir.Node | None:
    """The node that computes what only ``node`` reads."""
    value = node.inputs[0] if node.inputs else None
    producer = None if value is None or queries.only_consumer(value) is not node else value.producer()
    if producer is None or producer.graph is not node.graph or queries.has_references(producer):
        return None
    return producer if queries.is_standard(producer, *op_types) else None


def _become_transpose(node: ir.Node, source: ir.Value, perm: Sequence[int]) -> bool:
    node.op_type = "Transpose"
    node.attributes.clear()
    node.attributes.add(ir.AttrInt64s("perm", perm))
    node.resize_inputs(1)
    node.replace_input_with(0, source)
    return True


RULES: tuple[Rule, ...] = (FuseViews(),)
