"""How many bytes of a model file a node or a constant takes, so that no rewrite makes the file larger.

Protobuf: a field costs a tag byte, for texts and messages also the length as a varint, and its content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph import queries

if TYPE_CHECKING:
    from collections.abc import Iterable


def varint_bytes(number: int) -> int:
    """Bytes of an integer field's content; negative ones take ten."""
    return 10 if number < 0 else max(1, (number.bit_length() + 6) // 7)


def field_bytes(content: int) -> int:
    """Bytes of a text or message field with ``content`` bytes in it."""
    return 1 + varint_bytes(content) + content


def text_bytes(texts: Iterable[str | None]) -> int:
    """Bytes of text fields; those that are ``None`` are left out."""
    return sum(field_bytes(len(text.encode())) for text in texts if text is not None)


def tensor_bytes(tensor: ir.TensorProtocol, name: str | None) -> int:
    """Bytes of a tensor message with its data inside, tag and length included."""
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        content = tensor.raw.ByteSize() - text_bytes([tensor.raw.name or None])
    else:
        content = sum(1 + varint_bytes(size) for size in tensor.shape.numpy()) + 2 + field_bytes(tensor.nbytes)
    return field_bytes(content + text_bytes([name]))


def constant_node_bytes(tensor: ir.TensorProtocol, output: str) -> int:
    """Bytes of a Constant node without a name of its own."""
    attribute = text_bytes(["value"]) + tensor_bytes(tensor, None) + 3
    return field_bytes(text_bytes([output, "Constant"]) + field_bytes(attribute))


def node_bytes(node: ir.Node) -> int:
    """Bytes of a node, roughly: its attributes count by their plain values, subgraphs as nothing."""
    content = text_bytes(["" if value is None else value.name for value in node.inputs])
    content += text_bytes([value.name or "" for value in node.outputs])
    content += text_bytes([node.op_type, node.name or None, node.domain or None, node.doc_string or None])
    content += sum(field_bytes(attribute_bytes(attribute)) for attribute in node.attributes.values())
    content += sum(field_bytes(text_bytes(item)) for item in (node.metadata_props or {}).items())
    return field_bytes(content)


def attribute_bytes(attribute: ir.Attr) -> int:
    """Bytes of the content of an attribute, subgraphs as nothing."""
    content = text_bytes([attribute.name]) + 3
    if attribute.is_ref():
        return content
    match attribute.type:
        case ir.AttributeType.INT:
            return content + 1 + varint_bytes(attribute.as_int())
        case ir.AttributeType.INTS:
            return content + sum(1 + varint_bytes(number) for number in attribute.as_ints())
        case ir.AttributeType.FLOAT:
            return content + 5
        case ir.AttributeType.FLOATS:
            return content + 5 * len(attribute.as_floats())
        case ir.AttributeType.STRING:
            return content + text_bytes([attribute.as_string()])
        case ir.AttributeType.TENSOR:
            return content + tensor_bytes(attribute.as_tensor(), attribute.as_tensor().name or None)
    return content


MAX_READERS = 32  # values with more readers count as read by others


MAX_NODES = 64


def bytes_removed_with(nodes: Iterable[ir.Node]) -> int:
    """How many bytes go with ``nodes``, whose outputs nobody will read; at least."""
    gone, constants = _freed(nodes)
    tensors = [(value.const_value, value.name) for value in constants]
    return sum(map(node_bytes, gone)) + sum(
        tensor_bytes(tensor, name) for tensor, name in tensors if tensor is not None
    )


def nodes_removed_with(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """``nodes`` and what is there for them alone; at least."""
    return _freed(nodes)[0]


def _freed(nodes: Iterable[ir.Node]) -> tuple[list[ir.Node], list[ir.Value]]:
    gone: dict[ir.Node, None] = dict.fromkeys(nodes)
    constants: dict[ir.Value, None] = {}
    waiting = list(gone)
    while waiting:
        for value in waiting.pop().inputs:
            if value is None or value in constants or not _is_only_read_by(value, gone):
                continue
            producer = value.producer()
            if producer is None:
                if value.is_initializer():
                    constants[value] = None
            elif producer not in gone and len(gone) < MAX_NODES and _is_unread(producer, gone):
                gone[producer] = None
                waiting.append(producer)
    return list(gone), list(constants)


def _is_unread(node: ir.Node, gone: dict[ir.Node, None]) -> bool:
    return all(_is_only_read_by(output, gone) for output in node.outputs)


def _is_only_read_by(value: ir.Value, gone: dict[ir.Node, None]) -> bool:
    if value.is_graph_output() or value.is_graph_input() or queries.use_count(value) > MAX_READERS:
        return False
    return all(use.node in gone for use in value.uses())
