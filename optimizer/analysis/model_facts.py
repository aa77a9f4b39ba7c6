"""Measured facts of a model: its size, its nodes, its parameters, its work. Those that read weights stand apart.

*Parameters* are the elements of the constants (initializers and Constant nodes, anywhere in the model) that are
floating, of 8 bits or fewer, or the data of a DequantizeLinear; scales and zero points are among them, truth values
are not. A constant that several nodes read counts once; copies in a file count each.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.analysis.macs import count_macs
from optimizer.graph import constants, queries, traversal
from optimizer.graph.sparse import SparseTensor
from optimizer.io import tensor_contents
from optimizer.io.model import byte_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

_PATTERNS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_TWO_ZEROS = {
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.FLOAT8E5M2,
}


@dataclass(frozen=True)
class Facts:
    """What a model is, measured.

    Attributes:
        bytes: Of the files that saving would write, external data included.
        nodes: In subgraphs and functions too.
        ops: Nodes by operator, sorted; those outside the standard are written ``domain.Op``.
        parameters: Elements of the weights, see the module.
        macs: Multiply-accumulates of one inference, unknown dimensions as 1; ``None`` if no shape is known.
        opsets: Versions by domain, sorted.
        ir_version: Of the file format.
        producer: Name and version of what wrote the model.
        inputs: Name, type and shape of each; initializers that could be overridden are not among them.
        outputs: Name, type and shape of each.
    """

    bytes: int
    nodes: int
    ops: Mapping[str, int]
    parameters: int
    macs: int | None
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class WeightFacts:
    """Facts for which every weight must be read.

    Attributes:
        zeros: Zero elements among the parameters, of either sign.
        elements: All elements of the parameters.
        duplicate_tensors: Constants that equal an earlier one in type, shape and bytes.
        duplicate_bytes: Their bytes.
    """

    zeros: int
    elements: int
    duplicate_tensors: int
    duplicate_bytes: int


def facts(model: ir.Model) -> Facts:
    """Measure ``model``, which is not changed, without reading its weights."""
    return Facts(
        bytes=byte_size(model),
        nodes=traversal.count_nodes(model),
        ops=_count_ops(model),
        parameters=sum(tensor.size for tensor in parameters(model)),
        macs=count_macs(model),
        opsets=dict(sorted(model.opset_imports.items())),
        ir_version=model.ir_version or 0,
        producer=" ".join(text for text in (model.producer_name, model.producer_version) if text),
        inputs=_slots(value for value in model.graph.inputs if not queries.is_overridable(value)),
        outputs=_slots(model.graph.outputs),
    )


def weight_facts(model: ir.Model) -> WeightFacts:
    """Read all weights of ``model``, as a stream.

    Raises:
        ModelError: If external data cannot be read.
    """
    tensors = [tensor for _, tensor in constants_of(model) if not isinstance(tensor, SparseTensor)]
    learned = list(parameters(model))
    repeated = [tensors[index] for index in _repeated(tensors)]
    return WeightFacts(
        zeros=sum(count_zeros(tensor) for tensor in learned),
        elements=sum(tensor.size for tensor in learned),
        duplicate_tensors=len(repeated),
        duplicate_bytes=sum(tensor.nbytes for tensor in repeated),
    )


def constants_of(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Every initializer and every output of a Constant node, with its tensor; overridable inputs too."""
    for graph in traversal.graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value, value.const_value
        for node in graph:
            tensor = constants.constant_tensor(node.outputs[0]) if queries.is_standard(node, "Constant") else None
            if tensor is not None:
                yield node.outputs[0], tensor


def parameters(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """The constants that hold what was learned, see the module."""
    for value, tensor in constants_of(model):
        if tensor.dtype in {ir.DataType.STRING, ir.DataType.BOOL}:
            continue
        if tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8 or _is_dequantized(value):
            yield tensor


def count_zeros(tensor: ir.TensorProtocol) -> int:
    """Elements of ``tensor`` that are zero of either sign; external data is read as a stream.

    Raises:
        ModelError: If external data cannot be read.
    """
    if isinstance(tensor, SparseTensor):
        return tensor.size - int(np.prod(tensor.proto.values.dims, dtype=np.int64))
    # Types without an array of their own width in numpy, or (E8M0) without a zero, are counted as numbers
    width = tensor.dtype.bitwidth
    if width not in _PATTERNS or tensor.dtype == ir.DataType.FLOAT8E8M0:
        return tensor.size - int(np.count_nonzero(tensor.numpy()))
    has_sign_bit = tensor.dtype in _TWO_ZEROS
    patterns = (np.frombuffer(chunk, _PATTERNS[width]) for chunk in tensor_contents.chunks(tensor))
    return tensor.size - sum(_count_nonzero(pattern, has_sign_bit=has_sign_bit) for pattern in patterns)


def _count_nonzero(patterns: NDArray[np.unsignedinteger], *, has_sign_bit: bool) -> int:
    # +0 and -0 differ in the sign bit alone, the highest one: shifted out, both are 0
    return int(np.count_nonzero(patterns << 1 if has_sign_bit else patterns))


def _repeated(tensors: list[ir.TensorProtocol]) -> Iterator[int]:
    """Indices of tensors that equal an earlier one in type, shape and bytes."""
    # A group is of equal type and bytes; of each shape in it, the first is the original
    for group in tensor_contents.equal_groups(tensors):
        seen = set()
        for index in group:
            shape = tuple(tensors[index].shape.numpy())
            if shape in seen:
                yield index
            seen.add(shape)


def _is_dequantized(value: ir.Value) -> bool:
    return any(queries.is_standard(use.node, "DequantizeLinear") and use.idx == 0 for use in value.uses())


def _count_ops(model: ir.Model) -> dict[str, int]:
    counts = Counter(
        node.op_type if queries.is_standard(node) else f"{node.domain}.{node.op_type}"
        for node in traversal.nodes(model)
    )
    return dict(sorted(counts.items()))


def _slots(values: Iterable[ir.Value]) -> tuple[tuple[str, str, str], ...]:
    return tuple((value.name or "", _type_name(value.type), _shape_text(value.shape)) for value in values)


def _shape_text(shape: ir.Shape | None) -> str:
    if shape is None:
        return "?"
    dims = (str(dim) if isinstance(dim, int) else dim.value or "?" for dim in shape)
    return f"[{', '.join(dims)}]"


def _type_name(type_: ir.TypeProtocol | None) -> str:
    """The type as ONNX Runtime writes it."""
    match type_:
        case ir.SequenceType():
            return f"seq({_type_name(type_.elem_type)})"
        case ir.OptionalType():
            return f"optional({_type_name(type_.elem_type)})"
        case ir.SparseTensorType():
            return f"sparse_tensor({type_.dtype.name.lower()})"
        case ir.TensorType():
            return f"tensor({type_.dtype.name.lower()})"
    return "?"
