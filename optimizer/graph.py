"""Questions about a graph, and edits of it, that several passes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

STANDARD_DOMAINS = ("", "ai.onnx")
RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def with_subgraphs(root: ir.Graph) -> Iterator[ir.Graph]:
    """``root`` and every subgraph below it."""
    yield root
    yield from root.subgraphs()


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, the bodies of all functions, and every subgraph below them."""
    yield from with_subgraphs(model.graph)
    for function in model.functions.values():
        yield from with_subgraphs(function.graph)


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the model, in subgraphs and functions too."""
    for scope in graphs(model):
        yield from scope


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs directly in the attributes of ``node``."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def is_standard(node: ir.Node, *op_types: str) -> bool:
    """Whether ``node`` is an operator of the ONNX standard, and one of ``op_types`` if any are given."""
    return node.domain in STANDARD_DOMAINS and (not op_types or node.op_type in op_types)


def site(node: ir.Node) -> str:
    """A stable name for the place of ``node``: its op type and its first named output."""
    output = next((value.name for value in node.outputs if value.name), node.name or "?")
    return f"{node.op_type} -> {output}"


def is_overridable(value: ir.Value) -> bool:
    """Whether ``value`` is an initializer that the caller may override by an input."""
    return value.is_initializer() and value.is_graph_input()


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of ``value`` if it is known before any run: an initializer or the output of a Constant node.

    Initializers that are also inputs are no constants, since a caller may override them.
    """
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if producer is None or not is_standard(producer, "Constant"):
        return None
    return _constant_node_tensor(producer)


def _constant_node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    if len(node.attributes) != 1:
        return None
    name, attribute = next(iter(node.attributes.items()))
    if attribute.is_ref():
        return None
    match name:
        case "value":
            return attribute.as_tensor()
        case "value_float" | "value_floats":
            return ir.Tensor(np.array(attribute.value, dtype=np.float32))
        case "value_int" | "value_ints":
            return ir.Tensor(np.array(attribute.value, dtype=np.int64))
        case "value_string":
            return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
        case "value_strings":
            return ir.StringTensor([text.encode() for text in attribute.as_strings()])
    return None


def constant_array(value: ir.Value | None, max_elements: int | None = None) -> NDArray[np.generic] | None:
    """The constant behind ``value`` as an array that must not be written to, or ``None``.

    Args:
        value: Any value of the graph.
        max_elements: Larger constants count as unknown, so that no weight is read only to be looked at.
    """
    tensor = constant_tensor(value)
    if tensor is None or (max_elements is not None and tensor.size > max_elements):
        return None
    return tensor.numpy()


def constant_ints(value: ir.Value | None, max_elements: int = 1024) -> list[int] | None:
    """The constant behind ``value`` as a flat list of integers; ``None`` if it is no small integer constant."""
    array = constant_array(value, max_elements)
    if array is None or array.dtype.kind not in "iu":
        return None
    return [int(element) for element in array.ravel()]


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of ``value`` if every dimension is a known number."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return value.shape.numpy()


def rank(value: ir.Value | None) -> int | None:
    """The rank of ``value`` if it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def opset_version(scope: ir.Graph | ir.Model, domain: str = "") -> int:
    """The version of ``domain`` that ``scope`` imports; 0 if it imports none."""
    imports = scope.opset_imports
    version = imports.get(domain)
    if version is None and domain in STANDARD_DOMAINS:
        version = imports.get("ai.onnx" if domain == "" else "")
    return version or 0


def names_in_use(model: ir.Model) -> set[str]:
    """Every value name and node name anywhere in the model."""
    found: set[str] = set()
    for scope in graphs(model):
        found.update(value.name for value in scope.inputs if value.name)
        found.update(scope.initializers)
        for node in scope:
            found.update(value.name for value in node.outputs if value.name)
            if node.name:
                found.add(node.name)
    return found


def bypass(node: ir.Node, source: ir.Value, output: ir.Value | None = None) -> bool:
    """Let all users of ``output`` (default: the first of ``node``) read ``source`` instead; the node stays, unused.

    A graph output keeps its name: ``source`` takes it over where it may. It may not if it is an input, an
    initializer, an output already, or of another graph; then nothing is changed.

    Returns:
        Whether the users were moved.
    """
    target = node.outputs[0] if output is None else output
    if target.is_graph_output():
        if (
            source.is_graph_input()
            or source.is_initializer()
            or source.is_graph_output()
            or source.producer() is None
            or source.graph is not target.graph
        ):
            return False
        target.replace_all_uses_with(source, replace_graph_outputs=True)
        _take_over(source, target)
    else:
        source.type = source.type or target.type
        source.shape = source.shape or target.shape
        target.replace_all_uses_with(source)
    return True


def _take_over(source: ir.Value, target: ir.Value) -> None:
    """Make ``source`` the graph output that ``target`` was: name, type, shape, doc string and metadata."""
    name, target.name = target.name, None
    source.name, source.type, source.shape = name, target.type, target.shape
    source.doc_string = target.doc_string
    source.metadata_props.update(target.metadata_props)


def remove_unused(candidates: Iterable[ir.Node]) -> int:
    """Remove those of ``candidates`` whose outputs nobody reads, and every node that becomes unused by it.

    Returns:
        How many nodes were removed, those in removed subgraphs not counted.
    """
    removed = 0
    stack = list(candidates)
    while stack:
        node = stack.pop()
        scope = node.graph
        if scope is None or any(out.uses() or out.is_graph_output() for out in node.outputs):
            continue
        producers = [value.producer() for value in node.inputs if value is not None]
        scope.remove(node, safe=True)
        for inner in subgraphs_of(node):
            producers += _detach(inner)
        removed += 1
        stack.extend(producer for producer in producers if producer is not None)
    return removed


def _detach(inner: ir.Graph) -> list[ir.Node | None]:
    """Unhook the nodes of a removed subgraph from all they read; returns the producers of what they read."""
    producers = []
    for node in inner.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is not None:
                producers.append(value.producer())
                node.replace_input_with(index, None)
    return producers
