"""From ``ir.Model`` to ``ModelProto``, without copying a large weight.

onnx-ir writes the model while placeholders take the place of large tensors, of tensors in files, and of those that it
would not write as they were. The skeleton is that proto, whole but for the data of those tensors, with a list of
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
from optimizer.io.protos.ir_places import IrPlaces, ir_places_of, replace_tensor, tensor_proto

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optimizer.io.protos.ir_places import ScopeProto

SMALL = 1024  # bytes; smaller tensors are always inline: shape inference needs them, and it takes less room
PLACEHOLDER_LOCATION = "#"  # of a tensor whose data is not here; the checker looks for no file under such a name


@dataclass(frozen=True)
class Placeholder:
    """A tensor of the skeleton without data: its message in the proto, and the tensor that belongs there."""

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
    """What onnx-ir wrote, before anything is restored.

    Attributes:
        proto: The model as onnx-ir wrote it.
        places: Where its graphs and tensors are.
        scopes: The graphs and functions of ``proto``, numbered as in ``places``.
        initializers: Those that are placeholders in ``proto``: number of the scope, index in it, value, tensor.
    """

    proto: onnx.ModelProto
    places: IrPlaces
    scopes: list[ScopeProto]
    initializers: list[tuple[int, int, ir.Value, ir.TensorProtocol]]


def skeleton_of(model: ir.Model, limit: int = SMALL) -> Skeleton:
    """The proto of ``model`` without the data of initializers of more than ``limit`` bytes, and of tensors in files.

    Raises:
        ModelError: If the model cannot be written.
    """
    return finish(model, draft(model, limit), limit)


def draft(model: ir.Model, limit: int = SMALL) -> SkeletonDraft:
    """Let onnx-ir write ``model`` with placeholders."""
    places = ir_places_of(model)
    with _with_placeholders(places, limit) as initializers:
        try:
            proto = ir.to_proto(model)
        except (ir.serde.SerdeError, ValueError, TypeError) as error:
            raise ModelError(f"cannot be written: {root_cause(error)}; correct it") from error
    return SkeletonDraft(proto, places, places.protos(proto), initializers)


def finish(model: ir.Model, drafted: SkeletonDraft, limit: int = SMALL) -> Skeleton:
    """Restore in a draft what onnx-ir dropped, and the tensors that it would have changed."""
    # 1. Placeholders that were written, and tensors in attributes that onnx-ir does not write as they are
    candidates = [
        Placeholder(drafted.scopes[number].initializer[index], tensor, number == 0)
        for number, index, _, tensor in drafted.initializers
    ]
    candidates += [
        Placeholder(tensor_proto(drafted.scopes, place), tensor, is_main_initializer=False)
        for place, _, _, tensor in drafted.places.tensors
        if isinstance(tensor, ir.ExternalTensor) or _would_be_changed(tensor)
    ]
    # 2. What onnx-ir dropped
    preserved.restore(model, drafted.proto, drafted.scopes, drafted.places)
    # 3. Small tensors are written, large ones and those in files stay placeholders
    placeholders = []
    for placeholder in candidates:
        if isinstance(placeholder.tensor, SparseTensor):
            continue
        if isinstance(placeholder.tensor, ir.ExternalTensor) or _size(placeholder.tensor) > limit:
            placeholders.append(placeholder)
        else:
            placeholder.fill()
    # 4. Sparse tensors. After 1., which goes by index: they leave the list of initializers
    _restore_sparse(drafted)
    return Skeleton(drafted.proto, placeholders)


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
def _with_placeholders(places: IrPlaces, limit: int) -> Iterator[list[tuple[int, int, ir.Value, ir.TensorProtocol]]]:
    """Put placeholders into the model, and the tensors back at the end.

    Yields:
        The initializers that are placeholders: number of the scope, index in it, value, tensor.
    """
    initializers: list[tuple[int, int, ir.Value, ir.TensorProtocol]] = []
    attributes: list[tuple[ir.Node, ir.Attr]] = []
    try:
        for number, graph in enumerate(places.scopes):
            for index, value in enumerate(graph.initializers.data.values()):
                tensor = value.const_value
                if tensor is None:
                    raise ModelError(f"initializer {value.name!r} has no data; give it some, or make it an input")
                if not _is_written_as_is(tensor, value.name, limit):
                    initializers.append((number, index, value, tensor))
                    value.const_value = _placeholder(tensor, value.name)
        for place, node, name, tensor in places.tensors:
            if isinstance(tensor, SparseTensor):
                attributes.append((node, node.attributes[name]))
                replace_tensor(node, name, place.element, _placeholder(tensor, tensor.name))
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


def _would_be_changed(tensor: ir.TensorProtocol) -> bool:
    return isinstance(tensor, ir.serde.TensorProtoTensor) and bool(tensor.raw.metadata_props)


def _size(tensor: ir.TensorProtocol) -> int:
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        return byte_count(tensor.raw) if tensor.raw.HasField("raw_data") else 0
    return tensor.nbytes


def _placeholder(tensor: ir.TensorProtocol, name: str | None) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        PLACEHOLDER_LOCATION,
        None,
        None,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) or None,
    )


def _restore_sparse(drafted: SkeletonDraft) -> None:
    """Write sparse tensors as such; their placeholders go away."""
    # From the end, so that the indices of those in front stay right
    for number, index, value, tensor in reversed(drafted.initializers):
        if isinstance(tensor, SparseTensor):
            graph = drafted.scopes[number]
            del graph.initializer[index]
            graph.sparse_initializer.insert(0, tensor.proto)
            graph.sparse_initializer[0].values.name = value.name
    for place, _, _, tensor in drafted.places.tensors:
        if isinstance(tensor, SparseTensor):
            attribute = drafted.scopes[place.scope].node[place.node].attribute[place.attribute]
            if place.element < 0:
                attribute.ClearField("t")
                attribute.type = onnx.AttributeProto.SPARSE_TENSOR
                attribute.sparse_tensor.CopyFrom(tensor.proto)
                if drafted.scopes[place.scope].node[place.node].op_type == "Constant":
                    attribute.name = "sparse_value"
            else:
                attribute.ClearField("tensors")
                attribute.type = onnx.AttributeProto.SPARSE_TENSORS
                attribute.sparse_tensors.add().CopyFrom(tensor.proto)
