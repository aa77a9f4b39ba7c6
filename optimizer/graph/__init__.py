"""Questions about a graph, and edits of it, that several passes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

STANDARD_DOMAINS = ("", "ai.onnx")
_GRAPH_KINDS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})
_FEW = 16  # up to so many inputs, one at a time is quick enough
RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def with_subgraphs(root: ir.Graph) -> Iterator[ir.Graph]:
    """``root`` and every subgraph below it, each after the one that it is in."""
    stack = [root]
    while stack:
        scope = stack.pop()
        yield scope
        stack += reversed([inner for node in scope if node.attributes.data for inner in subgraphs_of(node)])


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, the bodies of all functions, and every subgraph below them."""
    yield from with_subgraphs(model.graph)
    for function in model.functions.values():
        yield from with_subgraphs(function.graph)


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the model, in subgraphs and functions too."""
    for scope in graphs(model):
        yield from scope


def count_nodes(model: ir.Model) -> int:
    """The number of nodes of the model, in subgraphs and functions too."""
    return sum(len(scope) for scope in graphs(model))


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs directly in the attributes of ``node``."""
    for attribute in node.attributes.data.values():
        kind = attribute.type
        if kind not in _GRAPH_KINDS or attribute.is_ref():
            continue
        if kind == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        else:
            yield from attribute.as_graphs()


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """The values that the subgraphs of ``node`` read, those of the subgraphs themselves included."""
    for inner in subgraphs_of(node):
        for scope in with_subgraphs(inner):
            yield from scope.outputs
            for reader in scope:
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
    done: set[ir.Node] = set()
    for node in root:
        if node in done:
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
            if top not in done:
                done.add(top)
                yield top


def _before(node: ir.Node, root: ir.Graph) -> list[ir.Node]:
    """The nodes of ``root`` that ``node`` and its subgraphs read from."""
    values = [value for value in node.inputs if value is not None]
    values += captured(node) if node.attributes.data else ()
    producers = [value.producer() for value in values]
    return [producer for producer in producers if producer is not None and producer.graph is root]


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


def opset_version(scope: ir.Graph | ir.Function | ir.Model, domain: str = "") -> int:
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


def replace_values(replacements: Mapping[ir.Value, ir.Value]) -> None:
    """Let every node that reads a key read its value instead. Graph outputs stay.

    Each node is rewritten once: onnx-ir's one input at a time costs the number of the node's inputs each time, which
    is quadratic where thousands of values meet in one Concat.
    """
    users = {use.node: None for old in replacements for use in old.uses()}
    for user in users:
        set_inputs(user, [value if value is None else replacements.get(value, value) for value in user.inputs])


def set_inputs(node: ir.Node, values: Sequence[ir.Value | None]) -> None:
    """Give ``node`` other inputs, as many as it has, in time linear in their number."""
    changed = [index for index, (old, new) in enumerate(zip(node.inputs, values, strict=True)) if old is not new]
    if len(changed) <= _FEW or node.device_configurations:
        for index in changed:
            node.replace_input_with(index, values[index])
        return
    for index in changed:
        old, new = node.inputs[index], values[index]
        if old is not None:
            old._remove_usage(node, index)  # noqa: SLF001 - what replace_input_with does, without copying all inputs
        if new is not None:
            new._add_usage(node, index)  # noqa: SLF001 - as above
    node._inputs = tuple(values)  # noqa: SLF001 - as above


def may_bypass(source: ir.Value, target: ir.Value) -> bool:
    """Whether ``source`` can stand in for ``target`` everywhere.

    A graph output keeps its name: ``source`` takes it over where it may. It may not if it is an input, an
    initializer, an output already, or of another graph.
    """
    if not target.is_graph_output():
        return True
    if source.is_graph_input() or source.is_initializer() or source.is_graph_output():
        return False
    return source.producer() is not None and source.graph is target.graph


def bypass(node: ir.Node, source: ir.Value, output: ir.Value | None = None) -> bool:
    """Let all users of ``output`` (default: the first of ``node``) read ``source`` instead; the node stays, unused.

    Returns:
        Whether the users were moved; nothing is changed where ``may_bypass`` says no.
    """
    target = node.outputs[0] if output is None else output
    if not may_bypass(source, target):
        return False
    if target.is_graph_output():
        replace_graph_output(target, source)
        _take_over(source, target)
    else:
        source.type = target.type if source.type is None else source.type
        source.shape = target.shape if source.shape is None else source.shape
    replace_values({target: source})
    return True


def replace_graph_output(old: ir.Value, new: ir.Value) -> None:
    """Put ``new`` in the place of ``old`` among the outputs of its graph."""
    outputs = [] if old.graph is None else old.graph.outputs
    for index, value in enumerate(outputs):
        if value is old:
            outputs[index] = new


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
    removed: dict[ir.Node, ir.Graph] = {}
    inside: set[ir.Node] = set()
    stack = list(candidates)
    while stack:
        node = stack.pop()
        scope = node.graph
        if scope is None or node in removed or node in inside or not node.outputs:
            continue
        if any(has_uses(output) for output in node.outputs):
            continue
        removed[node] = scope
        stack += _detach(node)
        for inner in subgraphs_of(node):
            readers = list(inner.all_nodes())
            inside.update(readers)
            for reader in readers:
                stack += _detach(reader)
    for scope in dict.fromkeys(removed.values()):
        scope.remove([node for node, where in removed.items() if where is scope])
    return len(removed)


def _detach(node: ir.Node) -> list[ir.Node]:
    """Unhook ``node`` from all it reads; returns the producers of what it read."""
    producers = [value.producer() for value in node.inputs if value is not None]
    set_inputs(node, [None] * len(node.inputs))
    return [producer for producer in producers if producer is not None]
