"""Tensors that are another tensor with its axes permuted, such as an embedding [V, H] and a projection [H, V].

Element (k, k, …, k) keeps its place under every permutation of the axes, and so does the sum of all elements. Tensors
with the same dtype, the same set of dimensions, the same first diagonal elements and the same sum of bit patterns are
compared element by element, in tiles, under each permutation that fits the shapes. Weights in external files are
mapped, and their pages given back as soon as they were read.
"""

from __future__ import annotations

import itertools
import mmap
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.errors import ModelError
from optimizer.io.external_data import MappedTensor
from optimizer.io.tensor_contents import chunks, open_external

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from numpy.typing import NDArray

_DIAGONAL = 64
_TILE_ELEMENTS = 1 << 18
_ROWS = 32
_MAX_RANK = 5
_PATTERNS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class _Bits:
    """The elements of a tensor as bit patterns in its shape, mapped if they are in an external file."""

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        pattern = _PATTERNS[tensor.dtype.bitwidth // 8]
        self._tensor = tensor
        self._map: mmap.mmap | None = None
        if isinstance(tensor, ir.ExternalTensor) and not isinstance(tensor, MappedTensor):
            self._map = _mapped(tensor)
            flat = np.frombuffer(self._map, pattern, count=tensor.size, offset=tensor.offset or 0)
        else:
            flat = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(pattern)
        self.array: NDArray[np.unsignedinteger] = flat.reshape(tensor.shape.numpy())

    def part(self, place: tuple[slice, ...]) -> NDArray[np.unsignedinteger]:
        """A part of the array; of a mapped one a copy.

        Reading far-apart rows maps up to 2 MiB around each of them, so the pages are given back every few rows.
        """
        view = self.array[place]
        if not isinstance(self._tensor, ir.ExternalTensor):
            return view
        copy = np.empty_like(view)
        for start in range(0, len(view), _ROWS):
            copy[start : start + _ROWS] = view[start : start + _ROWS]
            self.release()
        return copy

    def release(self) -> None:
        """Give the pages that were read back, so that they do not add up to the whole weight."""
        if isinstance(self._tensor, MappedTensor):
            self._tensor.release()
        elif self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _mapped(tensor: ir.ExternalTensor) -> mmap.mmap:
    with open_external(tensor) as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) < (tensor.offset or 0) + tensor.nbytes:
        raise ModelError(f"the external data of tensor '{tensor.name}' is too short: fetch {tensor.path} again")
    return mapped


def find_transposed(tensors: Sequence[ir.TensorProtocol]) -> list[tuple[int, int, tuple[int, ...]]]:
    """Which of ``tensors``, no two of them equal, are permutations of an earlier one.

    Args:
        tensors: Tensors of 1, 2, 4 or 8 bytes an element; others and those of rank 1 or above 5 are never found.

    Returns:
        Triples (earlier, later, axes): the later tensor is the earlier one transposed by ``axes``.
    """
    fit = [index for index, tensor in enumerate(tensors) if _is_fit(tensor)]
    groups = _narrowed([fit], lambda index: (tensors[index].dtype, tuple(sorted(tensors[index].shape.numpy()))))
    groups = _narrowed(groups, lambda index: _diagonal(tensors[index]))
    groups = _narrowed(groups, lambda index: _sum_of_patterns(tensors[index]))
    return sorted(match for group in groups for match in _matches(group, tensors))


def _is_fit(tensor: ir.TensorProtocol) -> bool:
    dims = [dim for dim in tensor.shape.numpy() if dim != 1]
    is_supported = tensor.dtype != ir.DataType.STRING and tensor.dtype.bitwidth in {8, 16, 32, 64}
    return is_supported and len(dims) > 1 and len(tensor.shape) <= _MAX_RANK and tensor.size > 0


def _narrowed(groups: list[list[int]], key: Callable[[int], Hashable]) -> list[list[int]]:
    narrower: list[list[int]] = []
    for group in groups:
        by_key: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index in group:
            by_key[key(index)].append(index)
        narrower += [members for members in by_key.values() if len(members) > 1]
    return narrower


def _diagonal(tensor: ir.TensorProtocol) -> bytes:
    bits = _Bits(tensor)
    array = bits.array.squeeze()
    steps = np.arange(min(_DIAGONAL, *array.shape))
    elements = array[(steps,) * array.ndim].tobytes()
    bits.release()
    return elements


def _sum_of_patterns(tensor: ir.TensorProtocol) -> int:
    pattern = _PATTERNS[tensor.dtype.bitwidth // 8]
    return sum(int(np.frombuffer(chunk, pattern).sum(dtype=np.uint64)) for chunk in chunks(tensor)) % (1 << 64)


def _matches(group: list[int], tensors: Sequence[ir.TensorProtocol]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    leaders: list[int] = []
    for index in group:
        for leader in leaders:
            axes = _axes_between(tensors[leader], tensors[index])
            if axes is not None:
                yield leader, index, axes
                break
        else:
            leaders.append(index)


def _axes_between(source: ir.TensorProtocol, target: ir.TensorProtocol) -> tuple[int, ...] | None:
    """The permutation of the axes that makes ``target`` of ``source``, or ``None``."""
    dims, wanted = source.shape.numpy(), target.shape.numpy()
    if len(dims) != len(wanted):
        return None
    source_bits, target_bits = _Bits(source), _Bits(target)
    for axes in itertools.permutations(range(len(dims))):
        if tuple(dims[axis] for axis in axes) == wanted and _is_permuted(source_bits, target_bits, axes):
            return axes
    return None


def _is_permuted(source: _Bits, target: _Bits, axes: tuple[int, ...]) -> bool:
    for tile in _tiles(target.array.shape):
        place = dict(zip(axes, tile, strict=True))
        elements = source.part(tuple(place[axis] for axis in range(len(axes))))
        if not np.array_equal(elements.transpose(axes), target.part(tile)):
            return False
    return True


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Blocks of at most ``_TILE_ELEMENTS`` that cover ``shape``, as square as it allows."""
    sides = list(shape)
    while np.prod(sides, dtype=np.int64) > _TILE_ELEMENTS:
        widest = sides.index(max(sides))
        sides[widest] = -(-sides[widest] // 2)
    starts = [range(0, whole, side) for whole, side in zip(shape, sides, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))
