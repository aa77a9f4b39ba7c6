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

    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.layout.regions import LayoutRegion
    from optimizer.algorithms.rewriting.rewriter import Rewriter


class MoveTransposes(Rule):
    """Transposes around and between operators that can compute on permuted axes."""

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
    made_permuted = [plan.region.is_permuted(value, plan.chosen) for value in plan.region.values]
    for value, is_permuted in zip(list(plan.region.values), made_permuted, strict=True):
        if is_permuted:
            _pass_on(value, plan, rewriter)
        else:
            _supply(value, plan, rewriter)
    for node in affected:
        _change(node, plan, rewriter)
    editing.remove_unused(plan.gone)


def _supply(value: ir.Value, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Give the chosen readers of ``value``, which is made as it is, a permuted version."""
    uses = value.uses()
    readers = [use for use in uses if plan.reads_permuted(use)]
    if not readers:
        return
    back = permutations.inverse(plan.region.perm)
    if constants.constant_tensor(value) is not None:
        permuted = _constant(value, back, plan, rewriter)
    else:
        producer = value.producer()
        perm_of_producer = None if producer is None else permutations.permutation(producer)
        if producer is not None and perm_of_producer is not None and plan.region.decided_by(value) is value:
            permuted = _transposed(
                producer.inputs[0], permutations.then(perm_of_producer, back), plan, rewriter, after=producer
            )
        else:
            permuted = _transposed(value, back, plan, rewriter, after=producer)
        permuted.type, permuted.shape = value.type, _permuted_shape(value, back)
    for node, index in readers:
        node.replace_input_with(index, permuted)
    for node in [use.node for use in uses if plan.region.wanted_by(use) is PERMUTED]:
        _give_out(node, permuted)


def _pass_on(value: ir.Value, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Give the readers of ``value``, which is made permuted, what they need of it."""
    perm, producer, uses = plan.region.perm, value.producer(), value.uses()
    if producer is None:
        return
    is_transposed = producer not in plan.chosen
    source = producer.inputs[0] if is_transposed else value
    if source is None:
        return
    if not is_transposed:
        _keep_as_is(value, producer, plan, rewriter)
    for node, index in uses:
        perm_of_user, want = permutations.permutation(node), plan.region.wanted_by((node, index))
        if want is PERMUTED:
            _give_out(node, source)
        elif perm_of_user is not None and want is None:
            node.attributes.add(ir.AttrInt64s("perm", permutations.then(perm, perm_of_user)))
            node.replace_input_with(index, source)
        elif is_transposed and not plan.wants_as_is((node, index)):
            node.replace_input_with(index, source)


def _give_out(node: ir.Node, source: ir.Value) -> None:
    """Let the readers of the Transpose ``node`` read ``source``, which is what it writes."""
    if not editing.bypass(node, source):  # a graph output that has to have a name of its own
        node.op_type = "Identity"
        node.attributes.clear()
        node.replace_input_with(0, source)


def _keep_as_is(value: ir.Value, producer: ir.Node, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Transpose ``value``, which is made permuted from now on, for those who need it as it was."""
    users = [use for use in value.uses() if plan.wants_as_is(use)]
    value_type, shape = value.type, value.shape
    value.shape = _permuted_shape(value, permutations.inverse(plan.region.perm))
    if not users and not value.is_graph_output():
        return
    restored = _transposed(value, plan.region.perm, plan, rewriter, after=producer)
    restored.type, restored.shape = value_type, shape
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


def _constant(value: ir.Value, perm: Sequence[int], plan: LayoutPlan, rewriter: Rewriter) -> ir.Value:
    """The constant ``value`` with all axes of the region, permuted: in place, if nobody needs it as it is."""
    array = constants.constant_array(value)
    home = plan.region.home
    if array is None or home is None:
        raise ValueError(f"{value.name} is no constant")
    full = array.reshape([1] * (len(perm) - array.ndim) + list(array.shape))
    new: NDArray[np.generic] = np.ascontiguousarray(full.transpose(perm))
    if not plan.constants[value]:
        return rewriter.constant(home[0], new, value.name or "constant")
    constants.set_array(value, new)
    return value


def _change(node: ir.Node, plan: LayoutPlan, rewriter: Rewriter) -> None:
    """Let ``node`` compute permuted."""
    change = plan.region.changes[node]
    for attribute in change.new_attributes():
        node.attributes.add(attribute)
    for index, numbers in change.inputs.items():
        node.resize_inputs(max(len(node.inputs), index + 1))
        node.replace_input_with(index, rewriter.constant(node, np.array(numbers, np.int64), "axes"))


RULES: tuple[Rule, ...] = (MoveTransposes(),)
