"""Nodes that ``onnx.shape_inference`` (1.23) is wrong about.

- Slice of operator set 10 keeps the symbol of a dimension that it cuts: ``x[N] -> x[0:1]`` has again ``N`` elements.
- Attention (operator set 23 on) computes with 0 for dimensions that are not numbers.

Found by running every node test of onnx with symbols for dimensions, at each operator set from 7 on that takes it, and
comparing what is inferred with the shapes of the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.graph import queries, traversal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

_FAULTY_SLICE = 10


def faulty_nodes(model: ir.Model, shapes: Mapping[ir.Value, ir.Shape | None]) -> set[ir.Node]:
    """The nodes whose outputs may have other shapes than those inferred.

    Args:
        model: The model.
        shapes: What is inferred for the outputs of nodes.
    """
    opset = queries.opset_version(model)
    nodes = {node for node in _nodes(model.graph) if _is_faulty(node, opset, shapes)}
    faulty_functions = {key for key, function in model.functions.items() if _holds_fault(function)}
    if not faulty_functions:
        return nodes
    # A function is inferred as one node: its calls are hidden, not the faulty node within
    calls = (node for node in _nodes(model.graph) if node.op_identifier() in faulty_functions)
    return nodes | {node for node in calls if not _is_static(node, shapes)}


def _nodes(root: ir.Graph) -> Iterator[ir.Node]:
    for graph in traversal.with_subgraphs(root):
        yield from graph


def _is_faulty(node: ir.Node, opset: int, shapes: Mapping[ir.Value, ir.Shape | None]) -> bool:
    return _may_be_faulty(node, opset) and not _is_static(node, shapes)


def _may_be_faulty(node: ir.Node, opset: int) -> bool:
    if not queries.is_standard(node, "Slice", "Attention"):
        return False
    return node.op_type == "Attention" or opset == _FAULTY_SLICE


def _holds_fault(function: ir.Function) -> bool:
    """Whether there may be a faulty node in ``function``; calls of other functions count as such."""
    opset = queries.opset_version(function.graph)
    return any(
        _may_be_faulty(node, opset) or node.domain not in queries.STANDARD_DOMAINS for node in _nodes(function.graph)
    )


def _is_static(node: ir.Node, shapes: Mapping[ir.Value, ir.Shape | None]) -> bool:
    """Whether all dimensions of what ``node`` reads are numbers."""
    inputs = [value for value in node.inputs if value is not None]
    input_shapes = [shapes.get(value, value.shape) for value in inputs]
    return all(shape is not None and shape.is_static() for shape in input_shapes)
