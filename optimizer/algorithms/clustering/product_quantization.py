"""Codebooks of short vectors: product quantization by k-means.

    minimize  sum_i sum_j m_ij (w_ij - c[a_i]_j)^2        w_i the vectors, m_ij what an error of an element counts

Jégou, Douze, Schmid 2011 (IEEE TPAMI 33, "Product quantization for nearest neighbor search"); on weights Gong et al.
2014, arXiv:1412.6115. The first entries are drawn by k-means++ (Arthur, Vassilvitskii 2007) from a fixed seed, and at
most ``SAMPLE`` vectors for each entry, evenly spread over the weight, are what they are fitted to.

The distances are products of matrices: sum_j m w^2 - 2 (m w) c + m c^2, the first term the same for all entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE = 128
_ROUNDS = 20
_DISTANCES = 1 << 22  # at a time


def vector_codebook(
    vectors: NDArray[Any], entries: int, masses: NDArray[Any] | None = None, *, keep_zeros: bool = False, seed: int = 0
) -> NDArray[Any]:
    """Entries for vectors.

    Args:
        vectors: Finite floats, (vectors, elements).
        entries: At most how many; there are fewer where there are fewer different vectors.
        masses: In the shape of ``vectors``, or all alike.
        keep_zeros: Whether the vector of zeros is one of them.
        seed: Of the draw.

    Returns:
        (entries or fewer, elements), of the type of ``vectors``.
    """
    step = max(len(vectors) // (SAMPLE * entries), 1)
    points = vectors[::step].astype(np.float64)
    weights = np.ones_like(points) if masses is None else masses[::step].astype(np.float64)
    centers = _drawn(points, weights, entries, np.random.default_rng(seed), keep_zeros=keep_zeros)
    last = None
    for _ in range(_ROUNDS):
        chosen = nearest_vectors(points, centers, weights)
        if last is not None and np.array_equal(chosen, last):
            break
        last = chosen
        # Each element of a center is the mean of its members' elements, weighted by what their errors count
        for axis in range(points.shape[1]):
            mass = np.bincount(chosen, weights[:, axis], len(centers))
            sums = np.bincount(chosen, weights[:, axis] * points[:, axis], len(centers))
            centers[:, axis] = np.where(mass > 0, sums / np.where(mass > 0, mass, 1), centers[:, axis])
        if keep_zeros:
            centers[0] = 0
    return centers.astype(vectors.dtype)


def nearest_vectors(
    vectors: NDArray[Any], entries: NDArray[Any], masses: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """Which of at most 256 ``entries`` is nearest to each of ``vectors``, errors counting by ``masses``."""
    indices = np.empty(len(vectors), np.uint8)
    book = entries.astype(np.float64)
    step = max(_DISTANCES // len(book), 1)
    for begin in range(0, len(vectors), step):
        points = vectors[begin : begin + step].astype(np.float64)
        weights = np.ones_like(points) if masses is None else masses[begin : begin + step].astype(np.float64)
        indices[begin : begin + step] = np.argmin(weights @ (book**2).T - 2 * (weights * points) @ book.T, axis=1)
    return indices


def _drawn(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    entries: int,
    random: np.random.Generator,
    *,
    keep_zeros: bool,
) -> NDArray[np.float64]:
    """First entries among the points, each drawn by its squared distance from those before."""
    first = np.zeros(points.shape[1]) if keep_zeros else points[random.integers(len(points))]
    centers = [first]
    distance = np.sum(weights * (points - first) ** 2, axis=1)
    while len(centers) < entries and (total := float(distance.sum())) > 0:
        # k-means++: a point is drawn with probability proportional to its squared distance from the centers so far
        at = int(np.searchsorted(np.cumsum(distance), random.random() * total, side="right"))
        centers.append(points[min(at, len(points) - 1)])
        np.minimum(distance, np.sum(weights * (points - centers[-1]) ** 2, axis=1), out=distance)
    return np.array(centers)
