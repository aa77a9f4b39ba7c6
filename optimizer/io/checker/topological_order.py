"""Topological order of the nodes of a proto: the checker asks for it, ONNX Runtime does not.

Kahn's algorithm (Kahn, Topological sorting of large networks, 1962), with a heap by position so that the order changes
no more than it has to. A node depends on what it reads and on what its subgraphs read from outside; a value of an
outer graph counts as available, since that graph orders its own nodes. ``ir.Graph.sort`` does the same for onnx-ir.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING

from onnx import AttributeProto, FunctionProto

from optimizer.errors import ModelError
from optimizer.graph.names import first_few
from optimizer.io.protos.proto_places import described

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

    from optimizer.io.protos.ir_places import ScopeProto

_SHOWN = 6  # nodes of a cycle that a message names


def sort_nodes(scope: ScopeProto, label: str, outside: frozenset[str] = frozenset()) -> None:
    """Put the nodes of ``scope`` and of its subgraphs into topological order, in place.

    Args:
        scope: A graph or function.
        label: What messages call the model.
        outside: Names that the outer graphs define.

    Raises:
        ModelError: If a node reads a value that nothing defines, or nodes depend on each other in a circle.
    """
    available = outside | _defined_outside_nodes(scope)
    nodes = list(scope.node)
    visible = available | {name for node in nodes for name in node.output}
    for node in nodes:
        for graph in _subgraphs(node):
            sort_nodes(graph, label, visible)
    order = _order(nodes, visible, available, label)
    if order != list(range(len(nodes))):
        ordered = type(scope)()
        ordered.node.extend(nodes[index] for index in order)
        del scope.node[:]
        scope.node.extend(ordered.node)


def _order(
    nodes: Sequence[onnx.NodeProto], visible: frozenset[str], available: frozenset[str], label: str
) -> list[int]:
    """Positions of ``nodes`` in topological order; ``available`` are the names that no node has to produce."""
    # 1. Which node produces each name
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and producer.setdefault(name, index) != index:
                both = f"{described(nodes[producer[name]])} and {described(node)}"
                raise ModelError(f"{label}: value {name!r} is defined twice, by {both}; export the model again")
    # 2. How many producers each node waits for, and which nodes wait for it
    needs = [_needed(node, visible, label) - available for node in nodes]
    waiting = [len({producer[name] for name in names}) for names in needs]
    users: dict[int, set[int]] = defaultdict(set)
    for index, names in enumerate(needs):
        for name in names:
            users[producer[name]].add(index)
    # 3. The first node in the old order that waits for none, again and again; an ascending list is a heap
    ready = [index for index, count in enumerate(waiting) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(order) < len(nodes):
        circle = _circle(nodes, needs, producer, set(order))
        raise ModelError(f"{label}: these nodes depend on each other in a circle: {circle}; export the model again")
    return order


def _needed(node: onnx.NodeProto, visible: frozenset[str], label: str) -> set[str]:
    """The names that ``node`` and its subgraphs read, of those that are defined outside them."""
    for name in node.input:
        if name and name not in visible:
            raise ModelError(
                f"{label}: {described(node)} reads {name!r}, which nothing defines; export the model again"
            )
    needed = {name for name in node.input if name}
    for graph in _subgraphs(node):
        needed |= _free_names(graph) & visible
    return needed


def _free_names(graph: onnx.GraphProto) -> set[str]:
    used: set[str] = set()
    defined = set(_defined_outside_nodes(graph))
    for node in graph.node:
        used.update(node.input)
        defined.update(node.output)
        for inner in _subgraphs(node):
            used |= _free_names(inner)
    return used - defined - {""}


def _circle(
    nodes: Sequence[onnx.NodeProto], needs: Sequence[set[str]], producer: dict[str, int], ordered: set[int]
) -> str:
    """The nodes of one circle, by walking backwards from a node that never became ready."""
    # Such a node has a producer that never became ready either, so the walk ends only where it meets itself
    index = next(index for index in range(len(nodes)) if index not in ordered)
    path: list[int] = []
    while index not in path:
        path.append(index)
        index = next(producer[name] for name in sorted(needs[index]) if producer[name] not in ordered)
    circle = path[path.index(index) :]
    return first_few([described(nodes[index]) for index in circle], _SHOWN)


def _defined_outside_nodes(scope: ScopeProto) -> frozenset[str]:
    if isinstance(scope, FunctionProto):
        return frozenset(scope.input)
    sparse = (tensor.values.name for tensor in scope.sparse_initializer)
    return frozenset([*(info.name for info in scope.input), *(tensor.name for tensor in scope.initializer), *sparse])


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs
