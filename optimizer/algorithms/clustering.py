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

from optimizer.algorithms.block_quantization import square_sums
from optimizer.algorithms.codebooks import codebooks, nearest
from optimizer.algorithms.index_packing import bits_for
from optimizer.algorithms.vector_codebooks import nearest_vectors, vector_codebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.codebooks import Init
    from optimizer.algorithms.weight_layouts import Layout

_SHARE = 128  # elements for each entry of a group's codebook: a quarter of a bit for an element of 32


@dataclass(frozen=True)
class Coding:
    """How weights are clustered.

    Attributes:
        entries: Of a codebook, 2 to 256.
        dims: Elements of an entry.
        group: Channels that share a codebook, 0 for all; ``auto``: as few as have 128 elements for each entry.
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


def cluster(array: NDArray[Any], layout: Layout, coding: Coding, masses: NDArray[Any] | None = None) -> Clustered:
    """``array`` in codebooks.

    Args:
        array: The weight, finite and without ``obstacle``.
        layout: Its rows.
        coding: How.
        masses: What an error of an element counts, in a shape that broadcasts to that of ``array``.
    """
    kind = array.dtype
    wide = array.astype(np.float32) if kind.itemsize < 4 else array
    weights = None if masses is None else np.broadcast_to(masses, array.shape)
    keep = coding.keeps_zeros(array)
    if coding.dims > 1:
        return _vectors(wide, kind, coding, weights, keep=keep)
    rows = layout.rows(wide)
    size = coding.channels_of_a_group(*rows.shape)
    if size == len(rows):
        flat = wide.reshape(1, -1)
        book = _books(flat, kind, coding, None if weights is None else weights.reshape(1, -1), keep=keep)
        return _numbers(flat, kind, np.unique(book)[np.newaxis], None)
    mass = None if weights is None else layout.rows(weights)
    order = np.argsort(square_sums(rows), kind="stable")
    whole = len(rows) // size * size
    books = [
        _books(part, kind, coding, None if mass is None else mass[members].reshape(part.shape), keep=keep)
        for members in (order[:whole].reshape(-1, size), order[np.newaxis, whole:])
        if (part := rows[members].reshape(len(members), -1)).size
    ]
    owners = np.empty(len(rows), np.int64)
    owners[order] = np.arange(len(rows)) // size
    found = np.concatenate(books)
    return _numbers(rows, kind, found, owners) if size > 1 else _numbers(rows, kind, found[owners], None)


def _books(
    rows: NDArray[Any], kind: np.dtype[Any], coding: Coding, masses: NDArray[Any] | None, *, keep: bool
) -> NDArray[Any]:
    """A codebook for each row, rounded to ``kind``."""
    found = codebooks(rows, coding.entries, masses, init=coding.init, keep_zeros=keep)
    return found.astype(kind).astype(rows.dtype)


def _numbers(
    rows: NDArray[Any], kind: np.dtype[Any], books: NDArray[Any], owners: NDArray[np.int64] | None
) -> Clustered:
    """Each element of ``rows`` as the nearest entry of its row's codebook."""
    indices, error, power = np.empty(rows.shape, np.uint8), 0.0, 0.0
    for number, row in enumerate(rows):
        book = books[number % len(books) if owners is None else owners[number]]
        indices[number] = nearest(row, book)
        error += _squares(row - book[indices[number]])
        power += _squares(row)
    return Clustered(books.astype(kind), owners, indices, math.sqrt(error / power) if power else 0.0)


def _vectors(
    array: NDArray[Any], kind: np.dtype[Any], coding: Coding, masses: NDArray[Any] | None, *, keep: bool
) -> Clustered:
    """Vectors of elements that follow each other, as the nearest entries of one codebook."""
    vectors = array.reshape(-1, coding.dims)
    weights = None if masses is None else masses.reshape(vectors.shape)
    book = vector_codebook(vectors, coding.entries, weights, keep_zeros=keep, seed=coding.seed)
    book = book.astype(kind).astype(array.dtype)
    indices = nearest_vectors(vectors, book, weights)
    error, power = _squares(vectors - book[indices]), _squares(vectors)
    return Clustered(book[np.newaxis].astype(kind), None, indices[np.newaxis], math.sqrt(error / max(power, 1e-300)))


def _squares(array: NDArray[Any]) -> float:
    flat = array.reshape(-1)
    return float(np.einsum("i,i", flat, flat, dtype=np.float64))
