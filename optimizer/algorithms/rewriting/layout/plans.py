"""What becomes of a region of which some nodes are to compute on permuted axes.

Regions are those of ``optimizer.algorithms.rewriting.layout.regions``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.rewriting.layout import regions
from optimizer.algorithms.rewriting.layout.regions import PERMUTED, LayoutRegion
from optimizer.contract.refusal import Refusal
from optimizer.graph import permutations, queries
from optimizer.graph.constants import constant_array, constant_tensor

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

_NO_FEWER = Refusal("no fewer Transposes would do")


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

    def permuted_array(self, value: ir.Value) -> NDArray[np.generic]:
        """The data of the constant ``value`` with all axes of the region, permuted.

        Raises:
            ValueError: If it is no constant.
        """
        array = constant_array(value)
        if array is None:
            raise ValueError(f"{value.name} is no constant")
        rank = len(self.region.perm)
        full = array.reshape([1] * (rank - array.ndim) + list(array.shape))
        return np.ascontiguousarray(full.transpose(permutations.inverse(self.region.perm)))

    def reads_permuted(self, use: tuple[ir.Node, int]) -> bool:
        """Whether a consumer, a node and the index of its input, is chosen and reads that input permuted."""
        node, index = use
        return node in self.chosen and index in self.region.changes[node].moved

    def wants_as_is(self, use: tuple[ir.Node, int]) -> bool:
        """Whether a consumer needs a value as it is."""
        wanted = self.region.wanted_by(use)
        return wanted is not None and wanted is not PERMUTED and wanted not in self.chosen


def planned(region: LayoutRegion) -> LayoutPlan | Refusal:
    """The plan with the fewest Transposes, if it saves some and moves no more elements; ``region`` is not changed."""
    chosen = regions.cheapest(region)
    if chosen is None:
        return _NO_FEWER
    if _feeds_itself(region):
        return Refusal("a Transpose reads what is to be permuted, and writes it too")
    plan = LayoutPlan(region, chosen)
    for value in region.values:
        _plan_value(value, plan)
    if any(_is_quantized(value) for value in plan.new):
        return Refusal("a new Transpose would be next to a quantization")
    if len(plan.gone) <= len(plan.new):
        return _NO_FEWER
    if sum(_elements(node.outputs[0]) for node in plan.gone) < sum(map(_elements, plan.new)):
        return Refusal("the Transposes would move more elements in all")
    return plan


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
