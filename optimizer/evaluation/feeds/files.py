"""Feeds on disk: ``.npz`` files, one inference each, and ONNX's ``test_data_set_*`` folders.

Nothing in them is ever unpickled. Headers are read first, so that a file that does not fit is found before the first
run. Sequences are saved as ``name[0]``, ``name[1]`` …
"""

from __future__ import annotations

import re
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import DataError
from optimizer.evaluation.feeds import sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from optimizer.evaluation.feeds.sets import Feed
    from optimizer.evaluation.runtime.session import Slot

_ITEM = re.compile(r"(.+)\[(\d+)\]")
_READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    MemoryError,
)


def read_npz(path: Path, slots: Sequence[Slot], optional: Sequence[Slot], *, extras: bool = False) -> Feed:
    """The feed in one ``.npz`` file; it may hold ``extras`` that are not inputs.

    Raises:
        DataError: If it is unreadable, pickled, or does not fit the model.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except _READ_ERRORS as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    return sets.checked(join_sequences(arrays, slots), slots, optional, str(path), extras=extras)


def check_npz(path: Path, slots: Sequence[Slot], optional: Sequence[Slot], *, extras: bool = False) -> None:
    """Check names, dtypes and shapes of one ``.npz`` file by its headers alone; ``extras`` may be anything.

    Raises:
        DataError: If it is unreadable, pickled, or does not fit the model.
    """
    try:
        headers = dict(_npz_headers(path))
    except _READ_ERRORS as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    by_name = {slot.name: slot for slot in (*slots, *optional)}
    names = {name if name in by_name else _stem(name): None for name in headers}
    sets.check_names(list(names), slots, optional, str(path), extras=extras)
    for name, (dtype, shape) in headers.items():
        slot = by_name.get(name) or by_name.get(_stem(name))
        if slot is not None:
            sets.check_array(dtype, shape, slot, str(path))


def join_sequences(arrays: Mapping[str, Any], slots: Sequence[Slot]) -> Feed:
    """Put ``name[0]``, ``name[1]`` … together to a list where the model takes a sequence."""
    sequences: dict[str, list[Any]] = {slot.name: [] for slot in slots if "seq(" in slot.type}
    feed: Feed = {}
    for name, array in arrays.items():
        element = _ITEM.fullmatch(name)
        if element and element[1] in sequences:
            feed[element[1]] = sequences[element[1]]
            sequences[element[1]].append((int(element[2]), array))
        else:
            feed[name] = array
    for numbered_arrays in sequences.values():
        numbered_arrays[:] = [array for _, array in sorted(numbered_arrays, key=lambda numbered: numbered[0])]
    return feed


def store(path: Path, feed: Mapping[str, Any]) -> None:
    """Write ``feed`` for ``restore``; names are an array of the file, since not every name can name a member of it."""
    arrays = _split_sequences(feed)
    plain = [np.asarray(array, dtype=str) if array.dtype.kind == "O" else array for array in arrays.values()]
    np.savez(path, np.array(list(arrays), dtype=str), *plain, allow_pickle=False)


def restore(path: Path, slots: Sequence[Slot]) -> Feed:
    """The feed that ``store`` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        names = [str(name) for name in archive["arr_0"]]
        arrays = {name: archive[f"arr_{number}"] for number, name in enumerate(names, start=1)}
    return sets.checked(join_sequences(arrays, slots), slots, slots, str(path), extras=True)


def _split_sequences(feed: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of ``join_sequences``; empty optionals are left out."""
    arrays: dict[str, Any] = {}
    for name, value in feed.items():
        if isinstance(value, list):
            arrays.update({f"{name}[{number}]": element for number, element in enumerate(value)})
        elif value is not None:
            arrays[name] = value
    return arrays


def read_test_data(folder: Path, slots: Sequence[Slot], optional: Sequence[Slot]) -> Feed:
    """The feed in one ``test_data_set_*`` folder: ``input_0.pb``, ``input_1.pb`` … by name, or else by order.

    Raises:
        DataError: If a file is unreadable or does not fit the model.
    """
    files = sorted(folder.glob("input_*.pb"), key=lambda path: (len(path.name), path.name))
    if not files:
        raise DataError(f"{folder}: no input_0.pb; an ONNX test data set has one file per input")
    slot_by_name = {slot.name: slot for slot in (*slots, *optional)}
    feed: Feed = {}
    for path, by_order in zip(files, (*slots, *([None] * len(files))), strict=False):
        name, value = _read_protobuf(path, by_order.type if by_order else "tensor(float)")
        if name not in slot_by_name and by_order is not None:
            name = by_order.name
        feed[name or path.stem] = value
    return sets.checked(feed, slots, optional, str(folder))


def _read_protobuf(path: Path, type_text: str) -> tuple[str, Any]:
    import onnx  # noqa: PLC0415 - only these folders hold protobufs
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with onnx
    from onnx import numpy_helper  # noqa: PLC0415 - only these folders hold protobufs

    readers: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
        "seq(": (onnx.SequenceProto, numpy_helper.to_list),
        "optional(": (onnx.OptionalProto, numpy_helper.to_optional),
    }
    proto_type, convert = readers.get(type_text.partition("(")[0] + "(", (onnx.TensorProto, numpy_helper.to_array))
    try:
        proto = proto_type.FromString(path.read_bytes())
        if isinstance(proto, onnx.TensorProto) and proto.data_location == onnx.TensorProto.EXTERNAL:
            raise DataError(f"{path}: its data is in another file; a feed keeps it inline")
        return proto.name, _plain_strings(convert(proto))
    except (*_READ_ERRORS, DecodeError, TypeError) as error:
        raise DataError(f"{path}: not an ONNX tensor that can be read: {_reason(error)}") from error


def _plain_strings(value: Any) -> Any:
    """``value`` with text in place of bytes, which are how ONNX stores strings."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        texts = [element.decode() if isinstance(element, bytes) else element for element in value.ravel()]
        return np.array(texts, dtype=object).reshape(value.shape)
    return [_plain_strings(element) for element in value] if isinstance(value, list) else value


def _npz_headers(path: Path) -> Iterator[tuple[str, tuple[np.dtype[Any], tuple[int, ...]]]]:
    """Name, dtype and shape of each array; a header that does not fit the size of its data is an error."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                shape, _, dtype = _read_header(member)
                nbytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.hasobject:
                    raise ValueError("Object arrays cannot be loaded")
                if member.tell() + nbytes != info.file_size:
                    raise ValueError(
                        f"{info.filename} claims {nbytes} bytes and holds {info.file_size - member.tell()}"
                    )
            yield info.filename.removesuffix(".npy"), (dtype, shape)


def _read_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)  # 3.0 differs in the encoding of field names only


def _stem(name: str) -> str:
    element = _ITEM.fullmatch(name)
    return element[1] if element else name


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "Object arrays cannot be loaded" in text or "allow_pickle" in text:
        return "it holds pickled objects, which are never loaded; save plain arrays"
    return f"cannot be read: {text[:200]}"
