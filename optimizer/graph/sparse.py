"""Sparse tensors, which onnx-ir does not know: kept as they are in the file, dense when somebody looks at them.

A sparse tensor is a list of values and their places; a place is a number in row-major order, or one index per axis.
ONNX Runtime makes it dense when it loads the model, so to a pass it is a constant like any other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx import numpy_helper

if TYPE_CHECKING:
    import onnx

DENSE_LIMIT = 1 << 31  # bytes; ONNX Runtime could not hold more in one model either


class SparseTensor(ir.LazyTensor):
    """A tensor over a ``SparseTensorProto``; made dense anew each time it is looked at."""

    __slots__ = ("proto",)

    def __init__(self, proto: onnx.SparseTensorProto) -> None:
        values = proto.values
        super().__init__(
            lambda: dense(proto),
            ir.DataType(values.data_type),
            ir.Shape(proto.dims, frozen=True),
            name=values.name or None,
            doc_string=values.doc_string or None,
        )
        self.proto = proto


def dense(proto: onnx.SparseTensorProto) -> ir.TensorProtocol:
    """The dense tensor."""
    values = numpy_helper.to_array(proto.values)
    array = np.zeros(tuple(proto.dims), dtype=values.dtype)
    if values.size:
        places = numpy_helper.to_array(proto.indices)
        if places.ndim == 2:
            places = np.ravel_multi_index(tuple(places.T), array.shape)
        array.reshape(-1)[places] = values
    return ir.Tensor(array, dtype=ir.DataType(proto.values.data_type))


def dense_bytes(proto: onnx.SparseTensorProto) -> int:
    """The size of the dense tensor."""
    elements: int = math.prod(proto.dims)
    return elements * ir.DataType(proto.values.data_type).bitwidth // 8
