"""Arrays in and out of ONNX Runtime, for the element types that numpy lacks as well.

bfloat16, the float8 and the 4-bit types have no numpy type, so ONNX Runtime's Python face refuses them. Here they are
arrays of ``ml_dtypes``, one element a number, and cross over as raw memory; 4-bit elements are packed two a byte on the
other side.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

_NAMES = {  # how ONNX Runtime spells element types, where it is not the ONNX name in small letters
    "float8e4m3fn": ir.DataType.FLOAT8E4M3FN,
    "float8e4m3fnuz": ir.DataType.FLOAT8E4M3FNUZ,
    "float8e5m2": ir.DataType.FLOAT8E5M2,
    "float8e5m2fnuz": ir.DataType.FLOAT8E5M2FNUZ,
    "float4e2m1": ir.DataType.FLOAT4E2M1,
}
_PLAIN = frozenset(
    {
        ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL, ir.DataType.STRING,
        ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
        ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
    }
)  # fmt: skip


def element_type(type_text: str) -> ir.DataType | None:
    """The element type in ``tensor(float)``, ``seq(tensor(float))`` …; ``None`` for maps and what is unknown."""
    if "map(" in type_text or "tensor(" not in type_text:
        return None
    name = type_text.rpartition("tensor(")[2].rstrip(")")
    return _NAMES.get(name) or getattr(ir.DataType, name.upper(), None)


def needs_ort_value(type_text: str) -> bool:
    """Whether ``type_text`` is a tensor of a type that numpy lacks, so that only an ``OrtValue`` can hold it."""
    dtype = element_type(type_text)
    return type_text.startswith("tensor(") and dtype is not None and dtype not in _PLAIN


def from_feed(value: Any, type_text: str) -> Any:
    """A value of a feed as ``InferenceSession.run`` takes it."""
    if value is None or isinstance(value, (list, tuple, dict)):
        return list(value) if isinstance(value, tuple) else value
    array = np.asarray(value)
    if needs_ort_value(type_text):
        return _from_raw(ir.Tensor(array, dtype=element_type(type_text)))
    return array


def wrap(value: Any) -> ort.OrtValue:
    """What ``from_feed`` gave, as a value for ``run_with_ort_values``."""
    import onnxruntime  # noqa: PLC0415 - heavy: loaded when something is run

    if isinstance(value, np.ndarray):
        return onnxruntime.OrtValue.ortvalue_from_numpy(value)
    return value


def from_tensor(tensor: ir.TensorProtocol) -> ort.OrtValue:
    """An initializer as a value over the tensor's own memory; 4-bit types and foreign byte orders are copied.

    A value that ONNX Runtime allocated itself may not be an initializer. Its Python face takes memory of one byte an
    element for a 4-bit type as well; the packed ones stand at its beginning and the rest is never touched.
    """
    import onnxruntime  # noqa: PLC0415 - heavy: loaded when something is run

    if tensor.dtype in _PLAIN:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor.numpy()))
    if tensor.dtype.bitwidth >= 8:
        array = np.ascontiguousarray(tensor.numpy())
        raw = array.view(np.dtype(f"u{array.itemsize}"))
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, int(tensor.dtype))
    buffer = np.empty(tensor.shape.numpy(), np.uint8)
    packed = np.frombuffer(tensor.tobytes(), np.uint8)
    buffer.reshape(-1)[: packed.size] = packed
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(buffer, int(tensor.dtype))


def _from_raw(tensor: ir.TensorProtocol) -> ort.OrtValue:
    """A copy of ``tensor`` in memory of ONNX Runtime's own, 4-bit elements packed as it packs them."""
    import onnxruntime  # noqa: PLC0415 - heavy: loaded when something is run

    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(tensor.shape.numpy()), int(tensor.dtype))
    data = tensor.tobytes()
    ctypes.memmove(value.data_ptr(), data, len(data))
    return value


def to_numpy(value: ort.OrtValue) -> NDArray[np.generic] | None:
    """A tensor out of ``run_with_ort_values`` as an array, of ``ml_dtypes`` where numpy lacks its type."""
    if not value.has_value():
        return None
    dtype = ir.DataType(value.element_type())
    packed = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return _unpack(packed, dtype, tuple(value.shape()))


def _unpack(packed: bytes, dtype: ir.DataType, shape: tuple[int, ...]) -> NDArray[np.generic]:
    if dtype.bitwidth >= 8:
        return np.frombuffer(packed, dtype.numpy()).reshape(shape)
    return ir.PackedTensor(np.frombuffer(packed, np.uint8), dtype, shape=ir.Shape(shape)).numpy()
