"""Names of values and nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.graph.traversal import graphs

if TYPE_CHECKING:
    import onnx_ir as ir


def names_in_use(model: ir.Model) -> set[str]:
    """Every value name and node name anywhere in the model."""
    found: set[str] = set()
    for graph in graphs(model):
        found.update(value.name for value in graph.inputs if value.name)
        found.update(graph.initializers)
        for node in graph:
            found.update(value.name for value in node.outputs if value.name)
            if node.name:
                found.add(node.name)
    return found
