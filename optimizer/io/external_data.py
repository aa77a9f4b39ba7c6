"""Weights in files beside the model: found safely, mapped into memory, read as a stream.

A location is a path relative to the model's folder and may not leave it, by ``..``, as an absolute path or through
a symbolic link; it must be a regular file that holds all the bytes that its tensors claim. A file is opened and
mapped once, when the model is loaded: from then on the model does not depend on what happens to the name, so the
file may be replaced while the model is in use, by the model itself too.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.errors import ModelError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_NO_BITS = frozenset({ir.DataType.UNDEFINED, ir.DataType.STRING})
_BITS: dict[int, int] = {dtype.value: dtype.bitwidth for dtype in ir.DataType if dtype not in _NO_BITS}

CHUNK = 1 << 22  # bytes; read at once when a tensor is streamed


@dataclass(frozen=True)
class Location:
    """Where a tensor's bytes are: a path relative to the model's folder, and a range in that file."""

    path: str
    offset: int
    length: int


class DataFile:
    """A file of external data, mapped into memory for as long as a tensor refers to it."""

    def __init__(self, path: str, label: str) -> None:
        try:
            self.size, self._map = _map(path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ModelError(f"{label} cannot be opened ({reason}); fetch or copy it beside the model") from error

    def view(self, offset: int, length: int) -> memoryview:
        """The bytes of a range, without a copy."""
        return memoryview(self._map or b"")[offset : offset + length]

    def forget(self, offset: int, length: int) -> None:
        """Take the pages of a range out of this process's memory; the next reader gets them from the file again."""
        if self._map is None or not length or not hasattr(mmap, "MADV_DONTNEED"):
            return
        # madvise takes whole pages: from the beginning of the first
        start = offset - offset % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, start, offset + length - start)


class MappedTensor(ir.ExternalTensor):
    """A tensor whose bytes stay in a mapped file."""

    __slots__ = ("data",)

    def __init__(self, data: DataFile, location: Location, proto: onnx.TensorProto, folder: str) -> None:
        super().__init__(
            location.path,
            location.offset,
            location.length,
            ir.DataType(proto.data_type),
            shape=ir.Shape(proto.dims),
            name=proto.name,
            doc_string=proto.doc_string or None,
            metadata_props={entry.key: entry.value for entry in proto.metadata_props} or None,
            base_dir=folder,
        )
        self.data = data

    @property
    def extent(self) -> tuple[int, int]:
        """Offset and number of bytes in the file."""
        return self.offset or 0, self.length or 0

    def numpy(self) -> NDArray[Any]:
        """The tensor as an array over the mapped file; it cannot be written to."""
        dtype, shape = self.dtype, self.shape.numpy()
        if dtype.bitwidth < 8:
            # Two or more elements a byte: unpacked into a copy
            packed = np.frombuffer(self.data.view(*self.extent), dtype=np.uint8)
            return ir.PackedTensor(packed, dtype, shape=shape).numpy()
        element = np.dtype(dtype.numpy()).newbyteorder("<")
        return np.frombuffer(self.data.view(*self.extent), dtype=element).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def tobytes(self) -> bytes:
        """The bytes as in ``raw_data``, copied."""
        return self.data.view(*self.extent).tobytes()

    def tofile(self, file: IO[bytes]) -> None:
        """Write the bytes to ``file`` in chunks, keeping only one chunk in memory."""
        offset, length = self.extent
        for start in range(offset, offset + length, CHUNK):
            size = min(CHUNK, offset + length - start)
            file.write(self.data.view(start, size))
            self.data.forget(start, size)

    def release(self) -> None:
        """Take the tensor's pages out of this process's memory; it stays usable."""
        self.data.forget(*self.extent)


