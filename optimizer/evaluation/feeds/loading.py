"""Where inputs come from: a folder, a Python iterable, or generated from the model.

A folder holds ``.npz`` files, one inference each, keyed by input name; with ``calib/`` and ``valid/`` in it these are
the two sets, else every third feed validates. ONNX's ``test_data_set_*`` folders work as well.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import DataError
from optimizer.evaluation.feeds import files
from optimizer.evaluation.feeds.generated import generate
from optimizer.evaluation.feeds.sets import Feed, FeedSet, Split, checked, split, two_sets
from optimizer.evaluation.feeds.shapes import parse_shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.evaluation.runtime.session import Slot

__all__ = ["Feed", "FeedSet", "Split", "generate", "load_feeds", "parse_shapes"]


def load_feeds(
    data: str | Path | Iterable[Mapping[str, Any]],
    inputs: Sequence[Slot],
    overridable: Sequence[Slot] = (),
    *,
    extras: bool = False,
) -> Split:
    """Feeds from a folder or an iterable, checked against the model's inputs.

    Args:
        data: A folder, or an iterable of mappings from input name to array. Sequences are indexed when a feed is
            needed; other iterables are read once, into temporary files that vanish with the result.
        inputs: The inputs that a feed must have.
        overridable: Initializers that a feed may override.
        extras: Whether feeds may hold more, such as labels, which only ``FeedSet.whole`` shows.

    Raises:
        DataError: With file, input, what was expected and what was found.
    """
    if isinstance(data, (str, Path)):
        return _from_folder(Path(data), inputs, overridable, extras)
    return _from_iterable(data, inputs, overridable, extras)


def _visible_names(inputs: Sequence[Slot], overridable: Sequence[Slot], extras: bool) -> frozenset[str] | None:
    """The names that a feed shows, where it may hold more."""
    return frozenset(slot.name for slot in (*inputs, *overridable)) if extras else None


def _from_folder(folder: Path, inputs: Sequence[Slot], overridable: Sequence[Slot], extras: bool) -> Split:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold .npz feeds or test_data_set_* folders")
    folders = [folder / "calib", folder / "valid"]
    visible = _visible_names(inputs, overridable, extras)
    if any(subfolder.is_dir() for subfolder in folders):
        loaders = (_loader(subfolder, inputs, overridable, extras) for subfolder in folders)
        calibration, validation = (FeedSet(load, range(count), visible) for load, count in loaders)
        return two_sets(calibration, validation, "files")
    return split(*_loader(folder, inputs, overridable, extras), "files", names=visible)


def _loader(
    folder: Path, inputs: Sequence[Slot], overridable: Sequence[Slot], extras: bool
) -> tuple[Callable[[int], Feed], int]:
    """How to load feed number i of a folder, and how many there are; all headers are checked first."""
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if paths:
        for path in paths:
            files.check_npz(path, inputs, overridable, extras=extras)
        return (lambda number: files.read_npz(paths[number], inputs, overridable, extras=extras)), len(paths)
    sets = sorted(folder.glob("test_data_set_*"), key=lambda path: (len(path.name), path.name))
    if not sets and any(folder.glob("input_*.pb")):
        sets = [folder]
    if not sets:
        raise DataError(f"{folder}: no feeds in it; it should hold .npz files, one inference each, keyed by input name")
    return (lambda number: files.read_test_data(sets[number], inputs, overridable)), len(sets)


def _from_iterable(
    data: Iterable[Mapping[str, Any]], inputs: Sequence[Slot], overridable: Sequence[Slot], extras: bool
) -> Split:
    # A mapping and bytes iterate too, over names and numbers.
    if not isinstance(data, Iterable) or isinstance(data, (Mapping, bytes)):
        raise DataError(f"feeds are an iterable of mappings from input name to array, found {type(data).__name__}")
    if isinstance(data, Sequence):
        if not data:
            raise DataError("no feeds: the sequence is empty")

        def load(number: int) -> Feed:
            return checked(data[number], inputs, overridable, f"feed {number}", extras=extras)

        load(0)
        return split(load, len(data), "iterable", names=_visible_names(inputs, overridable, extras))
    return _spooled(data, inputs, overridable, extras)


def _spooled(
    data: Iterable[Mapping[str, Any]], inputs: Sequence[Slot], overridable: Sequence[Slot], extras: bool
) -> Split:
    """Read a one-shot iterable once; its feeds wait in temporary files, which vanish with the last use of them."""
    spool = _Spool()
    names = _visible_names(inputs, overridable, extras)
    count = 0
    for feed in data:
        ready = checked(feed, inputs, overridable, f"feed {count}", extras=extras)
        if names is not None:
            ready = {name: value if name in names else _extra(value, name) for name, value in ready.items()}
        files.store(spool.path(count), ready)
        count += 1
    if not count:
        raise DataError("no feeds: the iterable is empty")
    return split(partial(_unspool, spool, inputs), count, "iterable", names=names)


def _extra(value: Any, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of a feed that is not an input, in a form that can wait in a file."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biufcSU":
        raise DataError(f"{name!r} of a feed is not a plain array; give the feeds as a list, or save plain arrays")
    return array


class _Spool:
    """A temporary folder that vanishes with the last use of it, or when the program ends."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="feeds"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def path(self, number: int) -> Path:
        """The file of feed ``number``."""
        return self._folder / f"{number}.npz"


def _unspool(spool: _Spool, inputs: Sequence[Slot], number: int) -> Feed:
    return files.restore(spool.path(number), inputs)
