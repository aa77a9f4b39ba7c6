"""The bytes of tensors: read as a stream, compared exactly, grouped by content.

Two tensors hold the same content if they have the same dtype and the same little-endian bytes as ONNX packs them,
however they are stored: raw or typed fields, in memory or in an external file. NaN payloads and the sign of zero
count. External data is read in chunks, and the pages of a mapped file are given back after each, so that the resident
memory stays small whatever the size of the weights.

Grouping costs one look at the edges of each tensor. Only tensors whose dtype, size and edges agree are hashed, and
only those whose hashes agree are compared byte by byte, so that the answer never rests on a hash.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.io.external_data import MappedTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

CHUNK = 1 << 20
_EDGE = 1024


def chunks(tensor: ir.TensorProtocol, size: int = CHUNK) -> Iterator[bytes]:
    """The content of ``tensor`` in pieces of ``size`` bytes, the last one shorter.

    Args:
        tensor: Any tensor; strings are framed by their lengths.
        size: Bytes a piece, a multiple of 16.

    Raises:
        ModelError: If external data cannot be read, is too short or lies outside the model's folder.
    """
    if isinstance(tensor, MappedTensor):
        yield from _mapped_chunks(tensor, size)
    elif isinstance(tensor, ir.ExternalTensor):
        yield from _file_chunks(tensor, size)
    else:
        view = _in_memory(tensor)
        for start in range(0, len(view), size):
            yield bytes(view[start : start + size])


def _mapped_chunks(tensor: MappedTensor, size: int) -> Iterator[bytes]:
    offset, length = tensor.extent
    for start in range(offset, offset + length, size):
        step = min(size, offset + length - start)
        chunk = bytes(tensor.data.view(start, step))
        tensor.data.forget(start, step)
        yield chunk


def _file_chunks(tensor: ir.ExternalTensor, size: int) -> Iterator[bytes]:
    missing = tensor.nbytes
    if missing == 0:
        return
    with open_external(tensor) as file:
        while missing:
            chunk = _read(file, min(size, missing), tensor)
            missing -= len(chunk)
            yield chunk


def same_content(first: ir.TensorProtocol, second: ir.TensorProtocol) -> bool:
    """Whether both tensors have the same dtype and the same bytes; their shapes may differ."""
    if first.dtype != second.dtype or first.nbytes != second.nbytes:
        return False
    if _whereabouts(first) == _whereabouts(second):
        return True
    return all(
        first_chunk == second_chunk for first_chunk, second_chunk in zip(chunks(first), chunks(second), strict=True)
    )


def equal_groups(tensors: Sequence[ir.TensorProtocol]) -> list[list[int]]:
    """Which of ``tensors`` hold the same content.

    Returns:
        Groups of at least two indices into ``tensors``, all in rising order. Shapes may differ within a group.

    Raises:
        ModelError: If external data cannot be read.
    """
    sizes = [tensor.nbytes for tensor in tensors]
    # 1. What is the same data needs no look: one member stands for all
    places = _partition(range(len(tensors)), lambda index: _whereabouts(tensors[index]))
    members = {place[0]: place for place in places}
    # 2. By dtype and size, then by the bytes at both edges
    groups: list[list[int]] = []
    for sized in _partition(members, lambda index: (tensors[index].dtype, sizes[index])):
        groups += [sized] if len(sized) == 1 else _partition(sized, lambda index: _edges(tensors[index], sizes[index]))
    # 3. By hash and by all bytes, for what is longer than its edges
    groups = [subgroup for group in groups for subgroup in _split_large(group, tensors)]
    expanded = [sorted(index for place in group for index in members[place]) for group in groups]
    return sorted(group for group in expanded if len(group) > 1)


def _split_large(group: list[int], tensors: Sequence[ir.TensorProtocol]) -> list[list[int]]:
    """Split tensors of equal dtype, size and edges into groups of equal content."""
    if len(group) == 1 or _is_read_whole(tensors[group[0]], tensors[group[0]].nbytes):
        return [group]
    hashed = _partition(group, lambda index: _digest(tensors[index])) if len(group) > 2 else [group]
    return [subgroup for same_hash in hashed for subgroup in _verified(same_hash, tensors)]


def _verified(group: list[int], tensors: Sequence[ir.TensorProtocol]) -> list[list[int]]:
    # Hashes may collide: each tensor is compared with the first of each class
    classes: list[list[int]] = []
    for index in group:
        for members in classes:
            if same_content(tensors[members[0]], tensors[index]):
                members.append(index)
                break
        else:
            classes.append([index])
    return classes


def _partition(indices: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    classes: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        classes[key(index)].append(index)
    return list(classes.values())


def _whereabouts(tensor: ir.TensorProtocol) -> Hashable:
    """A key that is equal for two tensors that are one and the same data, so that nothing needs to be read."""
    if isinstance(tensor, MappedTensor) and tensor.nbytes:
        return (id(tensor.data), tensor.extent, tensor.dtype)
    if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes:
        return (tensor.path, tensor.offset or 0, tensor.nbytes, tensor.dtype)
    return id(tensor)


def _digest(tensor: ir.TensorProtocol) -> bytes:
    digest = hashlib.sha256(usedforsecurity=False)
    for chunk in chunks(tensor):
        digest.update(chunk)
    return digest.digest()


def _is_read_whole(tensor: ir.TensorProtocol, size: int) -> bool:
    return size <= 2 * _EDGE or tensor.dtype == ir.DataType.STRING


def _edges(tensor: ir.TensorProtocol, size: int) -> bytes:
    """The first and the last bytes of the content; all of it if it is small."""
    if _is_read_whole(tensor, size):
        return b"".join(chunks(tensor))
    if isinstance(tensor, MappedTensor):
        offset, length = tensor.extent
        edges = bytes(tensor.data.view(offset, _EDGE)) + bytes(tensor.data.view(offset + length - _EDGE, _EDGE))
        tensor.release()  # one look maps up to 2 MiB around it
        return edges
    if not isinstance(tensor, ir.ExternalTensor):
        view = _in_memory(tensor)
        return bytes(view[:_EDGE]) + bytes(view[-_EDGE:])
    with open_external(tensor) as file:
        first = _read(file, _EDGE, tensor)
        file.seek((tensor.offset or 0) + tensor.nbytes - _EDGE)
        return first + _read(file, _EDGE, tensor)


def _in_memory(tensor: ir.TensorProtocol) -> memoryview:
    """The bytes of a tensor that is not an external one, without a copy where its array is laid out like the file."""
    if isinstance(tensor, ir.StringTensor):
        return memoryview(b"".join(struct.pack("<q", len(text)) + text for text in tensor.string_data()))
    if tensor.dtype.bitwidth < 8 or tensor.size == 0:
        return memoryview(tensor.tobytes())
    array = tensor.numpy()
    if not array.flags.c_contiguous or array.dtype.byteorder == ">":
        return memoryview(tensor.tobytes())
    return array.reshape(-1).view(np.uint8).data


def open_external(tensor: ir.ExternalTensor) -> BinaryIO:
    """The file of ``tensor``, opened at its first byte.

    Raises:
        ModelError: If there is no such file, or it lies outside the model's folder.
    """
    try:
        tensor._check_path_containment()  # noqa: SLF001 - onnx-ir's own check, else reached only by mapping the file
        file = open(tensor.path, "rb")  # noqa: SIM115, PTH123 - the caller closes it; paths may be plain strings
    except (OSError, ValueError) as error:
        raise ModelError(f"the external data of tensor '{tensor.name}' cannot be read: {error}") from error
    file.seek(tensor.offset or 0, os.SEEK_SET)
    return file


def _read(file: BinaryIO, size: int, tensor: ir.ExternalTensor) -> bytes:
    chunk = file.read(size)
    if len(chunk) < size:
        raise ModelError(
            f"the external data of tensor '{tensor.name}' is too short: {tensor.path} ends {size - len(chunk)} bytes "
            "before the tensor does; fetch the file again"
        )
    return chunk
