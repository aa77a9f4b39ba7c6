"""Which outputs random operators reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.graph import constants, queries, traversal
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    import onnx_ir as ir


def random_outputs(model: ir.Model) -> frozenset[str]:
    """Names of the outputs that a random operator reaches, through subgraphs and functions too."""
    random_functions: set[ir.OperatorIdentifier] = set()
    for _ in model.functions:  # functions may call each other: repeat until nothing is new
        random_functions |= {
            key
            for key, function in model.functions.items()
            if any(_is_random(node, random_functions) for node in function)
        }
    reached: set[ir.Value] = set()
    for node in traversal.in_order(model.graph):
        inputs = (*node.inputs, *traversal.captured(node))
        if _is_random(node, random_functions) or any(value in reached for value in inputs if value is not None):
            reached.update(node.outputs)
    return frozenset(value.name for value in model.graph.outputs if value in reached and value.name)


def _is_random(node: ir.Node, functions: set[ir.OperatorIdentifier]) -> bool:
    if queries.is_standard(node, *having(Trait.RANDOM)) or node.op_identifier() in functions:
        return True
    if queries.is_standard(node, "Dropout") and len(node.inputs) > 2 and node.inputs[2] is not None:
        mode = constants.constant_array(node.inputs[2], 1)
        return mode is None or bool(mode.any())
    return any(_is_random(inner, functions) for graph in traversal.subgraphs_of(node) for inner in graph)