class DataFolder:
    """The folder of a model, where its external data may be; opens each file once."""

    def __init__(self, folder: str | os.PathLike[str], label: str) -> None:
        self._folder = os.fspath(folder) or "."
        self._label = label
        self._files: dict[str, DataFile] = {}

    def tensor(self, proto: onnx.TensorProto, location: Location) -> MappedTensor:
        """The tensor that ``proto`` describes.

        Raises:
            ModelError: If its file is missing, unsafe or too short.
        """
        file = self._file(location.path, proto.name)
        end = location.offset + location.length
        if end > file.size:
            raise ModelError(
                f"{self._label}: tensor {proto.name!r} needs bytes {location.offset} to {end} of {location.path!r}, "
                f"which has only {file.size}; fetch or copy the data file again"
            )
        return MappedTensor(file, location, proto, self._folder)

    def checked(self, proto: onnx.TensorProto) -> MappedTensor:
        """The tensor that ``proto`` describes, whose place is checked first."""
        return self.tensor(proto, location_of(proto, f"{self._label}: tensor {proto.name!r}"))

    def _file(self, location: str, tensor: str) -> DataFile:
        file = self._files.get(location)
        if file is None:
            path = safe_path(self._folder, location, f"{self._label}: data file {location!r} of tensor {tensor!r}")
            file = self._files[location] = DataFile(path, f"{self._label}: data file {location!r} of tensor {tensor!r}")
        return file


def safe_path(folder: str, location: str, label: str) -> str:
    """The real path of ``location`` in ``folder``.

    Raises:
        ModelError: If it leaves the folder.
    """
    remedy = "put the file into the model's folder and name it by a relative path"
    if not location or "\0" in location:
        raise ModelError(f"{label} has no usable name; {remedy}")
    if Path(location).is_absolute() or location[1:3] == ":\\":
        raise ModelError(f"{label} is an absolute path; {remedy}")
    if ".." in location.replace("\\", "/").split("/"):
        raise ModelError(f"{label} leaves the model's folder; {remedy}")
    # After resolving all links, the path has to lie below the folder, itself resolved
    root, path = os.path.realpath(folder), os.path.realpath(Path(folder, location))
    if os.path.commonpath([root, path]) != root:
        raise ModelError(f"{label} is a link out of the model's folder, to {path}; {remedy}")
    return path


def location_of(proto: onnx.TensorProto, label: str) -> Location:
    """The place that an external tensor names; offset and length are checked against type and shape.

    Raises:
        ModelError: If the place is wrong. Whether the file exists is not looked at.
    """
    entries = {entry.key: entry.value for entry in proto.external_data}
    needed = byte_count(proto)
    offset = _whole_number(entries.get("offset", "0"), f"{label} has a bad offset")
    length = _whole_number(entries.get("length", str(needed)), f"{label} has a bad length")
    if length != needed:
        raise ModelError(f"{label} takes {length} bytes in its file, its type and shape {needed}; export it again")
    return Location(entries.get("location", ""), offset, length)


def byte_count(proto: onnx.TensorProto) -> int:
    """How many bytes of ``raw_data`` the type and shape of ``proto`` ask for."""
    elements: int = math.prod(proto.dims)
    return (elements * _BITS[proto.data_type] + 7) // 8


def _whole_number(text: str, finding: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ModelError(f"{finding}, {text[:40]!r}; export the model again")
    return int(text)


def _map(path: str, *, retry: bool = True) -> tuple[int, mmap.mmap | None]:
    """Size and map of a regular file; never waits for a pipe or a device.

    Raises:
        OSError: If there is no such file, or it is not one that can be mapped.
    """
    # O_NONBLOCK: opening a pipe would wait for its writer. O_NOFOLLOW: the path was resolved and checked before, a link
    # that is there now came in between
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            size = status.st_size
            return size, mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if size else None
        finally:
            os.close(descriptor)
    except OSError as error:
        if retry and error.errno == errno.EMFILE and _allow_more_files():
            return _map(path, retry=False)
        raise


def _allow_more_files() -> bool:
    """Raise the limit of open files to the hard one, since each mapped file takes one; whether that helps."""
    try:
        import resource  # noqa: PLC0415 - exists on POSIX only
    except ImportError:
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True
