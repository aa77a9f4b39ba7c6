"""Constants that a rewrite replaces: who else reads them, what they may become, what they cost.

A fused weight is computed in double precision and rounded once. It is refused where rounding would lose more than
that: when an element overflows, or when a whole output channel sinks among the denormal numbers of its type.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.graph import file_size, queries, tensors
from optimizer.graph.queries import is_standard
from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})
_MOST_INTS = 1024  # what is longer is no shape, no axes and no index


def is_only_read_by(value: ir.Value, readers: Collection[ir.Node]) -> bool:
    """Whether nobody but ``readers`` would miss the constant ``value``."""
    if value.is_graph_output() or value.is_graph_input():
        return False
    return all(use.node in readers for use in value.uses())


def known_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of ``value`` if every dimension is known; that of a constant is, shape inference or not."""
    tensor = constant_tensor(value)
    return queries.static_shape(value) if tensor is None else tuple(tensor.shape.numpy())


def float_array(value: ir.Value | None) -> NDArray[np.floating] | None:
    """The constant behind ``value`` if it is of a float type that is folded (16, 32 or 64 bits)."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype not in FLOATS:
        return None
    array: NDArray[np.floating] = tensor.numpy()
    return array


def per_channel(value: ir.Value | None, axis: int, channels: int, rank: int | None) -> NDArray[np.float64] | None:
    """The float constant ``value`` as one number, or one for each channel, if it broadcasts so and enlarges nothing.

    Returns:
        An array of shape () or (channels,).
    """
    sizes = known_shape(value)
    if sizes is None or len(sizes) > (1 if rank is None else rank) or math.prod(sizes) not in {1, channels}:
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


def round_once(
    exact: NDArray[np.float64], dtype: np.dtype[np.floating], axis: int | None = None
) -> NDArray[np.floating] | None:
    """``exact`` in the type ``dtype``, or ``None`` if that loses more than one rounding.

    Args:
        exact: The values in double precision.
        dtype: The float type to round to.
        axis: The axis of the channels, each of which has to keep its precision; ``None``: the whole has to.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = np.asarray(exact, dtype=dtype)  # an array even where arithmetic made a scalar of one of rank 0
    if not np.isfinite(result).all():
        return None
    others = None if axis is None else tuple(i for i in range(exact.ndim) if i != axis)
    peaks = np.abs(exact).max(axis=others, initial=0.0)
    per_channel = exact.size // max(peaks.size, 1)
    floor = float(np.finfo(dtype).tiny) * per_channel**0.5
    return result if bool(np.all((peaks == 0) | (peaks >= floor))) else None


def add_initializer(graph: ir.Graph, name: str, content: NDArray[np.generic] | ir.TensorProtocol) -> ir.Value:
    """A new initializer of ``graph`` that holds ``content``; ``name`` is free."""
    tensor = ir.tensor(content, name=name) if isinstance(content, np.ndarray | np.generic) else content
    tensor_type, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, type=tensor_type, shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def set_array(value: ir.Value, array: NDArray[np.generic]) -> None:
    """Give the constant ``value`` new data; all its readers see it. What is stored sparse stays so where it can.

    Raises:
        ValueError: If ``value`` is neither an initializer nor the output of a Constant node.
    """
    tensor = tensor_to_store(value, array)
    producer = value.producer()
    if value.is_initializer():
        value.const_value = tensor
    elif producer is not None and queries.is_standard(producer, "Constant"):
        producer.attributes.clear()
        producer.attributes.add(ir.AttrTensor("value", tensor))
    else:
        raise ValueError(f"{value.name} is no constant")
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)


def tensor_to_store(value: ir.Value, array: NDArray[np.generic]) -> ir.TensorProtocol:
    """The tensor that the constant ``value`` holds if it gets the data ``array``: sparse if it was, where it can be."""
    tensor = ir.Tensor(array, name=value.name)
    is_sparse = isinstance(value.const_value, SparseTensor) and tensor.dtype in tensors.TYPES
    listed = tensors.listed(tensor, value.name) if is_sparse and value.is_initializer() else None
    return tensor if listed is None else listed


def constant_bytes(value: ir.Value) -> int:
    """How many bytes the constant ``value`` takes in a file."""
    producer = value.producer()
    if producer is not None:
        return file_size.node_bytes(producer)
    tensor = constant_tensor(value)
    return 0 if tensor is None else file_size.tensor_bytes(tensor, value.name)


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of ``value`` if it is known before any run: an initializer or the output of a Constant node.

    Initializers that are also inputs are no constants, since a caller may override them.
    """
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if producer is None or not is_standard(producer, "Constant"):
        return None
    return _constant_node_tensor(producer)


def _constant_node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    if len(node.attributes) != 1:
        return None
    name, attribute = next(iter(node.attributes.items()))
    if attribute.is_ref():
        return None
    match name:
        case "value":
            tensor: ir.TensorProtocol = attribute.value  # as_tensor looks at each member of the protocol
            return tensor
        case "value_float" | "value_floats":
            return ir.Tensor(np.array(attribute.value, dtype=np.float32))
        case "value_int" | "value_ints":
            return ir.Tensor(np.array(attribute.value, dtype=np.int64))
        case "value_string":
            return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
        case "value_strings":
            return ir.StringTensor([text.encode() for text in attribute.as_strings()])
    return None


def constant_array(value: ir.Value | None, max_elements: int | None = None) -> NDArray[np.generic] | None:
    """The constant behind ``value`` as an array that must not be written to, or ``None``.

    Args:
        value: Any value of the graph.
        max_elements: Larger constants count as unknown, so that no weight is read only to be looked at.
    """
    tensor = constant_tensor(value)
    if tensor is None or (max_elements is not None and tensor.size > max_elements):
        return None
    return tensor.numpy()


def constant_ints(value: ir.Value | None) -> list[int] | None:
    """The constant behind ``value`` as a flat list of integers; ``None`` if it is no small integer constant."""
    array = constant_array(value, _MOST_INTS)
    if array is None or array.dtype.kind not in "iu":
        return None
    return [int(element) for element in array.ravel()]
