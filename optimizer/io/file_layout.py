"""How a model lies on disk: the bytes of the model file in pieces, and the tensors of the data file.

Large initializers of the main graph are pieces of their own, serialized one at a time when they are written. So
writing takes the memory of one tensor, and the exact size is known without writing. Fields are in the order of their
numbers, as protobuf writes them.

Where weights go: what was in a file stays in a file (all in one, whatever there were), what was inline stays inline.
A new tensor goes where most of the weights were. Tensors of at most 1 KiB are always inline. If the model file would
exceed protobuf's 2 GB, all other initializers go to the data file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import onnx
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.io.external_data import MappedTensor, byte_count
from optimizer.io.protos.skeleton import SMALL, Placeholder, skeleton_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from google.protobuf.message import Message  # type: ignore[import-untyped]  # ships no types

STORAGE = "onnxhone.storage"  # on the main graph's meta: "external" if most of the weights were in files
PROTO_LIMIT = (1 << 31) - 1  # bytes
_GRAPH, _INITIALIZER = 7, 5  # field numbers


@dataclass(frozen=True)
class Piece:
    """An initializer that is serialized only when it is written; ``size`` is the length of its message."""

    stub: Placeholder
    size: int

    def serialize(self) -> bytes:
        """The whole message."""
        message = _header(self.stub)
        tensor = self.stub.tensor
        is_proto = isinstance(tensor, ir.serde.TensorProtoTensor)
        message.raw_data = tensor.raw.raw_data if is_proto else tensor.tobytes()
        return bytes(message.SerializeToString())


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the data file."""

    tensor: ir.TensorProtocol
    offset: int
    length: int


@dataclass(frozen=True)
class FileLayout:
    """The model file in pieces, and the tensors of the data file, whose name stands in the model file.

    Attributes:
        proto: The model without large weights.
        inline: Initializers of the main graph whose data is not in ``proto``, by name.
        located: The messages that name the data file.
        entries: Tensors of the data file, in order.
        data_size: Bytes of the data file; 0 if there is none.
    """

    proto: onnx.ModelProto
    inline: Mapping[str, Placeholder]
    located: Sequence[onnx.TensorProto]
    entries: Sequence[StoredTensor]
    data_size: int

    def pieces(self, data_name: str) -> list[bytes | Piece]:
        """The model file: bytes, and initializers that are serialized later."""
        for message in self.located:
            message.external_data[0].value = data_name
        return list(_pieces(self.proto, self.inline))


def lay_out(model: ir.Model) -> FileLayout:
    """Decide where each tensor of ``model`` goes."""
    layout = _lay_out(model, everything_out=False)
    total = sum(byte_count(stub.message) for stub in layout.inline.values())
    if total + layout.proto.ByteSize() > PROTO_LIMIT:
        layout = _lay_out(model, everything_out=True)
    return layout


def length(pieces: Sequence[bytes | Piece]) -> int:
    """How many bytes the pieces are when they are written."""
    return sum(piece.size if isinstance(piece, Piece) else len(piece) for piece in pieces)


def write_pieces(pieces: Sequence[bytes | Piece], file: IO[bytes]) -> None:
    """Write the model file."""
    for piece in pieces:
        file.write(piece.serialize() if isinstance(piece, Piece) else piece)


def write_data(entries: Sequence[StoredTensor], file: IO[bytes]) -> str:
    """Write the data file as a stream; returns the SHA-256 of its content in hexadecimal."""
    sink = _HashedFile(file)
    for entry in entries:
        sink.write(b"\0" * (entry.offset - sink.written))
        if hasattr(entry.tensor, "tofile"):
            entry.tensor.tofile(sink)
        else:
            sink.write(entry.tensor.tobytes())
        if sink.written != entry.offset + entry.length:
            raise ModelError(
                f"tensor {entry.tensor.name!r} does not have the {entry.length} bytes of its shape; report it"
            )
    return sink.hash.hexdigest()


def storage(model: ir.Model) -> str:
    """Where most bytes of the weights are: ``"external"`` or ``"inline"``; what was found first is remembered."""
    known = model.graph.meta.get(STORAGE)
    if known is None:
        sizes = {True: 0, False: 0}
        for graph in model.graphs():
            for value in graph.initializers.values():
                if value.const_value is not None:
                    sizes[isinstance(value.const_value, ir.ExternalTensor)] += value.const_value.nbytes
        known = model.graph.meta[STORAGE] = "external" if sizes[True] > sizes[False] else "inline"
    return str(known)


