"""Give Reshape and Expand a constant target where the shape arithmetic says all but what they find out themselves.

Reshape keeps a dimension by 0 and finds one by -1 (``optimizer.analysis.symbolic.reshape_targets``); Expand keeps a
dimension by 1. No dynamic dimension is frozen.

Counterpart elsewhere: ``_materialize_reshape_shape`` of onnxscript's rewriter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, NodeForm, changed_form
from optimizer.algorithms.rewriting.replacement import ReplacementConstant
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.analysis.symbolic.expressions import is_known
from optimizer.analysis.symbolic.nonzero import inferred_dimension
from optimizer.analysis.symbolic.operators import dims
from optimizer.analysis.symbolic.reshape_targets import ReshapeTarget
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter
    from optimizer.analysis.symbolic.expressions import Element

_MAX_USERS = 64
_OPEN = "more than one dimension of the target is open, or a dimension that is not may be 0"


class ConstantTargets(Rule):
    """Reshape and Expand by a constant.

    Case 1: a constant that the model has already is a target of the node: it alone reads it.
    Case 2: a new constant is a target of all users of the computed one, whose arithmetic goes.
    """

    name: ClassVar[str] = "constant-targets"
    summary: ClassVar[str] = "Reshape and Expand by a constant with 0, -1 or 1 for what they find out themselves"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape", "Expand"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Replace the computed target of ``node``, and of all others that read it, if they want the same."""
        computed = node.inputs[1] if len(node.inputs) > 1 else None
        if computed is None or constants.constant_tensor(computed) is not None:
            return NO_MATCH
        targets = _targets(node, rewriter)
        if not targets:
            is_known = rewriter.values.elements(computed) is not None
            return Refusal(_OPEN if is_known else "what the computed target comes to is not known")
        # Case 1
        for target in targets:
            if rewriter.known_constant(node, np.array(target, np.int64)) is not None:
                return self.apply(_by_constant(target, [node]), rewriter, node)
        # Case 2
        if computed.is_graph_output():
            return Refusal("the computed target is a graph output")
        if queries.use_count(computed) > _MAX_USERS:
            return Refusal("the computed target has very many users")
        users = list(dict.fromkeys(computed.consumers()))
        others = [_targets(user, rewriter) for user in users if user is not node]
        common = next((target for target in targets if all(target in accepted for accepted in others)), None)
        if common is None:
            return Refusal("other users of the computed target need another constant, or none will do")
        if not rewriter.may_hold(node, ir.DataType.INT64):
            return Refusal("a Constant node before opset 9 holds floats only")
        return self.apply(_by_constant(common, users), rewriter, *users)


def _by_constant(target: list[int], users: Sequence[ir.Node]) -> Edit:
    return Edit(forms={user: _form(user, target) for user in users})


def _form(user: ir.Node, target: list[int]) -> NodeForm:
    constant = ReplacementConstant(np.array(target, np.int64), "s")
    # 0 stands for the dimension that is read, not for itself.
    without = ["allowzero"] if 0 in target and user.op_type == "Reshape" else []
    return changed_form(user, inputs=[user.inputs[0], constant], without=without)


def _targets(node: ir.Node, rewriter: Rewriter) -> list[list[int]]:
    """The constants by which ``node`` comes to the same shape, the best first."""
    if not queries.is_standard(node, "Reshape", "Expand") or queries.has_references(node) or node.inputs[0] is None:
        return []
    wanted, source = rewriter.values.elements(node.inputs[1]), dims(node.inputs[0].shape)
    if wanted is None:
        return []
    if node.op_type == "Expand":
        target = _expand_target(source, wanted)
        return [] if target is None else [target]
    open_target = ReshapeTarget(
        source,
        wanted,
        rewriter.nonzero(node),
        zero_copies=0 not in wanted or node.attributes.get_int("allowzero", 0) == 0,
        inferred=inferred_dimension(node, wanted),
    )
    inferred = dims(node.outputs[0].shape)
    if -1 not in wanted or inferred is None or len(inferred) != len(wanted):
        return open_target.targets()
    # What inference says of the -1 may be a number, which leaves the -1 for another dimension.
    without_open = [inferred[index] if element == -1 else element for index, element in enumerate(wanted)]
    first = replace(open_target, wanted=without_open).targets()
    return [*first, *(target for target in open_target.targets() if target not in first)]


def _expand_target(source: Sequence[Any] | None, wanted: Sequence[Element]) -> list[int] | None:
    target: list[int] = []
    offset = len(wanted) - len(source or ())
    for index, element in enumerate(wanted):
        if is_known(element):
            target.append(int(element))
        elif source is not None and index >= offset >= 0 and source[index - offset] == element:
            target.append(1)
        else:
            return None
    return target


RULES: tuple[Rule, ...] = (ConstantTargets(),)
