"""From ``ir.Model`` to ``ModelProto``, without copying a large weight.

onnx-ir writes the model while stand-ins take the place of large tensors, of tensors in files, and of those that it
would not write as they were. The outline is that proto, whole but for the data of those tensors, with a list of
where each belongs.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.graph.sparse import SparseTensor
from optimizer.io.external_data import byte_count
from optimizer.io.protos import preserved
from optimizer.io.protos.ir_places import IrPlaces, anatomy, replace_tensor, tensor_proto

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optimizer.io.protos.ir_places import ScopeProto

SMALL = 1024  # bytes; smaller tensors are always inline: shape inference needs them, and it takes less room
STAND_IN = "#"  # location of a tensor whose data is not here; the checker looks for no file under such a name


@dataclass(frozen=True)
class Placeholder:
    """A tensor of the outline without data: its message in the proto, and the tensor that belongs there."""

    message: onnx.TensorProto
    tensor: ir.TensorProtocol
    is_main_initializer: bool

    def fill(self) -> None:
        """Write the data into the message."""
        fill(self.message, self.tensor)


@dataclass(frozen=True)
class Skeleton:
    """A model as a proto, and its tensors whose data was left out."""

    proto: onnx.ModelProto
    placeholders: Sequence[Placeholder]


@dataclass(frozen=True)
class SkeletonDraft:
    """What onnx-ir wrote: before anything was put back."""

    proto: onnx.ModelProto
    parts: IrPlaces
    scopes: list[ScopeProto]
    initializers: list[tuple[int, int, ir.Value, ir.TensorProtocol]]


def skeleton_of(model: ir.Model, limit: int = SMALL) -> Skeleton:
    """The proto of ``model`` without the data of initializers of more than ``limit`` bytes, and of tensors in files.

    Raises:
        ModelError: If the model cannot be written.
    """
    return finish(model, draft(model, limit), limit)


def draft(model: ir.Model, limit: int = SMALL) -> SkeletonDraft:
    """Let onnx-ir write ``model`` with stand-ins."""
    parts = anatomy(model)
    with _stand_ins(parts, limit) as initializers:
        try:
            proto = ir.to_proto(model)
        except (ir.serde.SerdeError, ValueError, TypeError) as error:
            raise ModelError(f"cannot be written: {root_cause(error)}; correct it") from error
    return SkeletonDraft(proto, parts, parts.protos(proto), initializers)


def finish(model: ir.Model, drafted: SkeletonDraft, limit: int = SMALL) -> Skeleton:
    """Put back into a draft what onnx-ir dropped, and the tensors that it would have changed."""
    found = [
        Placeholder(drafted.scopes[number].initializer[index], tensor, number == 0)
        for number, index, _, tensor in drafted.initializers
    ]
    found += [
        Placeholder(tensor_proto(drafted.scopes, place), tensor, is_main_initializer=False)
        for place, _, _, tensor in drafted.parts.tensors
        if isinstance(tensor, ir.ExternalTensor) or _is_changed(tensor)
    ]
    preserved.restore(model, drafted.proto, drafted.scopes, drafted.parts)
    stubs = []
    for stub in found:
        if isinstance(stub.tensor, SparseTensor):
            continue
        if isinstance(stub.tensor, ir.ExternalTensor) or _size(stub.tensor) > limit:
            stubs.append(stub)
        else:
            stub.fill()
    _put_back_sparse(drafted)
    return Skeleton(drafted.proto, stubs)


def fill(message: onnx.TensorProto, tensor: ir.TensorProtocol) -> None:
    """Write ``tensor`` into ``message``, which has its name already; a tensor from a proto is written as it was."""
    name = message.name
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        message.CopyFrom(tensor.raw)
    else:
        message.ClearField("external_data")
        message.ClearField("data_location")
        message.raw_data = tensor.tobytes()
    if name:
        message.name = name
    else:
        message.ClearField("name")


def root_cause(error: BaseException) -> str:
    """The message of the first error of a chain, shortened; the later ones quote whole graphs."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UnicodeDecodeError):
        return f"a name or text is not UTF-8, {error.object[:40]!r}"
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def _stand_ins(parts: IrPlaces, limit: int) -> Iterator[list[tuple[int, int, ir.Value, ir.TensorProtocol]]]:
    """Put stand-ins into the model, and the tensors back at the end; yields where the initializers were."""
    initializers: list[tuple[int, int, ir.Value, ir.TensorProtocol]] = []
    attributes: list[tuple[ir.Node, ir.Attr]] = []
    try:
        for number, graph in enumerate(parts.scopes):
            for index, value in enumerate(graph.initializers.data.values()):
                tensor = value.const_value
                if tensor is None:
                    raise ModelError(f"initializer {value.name!r} has no data; give it some, or make it an input")
                if not _is_written_as_is(tensor, value.name, limit):
                    initializers.append((number, index, value, tensor))
                    value.const_value = _stand_in(tensor, value.name)
        for place, node, name, tensor in parts.tensors:
            if isinstance(tensor, SparseTensor):
                attributes.append((node, node.attributes[name]))
                replace_tensor(node, name, place.item, _stand_in(tensor, tensor.name))
        yield initializers
    finally:
        for _, _, value, tensor in initializers:
            value.const_value = tensor
        for node, attribute in reversed(attributes):
            node.attributes[attribute.name] = attribute


def _is_written_as_is(tensor: ir.TensorProtocol, name: str | None, limit: int) -> bool:
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        raw = tensor.raw
        if raw.name != name or raw.metadata_props:  # onnx-ir renames the caller's proto, and doubles the metadata
            return False
        return not raw.HasField("raw_data") or byte_count(raw) <= limit
    if isinstance(tensor, ir.ExternalTensor | SparseTensor):
        return False
    return isinstance(tensor, ir.StringTensor) or tensor.nbytes <= limit


def _is_changed(tensor: ir.TensorProtocol) -> bool:
    return isinstance(tensor, ir.serde.TensorProtoTensor) and bool(tensor.raw.metadata_props)


def _size(tensor: ir.TensorProtocol) -> int:
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        return byte_count(tensor.raw) if tensor.raw.HasField("raw_data") else 0
    return tensor.nbytes


def _stand_in(tensor: ir.TensorProtocol, name: str | None) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        STAND_IN,
        None,
        None,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) or None,
    )


def _put_back_sparse(drafted: SkeletonDraft) -> None:
    """Write sparse tensors as such; what stood in for them goes away."""
    for number, index, value, tensor in reversed(drafted.initializers):
        if isinstance(tensor, SparseTensor):
            graph = drafted.scopes[number]
            del graph.initializer[index]
            graph.sparse_initializer.insert(0, tensor.proto)
            graph.sparse_initializer[0].values.name = value.name
    for place, _, _, tensor in drafted.parts.tensors:
        if isinstance(tensor, SparseTensor):
            attribute = drafted.scopes[place.scope].node[place.node].attribute[place.attribute]
            if place.item < 0:
                attribute.ClearField("t")
                attribute.type = onnx.AttributeProto.SPARSE_TENSOR
                attribute.sparse_tensor.CopyFrom(tensor.proto)
                if drafted.scopes[place.scope].node[place.node].op_type == "Constant":
                    attribute.name = "sparse_value"
            else:
                attribute.ClearField("tensors")
                attribute.type = onnx.AttributeProto.SPARSE_TENSORS
                attribute.sparse_tensors.add().CopyFrom(tensor.proto)
