"""What becomes of a region of which some nodes are to compute on permuted axes.

Regions are those of ``optimizer.algorithms.rewriting.layout.regions``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.layout import regions
from optimizer.algorithms.rewriting.layout.regions import PERMUTED, LayoutRegion
from optimizer.graph import file_size, permutations, queries
from optimizer.graph.constants import constant_bytes, constant_tensor, known_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_TRANSPOSE_BYTES = 40  # a new Transpose, the name that it reads and its permutation not counted


@dataclass
class LayoutPlan:
    """What becomes of a region.

    Attributes:
        region: The region.
        chosen: Its nodes that are to compute permuted.
        gone: Transposes that then have no uses, in order.
        new: Values that a new Transpose has to read.
        constants: Constants that are read permuted; ``True`` where no consumer needs them as they are.
    """

    region: LayoutRegion
    chosen: set[ir.Node]
    gone: dict[ir.Node, None] = field(default_factory=dict)
    new: list[ir.Value] = field(default_factory=list)
    constants: dict[ir.Value, bool] = field(default_factory=dict)

    def is_affected(self, node: ir.Node) -> bool:
        """Whether ``node`` computes permuted, or absorbs what is permuted."""
        if node in self.chosen:
            return True
        value = node.inputs[0]
        absorbs = self.region.changes[node].absorbs
        return absorbs and value is not None and self.region.is_permuted(value, self.chosen)

    def reads_permuted(self, use: tuple[ir.Node, int]) -> bool:
        """Whether a consumer, a node and the index of its input, is chosen and reads that input permuted."""
        node, index = use
        return node in self.chosen and index in self.region.changes[node].moved

    def wants_as_is(self, use: tuple[ir.Node, int]) -> bool:
        """Whether a consumer needs a value as it is."""
        wanted = self.region.wanted_by(use)
        return wanted is not None and wanted is not PERMUTED and wanted not in self.chosen


def planned(region: LayoutRegion, is_known: Callable[[ir.Node, NDArray[np.int64]], bool]) -> LayoutPlan | None:
    """The plan with the fewest Transposes, if it saves some, costs no bytes and moves no more elements.

    Args:
        region: Not changed.
        is_known: Whether a node can read a small constant that the model has already.
    """
    chosen = regions.cheapest(region)
    if chosen is None or _feeds_itself(region):
        return None
    plan = LayoutPlan(region, chosen)
    for value in region.values:
        _plan_value(value, plan)
    if any(_is_quantized(value) for value in plan.new):
        return None
    # Fewer Transposes, of no more elements in all, and no larger file
    elements_saved = sum(_elements(node.outputs[0]) for node in plan.gone) - sum(map(_elements, plan.new))
    return (
        plan if len(plan.gone) > len(plan.new) and elements_saved >= 0 and _bytes_saved(plan, is_known) >= 0 else None
    )


def _feeds_itself(region: LayoutRegion) -> bool:
    """Whether a Transpose reads a value of the region and writes another one."""
    for value in region.values:
        producer = value.producer()
        if (
            producer is not None
            and permutations.permutation(producer) is not None
            and producer.inputs[0] in region.values
        ):
            return True
    return False


def _is_quantized(value: ir.Value) -> bool:
    """Whether ``value`` comes from or goes to integers: ONNX Runtime fuses such nodes with their neighbours."""
    producer = value.producer()
    neighbours = [use.node for use in value.uses()] + ([] if producer is None else [producer])
    return any(queries.is_standard(node, "QuantizeLinear", "DequantizeLinear") for node in neighbours)


def _plan_value(value: ir.Value, plan: LayoutPlan) -> None:
    region, producer, users = plan.region, value.producer(), value.uses()
    outgoing_transposes = {use.node: None for use in users if region.wanted_by(use) is PERMUTED}
    # Case 1: produced permuted. Transposes that undid it go; one is needed where it is still read as it is
    if region.is_permuted(value, plan.chosen):
        plan.gone.update(outgoing_transposes)
        needed = value.is_graph_output() or any(plan.wants_as_is(use) for use in users)
        if producer in plan.chosen:
            plan.new += [value] if needed else []
        elif not needed and producer is not None:
            plan.gone[producer] = None
        return
    # Case 2: produced as it is. It needs a Transpose, or a constant is stored permuted, where chosen nodes read it
    permuted_uses = [use for use in users if plan.reads_permuted(use)]
    if not permuted_uses:
        return
    is_alone = len(permuted_uses) == len(users) and not value.is_graph_output()
    if constant_tensor(value) is not None:
        plan.constants[value] = is_alone
        return
    plan.new.append(value)
    plan.gone.update(outgoing_transposes)
    if producer is not None and is_alone and region.decided_by(value) is value:
        plan.gone[producer] = None


def _elements(value: ir.Value) -> int:
    """The elements of ``value``, unknown dimensions not counted."""
    return 0 if value.shape is None else math.prod(dim for dim in value.shape if isinstance(dim, int))


def _bytes_saved(plan: LayoutPlan, is_known: Callable[[ir.Node, NDArray[np.int64]], bool]) -> int:
    """By how many bytes the file shrinks, about: Transposes less, constants more."""
    # 1. Transposes
    rank = len(plan.region.perm)
    saved = sum(file_size.node_bytes(node) for node in plan.gone)
    saved -= sum(_TRANSPOSE_BYTES + len(value.name or "") + 2 * rank for value in plan.new)
    # 2. Constants that are stored permuted, with axes of 1 in front where they have fewer; twice if others read them
    for value, is_alone in plan.constants.items():
        added = 2 * (rank - len(known_shape(value) or ()))
        saved -= added if is_alone else added + constant_bytes(value)
    # 3. Axes, pads and shapes that the model has not as constants yet
    for node, change in plan.region.changes.items():
        if plan.is_affected(node):
            arrays = [np.array(numbers, np.int64) for numbers in change.inputs.values()]
            new = [ir.tensor(array) for array in arrays if not is_known(node, array)]
            saved -= sum(file_size.tensor_bytes(tensor, "axes_99") for tensor in new)
    return saved
