"""Tensors for new initializers: under a name of their own, in few bytes, and sharing the data with the old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_VARINTS = 256  # for longer integer tensors the size in varints is not even looked at
_SMALL_BYTES = 1 << 16


def compact(array: NDArray[np.generic], name: str) -> ir.TensorProtocol:
    """``array`` as a tensor in as few bytes as a file can hold it: small integers as varints instead of raw data."""
    tensor = ir.tensor(array, name=name)
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
