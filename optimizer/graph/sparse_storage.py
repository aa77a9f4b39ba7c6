"""Initializers stored as a list of what is not zero, where that takes fewer bytes.

A value costs its own bytes and 8 for its place, a number in row-major order: with 32 bits, that is smaller than dense
from two thirds of zeros on. ONNX Runtime makes it dense when it loads the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from optimizer.graph import file_size
from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        made = listed(tensor, value.name)
        if made is not None:
            value.const_value = made
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
