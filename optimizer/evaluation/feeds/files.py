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
    """The feed in one ``.npz`` file; it may hold ``extras`` that are no inputs.

    Raises:
        DataError: If it is unreadable, pickled, or does not fit the model.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except _READ_ERRORS as error:
        raise DataError(f"{path}: {_trouble(error)}") from error
    return sets.checked(gather(arrays, slots), slots, optional, str(path), extras=extras)


def check_npz(path: Path, slots: Sequence[Slot], optional: Sequence[Slot], *, extras: bool = False) -> None:
    """Check names, dtypes and shapes of one ``.npz`` file by its headers alone; ``extras`` may be anything.

    Raises:
        DataError: If it is unreadable, pickled, or does not fit the model.
    """
    try:
        headers = dict(_npz_headers(path))
    except _READ_ERRORS as error:
        raise DataError(f"{path}: {_trouble(error)}") from error
    by_name = {slot.name: slot for slot in (*slots, *optional)}
    names = {name if name in by_name else _stem(name): None for name in headers}
    sets.check_names(list(names), slots, optional, str(path), extras=extras)
    for name, (dtype, shape) in headers.items():
        slot = by_name.get(name) or by_name.get(_stem(name))
        if slot is not None:
            sets.check_array(dtype, shape, slot, str(path))


def gather(arrays: Mapping[str, Any], slots: Sequence[Slot]) -> Feed:
    """Put ``name[0]``, ``name[1]`` … together to a list where the model takes a sequence."""
    sequences: dict[str, list[Any]] = {slot.name: [] for slot in slots if "seq(" in slot.type}
    feed: Feed = {}
    for name, array in arrays.items():
        found = _ITEM.fullmatch(name)
        if found and found[1] in sequences:
            feed[found[1]] = sequences[found[1]]
            sequences[found[1]].append((int(found[2]), array))
        else:
            feed[name] = array
    for items in sequences.values():
        items[:] = [array for _, array in sorted(items, key=lambda item: item[0])]
    return feed


def store(path: Path, feed: Mapping[str, Any]) -> None:
    """Write ``feed`` for ``restore``; names stand in the file as data, since not every name can name a member."""
    arrays = _scatter(feed)
    plain = [np.asarray(array, dtype=str) if array.dtype.kind == "O" else array for array in arrays.values()]
    np.savez(path, np.array(list(arrays), dtype=str), *plain, allow_pickle=False)


def restore(path: Path, slots: Sequence[Slot]) -> Feed:
    """The feed that ``store`` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        names = [str(name) for name in archive["arr_0"]]
        arrays = {name: archive[f"arr_{number}"] for number, name in enumerate(names, start=1)}
    return sets.checked(gather(arrays, slots), slots, slots, str(path), extras=True)


def _scatter(feed: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of ``gather``; empty optionals are left out."""
    arrays: dict[str, Any] = {}
    for name, value in feed.items():
        if isinstance(value, list):
            arrays.update({f"{name}[{number}]": item for number, item in enumerate(value)})
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
    known = {slot.name: slot for slot in (*slots, *optional)}
    feed: Feed = {}
    for path, by_order in zip(files, (*slots, *([None] * len(files))), strict=False):
        name, value = _read_protobuf(path, by_order.type if by_order else "tensor(float)")
        if name not in known and by_order is not None:
            name = by_order.name
        feed[name or path.stem] = value
    return sets.checked(feed, slots, optional, str(folder))


def _read_protobuf(path: Path, type_text: str) -> tuple[str, Any]:
    import onnx  # noqa: PLC0415 - only these folders hold protobufs
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with onnx
    from onnx import numpy_helper  # noqa: PLC0415 - only these folders hold protobufs

    kinds: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
        "seq(": (onnx.SequenceProto, numpy_helper.to_list),
        "optional(": (onnx.OptionalProto, numpy_helper.to_optional),
    }
    proto_type, convert = kinds.get(type_text.partition("(")[0] + "(", (onnx.TensorProto, numpy_helper.to_array))
    try:
        proto = proto_type.FromString(path.read_bytes())
        if isinstance(proto, onnx.TensorProto) and proto.data_location == onnx.TensorProto.EXTERNAL:
            raise DataError(f"{path}: its data is in another file; a feed keeps it inline")
        return proto.name, _plain_strings(convert(proto))
    except (*_READ_ERRORS, DecodeError, TypeError) as error:
        raise DataError(f"{path}: no ONNX tensor that can be read: {_trouble(error)}") from error


def _plain_strings(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        texts = [item.decode() if isinstance(item, bytes) else item for item in value.ravel()]
        return np.array(texts, dtype=object).reshape(value.shape)
    return [_plain_strings(item) for item in value] if isinstance(value, list) else value


def _npz_headers(path: Path) -> Iterator[tuple[str, tuple[np.dtype[Any], tuple[int, ...]]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                shape, _, dtype = _read_header(member)
                claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.hasobject:
                    raise ValueError("Object arrays cannot be loaded")
                if member.tell() + claimed != info.file_size:
                    raise ValueError(
                        f"{info.filename} claims {claimed} bytes and holds {info.file_size - member.tell()}"
                    )
            yield info.filename.removesuffix(".npy"), (dtype, shape)


def _read_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)  # 3.0 differs in the encoding of field names only


def _stem(name: str) -> str:
    found = _ITEM.fullmatch(name)
    return found[1] if found else name


def _trouble(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "Object arrays cannot be loaded" in text or "allow_pickle" in text:
        return "it holds pickled objects, which are never loaded; save plain arrays"
    return f"cannot be read: {text[:200]}"
