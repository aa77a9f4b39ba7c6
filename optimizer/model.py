"""Models in and out: whatever a user has goes in; it comes back as the same kind, or as files that appear whole.

Weights are never copied on the way: those in external files stay mapped and are streamed into the new file. A model whose
tensors were external is written so, as ``NAME`` and ``NAME.<digest>.data``: the data file is named after its content, so
that the old pair of files stays whole until the new model file takes the old one's place. An inline model stays
inline unless it would not fit into one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx
import onnx_ir as ir

from optimizer import graph, keeping
from optimizer.anatomy import anatomy, replace_tensor
from optimizer.atomic import draft, folder_lock, replaceable
from optimizer.errors import ModelError
from optimizer.external import DataFolder, location_of
from optimizer.reading import MOST_BYTES, check_proto, parse, read_file

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["path", "bytes", "proto", "ir", "surgeon", "holder"]
INLINE_BYTES = 1024  # smaller tensors are inline in any case: shape inference must see them
_REMEDY = "export the model again, or repair it"


@dataclass(frozen=True)
class Source:
    """A model as it was given.

    Attributes:
        model: The model.
        kind: What it was given as.
        path: Its file, if it was given as a path.
        label: What messages call it.
    """

    model: ir.Model
    kind: Kind
    path: Path | None
    label: str


def load(source: Any) -> ir.Model:
    """The model in ``source``: a path, bytes, ``ModelProto``, ``onnx_ir.Model``, ``gs.Graph``, or a holder of one.

    Raises:
        ModelError: With one line: file, finding, remedy.
    """
    return ingest(source).model


def ingest(source: Any) -> Source:
    """The model in ``source``, and what it was given as; ``source`` is never changed.

    Raises:
        ModelError: With one line: file, finding, remedy.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return Source(_from_bytes(read_file(path), str(path), path.parent), "path", path, path.name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Source(_from_bytes(bytes(source), "model", None), "bytes", None, "model")
    if isinstance(source, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        return Source(_from_proto(proto, "model", None), "proto", None, "model")
    if isinstance(source, ir.Model):
        return Source(_checked(clone(source), "model"), "ir", None, "model")
    if type(source).__module__.startswith("onnx_graphsurgeon"):
        from optimizer import surgeon  # noqa: PLC0415 - only where a gs.Graph comes in

        return Source(_checked(surgeon.from_graph(source), "model"), "surgeon", None, "model")
    for attribute in ("model", "model_proto"):
        inner = getattr(source, attribute, None)
        if isinstance(inner, (ir.Model, onnx.ModelProto)):
            return Source(ingest(inner).model, "holder", None, "model")
    raise ModelError(
        f"{type(source).__name__} is no model; give a path, bytes, ModelProto, onnx_ir.Model, gs.Graph or ONNXProgram"
    )


def give_back(model: ir.Model, source: Source) -> Any:
    """``model`` as the kind that ``source`` was given as; paths and holders give an ``ir.Model``."""
    match source.kind:
        case "bytes":
            return to_proto(model).SerializeToString()
        case "proto":
            return to_proto(model)
        case "surgeon":
            from optimizer import surgeon  # noqa: PLC0415 - only where a gs.Graph came in

            return surgeon.to_graph(model)
    return model


def clone(model: ir.Model) -> ir.Model:
    """A copy of the graph that shares all tensors; never write into a tensor's array."""
    copy = model.clone()
    copy.meta.update(model.meta)
    return copy


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The whole model as a proto; external tensors are references into their files."""
    return keeping.to_proto(model)


def skeleton(model: ir.Model, limit: int = INLINE_BYTES) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The proto without the main graph's initializers above ``limit`` bytes, which are external stubs in it.

    Returns:
        The proto, and the tensors that it leaves out, by name.
    """
    left_out: dict[str, ir.TensorProtocol] = {}

    def stub(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
        if name is None or tensor.nbytes <= limit:
            return _inline(tensor)
        left_out[name] = tensor
        return ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=_shape(tensor), name=name)

    return to_proto(_with_tensors(model, stub)), left_out


def check_structure(model: ir.Model) -> None:
    """Check ``model`` by ``onnx.checker``, with the large weights left out.

    Raises:
        ModelError: With the checker's finding on one line.
    """

    def empty(tensor: ir.TensorProtocol, _name: str | None) -> ir.TensorProtocol:
        if tensor.nbytes <= INLINE_BYTES or tensor.dtype == ir.DataType.STRING:
            return _inline(tensor)
        return ir.from_proto(onnx.TensorProto(name=tensor.name or "", data_type=int(tensor.dtype), dims=[0]))

    try:
        onnx.checker.check_model(to_proto(_with_tensors(model, empty)))
    except onnx.checker.ValidationError as error:
        raise ModelError(_first_line(error)) from error
    except (ValueError, RuntimeError) as error:
        raise ModelError(_first_line(error)) from error


def byte_size(model: ir.Model) -> int:
    """How many bytes ``save`` would write, data file included."""
    if _is_inline(model):
        return to_proto(model).ByteSize()
    proto, tensors = _hollowed(model, f"x.{'0' * 12}.data")
    return proto.ByteSize() + _layout(tensors)[1]


def save(model: ir.Model, path: str | os.PathLike[str]) -> list[Path]:
    """Write ``model`` to ``path``, whole or not at all, data file included; the source may be overwritten.

    Returns:
        The files that were written.

    Raises:
        ModelError: If the place cannot be written to.
    """
    target = replaceable(path)
    if _is_inline(model):
        content = to_proto(model).SerializeToString()
        with draft(target) as written:
            written.file.write(content)
            written.publish(target)
        return [target]
    return _save_external(model, target)


def _save_external(model: ir.Model, target: Path) -> list[Path]:
    tensors = _hollowed(model, "")[1]
    with draft(target) as data, folder_lock(target.parent):
        digest = _stream(tensors, data.file.write)
        data_path = target.with_name(f"{target.name}.{digest[:12]}.data")
        content = _hollowed(model, data_path.name)[0].SerializeToString()
        replaced = _own_data_files(target)
        data.publish(data_path)
        with draft(target) as written:
            written.file.write(content)
            written.publish(target)
        for old in replaced - {data_path}:
            old.unlink(missing_ok=True)
    return [target, data_path]


def _own_data_files(target: Path) -> set[Path]:
    """Data files that only the model at ``target`` refers to, going by their names."""
    if not target.is_file():
        return set()
    with contextlib.suppress(ModelError, OSError):
        proto = parse(target.read_bytes(), str(target))
        names = {
            entry.value
            for scope in keeping.graph_protos(proto)
            if isinstance(scope, onnx.GraphProto)
            for tensor in scope.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        return {
            target.with_name(name) for name in names if name.startswith(f"{target.name}.") and name.endswith(".data")
        }
    return set()


def _stream(tensors: list[ir.TensorProtocol], write: Callable[[bytes | memoryview], object]) -> str:
    """Write all tensors at their places; returns the digest of the whole."""
    digest, position = hashlib.sha256(), 0

    class Sink:
        """A file to ``tofile``: hashes what passes through."""

        def write(self, chunk: bytes | memoryview) -> int:
            digest.update(chunk)
            write(chunk)
            return len(chunk)

    sink = Sink()
    for tensor, offset in zip(tensors, _layout(tensors)[0], strict=True):
        sink.write(b"\0" * (offset - position))
        if isinstance(tensor, ir.ExternalTensor):
            tensor.tofile(sink)
        else:
            sink.write(tensor.tobytes())
        position = offset + tensor.nbytes
    return digest.hexdigest()


def _layout(tensors: list[ir.TensorProtocol]) -> tuple[list[int], int]:
    """Where each tensor starts in the data file, aligned to its elements, and where the last one ends."""
    offsets, position = [], 0
    for tensor in tensors:
        step = max(tensor.dtype.bitwidth // 8, 1)
        position = -(-position // step) * step
        offsets.append(position)
        position += tensor.nbytes
    return offsets, position


def _hollowed(model: ir.Model, location: str) -> tuple[onnx.ModelProto, list[ir.TensorProtocol]]:
    """The proto with every large tensor in the data file called ``location``, and these tensors in file order."""
    found: list[ir.TensorProtocol] = []

    def collect(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
        if name is not None and tensor.nbytes > INLINE_BYTES and tensor.dtype != ir.DataType.STRING:
            found.append(tensor)
        return tensor

    _with_tensors(model, collect)
    offsets = iter(_layout(found)[0])

    def place(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
        if name is None or tensor.nbytes <= INLINE_BYTES or tensor.dtype == ir.DataType.STRING:
            return _inline(tensor)
        placed = ir.ExternalTensor(
            location, next(offsets), tensor.nbytes, tensor.dtype, shape=_shape(tensor), name=name
        )
        placed.doc_string = tensor.doc_string
        placed.metadata_props.update(tensor.metadata_props)
        return placed

    return to_proto(_with_tensors(model, place)), found


def _with_tensors(model: ir.Model, replace: Callable[[ir.TensorProtocol, str | None], ir.TensorProtocol]) -> ir.Model:
    """A clone whose tensors are what ``replace`` makes of them; tensors in attributes come without a name."""
    hollow = clone(model)
    found = anatomy(hollow)
    for scope in found.scopes:
        for name, value in scope.initializers.items():
            if value.const_value is not None:
                value.const_value = replace(value.const_value, name if scope is hollow.graph else None)
    for place, node, name, tensor in found.tensors:
        other = replace(tensor, None)
        if other is not tensor:
            replace_tensor(node, name, place.item, other)
    return hollow


def _inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    data = onnx.TensorProto(
        name=tensor.name or "", data_type=int(tensor.dtype), dims=_shape(tensor), raw_data=tensor.tobytes()
    )
    return ir.from_proto(data)


def _shape(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape(tensor.shape.numpy())


def _is_inline(model: ir.Model) -> bool:
    total = 0
    for scope in anatomy(model).scopes:
        for value in scope.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                return False
            total += 0 if value.const_value is None else value.const_value.nbytes
    return total < MOST_BYTES - (1 << 26)


def _from_bytes(content: bytes, label: str, folder: Path | None) -> ir.Model:
    return _from_proto(parse(content, label), label, folder)


def _from_proto(proto: onnx.ModelProto, label: str, folder: Path | None) -> ir.Model:
    check_proto(proto, label)
    try:
        model = keeping.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(f"{label}: cannot be kept whole: {_first_line(error)}; {_REMEDY}") from error
    _map_external(model, proto, label, folder)
    _sort(model, label)
    return _checked(model, label)


def _sort(model: ir.Model, label: str) -> None:
    """Put nodes that stand before what they read into order: ONNX Runtime takes such a model, the checker does not."""
    for root in (model.graph, *(function.graph for function in model.functions.values())):
        if not graph.is_sorted(root):
            try:
                root.sort()
            except ValueError as error:
                raise ModelError(f"{label}: has a cycle: {_first_line(error)}; {_REMEDY}") from error


def _map_external(model: ir.Model, proto: onnx.ModelProto, label: str, folder: Path | None) -> None:
    """Put mapped tensors in place of the references into external files."""
    data = DataFolder(folder or Path(), label)

    def mapped(tensor: ir.TensorProtocol, written: onnx.TensorProto) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        if folder is None:
            raise ModelError(f"{label}: tensor {tensor.name!r} is in an external file; give the model's path instead")
        return data.tensor(written, location_of(written, f"{label}: tensor {tensor.name!r}"))

    found = anatomy(model)
    scopes = found.protos(proto)
    for scope, written in zip(found.scopes, scopes, strict=True):
        if isinstance(written, onnx.GraphProto):
            for tensor in written.initializer:
                value = scope.initializers.get(tensor.name)
                if value is not None and value.const_value is not None:
                    value.const_value = mapped(value.const_value, tensor)
    for place, node, name, tensor in found.tensors:
        if isinstance(tensor, ir.ExternalTensor):
            attribute = scopes[place.scope].node[place.node].attribute[place.attribute]
            written_tensor = attribute.t if place.item < 0 else attribute.tensors[place.item]
            replace_tensor(node, name, place.item, mapped(tensor, written_tensor))


def _checked(model: ir.Model, label: str) -> ir.Model:
    try:
        check_structure(model)
    except ModelError as error:
        raise ModelError(f"{label}: {error}; {_REMEDY}") from error
    return model


def _first_line(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = " ".join(str(cause).split("==> Context:")[0].split())
    return text if len(text) <= 300 else f"{text[:297]}..."
