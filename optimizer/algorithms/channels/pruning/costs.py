"""What a graph costs by how many units of each width group of channels remain: MACs, parameters or seconds.

A kernel multiplies each input channel with each output channel, so if n_f units of width group f remain its cost is

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
    """The width of an axis: ``fixed``, and ``row[f]`` for each unit of width group f; row is (width groups,)."""

    fixed: float
    row: NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """A sum of products of two widths.

    Attributes:
        price: (terms,)
        fixed: Of both axes, (2, terms).
        rows: Of both axes, (2, terms, width groups).
    """

    price: NDArray[np.float64]
    fixed: NDArray[np.float64]
    rows: NDArray[np.float64]

    def total(self, remaining: NDArray[np.float64]) -> float:
        """The cost with so many units of each width group, (width groups,)."""
        widths = self.fixed + self.rows @ remaining
        return float(self.price @ (widths[0] * widths[1]))

    def gradient(self, remaining: NDArray[np.float64]) -> NDArray[np.float64]:
        """What one more unit of each width group costs; (width groups,)."""
        # Product rule: p (w1 w2)' = p w2 w1' + p w1 w2'
        widths = self.fixed + self.rows @ remaining
        return np.asarray((self.price * widths[1]) @ self.rows[0] + (self.price * widths[0]) @ self.rows[1])


@dataclass
class _Terms:
    """Collects terms; with ``seconds`` by node, a price is what the node takes by product of its full widths."""

    groups: ChannelGroups
    width_groups: WidthGroups
    sizes: Mapping[str, Sequence[int | ir.SymbolicDim]]
    seconds: Mapping[ir.Node, float] | None = None
    prices: list[float] = field(default_factory=list)
    axes: list[tuple[CostAxis, CostAxis]] = field(default_factory=list)

    def axis(self, channel_ids: NDArray[np.int64] | None, width: float) -> CostAxis:
        if channel_ids is None or not channel_ids.size:
            return CostAxis(width, np.zeros(len(self.width_groups.members)))
        return CostAxis(*self.width_groups.axis(self.groups.roots(channel_ids)))

    def add(self, node: ir.Node, price: float, first: CostAxis, second: CostAxis) -> None:
        if self.seconds is not None:
            all_units = np.array([width_group.units.size for width_group in self.width_groups.members], np.float64)
            products = (first.fixed + first.row @ all_units) * (second.fixed + second.row @ all_units)
            price = self.seconds.get(node, 0.0) / max(float(products), 1.0)
        if price:
            self.prices.append(price)
            self.axes.append((first, second))

    def dims(self, value: ir.Value | None) -> list[int | ir.SymbolicDim]:
        """The shape of ``value``, as far as it is known."""
        if value is None:
            return []
        return list(self.sizes.get(str(value.name)) or value.shape or ())

    def costs(self) -> Costs:
        count = len(self.width_groups.members)
        fixed = np.array([[axis.fixed for axis in pair] for pair in self.axes]).reshape(-1, 2).T
        rows = np.array([[axis.row for axis in pair] for pair in self.axes]).reshape(-1, 2, count)
        return Costs(np.array(self.prices), fixed, np.moveaxis(rows, 1, 0))


def macs(
    graph: ir.Graph,
    groups: ChannelGroups,
    width_groups: WidthGroups,
    sizes: Mapping[str, Sequence[int | ir.SymbolicDim]],
) -> Costs:
    """Multiply-accumulate operations.

    Args:
        graph: The graph.
        groups: Its channels.
        width_groups: Their width groups.
        sizes: Shapes by name, which take the place of those that the graph knows; what is not known counts as 1.
    """
    terms = _Terms(groups, width_groups, sizes)
    for node in graph:
        _add_kernel(terms, node, per_position=True)
        _add_product(terms, node)
    return terms.costs()


def parameters(graph: ir.Graph, groups: ChannelGroups, width_groups: WidthGroups) -> Costs:
    """Elements of the weights of kernels; shared ones count once."""
    terms = _Terms(groups, width_groups, {})
    counted: set[ir.Value | None] = set()
    for node in graph:
        if len(node.inputs) > 1 and node.inputs[1] not in counted:
            _add_kernel(terms, node, per_position=False)
            counted.add(node.inputs[1])
    return terms.costs()


def seconds(
    graph: ir.Graph, groups: ChannelGroups, width_groups: WidthGroups, node_seconds: Mapping[ir.Node, float]
) -> Costs:
    """Time, of which ``node_seconds`` says what each node takes as it is."""
    terms = _Terms(groups, width_groups, {}, node_seconds)
    for node in graph:
        if not (_add_kernel(terms, node, per_position=True) or _add_product(terms, node)):
            channel_axis = groups.axis_of(node.outputs[0]) if node.outputs else None
            terms.add(
                node,
                1.0,
                terms.axis(None if channel_axis is None else channel_axis.channel_ids, 1.0),
                terms.axis(None, 1.0),
            )
    return terms.costs()


def _add_kernel(terms: _Terms, node: ir.Node, *, per_position: bool) -> bool:
    groups = terms.groups
    consumer = next((consumer for consumer in groups.consumers if consumer.node is node), None)
    linear_node = linear_nodes.as_linear(node)
    if linear_node is None:
        return _add_recurrent(
            terms, node, None if consumer is None else consumer.channel_axis.channel_ids, per_position=per_position
        )
    taps = math.prod(linear_node.shape[2:]) if node.op_type in {"Conv", "ConvTranspose"} else 1
    price = taps * (_positions(linear_node, terms) if per_position else 1)
    if linear_node.groups > 1:
        width = linear_node.inputs // linear_node.groups * (linear_node.outputs // linear_node.groups)
        terms.add(node, price, terms.axis(groups.group_ids.get(node), linear_node.groups), terms.axis(None, width))
        return True
    input_axis = terms.axis(None if consumer is None else consumer.channel_axis.channel_ids, linear_node.inputs)
    terms.add(node, price, input_axis, terms.axis(groups.producers.get(node), linear_node.outputs))
    return True


def _add_recurrent(terms: _Terms, node: ir.Node, input_ids: NDArray[np.int64] | None, *, per_position: bool) -> bool:
    """Each gate of a unit multiplies all inputs and all units."""
    products = multiplications(node) if queries.is_standard(node, "GRU", "LSTM", "RNN") else None
    if products is None:
        return False
    inputs, units, weights_per_pair = products
    price = weights_per_pair * (_size(terms.dims(node.inputs[0])[:2]) if per_position else 1)
    input_axis, unit_axis = terms.axis(input_ids, inputs), terms.axis(terms.groups.hidden_units.get(node), units)
    terms.add(node, price, CostAxis(input_axis.fixed + unit_axis.fixed, input_axis.row + unit_axis.row), unit_axis)
    return True


def _add_product(terms: _Terms, node: ir.Node) -> bool:
    """A product of two activations: its cost is proportional to the width of the channel axis that it carries."""
    if not queries.is_standard(node, "MatMul") or linear_nodes.as_linear(node) is not None:
        return False
    channel_axis = terms.groups.axis_of(node.outputs[0])
    size = _size(terms.dims(node.outputs[0])) * _size(terms.dims(node.inputs[0])[-1:])
    width = 1 if channel_axis is None else channel_axis.size
    terms.add(
        node,
        size / width,
        terms.axis(None if channel_axis is None else channel_axis.channel_ids, 1.0),
        terms.axis(None, 1.0),
    )
    return True


def _positions(linear_node: linear_nodes.LinearNode, terms: _Terms) -> int:
    value = linear_node.node.inputs[0] if linear_node.node.op_type == "ConvTranspose" else linear_node.node.outputs[0]
    sizes = terms.dims(value)
    if linear_node.axis == 1:
        return _size(sizes[:1]) * _size(sizes[2:])
    return _size(sizes[:-1])


def _size(sizes: Iterable[int | ir.SymbolicDim]) -> int:
    return math.prod(size for size in sizes if isinstance(size, int))
