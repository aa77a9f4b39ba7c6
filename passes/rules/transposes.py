"""Move Transposes to where the fewest are needed, and none between operators that can do without.

A region of operators that can compute on permuted axes (``optimizer.algorithms.rewriting.layout.operators``) is
computed permuted where that leaves fewer Transposes than there are; which of its operators are, a minimum cut tells
(``optimizer.algorithms.rewriting.layout.regions``). Constants in the region are transposed once, in place. Transposes
do not go where they have more elements to move in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.layout import plans, regions
from optimizer.algorithms.rewriting.layout.plan_bytes import bytes_saved
from optimizer.algorithms.rewriting.layout.plans import LayoutPlan
from optimizer.algorithms.rewriting.layout.regions import ABOVE, BELOW, PERMUTED
from optimizer.algorithms.rewriting.rules import APPLIED, NO_MATCH, NOT_PERMITTED, WOULD_GROW, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, editing, permutations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.layout.regions import LayoutRegion
    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MoveTransposes(Rule):
    """Transposes around and between operators that can compute on permuted axes.

    Which nodes compute permuted, the plan says. Then each value of the region is one of these:

    Case 1: a constant that is read permuted. Its data is permuted, in place if it has no other users.
    Case 2: what a Transpose by another permutation computes, read permuted. One Transpose by both computes that.
    Case 3: another value that is computed as it is and read permuted. A new Transpose goes between.
    Case 4: what a Transpose by the permutation computes. Users that compute permuted read what it reads.
    Case 5: what a chosen node computes. A new Transpose restores it for the users that need it as it was.
    """

    name: ClassVar[str] = "move-transposes"
    summary: ClassVar[str] = "Transposes are moved through operators to where fewer are needed"
    ops: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Rewrite a region below or above the Transpose ``node``."""
        perm = permutations.permutation(node)
        if perm is None or permutations.is_identity(perm) or node.inputs[0] is None:
            return NO_MATCH
        refusal = NO_MATCH
        for start, wanted, side in (
            (node.outputs[0], perm, BELOW),
            (node.inputs[0], permutations.inverse(perm), ABOVE),
        ):
            settled = rewriter.settled.get((node, side))
            if settled is None:
                region = regions.grow(start, wanted, rewriter.opset)
                plan = self._plan(node, region, rewriter)
                if isinstance(plan, LayoutPlan):
                    _apply(plan, rewriter)
                    return APPLIED
                settled = plan
                rewriter.settled.update(dict.fromkeys([(node, side), *region.transposes()], plan))
            refusal = refusal if settled is NO_MATCH else settled
        return refusal

    def _plan(self, node: ir.Node, region: LayoutRegion, rewriter: Rewriter) -> LayoutPlan | Refusal:
        """What is to become of ``region``, which is next to the Transpose ``node``."""
        if not region.changes:
            return NO_MATCH
        plan = plans.planned(region)
        if isinstance(plan, Refusal):
            return plan
        if bytes_saved(plan, rewriter) < 0:
            return WOULD_GROW
        return plan if self.permits(node, rewriter) else NOT_PERMITTED


