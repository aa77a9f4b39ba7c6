"""Evaluate nodes whose inputs are all constants, by the implementations of ``onnx.reference``.

Only operators that are listed here are evaluated: those that are deterministic and whose reference implementation gives
what ONNX Runtime gives, up to the last bits of transcendental functions. Operators that only move data take every
type that numpy holds, arithmetic takes the usual floats, 32- and 64-bit integers and bools. Half precision stays out of
functions and sums, which are rounded differently from one implementation to the next. Quantizing operators are not
listed, since ONNX Runtime fuses by them, nor are strings. (onnxscript's ``FoldConstantsPass`` uses the same reference.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOVING = frozenset(
    [
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    ]
)
EXACT = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Clip",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Range",
        "Reciprocal",
        "Relu",
        "Round",
        "Sign",
        "Sqrt",
        "Sub",
        "Xor",
    ]
)
ROUNDED = frozenset(
    [
        "ArgMax",
        "ArgMin",
        "Cos",
        "CumSum",
        "Erf",
        "Exp",
        "Log",
        "MatMul",
        "NonZero",
        "Pow",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Sigmoid",
        "Sin",
        "Tanh",
    ]
)
FOLDED = MOVING | EXACT | ROUNDED
_FULL = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL})
_SMALL = frozenset({ir.DataType.FLOAT16, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16})
_MAX_BYTES = 1 << 28  # results above this are not tried


def evaluate(node: ir.Node, opset: int) -> list[NDArray[Any]] | None:
    """The outputs of ``node`` from its constant inputs; ``None`` if they cannot be told for certain.

    Args:
        node: A node of the standard operator set.
        opset: The version of the operator set that holds for it.
    """
    if node.op_type not in FOLDED or queries.has_references(node):
        return None
    # 1. All inputs are constants of types that are evaluated
    tensors = [constants.constant_tensor(value) for value in node.inputs]
    if any(value is not None and tensor is None for value, tensor in zip(node.inputs, tensors, strict=True)):
        return None
    if not all(_is_allowed(node.op_type, tensor.dtype) for tensor in tensors if tensor is not None):
        return None
    arrays = [None if tensor is None else tensor.numpy() for tensor in tensors]
    # 2. The result is not much larger, and ONNX defines it
    if _too_large(node, arrays) or _is_undefined(node, arrays):
        return None
    # 3. It is what shape inference expects, else the reference and the operator set differ
    results = run(node, opset, arrays)
    return None if results is None or not _as_inferred(node, results) else results


def _is_allowed(op_type: str, dtype: ir.DataType) -> bool:
    """Whether ``op_type`` is evaluated on constants of ``dtype``: the more is computed, the fewer types."""
    if op_type in MOVING:
        return (
            dtype in _FULL or dtype in _SMALL or dtype in {ir.DataType.BFLOAT16, ir.DataType.UINT32, ir.DataType.UINT64}
        )
    return dtype in _FULL or (op_type in EXACT and dtype in _SMALL)


def _too_large(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> bool:
    """Whether the result is much larger than what it is made of; such nodes are what keeps a file small."""
    match node.op_type:
        case "Expand" | "ConstantOfShape" | "Tile" | "Range":
            shape = queries.static_shape(node.outputs[0])
            return shape is None or 8 * int(np.prod(shape, dtype=np.int64)) > max(_bytes(arrays), 1 << 16)
    return _bytes(arrays) > _MAX_BYTES and node.op_type not in {
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
    }


def _bytes(arrays: Sequence[NDArray[Any] | None]) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _is_undefined(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> bool:
    """Whether ONNX leaves the result open: numbers that do not fit, integer division by zero, sums of floats."""
    first, second = arrays[0] if arrays else None, arrays[1] if len(arrays) > 1 else None
    match node.op_type:
        case "Cast":
            to = ir.DataType(node.attributes.get_int("to", 0))
            return first is None or (to not in _FULL and to not in _SMALL) or not _fits(first, to)
        case "Div" | "Mod":
            # Division of integers by 0; Mod of floats is fmod, or not defined, by an attribute
            is_integer = second is not None and second.dtype.kind in "iu"
            return second is None or (is_integer and not second.all()) or (node.op_type == "Mod" and not is_integer)
        case "Range":  # of floats: whether the last step is one too many is a matter of rounding
            return first is None or first.dtype.kind not in "iu"
    return False


def _fits(array: NDArray[Any], to: ir.DataType) -> bool:
    # NaN, infinities and what is out of range turn into other integers on other machines
    if not to.is_integer() or array.dtype.kind == "b" or array.size == 0:
        return True
    bounds = np.iinfo(to.numpy())
    low, high = array.min(), array.max()
    return bool(np.isfinite(low) and np.isfinite(high) and int(low) >= bounds.min and int(high) <= bounds.max)


def run(node: ir.Node, opset: int, arrays: list[NDArray[Any] | None]) -> list[NDArray[Any]] | None:
    """The outputs of ``node`` for ``arrays``; ``None`` if the reference does not manage it."""
    from onnx.reference.ops import load_op  # noqa: PLC0415 - a tenth of a second, wanted only where something folds

    attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
    try:
        with np.errstate(all="ignore"):
            implementation = load_op("", node.op_type, opset)
            outputs = implementation.eval(*arrays, n_outputs=len(node.outputs), **attributes)
    except Exception:  # noqa: BLE001 - whatever the reference does not manage stays a node
        return None
    results = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    return [np.asarray(result) for result in results] if len(results) == len(node.outputs) else None


def _plain(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.serde.serialize_tensor(attribute.as_tensor())
    return list(attribute.value) if isinstance(attribute.value, tuple) else attribute.value


def _as_inferred(node: ir.Node, results: Sequence[NDArray[Any]]) -> bool:
    """Whether type and shape of each result are those that inference gives, as far as it gives any."""
    for value, result in zip(node.outputs, results, strict=True):
        if value.dtype is not None and ir.DataType.from_numpy(result.dtype) != value.dtype:
            return False
        if value.shape is not None and len(value.shape) != result.ndim:
            return False
        if value.shape is not None and any(
            isinstance(dim, int) and dim != size for dim, size in zip(value.shape, result.shape, strict=True)
        ):
            return False
    return True
