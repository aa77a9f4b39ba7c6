"""Dimensions that are not 0 at any run that succeeds.

A Reshape that infers a dimension by -1 fails in ONNX Runtime where another one is 0, unless it has ``allowzero``. So
where such a node runs, its other dimensions are not 0, and what is rewritten need not work where they are. The nodes of
a graph that an output needs run whenever the graph does, and the graphs around it have run by then as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.analysis.symbolic.operators import dims
from optimizer.analysis.symbolic.symbols import factors
from optimizer.graph import queries, traversal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import onnx_ir as ir

    from optimizer.analysis.symbolic.expressions import Element
    from optimizer.analysis.symbolic.shape_values import ShapeValues


def nonzero_symbols(root: ir.Graph, values: ShapeValues) -> dict[ir.Graph, frozenset[str]]:
    """The symbols that are not 0 in ``root`` and in each graph below it."""
    by_graph: dict[ir.Graph, frozenset[str]] = {}
    _collect(root, frozenset(), values, by_graph, set())
    return by_graph


def is_nonzero(element: Element, symbols: Collection[str]) -> bool:
    """Whether ``element`` is not 0, given the ``symbols`` that are not."""
    match element:
        case int():
            return element != 0
        case str():
            number, symbols_of = factors(element)
            return number != 0 and (element in symbols or all(symbol in symbols for symbol in symbols_of))
        case ("Mul", left, right):
            return is_nonzero(left, symbols) and is_nonzero(right, symbols)
    return False


def inferred_dimension(node: ir.Node, wanted: Sequence[Element]) -> int | None:
    """Where the Reshape ``node`` by ``wanted`` has a -1 that fails if a dimension elsewhere is 0."""
    return wanted.index(-1) if -1 in wanted and node.attributes.get_int("allowzero", 0) == 0 else None


def _collect(
    graph: ir.Graph,
    outside: frozenset[str],
    values: ShapeValues,
    by_graph: dict[ir.Graph, frozenset[str]],
    needed: set[ir.Value],
) -> None:
    """Look at ``graph`` from its outputs up, and at the graphs below it; ``needed`` are values that are used."""
    # 1. Nodes whose outputs are used, or that have none: those run
    needed.update(graph.outputs)
    live = []
    for node in reversed(graph):
        if not node.outputs or any(value in needed for value in node.outputs):
            live.append(node)
            needed.update(value for value in node.inputs if value is not None)
            needed.update(traversal.captured(node))
    # 2. What their Reshapes say holds in the graph and in all graphs below it
    symbols = outside.union(*(_not_zero(node, values) for node in live if queries.is_standard(node, "Reshape")))
    by_graph[graph] = symbols
    for node in graph:
        for inner in traversal.subgraphs_of(node):
            _collect(inner, symbols, values, by_graph, set())


def _not_zero(node: ir.Node, values: ShapeValues) -> Iterator[str]:
    """The symbols that are not 0 where the Reshape ``node`` succeeds."""
    wanted = values.elements(node.inputs[1]) if len(node.inputs) > 1 else None
    if wanted is None or queries.has_references(node) or inferred_dimension(node, wanted) is None:
        return
    source = dims(node.inputs[0].shape) if node.inputs[0] is not None else None
    for index, element in enumerate(wanted):
        is_copied = element == 0 and source is not None and index < len(source)
        yield from _symbols(source[index] if is_copied and source is not None else element)


def _symbols(element: Element) -> Iterator[str]:
    match element:
        case str():
            yield element
            yield from factors(element)[1]
        case ("Mul", left, right):
            yield from _symbols(left)
            yield from _symbols(right)
