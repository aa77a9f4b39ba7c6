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
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from google.protobuf.message import Message  # type: ignore[import-untyped]  # ships no types

STORAGE = "onnxhone.storage"  # on the main graph's meta: "external" if most of the weights were in files
PROTO_LIMIT = (1 << 31) - 1  # bytes
_GRAPH, _INITIALIZER = 7, 5  # field numbers


@dataclass(frozen=True)
class Piece:
    """An initializer that is serialized only when it is written; ``size`` is the length of its message."""

    placeholder: Placeholder
    size: int

    def serialize(self) -> bytes:
        """The whole message."""
        message = _header(self.placeholder)
        tensor = self.placeholder.tensor
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
    # Inline data and the message around it have to fit into one proto; if not, all data goes out
    total = sum(byte_count(placeholder.message) for placeholder in layout.inline.values())
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
    hashed = _HashedFile(file)
    for entry in entries:
        hashed.write(b"\0" * (entry.offset - hashed.written))
        if hasattr(entry.tensor, "tofile"):
            entry.tensor.tofile(hashed)
        else:
            hashed.write(entry.tensor.tobytes())
        if hashed.written != entry.offset + entry.length:
            raise ModelError(
                f"tensor {entry.tensor.name!r} does not have the {entry.length} bytes of its shape; report it"
            )
    return hashed.hash.hexdigest()


def storage(model: ir.Model) -> str:
    """Where most bytes of the weights are, ``"external"`` or ``"inline"``; noted on the graph at the first call.

    Passes turn weights in files into arrays, so a later look would not find where they were.
    """
    place = model.graph.meta.get(STORAGE)
    if place is None:
        sizes = {True: 0, False: 0}
        for graph in model.graphs():
            for value in graph.initializers.values():
                if value.const_value is not None:
                    sizes[isinstance(value.const_value, ir.ExternalTensor)] += value.const_value.nbytes
        place = model.graph.meta[STORAGE] = "external" if sizes[True] > sizes[False] else "inline"
    return str(place)


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
    skeleton = skeleton_of(model)
    new_goes_out = everything_out or storage(model) == "external"
    inline: dict[str, Placeholder] = {}
    outside: list[Placeholder] = []
    for placeholder in skeleton.placeholders:
        if _goes_out(placeholder.tensor, everything_out=everything_out, new_goes_out=new_goes_out):
            outside.append(placeholder)
        elif placeholder.is_main_initializer and placeholder.tensor.nbytes > SMALL:
            inline[placeholder.message.name] = placeholder
        else:
            placeholder.fill()
    entries, data_size = _pack(outside)
    return FileLayout(skeleton.proto, inline, [placeholder.message for placeholder in outside], entries, data_size)


def _goes_out(tensor: ir.TensorProtocol, *, everything_out: bool, new_goes_out: bool) -> bool:
    if tensor.nbytes <= SMALL:
        return False
    if isinstance(tensor, ir.ExternalTensor):
        return True
    return everything_out if isinstance(tensor, ir.serde.TensorProtoTensor) else new_goes_out


def _pack(placeholders: Sequence[Placeholder]) -> tuple[list[StoredTensor], int]:
    """Give each tensor its place in the data file, and write the places into the messages.

    Placeholders of the same data get one place.
    """
    places: dict[Hashable, StoredTensor] = {}
    end = 0
    for placeholder in placeholders:
        tensor, message = placeholder.tensor, placeholder.message
        key = (id(tensor.data), *tensor.extent) if isinstance(tensor, MappedTensor) else id(tensor)
        if key not in places:
            # Aligned to the element, so that a mapped file can be read as an array; -(-a // b) rounds up
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
    """The bytes of ``model``, whose large initializers stay pieces: what protobuf's own serializer would write.

    The wire format is a sequence of fields in the order of their numbers. One that holds a message is its tag, its
    length and its bytes (protobuf.dev, "Encoding"), so the length of the graph has to be known before its first byte.
    """
    # 1. The graph: fields before the initializers, the initializers one by one, fields after them
    graph = model.graph
    graph_pieces: list[bytes | Piece] = [_some_fields(graph, lambda number: number < _INITIALIZER)]
    for tensor in graph.initializer:
        if tensor.name in inline:
            piece = _piece(inline[tensor.name])
            graph_pieces += [_prefix(_INITIALIZER, piece.size), piece]
        else:
            data = tensor.SerializeToString()
            graph_pieces += [_prefix(_INITIALIZER, len(data)), data]
    graph_pieces.append(_some_fields(graph, lambda number: number > _INITIALIZER))
    # 2. The model around it: fields before the graph, its tag and length, the graph, fields after it
    yield _some_fields(model, lambda number: number < _GRAPH)
    yield _prefix(_GRAPH, length(graph_pieces))
    yield from graph_pieces
    yield _some_fields(model, lambda number: number > _GRAPH)


def _some_fields(message: Message, is_wanted: Callable[[int], bool]) -> bytes:
    """The fields of ``message`` with certain numbers, serialized."""
    selection = type(message)()
    for field, value in message.ListFields():
        if not is_wanted(field.number):
            continue
        if hasattr(value, "extend"):
            getattr(selection, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(selection, field.name).CopyFrom(value)
        else:  # a number or text
            setattr(selection, field.name, value)
    return bytes(selection.SerializeToString())


def _piece(placeholder: Placeholder) -> Piece:
    # ``raw_data`` has number 9: a tag of one byte, the length, the data
    data = byte_count(placeholder.message)
    return Piece(placeholder, _header(placeholder).ByteSize() + 1 + len(_varint(data)) + data)


def _header(placeholder: Placeholder) -> onnx.TensorProto:
    """The message of an initializer without its data."""
    header = onnx.TensorProto()
    tensor = placeholder.tensor
    source = tensor.raw if isinstance(tensor, ir.serde.TensorProtoTensor) else placeholder.message
    header.dims.extend(source.dims)
    header.data_type = source.data_type
    header.name = placeholder.message.name
    if source.HasField("doc_string"):
        header.doc_string = source.doc_string
    header.metadata_props.extend(source.metadata_props)
    if source.HasField("segment"):
        header.segment.CopyFrom(source.segment)
    if source is not placeholder.message and source.HasField("data_location"):
        header.data_location = source.data_location
    return header


def _prefix(field: int, size: int) -> bytes:
    """Tag and length of a field that holds a message: wire type 2 in the lowest three bits, the number above them."""
    return _varint(field << 3 | 2) + _varint(size)


def _varint(number: int) -> bytes:
    """``number`` in groups of seven bits, the lowest first; the eighth bit says that another group follows."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
