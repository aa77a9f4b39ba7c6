"""How many bytes of a model file a node or a constant takes, so that no rewrite makes the file larger.

    field of a number     tag, number as a varint of seven bits a byte
    text or message       tag, length as a varint, content

Exactly what onnx-ir's ``serde`` would write, without writing it: no weight is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx


_DATA_TYPE = 2  # the data type of a tensor: a tag, and a number below 128
_ATTRIBUTE_TYPE = 3  # the type of an attribute: a tag of two bytes, and a number below 128
_FLOAT = 5


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
    """Bytes of a tensor message under ``name``, tag and length included; data in files counts as if it were inside."""
    match tensor:
        case SparseTensor():
            values = tensor.proto.values
            others = tensor.proto.ByteSize() - field_bytes(values.ByteSize())
            return field_bytes(others + field_bytes(_renamed_bytes(values, name)))
        case ir.serde.TensorProtoTensor():
            return field_bytes(_renamed_bytes(tensor.raw, name))
        case ir.StringTensor():
            data = sum(field_bytes(len(text)) for text in tensor.string_data())
        case _:
            data = field_bytes(tensor.nbytes)
    dims = sum(1 + varint_bytes(size) for size in tensor.shape.numpy())
    return field_bytes(dims + _DATA_TYPE + data + text_bytes([name or None, tensor.doc_string or None]))


def _renamed_bytes(proto: onnx.TensorProto, name: str | None) -> int:
    size: int = proto.ByteSize()
    return size - text_bytes([proto.name or None]) + text_bytes([name or None])


def node_bytes(node: ir.Node) -> int:
    """Bytes of a node in its graph; what is in subgraphs counts as nothing."""
    inputs = ["" if value is None else value.name or "" for value in node.inputs]
    outputs = [value.name or "" for value in node.outputs]
    return node_bytes_as(node, node.op_type, inputs, outputs, node.attributes.values())


def node_bytes_as(
    node: ir.Node, op_type: str, inputs: Iterable[str], outputs: Iterable[str], attributes: Iterable[ir.Attr]
) -> int:
    """Bytes that ``node`` would take with another operator, other names of inputs and outputs, other attributes."""
    content = text_bytes(inputs) + text_bytes(outputs)
    content += text_bytes([op_type, node.name or None, node.domain or None, node.doc_string or None])
    content += text_bytes([node.overload or None])
    content += sum(field_bytes(attribute_bytes(attribute)) for attribute in attributes)
    if node.metadata_props:
        content += sum(field_bytes(text_bytes(entry)) for entry in node.metadata_props.items())
    return field_bytes(content)


def attribute_bytes(attribute: ir.Attr) -> int:
    """Bytes of the content of an attribute; what is in subgraphs counts as nothing."""
    content = text_bytes([attribute.name, attribute.doc_string or None]) + _ATTRIBUTE_TYPE
    if attribute.is_ref():
        name = attribute.ref_attr_name or ""
        return content + 1 + field_bytes(len(name.encode()))  # the number of this field takes two bytes
    match attribute.type:
        case ir.AttributeType.INT:
            return content + 1 + varint_bytes(attribute.as_int())
        case ir.AttributeType.INTS:
            return content + sum(1 + varint_bytes(number) for number in attribute.as_ints())
        case ir.AttributeType.FLOAT:
            return content + _FLOAT
        case ir.AttributeType.FLOATS:
            return content + _FLOAT * len(attribute.as_floats())
        case ir.AttributeType.STRING:
            return content + text_bytes([attribute.as_string()])
        case ir.AttributeType.STRINGS:
            return content + text_bytes(attribute.as_strings())
        case ir.AttributeType.TENSOR:
            return content + tensor_bytes(attribute.value, attribute.value.name)
        case ir.AttributeType.TENSORS:
            return content + sum(tensor_bytes(tensor, tensor.name) for tensor in attribute.value)
    return content


def constant_node_bytes(tensor: ir.TensorProtocol, output: str) -> int:
    """Bytes of a Constant node without a name of its own."""
    attribute = attribute_bytes(ir.AttrTensor("value", tensor))
    return field_bytes(text_bytes([output, "Constant"]) + field_bytes(attribute))
