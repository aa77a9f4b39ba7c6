"""Models to files, whole or not at all.

First the data file appears, named after its content, then the model file that names it, then data files that nothing
refers to any more go away. So at every moment the target is the old model or the new one, its data included, and the
source may be overwritten: its weights are mapped from the old file, which is replaced, never changed.
"""

from __future__ import annotations

import contextlib
import gzip
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from optimizer.errors import ModelError
from optimizer.io import atomic_files, file_layout

if TYPE_CHECKING:
    import os

    import onnx_ir as ir

FILE = "onnxhone.file"  # on the main graph's meta: name of the file that the model was loaded from
_GZIP_LEVEL = 6  # what the command does if it is not told
_DIGITS = 12  # of the SHA-256 in the name of a data file


def byte_size(model: ir.Model, path: str | os.PathLike[str] | None = None) -> int:
    """How many bytes ``save`` would write, data file included; nothing is written and no weight is copied.

    Args:
        model: Any model.
        path: Where it would be saved: the model file names the data file, which is named after it. Default: the name
            that it was loaded from.
    """
    name = Path(path).name if path is not None else model.graph.meta.get(FILE, "model.onnx")
    layout = file_layout.lay_out(model)
    return file_layout.length(layout.pieces(_data_name(name, "0" * _DIGITS))) + layout.data_size


def compressed_size(model: ir.Model) -> int:
    """How many bytes gzip makes of the files that ``save`` would write; nothing is written."""
    layout, counter = file_layout.lay_out(model), _Count()
    with gzip.GzipFile(fileobj=counter, mode="wb", mtime=0, compresslevel=_GZIP_LEVEL) as packed:
        file = cast("IO[bytes]", packed)
        file_layout.write_data(layout.entries, file)
        file_layout.write_pieces(layout.pieces(_data_name("model.onnx", "0" * _DIGITS)), file)
    return counter.size


class _Count:
    """A file that only counts its bytes."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def save(model: ir.Model, path: str | os.PathLike[str]) -> list[Path]:
    """Write ``model`` to ``path``, whole or not at all, also over the file that it was loaded from.

    Weights that were in files go into one file beside it, ``<file name>.<digits>.data``, named after its content:
    equal models give equal files. Data files of this scheme that nothing refers to any more are removed.

    Returns:
        The files that were written, the model first.

    Raises:
        ModelError: If it cannot be written there; then nothing has changed.
    """
    target = atomic_files.replaceable(path)
    layout = file_layout.lay_out(model)
    if file_layout.length(layout.pieces("")) > file_layout.PROTO_LIMIT:
        raise ModelError(
            f"{target}: the model without its initializers exceeds protobuf's 2 GB; move constants out of nodes"
        )
    with contextlib.ExitStack() as drafts:
        data = drafts.enter_context(atomic_files.draft(target)) if layout.entries else None
        name = _data_name(target.name, file_layout.write_data(layout.entries, data.file)) if data else ""
        written = drafts.enter_context(atomic_files.draft(target))
        file_layout.write_pieces(layout.pieces(name), written.file)
        with atomic_files.folder_lock(target.parent):
            _publish(written, target, data, name)
            _remove_unused_data(target, name)
    return [target, target.with_name(name)] if name else [target]


def _publish(written: atomic_files.Draft, target: Path, data: atomic_files.Draft | None, name: str) -> None:
    """Let the data file appear, then the model file that names it; neither stays if the second step fails."""
    if data is None:
        written.publish(target)
        return
    beside = target.with_name(name)
    is_new = not beside.exists()
    data.publish(beside)
    try:
        written.publish(target)
    except BaseException:
        if is_new:  # an older file of this name has the same content, and a model may refer to it
            beside.unlink(missing_ok=True)
        raise


def _data_name(model_name: str, digest: str) -> str:
    return f"{model_name}.{digest[:_DIGITS]}.data"


def _remove_unused_data(target: Path, name: str) -> None:
    """Remove data files of ``target`` that neither it nor another model in the folder names."""
    ours = re.compile(re.escape(target.name) + rf"\.[0-9a-f]{{{_DIGITS}}}\.data")
    old = [path for path in target.parent.iterdir() if ours.fullmatch(path.name) and path.name != name]
    if not old:
        return
    model_files = [path for path in target.parent.glob("*.onnx") if path.is_file() and path != target]
    for path in old:
        if not any(_mentions(model_file, path.name) for model_file in model_files):
            path.unlink(missing_ok=True)


def _mentions(path: Path, name: str) -> bool:
    """Whether a file holds a name, found without reading it into memory; one that cannot be read counts as if."""
    try:
        with path.open("rb") as file:
            return _find(file, name.encode())
    except OSError:
        return True


def _find(file: IO[bytes], word: bytes) -> bool:
    # The name may lie across two blocks: the end of the last one is looked at again
    tail = b""
    while block := file.read(1 << 20):
        if word in tail + block:
            return True
        tail = block[-len(word) :]
    return False
