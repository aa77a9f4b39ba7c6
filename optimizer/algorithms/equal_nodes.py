"""Merge nodes that compute the same from the same (common subexpressions), within each graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer import graph
from optimizer.algorithms.sweep import content_key

if TYPE_CHECKING:
    from collections.abc import Hashable

    from optimizer.pass_base import Sites, Step

_DOMAINS = frozenset({*graph.STANDARD_DOMAINS, "ai.onnx.ml"})
_NEVER = graph.RANDOM_OPS | {"Dropout", "Constant", "SequenceEmpty", "BatchNormalization"}


def merge_equal(model: ir.Model, step: Step, sites: Sites) -> int:
    """Let one of several equal nodes stand for all; returns how many others were removed."""
    merged = 0
    for scope in list(graph.graphs(model)):
        first: dict[Hashable, ir.Node] = {}
        for node in list(scope):
            key = _key(node)
            if key is None:
                continue
            kept = first.setdefault(key, node)
            if kept is not node and _can_merge(kept, node) and sites.permits(step.name, graph.site(node)):
                for old, new in zip(node.outputs, kept.outputs, strict=True):
                    if graph.has_uses(old):
                        graph.bypass(node, new, old)
                merged += graph.remove_unused([node])
    return merged


def _can_merge(kept: ir.Node, node: ir.Node) -> bool:
    """Whether all readers can move; ``kept`` takes the name of a graph output over, but can be one only once."""
    return all(
        bool(new.name) and not (old.is_graph_output() and new.is_graph_output())
        for old, new in zip(node.outputs, kept.outputs, strict=True)
        if graph.has_uses(old)
    )


def _key(node: ir.Node) -> Hashable | None:
    if node.domain not in _DOMAINS or node.op_type in _NEVER or not node.inputs:
        return None
    attributes = []
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        found = _attribute_key(attribute)
        if found is None:
            return None
        attributes.append((name, found))
    inputs = tuple(map(_input_key, node.inputs))
    return node.domain, node.op_type, len(node.outputs), inputs, tuple(attributes)


def _attribute_key(attribute: ir.Attr) -> Hashable | None:
    if attribute.is_ref():
        return None
    match attribute.type:
        case ir.AttributeType.INT | ir.AttributeType.FLOAT | ir.AttributeType.STRING:
            return int(attribute.type), attribute.value
        case ir.AttributeType.INTS | ir.AttributeType.FLOATS | ir.AttributeType.STRINGS:
            return int(attribute.type), tuple(attribute.value)
        case ir.AttributeType.TENSOR:
            return content_key(attribute.as_tensor())
    return None


def _input_key(value: ir.Value | None) -> Hashable:
    if value is None:
        return None
    tensor = graph.constant_tensor(value)
    key = None if tensor is None else content_key(tensor)
    return id(value) if key is None else key
