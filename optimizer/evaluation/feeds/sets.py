"""Sets of feeds, how they are split, and whether a feed fits the model.

A feed is one inference's inputs by name. A set loads a feed when it is asked for it and keeps none, so memory does not
grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from optimizer.errors import DataError
from optimizer.evaluation.runtime.ort_values import element_type

if TYPE_CHECKING:
    from optimizer.evaluation.runtime.session import Slot

Feed = dict[str, Any]
Origin = Literal["files", "iterable", "generated"]
_SPLIT = 3  # every third feed validates; every third block of the calibration feeds selects
_BLOCKS = 12


class FeedSet(Sequence[Feed]):
    """Feeds by number, each loaded anew when asked for; of what is in them, only ``names`` if those are given."""

    def __init__(
        self, load: Callable[[int], Feed], numbers: Sequence[int], names: frozenset[str] | None = None
    ) -> None:
        self._load = load
        self._numbers = tuple(numbers)
        self._names = names

    @property
    def whole(self) -> FeedSet:
        """The same feeds with all that is in them."""
        return FeedSet(self._load, self._numbers)

    def only(self, positions: Sequence[int]) -> FeedSet:
        """The feeds at ``positions``."""
        return FeedSet(self._load, [self._numbers[position] for position in positions], self._names)

    def spread(self, most: int) -> FeedSet:
        """At most ``most`` feeds, evenly spread over all."""
        return self.only([index * len(self) // most for index in range(most)]) if len(self) > most else self

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> FeedSet: ...
    def __getitem__(self, index: int | slice) -> Feed | FeedSet:
        if isinstance(index, slice):
            return FeedSet(self._load, self._numbers[index], self._names)
        feed = self._load(self._numbers[index])
        return feed if self._names is None else {name: feed[name] for name in feed if name in self._names}


@dataclass(frozen=True)
class Split:
    """The sets of feeds.

    Attributes:
        calibration: What passes may look at.
        fitting: Those of the calibration feeds that weights are fitted to; all, where there is but one.
        selection: The others, a third, which searches judge by: blocks of neighbours, since feeds that follow each
            other are often much alike, and what was fitted to one would be judged too well by the next.
        validation: What the verdicts are passed on.
        origin: Where the feeds come from.
        notes: What the report should say about them.
    """

    calibration: FeedSet
    fitting: FeedSet
    selection: FeedSet
    validation: FeedSet
    origin: Origin
    notes: tuple[str, ...] = ()


def split(
    load: Callable[[int], Feed],
    count: int,
    origin: Origin,
    notes: Sequence[str] = (),
    names: frozenset[str] | None = None,
) -> Split:
    """Split ``count`` feeds: numbers 0, 3, 6 … validate, the others calibrate. A single feed does both.

    Args:
        load: Loads a feed.
        count: How many there are.
        origin: Where they come from.
        notes: What the report should say about them.
        names: The model's inputs, where feeds hold more than those.
    """
    validation = range(0, count, _SPLIT)
    calibration = [number for number in range(count) if number % _SPLIT] or list(validation)
    if count == 1:
        notes = [*notes, "there is one feed only: it calibrates and validates"]
    return two_sets(FeedSet(load, calibration, names), FeedSet(load, validation, names), origin, notes)


def two_sets(calibration: FeedSet, validation: FeedSet, origin: Origin, notes: Sequence[str] = ()) -> Split:
    """A split whose two sets are given; every third block of the calibration feeds selects.

    Args:
        calibration: What passes may look at.
        validation: What the verdicts are passed on.
        origin: Where the feeds come from.
        notes: What the report should say about them.
    """
    # Twelve blocks of neighbours, or as many as there are feeds; every third of them selects.
    count = len(calibration)
    block = [index * min(_BLOCKS, count) // count for index in range(count)]
    selects = [index for index in range(count) if block[index] % _SPLIT == 0]
    fits = [index for index in range(count) if block[index] % _SPLIT] or selects
    return Split(calibration, calibration.only(fits), calibration.only(selects), validation, origin, tuple(notes))


def check_names(
    names: Sequence[str], slots: Sequence[Slot], optional: Sequence[Slot], where: str, *, extras: bool = False
) -> None:
    """Check that a feed has every input, and nothing else but ``extras`` if it may have those.

    Raises:
        DataError: Naming ``where`` it is from, and what is missing or unknown.
    """
    names_of_model = [slot.name for slot in (*slots, *optional)]
    missing = [slot.name for slot in slots if slot.name not in names and not slot.type.startswith("optional(")]
    if missing:
        raise DataError(
            f"{where}: no input {', '.join(map(repr, missing))}; the model needs {', '.join(map(repr, names_of_model))}"
        )
    unknown = [name for name in names if name not in names_of_model]
    if unknown and not extras:
        raise DataError(
            f"{where}: {', '.join(map(repr, unknown))} is not an input of the model;"
            f" it has {', '.join(map(repr, names_of_model)) or 'none'}"
        )


def check_array(dtype: np.dtype[Any], shape: Sequence[int], slot: Slot, where: str) -> None:
    """Check that an array of ``dtype`` and ``shape`` fits the input ``slot``.

    Raises:
        DataError: Naming ``where`` it is from, the input, what was expected and what was found.
    """
    expected = numpy_type(slot)
    if expected is not None and not _same_type(dtype, expected):
        raise DataError(f"{where}: input {slot.name!r} has dtype {dtype}, the model takes {expected}; save it as that")
    if not slot.type.startswith("tensor(") or not slot.ranked:
        return
    if len(shape) != len(slot.shape):
        raise DataError(f"{where}: input {slot.name!r} has rank {len(shape)}, the model takes {_shape_text(slot)}")
    for axis, (size, declared) in enumerate(zip(shape, slot.shape, strict=True)):
        if isinstance(declared, int) and declared >= 0 and size != declared:
            raise DataError(
                f"{where}: input {slot.name!r} has shape {_listed(shape)},"
                f" the model takes {_shape_text(slot)} (axis {axis})"
            )


def checked(
    feed: Mapping[str, Any], slots: Sequence[Slot], optional: Sequence[Slot], where: str, *, extras: bool = False
) -> Feed:
    """``feed`` with values as the model takes them; ``extras`` that are not inputs stay as they are.

    Raises:
        DataError: If it does not fit.
    """
    if not isinstance(feed, Mapping):
        raise DataError(f"{where}: a feed is a mapping from input name to array, found {type(feed).__name__}")
    check_names([str(name) for name in feed], slots, optional, where, extras=extras)
    by_name = {slot.name: slot for slot in (*slots, *optional)}
    return {name: _value(value, by_name[name], where) if name in by_name else value for name, value in feed.items()}


def numpy_type(slot: Slot) -> np.dtype[Any] | None:
    """The numpy (or ``ml_dtypes``) type of the elements of ``slot``; ``None`` if it has none."""
    dtype = element_type(slot.type)
    return None if dtype is None else np.dtype(dtype.numpy())


def _value(value: Any, slot: Slot, where: str) -> Any:
    if value is None:
        if slot.type.startswith("optional("):
            return None
        raise DataError(f"{where}: input {slot.name!r} is None, the model takes {slot.type}")
    if slot.type.startswith(("seq(", "optional(seq(")):
        if not isinstance(value, (list, tuple)):
            raise DataError(f"{where}: input {slot.name!r} is not a list, the model takes {slot.type}")
        return [_array(element, slot, where) for element in value]
    return value if "map(" in slot.type else _array(value, slot, where)


def _array(value: Any, slot: Slot, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    if not isinstance(value, (np.ndarray, np.generic)):
        value = _from_plain(value, slot, where)
    array = np.asarray(value)
    check_array(array.dtype, array.shape, slot, where)
    expected = numpy_type(slot)
    # Raw bytes that .npz kept in place of a type that numpy lacks.
    if expected is not None and array.dtype.kind == "V":
        return array.view(expected)
    return array


def _from_plain(value: Any, slot: Slot, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Python numbers and lists, and arrays of other libraries, take the input's type where that loses nothing."""
    try:
        array = np.asarray(value)
        expected = numpy_type(slot)
        is_plain = isinstance(value, (bool, int, float, str, list, tuple))
        return array.astype(expected, casting="same_kind") if is_plain and expected is not None else array
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: input {slot.name!r} is not an array of {slot.type}: {error}") from error


def _same_type(actual: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    if expected.kind == "O":  # strings
        return actual.kind in "OUS"
    if actual.kind == "V" and actual.names is None:  # how .npz keeps bfloat16 and its like
        return expected.kind not in "fiubc" and actual.itemsize == expected.itemsize
    return actual == expected


def _shape_text(slot: Slot) -> str:
    return _listed(slot.shape)


def _listed(shape: Sequence[object]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
