"""Which graph holds which Constant of a GraphSurgeon graph.

GraphSurgeon writes a Constant into every graph that reads it. Here it has one home: the graph that held it when it was
imported, if that still encloses all its readers, else the innermost graph that does.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import onnx_graphsurgeon as gs

from optimizer.errors import PreconditionError
from optimizer.io.surgeon.types import record_of


class _Place(NamedTuple):
    """A graph, what encloses it, and how deep it is."""

    graph: gs.Graph
    outer: gs.Graph | None
    depth: int


def all_graphs(root: gs.Graph) -> list[gs.Graph]:
    """``root`` and every graph below it, outer ones first."""
    return [place.graph for place in _tree(root).values()]


def constants_by_home(root: gs.Graph) -> dict[int, list[gs.Constant]]:
    """The Constants that each graph below ``root`` holds, by the graph's ``id``: those it held first come first.

    A Constant that nothing reads is not among them, unless nothing read it when it was imported, or it is an input.
    """
    tree = _tree(root)
    readers: dict[int, tuple[gs.Constant, list[gs.Graph]]] = {}
    for graph in all_graphs(root):
        read = (tensor for node in graph.nodes for tensor in node.inputs)
        for tensor in (*read, *graph.inputs, *graph.outputs, *_idle(graph)):
            if isinstance(tensor, gs.Constant) and tensor.name:
                readers.setdefault(id(tensor), (tensor, []))[1].append(graph)
    homes: dict[int, list[gs.Constant]] = {}
    for constant, graphs in readers.values():
        homes.setdefault(id(_home(constant, graphs, tree)), []).append(constant)
    return {key: _in_order(constants, tree[key].graph) for key, constants in homes.items()}


def _tree(root: gs.Graph) -> dict[int, _Place]:
    tree: dict[int, _Place] = {}
    queue = deque([_Place(root, None, 0)])
    while queue:
        place = queue.popleft()
        if id(place.graph) in tree:
            raise PreconditionError(
                f"the graph '{place.graph.name}' is in two places; give each node a graph of its own"
            )
        tree[id(place.graph)] = place
        inner = (value for node in place.graph.nodes for value in node.attrs.values() if isinstance(value, gs.Graph))
        queue.extend(_Place(graph, place.graph, place.depth + 1) for graph in inner)
    return tree


def _idle(graph: gs.Graph) -> list[gs.Tensor]:
    """Constants that belong to ``graph`` though no node reads them."""
    record = record_of(graph)
    return [] if record is None else [*record.shown["idle"], *record.shown["inputs"]]


def _home(constant: gs.Constant, readers: list[gs.Graph], tree: dict[int, _Place]) -> gs.Graph:
    common = readers[0]
    for reader in readers[1:]:
        common = _common(common, reader, tree)
    # The original home, if it is the common graph or encloses it; else the common graph
    record = record_of(constant)
    original_home = None if record is None else record.home
    graph: gs.Graph | None = common
    while graph is not None and graph is not original_home:
        graph = tree[id(graph)].outer
    return common if graph is None else graph


def _common(first: gs.Graph, second: gs.Graph, tree: dict[int, _Place]) -> gs.Graph:
    """The innermost graph that encloses both: the deeper of the two goes one graph outwards until they meet."""
    while first is not second:
        if tree[id(first)].depth < tree[id(second)].depth:
            first, second = second, first
        first = tree[id(first)].outer
    return first


def _in_order(constants: list[gs.Constant], graph: gs.Graph) -> list[gs.Constant]:
    record = record_of(graph)
    if record is None:
        return constants
    places = {id(constant): place for place, constant in enumerate(record.shown["initializers"])}
    return sorted(constants, key=lambda constant: places.get(id(constant), len(places)))
