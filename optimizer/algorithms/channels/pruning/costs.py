"""What a graph costs by how many units of each family of channels are left: MACs, parameters or seconds.

A kernel multiplies each input channel with each output channel, so with n_f units of family f left its cost is

    price * (a + sum_f A_f n_f) * (b + sum_f B_f n_f)

where a and b are the channels that stay in any case. What works on each channel by itself (a depthwise convolution,
in seconds also an activation) has a constant in place of the second factor. The gradient by n_f is what a unit saves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency.recurrent import multiplications
from optimizer.graph import linear_nodes, queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.algorithms.channels.pruning.units import WidthGroups


@dataclass(frozen=True)
class CostAxis:
    """The width of an axis: ``fixed``, and ``row[f]`` for each unit of family f."""

    fixed: float
    row: NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """A sum of products of two widths.

    Attributes:
        price: (terms,)
        fixed: Of both axes, (2, terms).
        rows: Of both axes, (2, terms, families).
    """

    price: NDArray[np.float64]
    fixed: NDArray[np.float64]
    rows: NDArray[np.float64]

    def total(self, left: NDArray[np.float64]) -> float:
        """The cost with so many units of each family."""
        widths = self.fixed + self.rows @ left
        return float(self.price @ (widths[0] * widths[1]))

    def gradient(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """What one more unit of each family costs."""
        widths = self.fixed + self.rows @ left
        return np.asarray((self.price * widths[1]) @ self.rows[0] + (self.price * widths[0]) @ self.rows[1])


@dataclass
class _Terms:
    """Collects terms; ``seconds`` by node changes their prices to what they take."""

    groups: ChannelGroups
    families: WidthGroups
    sizes: Mapping[str, Sequence[object]]
    seconds: Mapping[ir.Node, float] | None = None
    prices: list[float] = field(default_factory=list)
    axes: list[tuple[CostAxis, CostAxis]] = field(default_factory=list)

    def axis(self, atoms: NDArray[np.int64] | None, width: float) -> CostAxis:
        if atoms is None or not atoms.size:
            return CostAxis(width, np.zeros(len(self.families.members)))
        return CostAxis(*self.families.axis(self.groups.roots(atoms)))

    def add(self, node: ir.Node, price: float, one: CostAxis, other: CostAxis) -> None:
        if self.seconds is not None:
            full = np.array([family.units.size for family in self.families.members], np.float64)
            whole = (one.fixed + one.row @ full) * (other.fixed + other.row @ full)
            price = self.seconds.get(node, 0.0) / max(float(whole), 1.0)
        if price:
            self.prices.append(price)
            self.axes.append((one, other))

    def dims(self, value: ir.Value | None) -> list[object]:
        """The shape of ``value``, as far as it is known."""
        if value is None:
            return []
        return list(self.sizes.get(str(value.name)) or value.shape or ())

    def costs(self) -> Costs:
        count = len(self.families.members)
        fixed = np.array([[axis.fixed for axis in pair] for pair in self.axes]).reshape(-1, 2).T
        rows = np.array([[axis.row for axis in pair] for pair in self.axes]).reshape(-1, 2, count)
        return Costs(np.array(self.prices), fixed, np.moveaxis(rows, 1, 0))


def macs(part: ir.Graph, groups: ChannelGroups, families: WidthGroups, sizes: Mapping[str, Sequence[object]]) -> Costs:
    """Multiply-accumulate operations.

    Args:
        part: The graph.
        groups: Its channels.
        families: Their families.
        sizes: Shapes by name, which take the place of those that the graph knows; what is not known counts as 1.
    """
    terms = _Terms(groups, families, sizes)
    for node in part:
        _add_kernel(terms, node, per_position=True)
        _add_product(terms, node)
    return terms.costs()


def parameters(part: ir.Graph, groups: ChannelGroups, families: WidthGroups) -> Costs:
    """Elements of the weights of kernels; shared ones count once."""
    terms = _Terms(groups, families, {})
    seen: set[ir.Value | None] = set()
    for node in part:
        if len(node.inputs) > 1 and node.inputs[1] not in seen:
            _add_kernel(terms, node, per_position=False)
            seen.add(node.inputs[1])
    return terms.costs()


def seconds(part: ir.Graph, groups: ChannelGroups, families: WidthGroups, taken: Mapping[ir.Node, float]) -> Costs:
    """Time, of which ``taken`` says what each node takes as it is."""
    terms = _Terms(groups, families, {}, taken)
    for node in part:
        if not (_add_kernel(terms, node, per_position=True) or _add_product(terms, node)):
            lane = groups.axis_of(node.outputs[0]) if node.outputs else None
            terms.add(node, 1.0, terms.axis(None if lane is None else lane.channel_ids, 1.0), terms.axis(None, 1.0))
    return terms.costs()


def _add_kernel(terms: _Terms, node: ir.Node, *, per_position: bool) -> bool:
    groups = terms.groups
    sink = next((sink for sink in groups.consumers if sink.node is node), None)
    item = linear_nodes.as_linear(node)
    if item is None:
        return _add_recurrent(
            terms, node, None if sink is None else sink.channel_axis.channel_ids, per_position=per_position
        )
    taps = math.prod(item.shape[2:]) if node.op_type in {"Conv", "ConvTranspose"} else 1
    price = taps * (_positions(item, terms) if per_position else 1)
    if item.groups > 1:
        width = item.inputs // item.groups * (item.outputs // item.groups)
        terms.add(node, price, terms.axis(groups.grouped.get(node), item.groups), terms.axis(None, width))
        return True
    read = terms.axis(None if sink is None else sink.channel_axis.channel_ids, item.inputs)
    terms.add(node, price, read, terms.axis(groups.producers.get(node), item.outputs))
    return True


def _add_recurrent(terms: _Terms, node: ir.Node, read: NDArray[np.int64] | None, *, per_position: bool) -> bool:
    """Each gate of a unit multiplies all inputs and all units."""
    known = multiplications(node) if queries.is_standard(node, "GRU", "LSTM", "RNN") else None
    if known is None:
        return False
    inputs, units, times = known
    price = times * (_size(terms.dims(node.inputs[0])[:2]) if per_position else 1)
    one, own = terms.axis(read, inputs), terms.axis(terms.groups.units.get(node), units)
    terms.add(node, price, CostAxis(one.fixed + own.fixed, one.row + own.row), own)
    return True


def _add_product(terms: _Terms, node: ir.Node) -> bool:
    """A product of two activations, whose cost is as the lane that it carries is wide."""
    if not queries.is_standard(node, "MatMul") or linear_nodes.as_linear(node) is not None:
        return False
    lane = terms.groups.axis_of(node.outputs[0])
    size = _size(terms.dims(node.outputs[0])) * _size(terms.dims(node.inputs[0])[-1:])
    width = 1 if lane is None else lane.size
    terms.add(node, size / width, terms.axis(None if lane is None else lane.channel_ids, 1.0), terms.axis(None, 1.0))
    return True


def _positions(item: linear_nodes.LinearNode, terms: _Terms) -> int:
    value = item.node.inputs[0] if item.node.op_type == "ConvTranspose" else item.node.outputs[0]
    sizes = terms.dims(value)
    if item.axis == 1:
        return _size(sizes[:1]) * _size(sizes[2:])
    return _size(sizes[:-1])


def _size(sizes: Iterable[object]) -> int:
    return math.prod(size for size in sizes if isinstance(size, int))
