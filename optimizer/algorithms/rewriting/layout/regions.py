"""Which nodes to compute on permuted axes, so that the fewest Transposes remain: a minimum cut.

A region is a connected part of a graph: values of one rank, and operators that can compute on permuted axes. Each of
its nodes computes either as it is or permuted. A value costs a Transpose where it is produced in one way and read in
the other (once for all such consumers). Produced permuted is what a Transpose by ``perm`` puts into the region, wanted
permuted what one by the inverse takes out; everything else around the region is as it is, only that constants, and
Transposes by other permutations, can be had in both ways, the first of them at no cost. (ONNX Runtime's transpose
optimizer pushes Transposes one by one instead, by a cost heuristic.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from optimizer.algorithms.rewriting.layout.min_cut import UNCUTTABLE, Network
from optimizer.algorithms.rewriting.layout.operators import Change, permuted
from optimizer.graph import constants, permutations

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    import onnx_ir as ir

MAX_NODES = 4096
BELOW, ABOVE = "below", "above"
PERMUTED, AS_IS = "permuted", "as it is"  # source and sink of the network

# What decides about a layout: a node of the region, a fixed side (``PERMUTED`` or ``AS_IS``), or a value by itself
Side: TypeAlias = "ir.Node | ir.Value | str"


@dataclass
class LayoutRegion:
    """Nodes that can compute on permuted axes, and the values that they read and write.

    Attributes:
        perm: The permutation.
        home: The graph that all its nodes are in.
        changes: The nodes with what they need to compute permuted.
        values: The values of full rank that they read or write.
    """

    perm: tuple[int, ...]
    home: ir.Graph | None
    changes: dict[ir.Node, Change] = field(default_factory=dict)
    values: dict[ir.Value, None] = field(default_factory=dict)

    def is_permuted(self, value: ir.Value, chosen: Container[ir.Node]) -> bool:
        """Whether ``value`` is produced permuted, if the nodes ``chosen`` compute permuted."""
        return self.decided_by(value) is PERMUTED or value.producer() in chosen

    def decided_by(self, value: ir.Value) -> Side:
        """What decides how ``value`` is produced: a node of the region, a fixed side, or the value, if it is free."""
        producer = value.producer()
        if constants.constant_tensor(value) is not None:
            return value
        if producer is None or producer.graph is not self.home:
            return AS_IS
        if producer in self.changes:
            return AS_IS if self.changes[producer].absorbs else producer
        perm = permutations.permutation(producer)
        if perm == self.perm:
            return PERMUTED
        return AS_IS if perm is None or len(perm) != len(self.perm) else value

    def wanted_by(self, use: tuple[ir.Node, int]) -> Side | None:
        """How a consumer, a node and the index of its input, wants a value: as a node computes, or as a fixed side.

        ``None`` if it takes either.
        """
        node, index = use
        change = self.changes.get(node)
        if change is not None and index in change.moved:
            return None if change.absorbs else node
        perm = permutations.permutation(node)
        if perm is None or len(perm) != len(self.perm) or node.graph is not self.home:
            return AS_IS
        return PERMUTED if perm == permutations.inverse(self.perm) else None

    def wanted(self, value: ir.Value) -> set[Side | None]:
        """How the consumers of ``value`` want it; as it is if it is an output of the graph."""
        layouts = {self.wanted_by(use) for use in value.uses()}
        return layouts | {AS_IS} if value.is_graph_output() else layouts

    def transposes(self) -> Iterator[tuple[ir.Node, str]]:
        """The Transposes that the region lies below, if they bring permuted values in, or above, if they undo it."""
        for value in self.values:
            producer = value.producer()
            if producer is not None and self.decided_by(value) is PERMUTED:
                yield producer, BELOW
            yield from ((use.node, ABOVE) for use in value.uses() if self.wanted_by(use) is PERMUTED)


def grow(start: ir.Value, perm: tuple[int, ...], opset: Callable[[ir.Node], int]) -> LayoutRegion:
    """The region around the value ``start``."""
    producer = start.producer()
    region = LayoutRegion(perm, start.graph if producer is None else producer.graph)
    queue = deque([start])
    while queue:
        value = queue.popleft()
        if value in region.values:
            continue
        region.values[value] = None
        if constants.constant_tensor(value) is not None:
            continue  # its other consumers need not belong to the region
        producer = value.producer()
        for node in (*([] if producer is None else [producer]), *(use.node for use in value.uses())):
            if node in region.changes or node.graph is not region.home or len(region.changes) >= MAX_NODES:
                continue
            change = permuted(node, perm, opset(node))
            if change is None:
                continue
            region.changes[node] = change
            queue.extend(moved for index in change.moved if (moved := node.inputs[index]) is not None)
            if not change.absorbs:
                queue.extend(node.outputs)
    return region


def cheapest(region: LayoutRegion) -> set[ir.Node] | None:
    """The nodes that are to compute permuted; ``None`` if no Transpose is saved by that."""
    # A node on the source's side computes permuted. Each edge of capacity 1 is a Transpose that would be needed
    network = Network(PERMUTED, AS_IS)
    for value in region.values:
        _connect(value, region, network)
    cost, side = network.cut()
    return {node for node in region.changes if node in side} if cost < _cost_now(region) else None


def _connect(value: ir.Value, region: LayoutRegion, network: Network) -> None:
    """Make it cost 1 if ``value`` is read permuted where it is produced as it is, and the other way round.

    Two vertices of the network for each value, one a direction: the edge between the producer and it has capacity 1,
    those to its consumers cannot be cut, so one Transpose serves all consumers.
    """
    producer_side = region.decided_by(value)
    consumer_sides = region.wanted(value) - {None}
    permuted_to_plain = (value, "made permuted, read as it is")
    plain_to_permuted = (value, "made as it is, read permuted")
    # 1. Producer on the source's side, a consumer on the sink's: so is the vertex, and the edge to the producer is cut
    if producer_side is not AS_IS:
        network.edge(producer_side, permuted_to_plain)
        for consumer in consumer_sides:
            network.edge(permuted_to_plain, consumer, UNCUTTABLE)
    # 2. Producer on the sink's side, a consumer on the source's: the same with all edges turned round
    if producer_side is not PERMUTED:
        network.edge(plain_to_permuted, producer_side)
        for consumer in consumer_sides:
            network.edge(consumer, plain_to_permuted, UNCUTTABLE)


def _cost_now(region: LayoutRegion) -> int:
    """How many Transposes there are now, those by other permutations not counted."""
    count = 0
    for value in region.values:
        producer_side, consumer_sides = region.decided_by(value), region.wanted(value)
        if producer_side is PERMUTED:
            count += bool(consumer_sides - {PERMUTED})
        elif producer_side is not value:
            count += PERMUTED in consumer_sides
    return count
