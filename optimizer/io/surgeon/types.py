"""Types, shapes and tensors as onnx-ir and as GraphSurgeon have them.

What a GraphSurgeon object was made from hangs on it as a ``Record``, together with the fields as they were shown. Where
a field still is what was shown, the original comes back, with all that GraphSurgeon has no place for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_graphsurgeon.importers.onnx_importer import get_numpy_type
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from optimizer.errors import PreconditionError
from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

RECORD = "_onnxhone_record"


@dataclass(frozen=True)
class Record:
    """What a GraphSurgeon object was made from, and what it showed then.

    Attributes:
        source: The value, node, graph or function of onnx-ir.
        shown: The fields as they were shown; what differs now was changed by the user.
        home: Of a Constant: the graph that held it.
    """

    source: Any
    shown: dict[str, Any] = field(default_factory=dict)
    home: Any = None


def record_of(gs_object: Any) -> Record | None:
    """The record that hangs on ``gs_object``, if it came from onnx-ir."""
    record = gs_object.__dict__.get(RECORD)
    return record if isinstance(record, Record) else None


class TensorValues(LazyValues):  # type: ignore[misc]  # GraphSurgeon ships no types
    """The values of a Constant that have not been read: a tensor of onnx-ir, not copied."""

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        self.source = tensor
        self.shape = [int(dim) for dim in tensor.shape.numpy()]
        self.dtype = gs_dtype(tensor.dtype)
        self.nbytes = tensor.nbytes

    @property
    def tensor(self) -> onnx.TensorProto:
        """The tensor as GraphSurgeon's own exporter wants it; a copy."""
        if self.source.dtype == ir.DataType.STRING:
            return onnx.TensorProto(data_type=8, dims=self.shape, string_data=list(self.source.numpy().flat))
        return onnx.TensorProto(data_type=int(self.source.dtype), dims=self.shape, raw_data=self.source.tobytes())

    def load(self) -> NDArray[Any]:
        """The values as an array that may be written to."""
        return array_of(self.source)


def array_of(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """A copy of the values; strings as Python strings, or as bytes where they are not UTF-8."""
    if tensor.dtype != ir.DataType.STRING:
        return np.array(tensor.numpy())
    texts = np.empty(tensor.size, dtype=object)
    for index, text in enumerate(tensor.string_data() if isinstance(tensor, ir.StringTensor) else tensor.numpy().flat):
        texts[index] = _decoded(text)
    return texts.reshape(tensor.shape.numpy())


def _decoded(text: bytes) -> str | bytes:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text


def tensor_of(constant: gs.Constant) -> ir.TensorProtocol:
    """The tensor of ``constant``: the one it came from if its values are the same, else a new one over its array.

    Raises:
        PreconditionError: If it holds something that is not a tensor.
    """
    values, record = constant._values, record_of(constant)  # noqa: SLF001 - ``values`` would load the weights
    original: ir.TensorProtocol | None = None if record is None else record.shown.get("tensor")
    if isinstance(values, TensorValues):
        return values.source
    if isinstance(values, SparseValues):
        return SparseTensor(values.tensor)
    if isinstance(values, LazyValues):
        return _from_proto(values.tensor, constant.name)
    array = np.asarray(values)
    wanted = constant._export_dtype  # noqa: SLF001 - the property falls back to the array's own
    if wanted is not None and ir_dtype(wanted) != ir_dtype(array.dtype):
        array = array.astype(ir_dtype(wanted).numpy())
    if original is not None and _holds(original, array):
        return original
    return from_array(array, constant.name)


def _from_proto(proto: onnx.TensorProto, name: str) -> ir.TensorProtocol:
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raise PreconditionError(
            f"the weights of '{name}' are in an external file; load them before importing the graph"
        )
    return ir.serde.deserialize_tensor(proto)


def from_array(array: NDArray[Any], name: str) -> ir.TensorProtocol:
    """A tensor over ``array``, which may hold strings."""
    if array.dtype.kind in "OSU":
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.flat]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape), name=name or None)
    return ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=ir_dtype(array.dtype), name=name or None)


def _holds(tensor: ir.TensorProtocol, array: NDArray[Any]) -> bool:
    if tuple(tensor.shape.numpy()) != array.shape or ir_dtype(array.dtype) != tensor.dtype:
        return False
    if tensor.dtype == ir.DataType.STRING:
        return bool(np.array_equal(array_of(tensor), array))
    return np.ascontiguousarray(tensor.numpy()).tobytes() == np.ascontiguousarray(array).tobytes()


def gs_dtype(dtype: ir.DataType) -> Any:
    """The dtype as GraphSurgeon shows it: numpy's, or the number of the ONNX type where it uses that."""
    numpy_type = get_numpy_type(int(dtype))
    return int(dtype) if numpy_type is None else numpy_type


def ir_dtype(dtype: Any) -> ir.DataType:
    """The ONNX type of a dtype that a user may give: numpy's, or the number of the ONNX type.

    Raises:
        PreconditionError: If there is none.
    """
    try:
        if isinstance(dtype, int):
            return ir.DataType(dtype)
        plain = np.dtype(dtype)
        return ir.DataType.STRING if plain.kind in "OSU" else ir.DataType.from_numpy(plain)
    except (TypeError, ValueError) as error:
        raise PreconditionError(f"{dtype!r} is no type that ONNX has; give a numpy dtype") from error


def shown_type(type_: ir.TypeProtocol | None) -> tuple[Any, str]:
    """The dtype and the kind of type that GraphSurgeon shows; no dtype for what it does not know."""
    match type_:
        case ir.TensorType():
            return gs_dtype(type_.dtype), "tensor_type"
        case ir.SparseTensorType():
            return gs_dtype(type_.dtype), "sparse_tensor_type"
        case ir.SequenceType(elem_type=ir.TensorType() as inner):
            return gs_dtype(inner.dtype), "sequence_type"
        case ir.OptionalType():
            return None, "optional_type"
    return None, "tensor_type"


def type_of(dtype: Any, type_name: str) -> ir.TypeProtocol | None:
    """The type of a tensor that the user made or changed."""
    if dtype is None:
        return None
    element = ir_dtype(dtype)
    if type_name == "sequence_type":
        return ir.SequenceType(ir.TensorType(element))
    return ir.SparseTensorType(element) if type_name == "sparse_tensor_type" else ir.TensorType(element)


def shown_shape(shape: ir.Shape | None) -> list[int | str | None] | None:
    """The shape as GraphSurgeon shows it."""
    return None if shape is None else [dim if isinstance(dim, int) else dim.value for dim in shape]


def shape_of(dims: Any) -> ir.Shape | None:
    """The shape of a tensor that the user made or changed; negative dimensions are unknown ones."""
    if dims is None:
        return None
    return ir.Shape([dim if isinstance(dim, str) or dim is None else _known(int(dim)) for dim in dims])


def _known(dim: int) -> int | None:
    return None if dim < 0 else dim
