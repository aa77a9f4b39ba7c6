"""Inferred types and shapes on the values of a model, while it is looked at, with what is known of integer tensors.

``optimizer.analysis.shape_inference`` leaves open what a Reshape infers for its -1, and
``optimizer.analysis.symbolic.reshape_dims`` says more of that. Inference goes on from there, as long as it learns
something new: the shapes are a fixed point of both. Each inference makes symbols of its own, so
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

    Declared shapes give way to inferred ones; where nothing is inferred the declared ones are taken away. A value that
    is given another shape meanwhile has none afterwards, since the declared one does not hold any more; nor have new
    values. Outputs of graphs have what the outputs of their names had.

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
                type_, shape = before.get(value, (None, None))
                value.type, value.shape = type_, shape if value.shape is shown.get(value) else None
        for graph in traversal.graphs(model):
            for value in graph.outputs:
                value.type, value.shape = signatures.get(graph, {}).get(value.name, (value.type, value.shape))


def _annotate(model: ir.Model, shown: dict[ir.Value, ir.Shape | None]) -> ShapeValues:
    _show(shape_inference.inferred(model), shown)
    values = ShapeValues(model)
    hints: dict[ir.Value, ir.Shape] = {}
    for _ in range(_MAX_ROUNDS):
        new_hints = reshape_hints(model, values)
        if not new_hints.keys() - hints.keys():
            break
        hints.update(new_hints)
        # 1. Mark the symbols of hints, so that the next inference cannot give their names to other dimensions
        made_up = symbols.made_up(model, hints.values())
        marks = {symbol: symbols.marked(symbol) for symbol in made_up}
        hints = {value: symbols.renamed(shape, marks) for value, shape in hints.items()}
        # 2. Infer again; what a symbol is called now is read off the dimension at which it came up first
        anchors = symbols.anchors(model, made_up)
        inferences = shape_inference.inferred(model, hints)
        # 3. Old and new shapes in the new names
        names = symbols.renaming(anchors, {value: shape for value, (_, shape) in inferences.items()})
        hints = {value: symbols.renamed(shape, names) for value, shape in hints.items()}
        _show({value: (type_, symbols.renamed(shape, names)) for value, (type_, shape) in inferences.items()}, shown)
        values = ShapeValues(model)
    return values


def _show(inferences: Mapping[ir.Value, shape_inference.Info], shown: dict[ir.Value, ir.Shape | None]) -> None:
    for value, (type_, shape) in inferences.items():
        value.type, value.shape = type_ or value.type, shape
        shown[value] = shape
