"""Files that are not models: what they look like, and where they end too early.

A file is read only if it is a regular file of at most 2 GB, protobuf's limit; nothing that it says about itself is
believed before that.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from optimizer.errors import ModelError

if TYPE_CHECKING:
    import os

LIMIT = (1 << 31) - 1  # bytes
_HEAD = 4096
_TOO_DEEP = "is nested deeper than protobuf's 100 levels; flatten its subgraphs"
_TEXT_SHARE = 0.95

_STARTS: list[tuple[int, bytes, str, str]] = [
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"BZh", "a bzip2 archive", "unpack it first"),
    (0, b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
    (0, b"7z\xbc\xaf", "a 7-zip archive", "unpack it first"),
    (0, b"\x89HDF", "an HDF5 file (Keras)", "export it to ONNX first, with tf2onnx"),
    (4, b"TFL3", "a TensorFlow Lite model", "export it to ONNX first, with tf2onnx"),
    (4, b"ORTM", "a model in ONNX Runtime's own format", "give the ONNX model that it was made from"),
    (0, b"GGUF", "a GGUF file", "export the model to ONNX first"),
    (0, b"\x93NUMPY", "a NumPy array", "name the model instead"),
    (0, b"\x89PNG", "a picture", "name the model instead"),
    (0, b"\xff\xd8\xff", "a picture", "name the model instead"),
    (0, b"%PDF", "a PDF document", "name the model instead"),
    (0, b"\x7fELF", "a program", "name the model instead"),
    (0, b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (0, b"<!DOCTYPE", "a web page", "fetch the file again, the address gave a page"),
    (0, b"<html", "a web page", "fetch the file again, the address gave a page"),
    (0, b"<?xml", "XML (OpenVINO?)", "give the ONNX model that it was made from"),
    (0, b"<", "text, perhaps ONNX's text form", "parse it with onnx.parser and give the ModelProto"),
    (0, b"{", "JSON", "convert it with onnx.load(…, format='json') and give the ModelProto"),
    (0, b"ir_version", "protobuf in text form", "convert it with onnx.load(…, format='textproto')"),
]


def read_file(path: str | os.PathLike[str], label: str) -> onnx.ModelProto:
    """The proto in a file; data in other files is not looked at.

    Raises:
        ModelError: If it is not a file, cannot be read, or holds no ONNX model.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelError(f"{label}: is a folder; name the model file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{label}: is a device or pipe, no regular file; copy the model into a file first")
        with Path(path).open("rb") as file:
            if status.st_size > LIMIT:
                content, remedy = looks_like(file.read(_HEAD)) or (
                    "larger than protobuf's 2 GB",
                    "export with external data",
                )
                raise ModelError(f"{label}: is {content} ({status.st_size:,} bytes); {remedy}")
            data = file.read()
    except FileNotFoundError as error:
        raise ModelError(f"{label}: there is no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{label}: cannot be read ({reason.lower()}); check the path and its permissions") from error
    return parse(data, label)


def parse(data: bytes, label: str) -> onnx.ModelProto:
    """The proto in serialized form.

    Raises:
        ModelError: If it is not a model.
    """
    if not data:
        raise ModelError(f"{label}: is empty; fetch or export it again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        if "MaxDepth" in str(error):
            raise ModelError(f"{label}: {_TOO_DEEP}") from error
        raise _no_model(data, label) from error
    if not proto.HasField("graph"):
        raise _no_model(data, label)
    return proto


def looks_like(data: bytes) -> tuple[str, str] | None:
    """What a file that is not a model seems to be, and what to do with it."""
    head = data[:_HEAD]
    if head[:4] == b"PK\x03\x04":
        return ("a PyTorch checkpoint", "export it with torch.onnx.export first") if b"data.pkl" in head else (
            "a zip archive", "unpack it first")  # fmt: skip
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return "a Python pickle (PyTorch?)", "export the model with torch.onnx.export first"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        return "a safetensors file", "it has weights only: export the model with torch.onnx.export first"
    start = head.lstrip()
    for offset, magic, content, remedy in _STARTS:
        if start[offset : offset + len(magic)] == magic:
            return content, remedy
    if head and sum(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head) > _TEXT_SHARE * len(head):
        return "text", "name the model instead"
    return None


def _no_model(data: bytes, label: str) -> ModelError:
    guess = looks_like(data)
    if guess is not None:
        return ModelError(f"{label}: is {guess[0]}, no ONNX model; {guess[1]}")
    missing = _missing_bytes(data)
    if missing:
        return ModelError(
            f"{label}: is cut off: {missing:,} bytes are missing after its {len(data):,}; fetch or export it again"
        )
    return ModelError(f"{label}: is no ONNX model, or is damaged; fetch or export it again")


def _missing_bytes(data: bytes) -> int:
    """How many bytes the last field of a ``ModelProto`` lacks; 0 if the data is not one, or whole at this level."""
    fields = onnx.ModelProto.DESCRIPTOR.fields_by_number
    # From field to field without looking into them: of a file that was cut off, the last one ends behind the data
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        # ModelProto's fields are numbers (wire type 0) and texts or messages (2) alone; anything else is not a model
        if number not in fields or wire not in {0, 2}:
            return 0
        value, position = _varint(data, position)
        if wire == 2:
            position += value
    missing = position - len(data)
    return missing if missing <= LIMIT else 0


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of variable length, and the position behind it; past the end there are zeros."""
    number = shift = 0
    while shift < 64:
        byte = data[position] if position < len(data) else 0
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            break
    return number, position
