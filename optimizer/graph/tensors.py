"""Tensors for new initializers: under a name of their own, in few bytes, and sharing the data with the old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from optimizer.graph import file_size
from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


_MOST_VARINTS = 256  # for longer integer tensors the size in varints is not even looked at
_SMALL_BYTES = 1 << 16


def compact(array: NDArray[np.generic], name: str) -> ir.TensorProtocol:
    """``array`` as a tensor in as few bytes as a file can hold it: small integers as varints instead of raw data."""
    tensor = ir.Tensor(array, name=name)
    if tensor.dtype not in {ir.DataType.INT64, ir.DataType.INT32} or tensor.size > _MOST_VARINTS:
        return tensor
    proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=array.shape)
    (proto.int64_data if tensor.dtype == ir.DataType.INT64 else proto.int32_data).extend(array.ravel().tolist())
    raw = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=array.shape, raw_data=tensor.tobytes())
    return ir.serde.TensorProtoTensor(proto) if proto.ByteSize() < raw.ByteSize() else tensor


def renamed(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """``tensor`` under another name. The old one keeps its own, since the reference model may hold it too."""
    match tensor:
        case ir.serde.TensorProtoTensor() if tensor.nbytes <= _SMALL_BYTES or not tensor.raw.HasField("raw_data"):
            proto = onnx.TensorProto()
            proto.CopyFrom(tensor.raw)
            proto.name = name
            return ir.serde.TensorProtoTensor(proto)
        case ir.Tensor():
            doc = tensor.doc_string
            return ir.Tensor(tensor.raw, dtype=tensor.dtype, shape=tensor.shape, name=name, doc_string=doc)
        case ir.StringTensor():
            return ir.StringTensor(tensor.raw, shape=tensor.shape, name=name, doc_string=tensor.doc_string)
        case ir.ExternalTensor():
            return ir.ExternalTensor(
                tensor.location,
                tensor.offset,
                tensor.length,
                tensor.dtype,
                shape=tensor.shape,
                name=name,
                base_dir=tensor.base_dir,
            )
    return ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


_IR_VERSION = 5  # the first that has sparse initializers


_ROOM = 64  # bytes of the message around values and places


TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})  # what ONNX Runtime loads


def store_sparse(model: ir.Model, values: Iterable[ir.Value]) -> int:
    """Store those of the initializers ``values`` sparse that get smaller by it; returns how many."""
    stored = 0
    for value in values:
        tensor = value.const_value
        if tensor is None or not value.is_initializer() or tensor.dtype not in TYPES:
            continue
        sparse = listed(tensor, value.name)
        if sparse is not None:
            value.const_value = sparse
            stored += 1
    if stored:
        model.ir_version = max(model.ir_version, _IR_VERSION)
    return stored


def listed(tensor: ir.TensorProtocol, name: str | None) -> SparseTensor | None:
    """``tensor`` as a list of what is not zero; ``None`` where that is no smaller, or there is nothing to list.

    Args:
        tensor: Of one of ``TYPES``.
        name: Of the initializer.
    """
    flat = tensor.numpy().reshape(-1)
    places = np.flatnonzero(flat)
    if not places.size or places.size * (flat.itemsize + 8) + _ROOM >= file_size.tensor_bytes(tensor, name):
        return None
    proto = onnx.SparseTensorProto(dims=list(tensor.shape.numpy()))
    proto.values.CopyFrom(onnx.numpy_helper.from_array(flat[places], name))
    proto.indices.CopyFrom(onnx.numpy_helper.from_array(places.astype(np.int64)))
    return SparseTensor(proto)


ContentKey: TypeAlias = "tuple[int, tuple[int, ...], bytes]"


MAX_SHARED_BYTES = 1024  # constants up to this size are shared when they are equal


def content_key(tensor: ir.TensorProtocol | None) -> ContentKey | None:
    """What two small equal tensors have in common; ``None`` for large ones and for strings."""
    if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes > MAX_SHARED_BYTES:
        return None
    return int(tensor.dtype), tuple(tensor.shape.numpy()), tensor.tobytes()