def _apply(plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Let the chosen nodes compute permuted."""
    affected = [node for node in plan.region.changes if plan.is_affected(node)]
    becomes_permuted = {value: plan.region.is_permuted(value, plan.chosen) for value in plan.region.values}
    # Data in place first: a new constant may be one that is there already, but not one whose data is about to change.
    arrays = {value: plan.permuted_array(value) for value, is_alone in plan.constants.items() if is_alone}
    for value, array in arrays.items():
        constants.set_array(value, array)
    for value, is_permuted in becomes_permuted.items():
        if is_permuted:
            _pass_on(value, plan, rewriter)
        else:
            _supply(value, plan, rewriter)
    for node in affected:
        _change(node, plan, rewriter)
    editing.remove_unused(plan.gone)


def _supply(value: ir.Value, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Give the chosen users of ``value``, which is computed as it is, a permuted version."""
    uses, producer = value.uses(), value.producer()
    permuted_uses = [use for use in uses if plan.reads_permuted(use)]
    if not permuted_uses:
        return
    back = permutations.inverse(plan.region.perm)
    perm_of_producer = None if producer is None else permutations.permutation(producer)
    # Case 1: a constant
    if constants.constant_tensor(value) is not None:
        permuted = _constant(value, plan, rewriter)
    else:
        # Case 2: a Transpose by another permutation: one by both instead
        if producer is not None and perm_of_producer is not None and plan.region.decided_by(value) is value:
            both = permutations.then(perm_of_producer, back)
            permuted = _transposed(producer.inputs[0], both, plan, rewriter, after=producer)
        # Case 3: anything else
        else:
            permuted = _transposed(value, back, plan, rewriter, after=producer)
        permuted.type, permuted.shape = value.type, _permuted_shape(value, back)
    for node, index in permuted_uses:
        node.replace_input_with(index, permuted)
    for node in [use.node for use in uses if plan.region.wanted_by(use) is PERMUTED]:
        _give_out(node, permuted)


def _pass_on(value: ir.Value, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Give the users of ``value``, which is computed permuted, what they need of it."""
    perm, producer, uses = plan.region.perm, value.producer(), value.uses()
    if producer is None:
        return
    # Case 4: a Transpose computes it, which its users go past. Case 5: a chosen node does
    is_transposed = producer not in plan.chosen
    source = producer.inputs[0] if is_transposed else value
    if source is None:
        return
    if not is_transposed:
        _keep_as_is(value, producer, plan, rewriter)
    for node, index in uses:
        perm_of_user, wanted = permutations.permutation(node), plan.region.wanted_by((node, index))
        if wanted is PERMUTED:  # a Transpose that undoes the permutation
            _give_out(node, source)
        elif perm_of_user is not None and wanted is None:  # one by another permutation, which takes this one in
            node.attributes.add(ir.AttrInt64s("perm", permutations.then(perm, perm_of_user)))
            node.replace_input_with(index, source)
        elif is_transposed and not plan.wants_as_is((node, index)):
            node.replace_input_with(index, source)


def _give_out(node: ir.Node, source: ir.Value) -> None:
    """Let the users of the Transpose ``node`` read ``source``, which is what it computes."""
    if not editing.bypass(node, source):  # a graph output that has to have a name of its own
        node.op_type = "Identity"
        node.attributes.clear()
        node.replace_input_with(0, source)


def _keep_as_is(value: ir.Value, producer: ir.Node, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Transpose ``value``, which is computed permuted from now on, for the users that need it as it was."""
    users = [use for use in value.uses() if plan.wants_as_is(use)]
    type_before, shape_before = value.type, value.shape
    value.shape = _permuted_shape(value, permutations.inverse(plan.region.perm))
    if not users and not value.is_graph_output():
        return
    restored = _transposed(value, plan.region.perm, plan, rewriter, after=producer)
    restored.type, restored.shape = type_before, shape_before
    for node, index in users:
        node.replace_input_with(index, restored)
    home = plan.region.home
    if value.is_graph_output() and home is not None:
        for place, output in enumerate(home.outputs):
            if output is value:
                home.outputs[place] = restored
        value.name, restored.name = restored.name, value.name
        value.doc_string, restored.doc_string = None, value.doc_string
        restored.metadata_props.update(value.metadata_props)


def _permuted_shape(value: ir.Value, perm: Sequence[int]) -> ir.Shape | None:
    return None if value.shape is None else ir.Shape([value.shape[axis] for axis in perm])


def _transposed(
    value: ir.Value | None, perm: Sequence[int], plan: LayoutPlan, rewriter: Rewriter, after: ir.Node | None
) -> ir.Value:
    """``value`` transposed, by a new node after the node ``after``, or before all others."""
    home = plan.region.home
    if value is None or home is None:
        raise ValueError("a Transpose has to read something, in a graph")
    if permutations.is_identity(perm):
        return value
    node = ir.node("Transpose", [value], {"perm": list(perm)}, name="")
    node.outputs[0].name = rewriter.names.fresh("t")
    if after is None:
        home.insert_before(home[0], node)
    else:
        home.insert_after(after, node)
    return node.outputs[0]


def _constant(value: ir.Value, plan: LayoutPlan, rewriter: Rewriter) -> ir.Value:
    """The constant ``value``, permuted: itself where its data has been, else another one."""
    home = plan.region.home
    if plan.constants[value] or home is None:
        return value
    return rewriter.constant(home[0], plan.permuted_array(value), value.name or "constant")


def _change(node: ir.Node, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Let ``node`` compute permuted."""
    change = plan.region.changes[node]
    for attribute in change.new_attributes():
        node.attributes.add(attribute)
    for index, numbers in change.inputs.items():
        node.resize_inputs(max(len(node.inputs), index + 1))
        node.replace_input_with(index, rewriter.constant(node, np.array(numbers, np.int64), "axes"))


RULES: tuple[Rule, ...] = (MoveTransposes(),)
