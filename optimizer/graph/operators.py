"""What operators are, by their attributes and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph.tensors import content_key

if TYPE_CHECKING:
    from collections.abc import Hashable


def has_one_output(node: ir.Node) -> bool:
    """Whether only the first output of a node exists."""
    return len(node.outputs) == 1 or all(not output.name for output in node.outputs[1:])


def is_nearest(node: ir.Node) -> bool:
    """Whether a Resize takes the nearest element."""
    mode = node.attributes.get("mode")
    return mode is None or mode.as_string() == "nearest"


def attributes_key(node: ir.Node) -> tuple[tuple[str, Hashable], ...] | None:
    """What the attributes of equal nodes have in common, by name; ``None`` if that cannot be said."""
    attributes = []
    for name in sorted(node.attributes.data):
        found = _attribute_key(node.attributes[name])
        if found is None:
            return None
        attributes.append((name, found))
    return tuple(attributes)


def _attribute_key(attribute: ir.Attr) -> Hashable | None:
    if attribute.is_ref():
        return None
    match attribute.type:
        case ir.AttributeType.INT | ir.AttributeType.STRING:
            return int(attribute.type), attribute.value
        case ir.AttributeType.INTS | ir.AttributeType.STRINGS:
            return int(attribute.type), tuple(attribute.value)
        case ir.AttributeType.FLOAT:
            return int(attribute.type), attribute.as_float().hex()  # 0.0 is not -0.0, and nan is nan
        case ir.AttributeType.FLOATS:
            return int(attribute.type), tuple(number.hex() for number in attribute.as_floats())
        case ir.AttributeType.TENSOR:
            return content_key(attribute.as_tensor())
    return None
