"""Choosing entries of codebooks so that a kernel's outputs change least, from the second moments of its input.

Column by column, each passing its error on to later ones (``optimizer.algorithms.reconstruction.gptq``), where the
numbers that an element may become are the entries of its codebook. Rows that gain nothing by it keep the nearest
entries.

All codebooks are searched at once: entries are put on one line, those of codebook b between b and b + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.algorithms.reconstruction.gptq import better, damping, gptq
from optimizer.statistics import im2col

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.statistics.second_moments import SecondMoments


@dataclass(frozen=True)
class Input:
    """What reads a weight, and the moments of what it multiplies it with.

    Attributes:
        node: A kernel that ``second_moments.refusal`` does not refuse.
        moments: Of its input; with some rows.
    """

    node: ir.Node
    moments: SecondMoments


def chosen(
    array: NDArray[Any], books: NDArray[Any], owners: NDArray[np.integer[Any]], source: Input, *, keep_zeros: bool
) -> NDArray[Any]:
    """Each element of a weight as an entry of its codebook.

    Args:
        array: The weight, as the kernel reads it; finite.
        books: Ascending entries, (codebooks, entries).
        owners: Which codebook each element has, in a shape that broadcasts to that of ``array``.
        source: What it is multiplied with.
        keep_zeros: Whether zeros stay 0; it is an entry of all codebooks then.

    Returns:
        In the shape of ``array``, of the type of ``books``. No row of the kernel's matrix has a larger
        ``quadratic_error`` than with the nearest entries.
    """
    matrix = im2col.as_matrix(source.node, array).astype(np.float64)
    numbers = im2col.as_matrix(source.node, np.broadcast_to(owners, array.shape))
    entries, square = _Entries(books.astype(np.float64)), source.moments.second_moment

    def rounded(column: NDArray[np.float64], at: NDArray[np.intp]) -> NDArray[np.float64]:
        return entries.nearest(column, _column(numbers, at))

    nearest = np.where((matrix == 0) & keep_zeros, 0.0, entries.nearest(matrix, numbers))
    damping_share = damping(matrix.shape[-1], source.moments.rows)
    passed_on = gptq(matrix, square, rounded, damping_share, keep_zeros=keep_zeros)
    return im2col.from_matrix(source.node, better(matrix, nearest, passed_on, square).astype(books.dtype))


class _Entries:
    """The entries of several codebooks on one line."""

    def __init__(self, books: NDArray[np.float64]) -> None:
        self._books, self._low = books, books[:, 0]
        span = books[:, -1] - books[:, 0]
        self._span = np.where(span > 0, span, 1.0)
        middles = (books[:, 1:] + books[:, :-1]) / 2
        self._limits = self._on_line(middles, np.arange(len(books))[:, np.newaxis]).reshape(-1)

    def nearest(self, numbers: NDArray[np.float64], owners: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """The entry nearest to each number in its codebook."""
        most = self._books.shape[1] - 1
        at = np.searchsorted(self._limits, self._on_line(numbers, owners)) - owners * most
        return np.asarray(self._books[owners, at])

    def _on_line(self, numbers: NDArray[np.float64], owners: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        return np.asarray(owners + np.clip((numbers - self._low[owners]) / self._span[owners], 0, 1))


def _column(array: NDArray[Any], at: NDArray[np.intp]) -> NDArray[Any]:
    """Column ``at`` of each group of ``array``, (…, out, K)."""
    return np.take_along_axis(array, at[..., np.newaxis, np.newaxis], axis=-1)[..., 0]
