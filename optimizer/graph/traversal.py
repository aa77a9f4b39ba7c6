"""Every graph and node of a model, in order: subgraphs and functions too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator


_GRAPH_KINDS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def with_subgraphs(root: ir.Graph) -> Iterator[ir.Graph]:
    """``root`` and every subgraph below it, each after the one that it is in."""
    stack = [root]
    while stack:
        graph = stack.pop()
        yield graph
        stack += reversed([inner for node in graph if node.attributes.data for inner in subgraphs_of(node)])


def roots(model: ir.Model) -> list[ir.Graph]:
    """The graphs that see nothing from outside: the main graph and the bodies of all functions."""
    return [model.graph, *(function.graph for function in model.functions.values())]


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, the bodies of all functions, and every subgraph below them."""
    for root in roots(model):
        yield from with_subgraphs(root)


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the model, in subgraphs and functions too."""
    for graph in graphs(model):
        yield from graph


def count_nodes(model: ir.Model) -> int:
    """The number of nodes of the model, in subgraphs and functions too."""
    return sum(len(graph) for graph in graphs(model))


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs directly in the attributes of ``node``."""
    for attribute in node.attributes.data.values():
        attribute_type = attribute.type
        if attribute_type not in _GRAPH_KINDS or attribute.is_ref():
            continue
        if attribute_type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        else:
            yield from attribute.as_graphs()


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """The values that the subgraphs of ``node`` read, those of the subgraphs themselves included."""
    for inner in subgraphs_of(node):
        for graph in with_subgraphs(inner):
            yield from graph.outputs
            for reader in graph:
                yield from (value for value in reader.inputs if value is not None)


def is_sorted(root: ir.Graph) -> bool:
    """Whether every node of ``root`` and its subgraphs comes after all that it reads."""
    late = set(root)
    for node in root:
        if any(value is not None and value.producer() in late for value in node.inputs):
            return False
        for inner in subgraphs_of(node):
            if any(value.producer() in late for value in captured(node)) or not is_sorted(inner):
                return False
        late.discard(node)
    return True


def in_order(root: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of ``root`` itself in topological order, as they stand if they are in order; cycles are cut."""
    opened: set[ir.Node] = set()
    yielded: set[ir.Node] = set()
    for node in root:
        if node in yielded:
            continue
        stack = [node]
        while stack:
            top = stack[-1]
            waiting = [] if top in opened else [n for n in _before(top, root) if n not in opened]
            opened.add(top)
            if waiting:
                stack += reversed(waiting)
                continue
            stack.pop()
            if top not in yielded:
                yielded.add(top)
                yield top


def _before(node: ir.Node, root: ir.Graph) -> list[ir.Node]:
    """The nodes of ``root`` that ``node`` and its subgraphs read from."""
    values = [value for value in node.inputs if value is not None]
    values += captured(node) if node.attributes.data else ()
    producers = [value.producer() for value in values]
    return [producer for producer in producers if producer is not None and producer.graph is root]
