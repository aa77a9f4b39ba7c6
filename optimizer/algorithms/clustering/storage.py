"""Codebooks and indices in the place of a weight, in a form that ONNX Runtime folds when it loads the model.

::

    numbers    Reshape(GatherElements(books, Cast(indices)))             axis 1; 0 where the rows are columns
    vectors    Reshape(Gather(book, Cast(indices)))
    books      (rows, entries): one line, a line for each row, or Gather(books, Cast(owners)) where rows share them;
               16-bit floats behind a Cast where that loses nothing
    indices    bytes, uint4 from opset 21, or planes of less bits:
               Cast(Reshape(Gather(table, Cast(bytes)))) + …

Reshape is there only where it is needed. Measured (ONNX Runtime 1.32, one thread): all of it is folded from the basic
level on; a million elements take 5 ms more to load than floats, 14 ms with Gather in the place of GatherElements, and
1.5 against 11 ms at each inference where optimizations are off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.clustering.bit_packing import GRAIN, planes
from optimizer.algorithms.quantization.weight_only import node_chain
from optimizer.algorithms.quantization.weight_only.node_chain import NodeChain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.clustering.bit_packing import Plane
    from optimizer.algorithms.clustering.codes import Clustered
    from optimizer.algorithms.quantization.weight_only.weights import StoredWeight
    from optimizer.algorithms.rewriting.rewriter import Rewriter

OLDEST_OPSET = 11  # of GatherElements
_FOUR_BITS_OPSET = 21
_FOUR_BITS_IR_VERSION = 10
_NODE_BYTES = 80  # a node with its names, or a constant without its data, about
_MOST_VARINTS = 256  # so many integers take less as varints than as bytes with a Cast
_NAME = "book"


def stored_bytes(clustered: Clustered) -> int:
    """About how many bytes of a file ``clustered`` takes."""
    packed = clustered.indices.size * clustered.bits // 8
    books = clustered.books.nbytes // (2 if is_half(clustered.books) else 1)
    owners = 0 if clustered.owners is None else 2 * clustered.owners.size
    overhead = 4 + 5 * clustered.bits.bit_count()
    return packed + owners + books + overhead * _NODE_BYTES


def is_half(books: NDArray[Any]) -> bool:
    """Whether ``books`` take less as 16-bit floats, a Cast included, and lose nothing."""
    if books.dtype != np.float32 or books.nbytes // 2 < _NODE_BYTES:
        return False
    with np.errstate(over="ignore"):
        return np.array_equal(books.astype(np.float16), books)


@dataclass
class CodebookWriter:
    """Puts codebooks in the place of weights.

    Attributes:
        scope: The model.
    """

    rewriter: Rewriter
    _tables: dict[tuple[int, int], ir.Value] = field(default_factory=dict)

    def put(self, weight: StoredWeight, clustered: Clustered) -> None:
        """Let all readers of ``weight`` read what ``clustered`` stands for."""
        chain = NodeChain(self.rewriter, node_chain.anchor(self.rewriter, weight), _NAME)
        name = weight.holder.value.name or "weight"
        along = 0 if len(clustered.books) > 1 and not weight.layout.lead else 1
        numbers = clustered.indices if along else np.ascontiguousarray(clustered.indices.T)
        indices = self._indices(chain, numbers, clustered.bits, name)
        shape = numbers.shape
        if clustered.books.ndim == 3:
            book = self._entries(chain, clustered.books[0], name)
            result = chain.add("Gather", [book, indices], {"axis": 0})
            shape = (*shape, clustered.books.shape[2])
        else:
            books = self._books(chain, clustered, along, name)
            result = chain.add("GatherElements", [books, indices], {"axis": along})
        node_chain.stand_in(weight, self._reshaped(chain, result, shape, weight.holder.shape))

    def _books(self, chain: NodeChain, clustered: Clustered, along: int, name: str) -> ir.Value:
        array = clustered.books if along else np.ascontiguousarray(clustered.books.T)
        books = self._entries(chain, array, name)
        if clustered.owners is None:
            return books
        owners = self._owners(chain, clustered.owners, f"{name}_owners")
        return chain.add("Gather", [books, owners], {"axis": 1 - along})

    def _entries(self, chain: NodeChain, books: NDArray[Any], name: str) -> ir.Value:
        if not is_half(books):
            return self.rewriter.constant(chain.anchor, books, f"{name}_entries")
        half = self.rewriter.constant(chain.anchor, books.astype(np.float16), f"{name}_entries")
        return chain.add("Cast", [half], {"to": ir.DataType.FLOAT})

    def _owners(self, chain: NodeChain, owners: NDArray[np.int64], name: str) -> ir.Value:
        if owners.size <= _MOST_VARINTS:
            return self.rewriter.constant(chain.anchor, owners.astype(np.int32), name)
        dtype = np.uint8 if owners.max() < 256 else np.uint16
        return _as_int32(chain, self.rewriter.constant(chain.anchor, owners.astype(dtype), name))

    def _indices(self, chain: NodeChain, numbers: NDArray[np.uint8], bits: int, name: str) -> ir.Value:
        """int32 values of the shape of ``numbers``."""
        flat, shape = numbers.reshape(-1), numbers.shape
        is_padded = bits != GRAIN and flat.size % GRAIN != 0
        if is_padded:
            flat = np.concatenate([flat, np.zeros(-flat.size % GRAIN, np.uint8)])
            shape = flat.shape
        total: ir.Value | None = None
        for plane in planes(flat, bits):
            digits = self._plane(chain, plane, shape, name)
            total = digits if total is None else chain.add("Add", [total, digits])
        if total is None:
            raise ValueError(f"{bits} bits hold no index")
        if not is_padded:
            return total
        bounds = (np.array([number], np.int64) for number in (0, numbers.size))
        cut = chain.add(
            "Slice", [total, *(self.rewriter.constant(chain.anchor, bound, f"{_NAME}_cut") for bound in bounds)]
        )
        return self._reshaped(chain, cut, (numbers.size,), numbers.shape)

    def _plane(self, chain: NodeChain, plane: Plane, shape: tuple[int, ...], name: str) -> ir.Value:
        def constant(array: NDArray[Any]) -> ir.Value:
            return self.rewriter.constant(chain.anchor, array, f"{name}_indices")

        if plane.width == GRAIN:
            return _as_int32(chain, constant(plane.digits.reshape(shape)))
        if plane.width == 4 and self.rewriter.opset(chain.anchor) >= _FOUR_BITS_OPSET:
            self.rewriter.model.ir_version = max(self.rewriter.model.ir_version, _FOUR_BITS_IR_VERSION)
            return _as_int32(chain, constant(plane.digits.reshape(shape).astype(ir.DataType.UINT4.numpy())))
        places = _as_int32(chain, constant(plane.packed))
        rows = chain.add("Gather", [self._table(chain, plane), places], {"axis": 0})
        return _as_int32(chain, self._reshaped(chain, rows, (len(plane.packed), GRAIN // plane.width), shape))

    def _table(self, chain: NodeChain, plane: Plane) -> ir.Value:
        """The table of ``plane``; all planes of its kind share one initializer."""
        if not self.rewriter.may_lift(chain.anchor):
            return self.rewriter.constant(chain.anchor, plane.table, f"{_NAME}_table")
        key = (plane.width, plane.shift)
        if key not in self._tables:
            self._tables[key] = self.rewriter.constant(chain.anchor, plane.table, f"{_NAME}_table")
        return self._tables[key]

    def _reshaped(self, chain: NodeChain, value: ir.Value, old: tuple[int, ...], new: tuple[int, ...]) -> ir.Value:
        if old == new:
            return value
        if math.prod(old) != math.prod(new):
            raise ValueError(f"{old} cannot be reshaped to {new}")
        return chain.add(
            "Reshape", [value, self.rewriter.constant(chain.anchor, np.array(new, np.int64), f"{_NAME}_shape")]
        )


def _as_int32(chain: NodeChain, value: ir.Value) -> ir.Value:
    return chain.add("Cast", [value], {"to": ir.DataType.INT32})