class _HashedFile:
    """A file that is only written to, and hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.hash.update(data)
        self.written += len(data)


def _lay_out(model: ir.Model, *, everything_out: bool) -> FileLayout:
    drawn = skeleton_of(model)
    new_goes_out = everything_out or storage(model) == "external"
    inline: dict[str, Placeholder] = {}
    outside: list[Placeholder] = []
    for stub in drawn.placeholders:
        if _goes_out(stub.tensor, everything_out=everything_out, new_goes_out=new_goes_out):
            outside.append(stub)
        elif stub.is_main_initializer and stub.tensor.nbytes > SMALL:
            inline[stub.message.name] = stub
        else:
            stub.fill()
    entries, data_size = _pack(outside)
    return FileLayout(drawn.proto, inline, [stub.message for stub in outside], entries, data_size)


def _goes_out(tensor: ir.TensorProtocol, *, everything_out: bool, new_goes_out: bool) -> bool:
    if tensor.nbytes <= SMALL:
        return False
    if isinstance(tensor, ir.ExternalTensor):
        return True
    return everything_out if isinstance(tensor, ir.serde.TensorProtoTensor) else new_goes_out


def _pack(stubs: Sequence[Placeholder]) -> tuple[list[StoredTensor], int]:
    """Give each tensor its place, one place to all stubs of the same data, and write the places into the messages."""
    places: dict[object, StoredTensor] = {}
    end = 0
    for stub in stubs:
        tensor, message = stub.tensor, stub.message
        key = (id(tensor.data), *tensor.extent) if isinstance(tensor, MappedTensor) else id(tensor)
        if key not in places:
            alignment = max(tensor.dtype.bitwidth // 8, 1)
            offset = -(-end // alignment) * alignment
            places[key] = StoredTensor(tensor, offset, byte_count(message))
            end = offset + places[key].length
        entry = places[key]
        message.data_location = onnx.TensorProto.EXTERNAL
        del message.external_data[:]
        message.external_data.add(key="location")
        message.external_data.add(key="offset", value=str(entry.offset))
        message.external_data.add(key="length", value=str(entry.length))
    return list(places.values()), end


def _pieces(model: onnx.ModelProto, inline: Mapping[str, Placeholder]) -> Iterator[bytes | Piece]:
    graph = model.graph
    parts: list[bytes | Piece] = [_some_fields(graph, lambda number: number < _INITIALIZER)]
    for tensor in graph.initializer:
        if tensor.name in inline:
            piece = _piece(inline[tensor.name])
            parts += [_prefix(_INITIALIZER, piece.size), piece]
        else:
            data = tensor.SerializeToString()
            parts += [_prefix(_INITIALIZER, len(data)), data]
    parts.append(_some_fields(graph, lambda number: number > _INITIALIZER))
    yield _some_fields(model, lambda number: number < _GRAPH)
    yield _prefix(_GRAPH, length(parts))
    yield from parts
    yield _some_fields(model, lambda number: number > _GRAPH)


def _some_fields(message: Message, wanted: Callable[[int], bool]) -> bytes:
    """The fields of ``message`` with certain numbers, serialized."""
    part = type(message)()
    for field, value in message.ListFields():
        if not wanted(field.number):
            continue
        if hasattr(value, "extend"):
            getattr(part, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(part, field.name).CopyFrom(value)
        else:
            setattr(part, field.name, value)
    return bytes(part.SerializeToString())


def _piece(stub: Placeholder) -> Piece:
    data = byte_count(stub.message)
    return Piece(stub, _header(stub).ByteSize() + 1 + len(_varint(data)) + data)


def _header(stub: Placeholder) -> onnx.TensorProto:
    """The message of an initializer without its data."""
    header = onnx.TensorProto()
    tensor = stub.tensor
    source = tensor.raw if isinstance(tensor, ir.serde.TensorProtoTensor) else stub.message
    header.dims.extend(source.dims)
    header.data_type = source.data_type
    header.name = stub.message.name
    if source.HasField("doc_string"):
        header.doc_string = source.doc_string
    header.metadata_props.extend(source.metadata_props)
    if source.HasField("segment"):
        header.segment.CopyFrom(source.segment)
    if source is not stub.message and source.HasField("data_location"):
        header.data_location = source.data_location
    return header


def _prefix(field: int, size: int) -> bytes:
    """Tag and length of a field that holds a message."""
    return _varint(field << 3 | 2) + _varint(size)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
