"""Whether a tensor of a proto holds what its type and shape say; nothing is allocated by what they say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.graph.sparse import DENSE_LIMIT, dense_bytes
from optimizer.io.external_data import byte_count, location_of
from optimizer.io.protos.skeleton import PLACEHOLDER_LOCATION

if TYPE_CHECKING:
    from collections.abc import Sequence

KNOWN_TYPES = frozenset(dtype.value for dtype in ir.DataType if dtype != ir.DataType.UNDEFINED)
_ELEMENTS_LIMIT = 1 << 58  # so that no count of bytes or bits overflows 64 bits
_DIMS_LIMIT = 64  # as many as numpy has
_EXPORT = "the file is damaged, fetch it or export the model again"

_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.INT32: "int32_data",
    onnx.TensorProto.STRING: "string_data",
}


def check_tensor(tensor: onnx.TensorProto, label: str) -> None:
    """Check type, shape, and that the data is as long as they say; of data in a file, that the place makes sense.

    Raises:
        ModelError: If not; too short ``…_data`` fields are left to the checker.
    """
    if tensor.data_type not in KNOWN_TYPES:
        raise ModelError(f"{label} has type number {tensor.data_type}, which is unknown; install a newer onnx")
    count = _elements(tensor.dims, label)
    is_text = tensor.data_type == onnx.TensorProto.STRING
    if is_external(tensor):
        if is_text:
            raise ModelError(f"{label} keeps strings in a file, which ONNX does not allow; {_EXPORT}")
        if not any(entry.key == "location" and entry.value == PLACEHOLDER_LOCATION for entry in tensor.external_data):
            location_of(tensor, label)
    elif tensor.HasField("raw_data"):
        needed = 0 if is_text else byte_count(tensor)
        if len(tensor.raw_data) != needed:
            raise ModelError(
                f"{label} has {len(tensor.raw_data)} bytes, its type and shape ask for {needed}; {_EXPORT}"
            )
    elif (field := _FIELDS.get(tensor.data_type)) is not None and len(getattr(tensor, field)) > count:
        elements = len(getattr(tensor, field))
        raise ModelError(f"{label} has {elements} elements, its shape asks for {count}; {_EXPORT}")


def check_sparse(tensor: onnx.SparseTensorProto, label: str) -> None:
    """Check the values, the indices, and that the dense tensor is of a size that ONNX Runtime can make of it.

    Raises:
        ModelError: If not; the order of the indices is left to the checker.
    """
    for component in (tensor.values, tensor.indices) if tensor.HasField("indices") else (tensor.values,):
        check_tensor(component, label)
        if is_external(component) or component.data_type == onnx.TensorProto.STRING:
            raise ModelError(f"{label} keeps its data in a file or holds strings; make it a dense tensor")
    _elements(tensor.dims, label)
    if dense_bytes(tensor) >= DENSE_LIMIT:
        raise ModelError(f"{label} stands for {dense_bytes(tensor):,} bytes, more than a model can hold; {_EXPORT}")


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the data is in a file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def make_placeholder(message: onnx.TensorProto, number: int | None = None) -> None:
    """Turn ``message`` into a placeholder, for the tensor of that ``number``: external, without a usable location."""
    message.data_location = onnx.TensorProto.EXTERNAL
    del message.external_data[:]
    message.external_data.add(
        key="location", value=PLACEHOLDER_LOCATION if number is None else f"{PLACEHOLDER_LOCATION}{number}"
    )


def _elements(dims: Sequence[int], label: str) -> int:
    if len(dims) > _DIMS_LIMIT:
        raise ModelError(f"{label} has {len(dims)} dimensions; {_EXPORT}")
    if any(dim < 0 for dim in dims):
        raise ModelError(f"{label} has a negative dimension, {list(dims)[:8]}; {_EXPORT}")
    count = math.prod(dims)
    if count >= _ELEMENTS_LIMIT:
        raise ModelError(f"{label} has an impossible shape, {list(dims)[:8]}; {_EXPORT}")
    return count
