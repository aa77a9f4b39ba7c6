"""A weight as codebooks and indices: which entries it gets, and which elements share them.

One codebook serves the whole weight, or groups of channels each have one. Channels of like spread are put together,
wherever they are, since a codebook fits what is alike: with 16 entries that loses 4 to 15 % less than groups of
neighbours. Vectors are of elements that follow each other in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optimizer.algorithms.clustering import gptq, mean_error
from optimizer.algorithms.clustering.bit_packing import bits_for
from optimizer.algorithms.clustering.kmeans import codebooks, nearest
from optimizer.algorithms.clustering.product_quantization import nearest_vectors, vector_codebook
from optimizer.algorithms.quantization.rows import square_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.clustering.activation_norms import ActivationNorms
    from optimizer.algorithms.clustering.gptq import Input
    from optimizer.algorithms.clustering.kmeans import Init
    from optimizer.algorithms.quantization.weight_rows import RowLayout

_MOVED = 16  # entries may move by this part of the way to the next
_SHARE = 64  # elements for each entry of a group's codebook: a quarter of a bit an element, for entries of 16 bits


@dataclass(frozen=True)
class Coding:
    """How weights are clustered.

    Attributes:
        entries: Of a codebook, 2 to 256.
        dims: Elements of an entry.
        group: Channels that share a codebook, 0 for all; ``auto``: as few as have 64 elements for each entry.
        init: Where k-means starts, for single elements.
        keep_zeros: Whether 0 is an entry; ``auto``: where zeros are more than an entry's share of the elements.
        seed: Of what is drawn.
    """

    entries: int
    dims: int = 1
    group: int | Literal["auto"] = 0
    init: Init = "density"
    keep_zeros: bool | Literal["auto"] = "auto"
    seed: int = 0

    @property
    def bits(self) -> float:
        """For an element, codebooks not counted."""
        return bits_for(self.entries) / self.dims

    def keeps_zeros(self, array: NDArray[Any]) -> bool:
        """Whether zeros of ``array`` stay 0."""
        if self.keep_zeros != "auto":
            return self.keep_zeros
        return bool(array.size - np.count_nonzero(array) > array.size / self.entries)

    def channels_of_a_group(self, rows: int, length: int) -> int:
        """How many rows of ``length`` elements share a codebook."""
        if self.group == "auto":
            # As many channels as hold _SHARE elements for each entry; over half of them, and one codebook serves all
            needed = -(-_SHARE * self.entries * self.dims // length)
            return min(needed, rows) if 2 * needed <= rows else rows
        return min(self.group, rows) or rows


@dataclass(frozen=True)
class Clustered:
    """A weight as indices into codebooks.

    Attributes:
        books: (codebooks, entries), or (codebooks, entries, elements of a vector); of the weight's type.
        owners: Which codebook each row has; ``None`` if there is one, or one for each row in turn.
        indices: (rows, elements) or (rows, vectors); with one codebook in one row.
        error: Relative L2 of the weight.
    """

    books: NDArray[Any]
    owners: NDArray[np.int64] | None
    indices: NDArray[np.uint8]
    error: float

    @property
    def bits(self) -> int:
        """Of an index."""
        return bits_for(self.books.shape[1])


def obstacle(shape: tuple[int, ...], coding: Coding) -> str | None:
    """Why a weight of ``shape`` cannot be cut into vectors; ``None`` if it can."""
    size = int(np.prod(shape))
    return None if size % coding.dims == 0 else f"{size} elements are no multiple of dims={coding.dims}"


def cluster(
    array: NDArray[Any],
    layout: RowLayout,
    coding: Coding,
    inputs: ActivationNorms | None = None,
    source: Input | None = None,
) -> Clustered:
    """``array`` in codebooks.

    Args:
        array: The weight, finite and without ``obstacle``.
        layout: Its rows.
        coding: How.
        inputs: What its elements are multiplied with, if that is known.
        source: The one kernel that reads it, and all second moments of what it is multiplied with, if that is known.
    """
    dtype = array.dtype
    wide = array.astype(np.float32) if dtype.itemsize < 4 else array
    weights = None if inputs is None else np.broadcast_to(inputs.power, array.shape)
    keep = coding.keeps_zeros(array)
    if coding.dims > 1:
        return _vectors(wide, dtype, coding, weights, keep=keep)
    rows, mass = layout.rows(wide), None if weights is None else layout.rows(weights)
    books, owners = _rows_books(rows, dtype, coding, mass, keep=keep)
    indices = _indices(wide, layout, (books, owners), inputs, source, keep=keep)
    error = _error(rows, books, owners, indices)
    if len(books) == 1:  # then rows do not matter: they go back to where they are in memory
        indices = (indices if layout.lead else indices.T).reshape(1, -1)
    return Clustered(books.astype(dtype), owners, np.ascontiguousarray(indices), error)


def _indices(  # noqa: PLR0913 - the weight, what it may become, and what it meets
    array: NDArray[Any],
    layout: RowLayout,
    codebooks_and_owners: tuple[NDArray[Any], NDArray[np.int64] | None],
    inputs: ActivationNorms | None,
    source: Input | None,
    *,
    keep: bool,
) -> NDArray[np.uint8]:
    """The entry for each element of the rows: by all that is known of the inputs."""
    rows, (books, owners) = layout.rows(array), codebooks_and_owners
    if source is not None:
        chosen = gptq.chosen(array, books, _numbers(layout, books, owners), source, keep_zeros=keep)
        return _nearest(layout.rows(chosen), books, owners)
    indices = _nearest(rows, books, owners)
    can_choose = len(books) == 1 or books.shape[1] <= mean_error.MOST_ENTRIES
    if inputs is None or inputs.mean is None or not can_choose:
        return indices
    power, mean = (layout.rows(np.broadcast_to(statistic, array.shape)) for statistic in (inputs.power, inputs.mean))
    return mean_error.mean_keeping(rows, indices, books=books, owners=owners, power=power, mean=mean, keep_zeros=keep)


def _numbers(layout: RowLayout, books: NDArray[Any], owners: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Which codebook each element of the weight has, in its shape."""
    each = np.arange(len(books)) if owners is None else owners
    count = math.prod(layout.shape) // layout.length
    rows = np.broadcast_to(each[:, np.newaxis], (count, layout.length))
    return rows.reshape(layout.shape) if layout.lead else rows.T


