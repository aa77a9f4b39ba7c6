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
from optimizer.algorithms.rewriting.edit import Edit, changed_form, form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, permutations, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.edit import NodeForm
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_OTHER_USERS = Refusal("what is between the Squeeze and what makes the axis has other users")


class FuseViews(Rule):
    """What makes an axis, Transpose and Squeeze in a row.

    Case 1: an Unsqueeze makes the axis. The Transpose reads what that reads.
    Case 2: a Reshape by a constant makes the axis. It gets a target without that axis.
    """

    name: ClassVar[str] = "fuse-views"
    summary: ClassVar[str] = "an axis that is made, transposed and squeezed away is not made"
    ops: ClassVar[frozenset[str]] = frozenset({"Squeeze"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Turn the Squeeze ``node`` into a Transpose of what has not those axes."""
        transpose = queries.producer_of_first_input(node, "Transpose")
        view = None if transpose is None else queries.producer_of_first_input(transpose, "Unsqueeze", "Reshape")
        if transpose is None or view is None or view.inputs[0] is None:
            return NO_MATCH
        if not transpose.graph is view.graph is node.graph:
            return NO_MATCH
        perm, dropped = permutations.permutation(transpose), permutations.axes_of(node)
        if perm is None or not dropped:
            return Refusal("the axes that are transposed and dropped are not known")
        # The axes as the view makes them, and how those that remain are transposed
        gone = sorted(perm[axis % len(perm)] for axis in dropped)
        remaining = permutations.reduced(perm, gone)
        if view.op_type == "Unsqueeze":
            refusal = _obstacle_of_unsqueeze(view, gone, len(perm))
        else:
            refusal = _obstacle_of_reshape(view, gone)
        if refusal is not None:
            return refusal
        if queries.only_consumer(transpose.outputs[0]) is not node:
            return _OTHER_USERS
        if queries.only_consumer(view.outputs[0]) is not transpose:
            return _OTHER_USERS
        if view.op_type == "Unsqueeze":
            return self.apply(Edit(forms={node: _transpose(view.inputs[0], remaining)}), rewriter, node)
        if not rewriter.may_hold(node, ir.DataType.INT64):
            return Refusal("a Constant node before opset 9 holds floats only")
        forms = {view: _reshape_without(view, gone), node: _transpose(view.outputs[0], remaining)}
        return self.apply(Edit(forms=forms), rewriter, node)


def _obstacle_of_unsqueeze(view: ir.Node, gone: Sequence[int], rank: int) -> Refusal | None:
    """Why case 1 does not hold; ``None`` if it does."""
    added = sorted(axis % rank for axis in permutations.axes_of(view) or ())
    return None if list(gone) == added else Refusal("other axes are dropped than the Unsqueeze adds")


def _obstacle_of_reshape(view: ir.Node, gone: Sequence[int]) -> Refusal | None:
    """Why case 2 does not hold; ``None`` if it does."""
    target = constants.constant_ints(view.inputs[1])
    if target is None:
        return Refusal("the target of the Reshape is not constant")
    if any(target[axis] != 1 for axis in gone):
        return Refusal("an axis is dropped that the Reshape does not make as 1")
    return Refusal("the target of the Reshape keeps dimensions by their places") if 0 in target else None


def _reshape_without(view: ir.Node, gone: Sequence[int]) -> NodeForm:
    """The Reshape ``view`` by a target without the axes ``gone``."""
    target = constants.constant_ints(view.inputs[1]) or []
    shorter = np.array([size for axis, size in enumerate(target) if axis not in gone], np.int64)
    constant = replacement.replacement_for(shorter, "shape", replacement.constants_only_read_by({view}))
    return changed_form(view, inputs=[view.inputs[0], constant]).of_other_shape()


def _transpose(source: ir.Value | None, perm: Sequence[int]) -> NodeForm:
    return form("Transpose", [source], ir.AttrInt64s("perm", perm))


RULES: tuple[Rule, ...] = (FuseViews(),)
