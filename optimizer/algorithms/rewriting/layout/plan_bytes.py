"""By how many bytes a plan makes the file smaller, before it is carried out.

Counted as in ``optimizer.algorithms.rewriting.edit_bytes``: the nodes that are touched, before and after, under the
names that new values will get. What gives a graph output its place keeps its own name in this count, and the Transpose
that gave it out stays, as an Identity: the file may get smaller than it says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.layout.regions import PERMUTED
from optimizer.algorithms.rewriting.planned_constants import PlannedConstants
from optimizer.graph import constants, file_size, permutations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.layout.plans import LayoutPlan
    from optimizer.algorithms.rewriting.rewriter import Rewriter


@dataclass
class _Draft:
    """What nodes will say.

    Attributes:
        planned: The constants that will be made.
        inputs: The names of the inputs of nodes that change.
        outputs: New names of values.
        attributes: The attributes of nodes that change.
        added: Bytes of new nodes and constants.
    """

    planned: PlannedConstants
    inputs: dict[ir.Node, list[str]] = field(default_factory=dict)
    outputs: dict[ir.Value, str] = field(default_factory=dict)
    attributes: dict[ir.Node, dict[str, ir.Attr]] = field(default_factory=dict)
    added: int = 0

    def read(self, node: ir.Node, index: int, name: str) -> None:
        """Let the input ``index`` of ``node`` be ``name``."""
        names = self.inputs.setdefault(node, ["" if value is None else value.name or "" for value in node.inputs])
        names += [""] * (index + 1 - len(names))
        names[index] = name

    def give_out(self, transpose: ir.Node, name: str) -> None:
        """Let the users of ``transpose`` read ``name``."""
        if transpose.outputs[0].is_graph_output():
            self.added += file_size.node_bytes_as(transpose, "Identity", [name], [transpose.outputs[0].name or ""], [])
            return
        for node, index in transpose.outputs[0].uses():
            self.read(node, index, name)

    def set_attribute(self, node: ir.Node, attribute: ir.Attr) -> None:
        """Let ``node`` have ``attribute``."""
        self.attributes.setdefault(node, dict(node.attributes))[attribute.name] = attribute

    def transpose(self, source: str, perm: Sequence[int]) -> str:
        """Add a Transpose of ``source``; returns the name of what it computes."""
        if permutations.is_identity(perm):
            return source
        name = self.planned.name("t")
        node = ir.Node("", "Transpose", [], [ir.AttrInt64s("perm", perm)], num_outputs=0, name="")
        self.added += file_size.node_bytes_as(node, "Transpose", [source], [name], node.attributes.values())
        return name

    def constant(self, node: ir.Node, array: NDArray[np.generic], hint: str) -> str:
        """Add a constant that ``node`` reads, unless the model has it; returns its name."""
        constant = self.planned.constant(node, array, hint)
        self.added += constant.bytes
        return constant.name


def bytes_saved(plan: LayoutPlan, rewriter: Rewriter) -> int:
    """By how many bytes the file shrinks with ``plan``; negative if it grows."""
    changing = {value: plan.permuted_array(value) for value, is_alone in plan.constants.items() if is_alone}
    draft = _Draft(PlannedConstants(rewriter, changing))
    for value in plan.region.values:
        if plan.region.is_permuted(value, plan.chosen):
            _pass_on(value, plan, draft)
        else:
            _supply(value, plan, draft)
    for node, change in plan.region.changes.items():
        if plan.is_affected(node):
            for attribute in change.new_attributes():
                draft.set_attribute(node, attribute)
            for index, numbers in change.inputs.items():
                draft.read(node, index, draft.constant(node, np.array(numbers, np.int64), "axes"))
    makers = [producer for value in draft.outputs if (producer := value.producer()) is not None]
    saved = sum(map(file_size.node_bytes, plan.gone)) - draft.added
    for node in dict.fromkeys([*draft.inputs, *draft.attributes, *makers]):
        if node not in plan.gone:
            saved += file_size.node_bytes(node) - _bytes_after(node, draft)
    return saved


def _bytes_after(node: ir.Node, draft: _Draft) -> int:
    inputs = draft.inputs.get(node) or ["" if value is None else value.name or "" for value in node.inputs]
    outputs = [draft.outputs.get(value, value.name or "") for value in node.outputs]
    attributes = draft.attributes.get(node, node.attributes).values()
    return file_size.node_bytes_as(node, node.op_type, inputs, outputs, attributes)


def _supply(value: ir.Value, plan: LayoutPlan, draft: _Draft) -> None:
    """The chosen users of ``value``, which is computed as it is, read a permuted version."""
    uses = value.uses()
    permuted_uses = [use for use in uses if plan.reads_permuted(use)]
    if not permuted_uses:
        return
    back, producer = permutations.inverse(plan.region.perm), value.producer()
    perm_of_producer = None if producer is None else permutations.permutation(producer)
    if constants.constant_tensor(value) is not None:
        name = _permuted_constant(value, plan, draft)
    elif producer is not None and perm_of_producer is not None and plan.region.decided_by(value) is value:
        source = producer.inputs[0]
        name = draft.transpose((source and source.name) or "", permutations.then(perm_of_producer, back))
    else:
        name = draft.transpose(value.name or "", back)
    for node, index in permuted_uses:
        draft.read(node, index, name)
    for use in uses:
        if plan.region.wanted_by(use) is PERMUTED:
            draft.give_out(use.node, name)


def _pass_on(value: ir.Value, plan: LayoutPlan, draft: _Draft) -> None:
    """The users of ``value``, which is computed permuted, read what they need of it."""
    perm, producer = plan.region.perm, value.producer()
    if producer is None:
        return
    is_transposed = producer not in plan.chosen
    source = producer.inputs[0] if is_transposed else value
    name = (source and source.name) or ""
    if not is_transposed and value in plan.new:
        restored = draft.transpose(name, perm)
        if value.is_graph_output():  # the two change their names
            name, restored = restored, name
            draft.outputs[value] = name
        for node, index in value.uses():
            draft.read(node, index, restored if plan.wants_as_is((node, index)) else name)
    for node, index in value.uses():
        perm_of_user, want = permutations.permutation(node), plan.region.wanted_by((node, index))
        if want is PERMUTED:
            draft.give_out(node, name)
        elif perm_of_user is not None and want is None:
            draft.set_attribute(node, ir.AttrInt64s("perm", permutations.then(perm, perm_of_user)))
            draft.read(node, index, name)
        elif is_transposed and not plan.wants_as_is((node, index)):
            draft.read(node, index, name)


def _permuted_constant(value: ir.Value, plan: LayoutPlan, draft: _Draft) -> str:
    """The name of the constant ``value``, permuted; its data changes in place where it may."""
    new, home, old = draft.planned.changing.get(value), plan.region.home, constants.constant_tensor(value)
    if new is None:
        if home is None:
            raise ValueError(f"{value.name} is read in no graph")
        return draft.constant(home[0], plan.permuted_array(value), value.name or "constant")
    draft.added += file_size.tensor_bytes(constants.tensor_to_store(value, new), value.name)
    draft.added -= 0 if old is None else file_size.tensor_bytes(old, value.name)
    return value.name or ""