def _rows_books(
    rows: NDArray[Any], dtype: np.dtype[Any], coding: Coding, masses: NDArray[Any] | None, *, keep: bool
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Codebooks for rows, and which of them each row has; see ``Clustered``."""
    size = coding.channels_of_a_group(*rows.shape)
    if size == len(rows):
        book = _books(rows.reshape(1, -1), dtype, coding, None if masses is None else masses.reshape(1, -1), keep=keep)
        return np.unique(book)[np.newaxis], None
    # Channels sorted by their norm: like spreads share a codebook. The last group may be smaller
    order = np.argsort(square_sums(rows), kind="stable")
    whole = len(rows) // size * size
    books = [
        _books(group, dtype, coding, None if masses is None else masses[members].reshape(group.shape), keep=keep)
        for members in (order[:whole].reshape(-1, size), order[np.newaxis, whole:])
        if (group := rows[members].reshape(len(members), -1)).size
    ]
    # Back to the order of the rows; with a codebook for each row, that order needs no owners
    owners = np.empty(len(rows), np.int64)
    owners[order] = np.arange(len(rows)) // size
    stacked = np.concatenate(books)
    return (stacked, owners) if size > 1 else (stacked[owners], None)


def _books(
    rows: NDArray[Any], dtype: np.dtype[Any], coding: Coding, masses: NDArray[Any] | None, *, keep: bool
) -> NDArray[Any]:
    """A codebook for each row, rounded to ``dtype``."""
    books = codebooks(rows, coding.entries, masses, init=coding.init, keep_zeros=keep).astype(dtype)
    return books.astype(rows.dtype) if dtype != np.float32 else _halved(books)


def _halved(books: NDArray[np.float32]) -> NDArray[np.float32]:
    """``books`` rounded to 16 bits, in which they can be stored, if that moves no entry far on the way to the next.

    Rows of fewer different entries hold the numbers of the weight exactly, and may not be moved at all.
    """
    with np.errstate(over="ignore"):
        halved = books.astype(np.float16).astype(np.float32)
    # No room where two entries are equal: such a row holds the numbers of the weight exactly
    gaps = np.diff(books, axis=1)
    room = np.where((gaps == 0).any(axis=1, keepdims=True), 0, gaps / _MOVED)
    moved = np.abs(halved - books)
    is_close = np.all(moved[:, 1:] <= room) and np.all(moved[:, :-1] <= room)
    return halved if is_close else books


def _nearest(rows: NDArray[Any], books: NDArray[Any], owners: NDArray[np.int64] | None) -> NDArray[np.uint8]:
    """Each element of ``rows`` as the nearest entry of its row's codebook."""
    if len(books) == 1:
        return nearest(rows, books[0])
    indices = np.empty(rows.shape, np.uint8)
    for number, row in enumerate(rows):
        indices[number] = nearest(row, books[number if owners is None else owners[number]])
    return indices


def _error(
    rows: NDArray[Any], books: NDArray[Any], owners: NDArray[np.int64] | None, indices: NDArray[np.uint8]
) -> float:
    """Relative L2 of all rows."""
    error = power = 0.0
    for number, row in enumerate(rows):
        book = books[number % len(books) if owners is None else owners[number]]
        error += _squares(row - book[indices[number]])
        power += _squares(row)
    return math.sqrt(error / power) if power else 0.0


def _vectors(
    array: NDArray[Any], dtype: np.dtype[Any], coding: Coding, masses: NDArray[Any] | None, *, keep: bool
) -> Clustered:
    """Vectors of elements that follow each other, as the nearest entries of one codebook."""
    vectors = array.reshape(-1, coding.dims)
    weights = None if masses is None else masses.reshape(vectors.shape)
    book = vector_codebook(vectors, coding.entries, weights, keep_zeros=keep, seed=coding.seed)
    book = book.astype(dtype).astype(array.dtype)
    indices = nearest_vectors(vectors, book, weights)
    error, power = _squares(vectors - book[indices]), _squares(vectors)
    return Clustered(book[np.newaxis].astype(dtype), None, indices[np.newaxis], math.sqrt(error / max(power, 1e-300)))


def _squares(array: NDArray[Any]) -> float:
    flat = array.reshape(-1)
    return float(np.einsum("i,i", flat, flat, dtype=np.float64))
