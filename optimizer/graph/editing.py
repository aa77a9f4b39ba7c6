"""Edits of a graph: uses that move, values that replace others, nodes that go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph.queries import has_uses
from optimizer.graph.traversal import subgraphs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_FEW = 16  # up to so many inputs, one at a time is quick enough


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
        replace_under_its_name(source, target)
        return True
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


def replace_under_its_name(new: ir.Value, old: ir.Value, uses: Iterable[tuple[ir.Node, int]] | None = None) -> None:
    """Let ``new`` be read, and be a graph output, in the place of ``old``: with all that a file says of it.

    That is its name, type, shape, doc string, metadata and quantization annotation. ``old`` is called what ``new`` was
    called, and nothing but its type and shape is said of it any more; it may stay, to compute ``new``.

    Args:
        new: The output of a node. Metadata of its own stay where ``old`` has none of that key.
        old: In the same graph as ``new``, or in none any more.
        uses: The uses to move; default: all.
    """
    if uses is None:
        replace_values({old: new})
    else:
        for node, index in uses:
            node.replace_input_with(index, new)
    replace_graph_output(old, new)
    new.name, old.name = old.name, new.name
    describe_like(new, old)
    old.doc_string = None
    old.metadata_props.clear()
    old.meta.clear()


def describe_like(new: ir.Value, old: ir.Value) -> None:
    """Say of ``new`` what a file says of ``old``, but for its name: type, shape, doc string, metadata, annotation."""
    new.type, new.shape, new.doc_string = old.type, old.shape, old.doc_string
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)


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
        graph = node.graph
        if graph is None or node in removed or node in inside or not node.outputs:
            continue
        if any(has_uses(output) for output in node.outputs):
            continue
        removed[node] = graph
        stack += _detach(node)
        for inner in subgraphs_of(node):
            readers = list(inner.all_nodes())
            inside.update(readers)
            for reader in readers:
                stack += _detach(reader)
    for graph in dict.fromkeys(removed.values()):
        graph.remove([node for node, where in removed.items() if where is graph])
    return len(removed)


def _detach(node: ir.Node) -> list[ir.Node]:
    """Unhook ``node`` from all it reads; returns the producers of what it read."""
    producers = [value.producer() for value in node.inputs if value is not None]
    set_inputs(node, [None] * len(node.inputs))
    return [producer for producer in producers if producer is not None]


def copy_of_node(node: ir.Node, inputs: Sequence[ir.Value | None], outputs: Sequence[str | None]) -> ir.Node:
    """A node, in no graph yet, that does to ``inputs`` what ``node`` does to its own; its outputs go by ``outputs``."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes.values(),
        num_outputs=len(outputs),
        name=node.name or "",  # else one is made up
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    for value, name in zip(copy.outputs, outputs, strict=True):
        value.name = name
    return copy
