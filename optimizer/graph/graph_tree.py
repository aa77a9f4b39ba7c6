"""Which graph sees which: the tree of a model's graphs.

A value is seen in the graph that holds it and in the bodies of If, Loop, Scan and SequenceMap below. Function bodies
see nothing from outside, and whether the graphs of other operators do is not known, so both count as roots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.graph import queries, traversal
from optimizer.graph.names import NameGenerator
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

_SEES_OUTSIDE = having(Trait.SEES_OUTSIDE)


@dataclass(frozen=True)
class GraphTree:
    """The graphs of a model with what encloses each, and how often each value name occurs.

    Attributes:
        parents: The enclosing graph of each graph, ``None`` for roots; in order, roots before what is below them.
        depths: Steps from the root.
        functions: The bodies of functions, which hold constants in Constant nodes only.
        names: Those of the values of all graphs, each as often as it occurs.
    """

    parents: dict[ir.Graph, ir.Graph | None]
    depths: dict[ir.Graph, int]
    functions: frozenset[ir.Graph]
    names: NameGenerator

    @classmethod
    def of(cls, model: ir.Model) -> GraphTree:
        """The tree of ``model`` as it is now."""
        bodies = [function.graph for function in model.functions.values()]
        tree = cls({}, {}, frozenset(bodies), NameGenerator())
        stack: list[tuple[ir.Graph, ir.Graph | None]] = [(body, None) for body in reversed(bodies)]
        stack.append((model.graph, None))
        while stack:
            graph, parent = stack.pop()
            tree.parents[graph] = parent
            tree.depths[graph] = 0 if parent is None else tree.depths[parent] + 1
            for name in _value_names(graph):
                tree.names.take(name)
            for node in reversed(graph):
                outer = graph if queries.is_standard(node, *_SEES_OUTSIDE) else None
                stack += [(inner, outer) for inner in reversed(list(traversal.subgraphs_of(node)))]
        return tree

    def root(self, graph: ir.Graph) -> ir.Graph:
        """The outermost graph whose values ``graph`` sees."""
        while (parent := self.parents[graph]) is not None:
            graph = parent
        return graph

    def common(self, scopes: Iterable[ir.Graph]) -> ir.Graph:
        """The innermost graph whose values all of ``scopes``, which have the same root, see."""
        nearest, *others = scopes
        for graph in others:
            nearest = self._common(nearest, graph)
        return nearest

    def _common(self, first: ir.Graph, second: ir.Graph) -> ir.Graph:
        while first is not second:
            deeper = first if self.depths[first] >= self.depths[second] else second
            parent = self.parents[deeper]
            if parent is None:
                raise ValueError(f"the graphs '{first.name}' and '{second.name}' see no common graph")
            first, second = (parent, second) if deeper is first else (first, parent)
        return first

    def encloses(self, outer: ir.Graph, inner: ir.Graph) -> bool:
        """Whether ``inner`` sees the values of ``outer``; a graph sees its own."""
        graph: ir.Graph | None = inner
        while graph is not None and graph is not outer:
            graph = self.parents[graph]
        return graph is outer


def _value_names(graph: ir.Graph) -> set[str]:
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    return {value.name for value in values if value.name}
