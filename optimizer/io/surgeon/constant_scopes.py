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


def scopes_of(root: gs.Graph) -> list[gs.Graph]:
    """``root`` and every graph below it, outer ones first."""
    return [place.graph for place in _tree(root).values()]


def constants_by_home(root: gs.Graph) -> dict[int, list[gs.Constant]]:
    """The Constants that each graph below ``root`` holds, by the graph's ``id``: those it held first come first.

    A Constant that nothing reads is not among them, unless nothing read it when it was imported, or it is an input.
    """
    tree = _tree(root)
    readers: dict[int, tuple[gs.Constant, list[gs.Graph]]] = {}
    for graph in scopes_of(root):
        read = (tensor for node in graph.nodes for tensor in node.inputs)
        for tensor in (*read, *graph.inputs, *graph.outputs, *_idle(graph)):
            if isinstance(tensor, gs.Constant) and tensor.name:
                readers.setdefault(id(tensor), (tensor, []))[1].append(graph)
    homes: dict[int, list[gs.Constant]] = {}
    for constant, scopes in readers.values():
        homes.setdefault(id(_home(constant, scopes, tree)), []).append(constant)
    return {key: _in_order(held, tree[key].graph) for key, held in homes.items()}


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
    record = record_of(constant)
    first = None if record is None else record.home
    graph: gs.Graph | None = common
    while graph is not None and graph is not first:
        graph = tree[id(graph)].outer
    return common if graph is None else graph


def _common(one: gs.Graph, other: gs.Graph, tree: dict[int, _Place]) -> gs.Graph:
    while one is not other:
        if tree[id(one)].depth < tree[id(other)].depth:
            one, other = other, one
        one = tree[id(one)].outer
    return one


def _in_order(held: list[gs.Constant], graph: gs.Graph) -> list[gs.Constant]:
    record = record_of(graph)
    if record is None:
        return held
    places = {id(constant): place for place, constant in enumerate(record.shown["initializers"])}
    return sorted(held, key=lambda constant: places.get(id(constant), len(places)))
