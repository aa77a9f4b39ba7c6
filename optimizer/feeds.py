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

from optimizer import feed_files, feed_sets
from optimizer.errors import DataError
from optimizer.feed_sets import Feed, FeedSet, Split
from optimizer.feed_shapes import parse_shapes
from optimizer.generated_feeds import generate

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.runtime import Slot

__all__ = ["Feed", "FeedSet", "Split", "generate", "load_feeds", "parse_shapes"]


def load_feeds(
    data: str | Path | Iterable[Mapping[str, Any]], inputs: Sequence[Slot], overridable: Sequence[Slot] = ()
) -> Split:
    """Feeds from a folder or an iterable, checked against the model's inputs.

    Args:
        data: A folder, or an iterable of mappings from input name to array. Sequences are indexed when a feed is
            needed; other iterables are read once, into temporary files that vanish with the result.
        inputs: The inputs that a feed must have.
        overridable: Initializers that a feed may override.

    Raises:
        DataError: With file, input, what was expected and what was found.
    """
    if isinstance(data, (str, Path)):
        return _from_folder(Path(data), inputs, overridable)
    return _from_iterable(data, inputs, overridable)


def _from_folder(folder: Path, inputs: Sequence[Slot], overridable: Sequence[Slot]) -> Split:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold .npz feeds or test_data_set_* folders")
    parts = [folder / "calib", folder / "valid"]
    if any(part.is_dir() for part in parts):
        calibration, validation = (_loader(part, inputs, overridable) for part in parts)
        return feed_sets.two_sets(_all(*calibration), _all(*validation), "files")
    return feed_sets.split(*_loader(folder, inputs, overridable), "files")


def _all(load: Callable[[int], Feed], count: int) -> FeedSet:
    return FeedSet(load, range(count))


def _loader(folder: Path, inputs: Sequence[Slot], overridable: Sequence[Slot]) -> tuple[Callable[[int], Feed], int]:
    """How to load feed number i of a folder, and how many there are; all headers are checked first."""
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if paths:
        for path in paths:
            feed_files.check_npz(path, inputs, overridable)
        return (lambda number: feed_files.read_npz(paths[number], inputs, overridable)), len(paths)
    sets = sorted(folder.glob("test_data_set_*"), key=lambda path: (len(path.name), path.name))
    if not sets and any(folder.glob("input_*.pb")):
        sets = [folder]
    if not sets:
        raise DataError(f"{folder}: no feeds in it; it should hold .npz files, one inference each, keyed by input name")
    return (lambda number: feed_files.read_test_data(sets[number], inputs, overridable)), len(sets)


def _from_iterable(data: Iterable[Mapping[str, Any]], inputs: Sequence[Slot], overridable: Sequence[Slot]) -> Split:
    if not isinstance(data, Iterable) or isinstance(data, (Mapping, bytes)):
        raise DataError(f"feeds are an iterable of mappings from input name to array, found {type(data).__name__}")
    if isinstance(data, Sequence):
        if not data:
            raise DataError("no feeds: the sequence is empty")

        def load(number: int) -> Feed:
            return feed_sets.checked(data[number], inputs, overridable, f"feed {number}")

        load(0)
        return feed_sets.split(load, len(data), "iterable")
    return _spooled(data, inputs, overridable)


def _spooled(data: Iterable[Mapping[str, Any]], inputs: Sequence[Slot], overridable: Sequence[Slot]) -> Split:
    """Read a one-shot iterable once; its feeds wait in temporary files, which vanish with the last use of them."""
    spool = _Spool()
    count = 0
    for feed in data:
        ready = feed_sets.checked(feed, inputs, overridable, f"feed {count}")
        feed_files.store(spool.path(count), ready)
        count += 1
    if not count:
        raise DataError("no feeds: the iterable is empty")
    return feed_sets.split(partial(_unspool, spool, inputs), count, "iterable")


class _Spool:
    """A temporary folder that vanishes with the last use of it, or when the program ends."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="feeds"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def path(self, number: int) -> Path:
        """The file of feed ``number``."""
        return self._folder / f"{number}.npz"


def _unspool(spool: _Spool, inputs: Sequence[Slot], number: int) -> Feed:
    return feed_files.restore(spool.path(number), inputs)
