"""Groups of nearly equal weights, each with the one value that can stand for all of it.

::

    shared = sum_i uses_i * weight_i / sum_i uses_i          ||weight_i - shared|| <= tolerance * ||shared||  for each i

Only weights of the same type and shape are compared. Most pairs are told apart by count sketches, which are linear: of
a weight w that of 256 numbers, each the sum of the elements that a hash sends there, with random signs. The distance of
two sketches is that of the weights up to about 9 %; only groups that it lets through are measured. The cost is one
look at each weight, one more at each that has a near one, and the comparison of sketches.

Source of the sketch: Charikar, Chen, Farach-Colton 2002, "Finding frequent items in data streams".
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

_BUCKETS = 256
_DOUBT = 1.4  # by so much a distance of sketches may be too large
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Near:
    """Weights that one value can stand for.

    Attributes:
        members: Their positions in what was given, ascending.
        shared: The value, in their type and shape.
        distance: The largest relative distance of a member to it.
    """

    members: tuple[int, ...]
    shared: NDArray[np.floating]
    distance: float


def near_groups(tensors: Sequence[ir.TensorProtocol], uses: Sequence[int], tolerance: float, seed: int) -> list[Near]:
    """Disjoint groups of at least two of ``tensors``, the nearest first.

    Args:
        tensors: Of float types.
        uses: How many readers each has.
        tolerance: The relative L2 distance that a member may have to the shared value.
        seed: Of the sketches.
    """
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for number, tensor in enumerate(tensors):
        alike[tensor.dtype, tuple(tensor.shape.numpy())].append(number)
    found = []
    for numbers in alike.values():
        counts = [uses[number] for number in numbers]
        if len(numbers) > 1 and tensors[numbers[0]].size:
            for near in _groups([tensors[number] for number in numbers], counts, tolerance, seed):
                members = tuple(sorted(numbers[member] for member in near.members))
                found.append(Near(members, near.shared, near.distance))
    return sorted(found, key=lambda near: (near.distance, near.members))


def _groups(tensors: Sequence[ir.TensorProtocol], uses: Sequence[int], tolerance: float, seed: int) -> Iterator[Near]:
    """Groups of ``tensors`` of one shape: around each in turn, those that are near it and not in a group yet."""
    sketches = _sketches(tensors, seed)
    norms = np.linalg.norm(sketches, axis=1)
    left = np.isfinite(norms) & (norms > 0)
    for first in range(len(tensors)):
        if not left[first]:
            continue
        left[first] = False
        reach = 2 * tolerance * _DOUBT * norms[first] / max(1 - tolerance, 0.1)
        others = np.flatnonzero(left & (np.abs(norms - norms[first]) <= reach))
        distances = np.linalg.norm(sketches[others] - sketches[first], axis=1)
        near = others[distances <= reach].tolist()
        group = _measured(tensors, _core([first, *near], sketches, uses, tolerance * _DOUBT), uses, tolerance)
        if group is not None:
            left[list(group.members)] = False
            yield group


def _sketches(tensors: Sequence[ir.TensorProtocol], seed: int) -> NDArray[np.float64]:
    """A sketch of each of ``tensors``: (tensors, buckets)."""
    sketches = np.zeros((len(tensors), _BUCKETS))
    arrays = [tensor.numpy().reshape(-1) for tensor in tensors]
    random = np.random.default_rng(seed)
    for start in range(0, arrays[0].size, _CHUNK):
        parts = [array[start : start + _CHUNK] for array in arrays]
        drawn = random.integers(0, 2 * _BUCKETS, parts[0].size, np.uint16)
        for number, part in enumerate(parts):
            sums = np.bincount(drawn, part.astype(np.float64), 2 * _BUCKETS)
            sketches[number] += sums[:_BUCKETS] - sums[_BUCKETS:]
    return sketches


def _core(members: list[int], sketches: NDArray[np.float64], uses: Sequence[int], limit: float) -> list[int]:
    """``members`` without those that seem too far from the mean of the rest, the farthest first."""
    while len(members) > 1:
        weights = [uses[member] for member in members]
        mean = np.average(sketches[members], axis=0, weights=weights)
        distances = np.linalg.norm(sketches[members] - mean, axis=1)
        worst = int(np.argmax(distances))
        if distances[worst] <= limit * np.linalg.norm(mean):
            break
        members = [member for number, member in enumerate(members) if number != worst]
    return members


def _measured(
    tensors: Sequence[ir.TensorProtocol], members: list[int], uses: Sequence[int], tolerance: float
) -> Near | None:
    """The group of those ``members`` whose measured distance to their mean is within ``tolerance``."""
    while len(members) > 1:
        shared = _mean([tensors[member] for member in members], [uses[member] for member in members])
        norm = float(np.linalg.norm(shared.astype(np.float64)))
        distances = [_distance(tensors[member].numpy(), shared) for member in members]
        worst = int(np.argmax(distances))
        if np.isfinite(norm) and distances[worst] <= tolerance * norm:
            return Near(tuple(members), shared, distances[worst] / norm)
        members = [member for number, member in enumerate(members) if number != worst]
    return None


def _mean(tensors: Sequence[ir.TensorProtocol], uses: Sequence[int]) -> NDArray[np.floating]:
    """The mean of ``tensors`` weighted by ``uses``, in their type."""
    total = np.zeros(tuple(tensors[0].shape.numpy()))
    for tensor, count in zip(tensors, uses, strict=True):
        total += count * tensor.numpy().astype(np.float64)
    return (total / sum(uses)).astype(tensors[0].dtype.numpy())


def _distance(array: NDArray[np.floating], shared: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(array.astype(np.float64) - shared))
