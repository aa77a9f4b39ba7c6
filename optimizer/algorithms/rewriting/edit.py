"""Edits of a graph as values: what a rule wants to change, so that its bytes can be counted before it is done.

    Mul(Conv(x, w), c)      forms    = {Conv: Conv(x, w, b)}         nodes that become others
                            data     = {w: c w}                      constants that get other data
                            bypassed = {Mul's output: Conv's}        values whose users read another one
    Reshape(x, Concat(…))   computed = {Concat's output: [2, -1]}    values that become constants

Nodes that have no uses afterwards are not named: that they go follows from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from optimizer.algorithms.rewriting.replacement import ReplacementConstant
from optimizer.graph import constants, editing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter

    Input: TypeAlias = ir.Value | ReplacementConstant | None


@dataclass(frozen=True, eq=False)
class NodeForm:
    """What a node becomes; its outputs, its name and its doc string stay.

    Attributes:
        op_type: The operator.
        inputs: Values that are there, constants that are made for it, ``None`` for what is left out.
        attributes: By name, in the order of the file.
        keeps_shape: Whether its outputs have the shapes that they had; they are unknown otherwise.
    """

    op_type: str
    inputs: Sequence[Input]
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    keeps_shape: bool = True

    def of_other_shape(self) -> NodeForm:
        """The same, but what it computes has not the shape that it had."""
        return replace(self, keeps_shape=False)


def form(op_type: str, inputs: Sequence[Input], *attributes: ir.Attr) -> NodeForm:
    """Another operator, with nothing of the old one's attributes."""
    return NodeForm(op_type, inputs, {attribute.name: attribute for attribute in attributes})


def changed_form(
    node: ir.Node,
    op_type: str | None = None,
    inputs: Sequence[Input] | None = None,
    attributes: Iterable[ir.Attr] = (),
    without: Iterable[str] = (),
) -> NodeForm:
    """What ``node`` is now, but for what is said.

    Args:
        node: Not changed.
        op_type: The operator, if it becomes another.
        inputs: All inputs, if they become others.
        attributes: Those that are added, or put in the places of others of their names.
        without: Names of attributes that go.
    """
    dropped = set(without)
    kept = {name: attribute for name, attribute in node.attributes.items() if name not in dropped}
    kept.update((attribute.name, attribute) for attribute in attributes)
    return NodeForm(op_type or node.op_type, node.inputs if inputs is None else inputs, kept)


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a graph.

    Attributes:
        forms: Nodes that become others, in the order in which their constants are made.
        bypassed: Values whose users are to read another one; ``editing.may_bypass`` holds of each.
        computed: Values computed by nodes, no graph outputs, that become constants under their names.
        data: Constants that get other data of the same shape; all their users see it.
    """

    forms: Mapping[ir.Node, NodeForm] = field(default_factory=dict)
    bypassed: Mapping[ir.Value, ir.Value] = field(default_factory=dict)
    computed: Mapping[ir.Value, NDArray[np.generic]] = field(default_factory=dict)
    data: Mapping[ir.Value, NDArray[np.generic]] = field(default_factory=dict)

    def all_data(self) -> dict[ir.Value, NDArray[np.generic]]:
        """``data``, and what the constants get that are taken over."""
        wanted = [each for new in self.forms.values() for each in new.inputs if isinstance(each, ReplacementConstant)]
        return {**self.data, **{each.reusable: each.array for each in wanted if each.reusable is not None}}


def bypass(node: ir.Node, source: ir.Value) -> Edit:
    """Let the users of the first output of ``node`` read ``source``; ``editing.may_bypass`` holds."""
    return Edit(bypassed={node.outputs[0]: source})


def apply(edit: Edit, rewriter: Rewriter) -> None:
    """Make ``edit``, and remove the nodes that have no uses any more."""
    touched = [*edit.forms, *_producers([*edit.bypassed, *edit.computed])]
    candidates = [*touched, *(node for each in touched for node in each.predecessors())]
    # All data first: a new constant may be one that is there already, but not one whose data is about to change.
    for value, array in edit.all_data().items():
        constants.set_array(value, array)
    for node, new in edit.forms.items():
        _become(node, new, rewriter)
    for value, array in edit.computed.items():
        rewriter.replace_by_constant(value, array)
    for (target, source), producer in zip(edit.bypassed.items(), _producers(edit.bypassed), strict=True):
        editing.bypass(producer, source, target)
    editing.remove_unused(candidates)


def _producers(values: Iterable[ir.Value]) -> list[ir.Node]:
    """The nodes that compute ``values``.

    Raises:
        ValueError: If one is not computed by a node.
    """
    producers = []
    for value in values:
        producer = value.producer()
        if producer is None:
            raise ValueError(f"{value.name} is not computed by a node")
        producers.append(producer)
    return producers


def _become(node: ir.Node, new: NodeForm, rewriter: Rewriter) -> None:
    inputs = [_value(wanted, node, rewriter) for wanted in new.inputs]
    node.op_type = new.op_type
    node.attributes.clear()
    for attribute in new.attributes.values():
        node.attributes.add(attribute)
    node.resize_inputs(len(inputs))
    editing.set_inputs(node, inputs)
    for output in node.outputs if not new.keeps_shape else ():
        output.shape = None


def _value(wanted: Input, node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """The input ``wanted`` of ``node``; a constant that is taken over has its data already."""
    if not isinstance(wanted, ReplacementConstant):
        return wanted
    return wanted.reusable or rewriter.constant(node, wanted.array, wanted.hint)
