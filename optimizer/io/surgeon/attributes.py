"""Attributes of nodes, back from GraphSurgeon."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
from onnx_graphsurgeon.util import misc

from optimizer.errors import PreconditionError
from optimizer.io.surgeon.types import from_array, ir_dtype, tensor_of

_SHOWN = frozenset(
    {
        ir.AttributeType.FLOAT,
        ir.AttributeType.INT,
        ir.AttributeType.STRING,
        ir.AttributeType.FLOATS,
        ir.AttributeType.INTS,
        ir.AttributeType.STRINGS,
        ir.AttributeType.TENSOR,
        ir.AttributeType.GRAPH,
    }
)


def is_shown(attribute: ir.Attr) -> bool:
    """Whether GraphSurgeon has a place for ``attribute``; others come back with their node."""
    return attribute.is_ref() or (attribute.type in _SHOWN and not isinstance(attribute.value, bytes))


def attribute_of(name: str, value: Any, original: ir.Attr | None, op_type: str, domain: str) -> ir.Attr:
    """An attribute that is not a graph: the original where ``value`` still is what it showed, else a new one.

    The type is the original's, else the one that the operator's schema names, so that ``alpha=1`` is a float.

    Raises:
        PreconditionError: If ONNX has no attribute for ``value``.
    """
    if isinstance(value, gs.Node.AttributeRef):
        if original is not None and original.ref_attr_name == value.name:
            return original
        return ir.RefAttr(name, value.name, ir.AttributeType(misc.convert_to_onnx_attr_type(value.type)))
    if isinstance(value, gs.Tensor):
        return _tensor_attribute(name, value, original)
    if original is not None and not original.is_ref() and _is_same(value, original.value):
        return original
    attribute_type = original.type if original is not None else _declared(name, op_type, domain)
    try:
        return _plain_attribute(name, value, attribute_type)
    except (TypeError, ValueError, OverflowError) as error:
        raise PreconditionError(f"attribute '{name}' of {op_type} cannot hold {value!r}: {error}") from error


def _tensor_attribute(name: str, constant: gs.Tensor, original: ir.Attr | None) -> ir.Attr:
    if not isinstance(constant, gs.Constant):
        raise PreconditionError(f"attribute '{name}' holds the Variable '{constant.name}'; give a Constant")
    tensor = tensor_of(constant)
    if original is not None and original.value is tensor:
        return original
    return ir.AttrTensor(name, tensor, doc_string=None if original is None else original.doc_string)


def _is_same(value: Any, original: Any) -> bool:
    if isinstance(original, tuple | list):
        return isinstance(value, tuple | list) and len(value) == len(original) and all(map(_is_same, value, original))
    if isinstance(original, float) and isinstance(value, float) and math.isnan(original):
        return math.isnan(value)
    # A True for a 1 and a -0.0 for a 0.0 are equal in Python, and another attribute in ONNX
    return (
        type(value) is type(original)
        and bool(value == original)
        and math.copysign(1, _sign(value)) == math.copysign(1, _sign(original))
    )


def _sign(value: Any) -> float:
    return value if isinstance(value, float) else 1.0


def _declared(name: str, op_type: str, domain: str) -> ir.AttributeType | None:
    try:
        declared = onnx.defs.get_schema(op_type, domain).attributes.get(name)
    except onnx.defs.SchemaError:
        return None
    return None if declared is None else ir.AttributeType(int(declared.type))  # type: ignore[call-overload]  # an enum


def _plain_attribute(name: str, value: Any, attribute_type: ir.AttributeType | None) -> ir.Attr:
    match attribute_type:
        case ir.AttributeType.FLOAT:
            return ir.AttrFloat32(name, float(value))
        case ir.AttributeType.INT:
            return ir.AttrInt64(name, _integer(value))
        case ir.AttributeType.STRING if isinstance(value, str):
            return ir.AttrString(name, value)
        case ir.AttributeType.FLOATS:
            return ir.AttrFloat32s(name, [float(element) for element in value])
        case ir.AttributeType.INTS:
            return ir.AttrInt64s(name, [_integer(element) for element in value])
        case ir.AttributeType.STRINGS:
            return ir.AttrStrings(name, list(value))
        case ir.AttributeType.TENSOR if isinstance(value, np.ndarray):
            return ir.AttrTensor(name, from_array(value, ""))
    if isinstance(value, type | np.dtype):
        return ir.AttrInt64(name, _integer(value))
    return ir.serde.deserialize_attribute(onnx.helper.make_attribute(name, value))


def _integer(value: Any) -> int:
    """An integer; a dtype, as for the ``to`` of a Cast, is the number of its ONNX type."""
    return int(ir_dtype(value)) if isinstance(value, type | np.dtype) else int(value)
