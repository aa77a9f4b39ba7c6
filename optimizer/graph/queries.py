"""Questions about a node, a value or a graph that its neighbours answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


STANDARD_DOMAINS = ("", "ai.onnx")


def is_standard(node: ir.Node, *op_types: str) -> bool:
    """Whether ``node`` is an operator of the ONNX standard, and one of ``op_types`` if any are given."""
    return node.domain in STANDARD_DOMAINS and (not op_types or node.op_type in op_types)


def has_references(node: ir.Node) -> bool:
    """Whether an attribute of ``node`` is only known at the call of the function that it is in."""
    return any(attribute.is_ref() for attribute in node.attributes.data.values())


def has_uses(value: ir.Value) -> bool:
    """Whether a node reads ``value`` or a graph gives it out; ``value.uses()`` copies all of them, this does not."""
    return bool(value._uses) or value.is_graph_output()  # noqa: SLF001 - no public question costs O(1)


def use_count(value: ir.Value) -> int:
    """How many inputs of nodes read ``value``."""
    return len(value._uses)  # noqa: SLF001 - no public question costs O(1)


def site(node: ir.Node) -> str:
    """A stable name for the place of ``node``: its op type and its first named output."""
    output = next((value.name for value in node.outputs if value.name), node.name or "?")
    return f"{node.op_type} -> {output}"


def is_overridable(value: ir.Value) -> bool:
    """Whether ``value`` is an initializer that the caller may override by an input."""
    return value.is_initializer() and value.is_graph_input()


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of ``value`` if every dimension is a known number."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return value.shape.numpy()


def rank(value: ir.Value | None) -> int | None:
    """The rank of ``value`` if it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def opset_version(graph: ir.Graph | ir.Function | ir.Model) -> int:
    """The version of the standard operators that ``graph`` imports; 0 if it imports none."""
    versions = (graph.opset_imports.get(domain) for domain in STANDARD_DOMAINS)
    return next((version for version in versions if version is not None), None) or 0


def only_consumer(value: ir.Value | None, *, same_graph: bool = False) -> ir.Node | None:
    """The node that alone reads ``value``, and reads it once; ``None`` if it is a graph output or read more often.

    With ``same_graph`` only a node of the graph that ``value`` is in.
    """
    if value is None or value.is_graph_output() or use_count(value) != 1:
        return None
    node = next(iter(value.uses())).node
    return node if not same_graph or node.graph is value.graph else None


def producer_of_first_input(node: ir.Node, *op_types: str) -> ir.Node | None:
    """The node that computes the first input of ``node``, if it is one of these operators and no function's."""
    value = node.inputs[0] if node.inputs else None
    producer = None if value is None else value.producer()
    if producer is None or not is_standard(producer, *op_types) or has_references(producer):
        return None
    return producer
