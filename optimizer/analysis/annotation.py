"""Inferred types and shapes on the values of a model, while it is looked at, with what is known of integer tensors.

``optimizer.shapes`` leaves open what a Reshape finds out for its -1; ``optimizer.analysis.symbolic.reshape_dims`` says
more of that, and inference goes on from there, until nothing new is found. Each inference makes symbols of its own, so
those in hints are given the names that their dimensions have now (``optimizer.analysis.symbolic.symbols``): else equal
dimensions look different, or different ones equal.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from optimizer.analysis import shape_inference
from optimizer.analysis.symbolic import symbols
from optimizer.analysis.symbolic.reshape_dims import reshape_hints
from optimizer.analysis.symbolic.shape_values import ShapeValues
from optimizer.graph import traversal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

_MAX_ROUNDS = 6


@contextmanager
def annotated(model: ir.Model) -> Iterator[ShapeValues]:
    """Put inferred types and shapes on the values while the context lasts; afterwards they have what they had.

    Declared shapes give way to inferred ones; where nothing is inferred the declared ones are taken away. Whoever gives
    a value another shape meanwhile says that the declared one does not hold any more: it is forgotten, as are those
    of new values. Outputs of graphs have what the outputs of their names had.

    Args:
        model: The model.

    Yields:
        What is known of small integer tensors.
    """
    before = {value: (value.type, value.shape) for node in traversal.nodes(model) for value in node.outputs}
    signatures = {
        graph: {value.name: (value.type, value.shape) for value in graph.outputs} for graph in traversal.graphs(model)
    }
    shown = {value: value.shape for value in before}
    try:
        for value in before:
            value.shape = shown[value] = None
        yield _annotate(model, shown)
    finally:
        for node in traversal.nodes(model):
            for value in node.outputs:
                kind, shape = before.get(value, (None, None))
                value.type, value.shape = kind, shape if value.shape is shown.get(value) else None
        for graph in traversal.graphs(model):
            for value in graph.outputs:
                value.type, value.shape = signatures.get(graph, {}).get(value.name, (value.type, value.shape))


def _annotate(model: ir.Model, shown: dict[ir.Value, ir.Shape | None]) -> ShapeValues:
    _show(shape_inference.inferred(model), shown)
    values = ShapeValues(model)
    hints: dict[ir.Value, ir.Shape] = {}
    for _ in range(_MAX_ROUNDS):
        more = reshape_hints(model, values)
        if not more.keys() - hints.keys():
            break
        hints.update(more)
        made_up = symbols.made_up(model, hints.values())
        marks = {symbol: symbols.marked(symbol) for symbol in made_up}
        hints = {value: symbols.renamed(shape, marks) for value, shape in hints.items()}
        anchors = symbols.anchors(model, made_up)
        found = shape_inference.inferred(model, hints)
        names = symbols.renaming(anchors, {value: shape for value, (_, shape) in found.items()})
        hints = {value: symbols.renamed(shape, names) for value, shape in hints.items()}
        _show({value: (kind, symbols.renamed(shape, names)) for value, (kind, shape) in found.items()}, shown)
        values = ShapeValues(model)
    return values


def _show(found: Mapping[ir.Value, shape_inference.Info], shown: dict[ir.Value, ir.Shape | None]) -> None:
    for value, (kind, shape) in found.items():
        value.type, value.shape = kind or value.type, shape
        shown[value] = shape
