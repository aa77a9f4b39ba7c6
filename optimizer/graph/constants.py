"""Constants that a rewrite replaces: who else reads them, what they may become, what they cost.

A fused weight is computed in double precision and rounded once. It is refused where rounding would lose more than
that: when an element overflows, or when a whole output channel sinks among the denormal numbers of its type.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer import graph
from optimizer.graph import file_size, sparse_storage
from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})


def reader(value: ir.Value | None) -> ir.Node | None:
    """The node that alone reads ``value``, and reads it once; ``None`` if it is a graph output or read more often."""
    if value is None or value.is_graph_output():
        return None
    return next(iter(value.uses())).node if graph.use_count(value) == 1 else None


def is_private(value: ir.Value, readers: Collection[ir.Node]) -> bool:
    """Whether nobody but ``readers`` would miss the constant ``value``."""
    if value.is_graph_output() or value.is_graph_input():
        return False
    return all(use.node in readers for use in value.uses())


def shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of ``value`` if every dimension is known; that of a constant is, shape inference or not."""
    tensor = graph.constant_tensor(value)
    return graph.static_shape(value) if tensor is None else tuple(tensor.shape.numpy())


def float_array(value: ir.Value | None) -> NDArray[np.floating] | None:
    """The constant behind ``value`` if it is of a float type that is folded (16, 32 or 64 bits)."""
    tensor = graph.constant_tensor(value)
    if tensor is None or tensor.dtype not in FLOATS:
        return None
    array: NDArray[np.floating] = tensor.numpy()
    return array


def per_channel(value: ir.Value | None, axis: int, channels: int, rank: int | None) -> NDArray[np.float64] | None:
    """The float constant ``value`` as one number, or one for each channel, if it broadcasts so and enlarges nothing.

    Returns:
        An array of shape () or (channels,).
    """
    known = shape(value)
    if known is None or len(known) > (1 if rank is None else rank) or math.prod(known) not in {1, channels}:
        return None
    array = float_array(value)
    if array is None:
        return None
    exact = array.astype(np.float64)
    if array.size == 1:
        return exact.reshape(())
    if rank is None:
        return exact if axis == -1 else None
    from_end = rank - axis % rank
    if array.ndim < from_end or array.shape[-from_end] != channels:
        return None
    return exact.reshape(channels)


def rounded(
    exact: NDArray[np.float64], kind: np.dtype[np.floating], axis: int | None = None
) -> NDArray[np.floating] | None:
    """``exact`` in the type ``kind``, or ``None`` if that loses more than one rounding.

    Args:
        exact: The values in double precision.
        kind: The float type to round to.
        axis: The axis of the channels, each of which has to keep its precision; ``None``: the whole has to.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = exact.astype(kind)
    if not np.isfinite(result).all():
        return None
    others = None if axis is None else tuple(i for i in range(exact.ndim) if i != axis)
    peaks = np.abs(exact).max(axis=others, initial=0.0)
    per_channel = exact.size // max(peaks.size, 1)
    floor = float(np.finfo(kind).tiny) * per_channel**0.5
    return result if bool(np.all((peaks == 0) | (peaks >= floor))) else None


def rewrite(value: ir.Value, array: NDArray[np.generic]) -> None:
    """Give the constant ``value`` new data; all its readers see it. What is stored sparse stays so where it can.

    Raises:
        ValueError: If ``value`` is neither an initializer nor the output of a Constant node.
    """
    tensor = ir.tensor(array, name=value.name)
    producer = value.producer()
    if value.is_initializer():
        is_sparse = isinstance(value.const_value, SparseTensor) and tensor.dtype in sparse_storage.TYPES
        listed = sparse_storage.listed(tensor, value.name) if is_sparse else None
        value.const_value = tensor if listed is None else listed
    elif producer is not None and graph.is_standard(producer, "Constant"):
        producer.attributes.clear()
        producer.attributes.add(ir.AttrTensor("value", tensor))
    else:
        raise ValueError(f"{value.name} is no constant")
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)


def constant_bytes(value: ir.Value) -> int:
    """How many bytes the constant ``value`` takes in a file."""
    producer = value.producer()
    if producer is not None:
        return file_size.node_bytes(producer)
    tensor = graph.constant_tensor(value)
    return 0 if tensor is None else file_size.tensor_bytes(tensor, value.name)
