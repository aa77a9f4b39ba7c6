"""Which integers a weight is stored as, and what ONNX Runtime is to make of them.

``auto`` chooses by what was measured, see ``optimizer.algorithms.quantization.weight_only.dequantization``: integer
kernels for products with 4 bits, whose memory is an eighth at about the same time, and for those of a single row, which
are faster; look-ups in integers for tables of a million elements and more; floats for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.quantization.linear import UINT8, WEIGHT_INT8, IntegerRange
from optimizer.algorithms.quantization.rows import INT4, UINT4
from optimizer.algorithms.quantization.weight_rows import Packed, pack, pack_matrix

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.weight_only.dequantization import Dequantizer
    from optimizer.algorithms.quantization.weight_only.weights import StoredWeight

AUTOMATIC: dict[int, dict[str, tuple[int, ...]]] = {  # by bits, from the smallest file to the least error
    8: {"auto": (0, 128, 32), "32": (32,), "16": (16,)},
    4: {"32": (32,), "16": (16,)},
}
TOLERATED = 0.01  # relative error of a weight
_INT16 = IntegerRange(np.dtype(np.int16), -32767, 32767)
_TYPES = {
    (16, True): (_INT16, ir.DataType.INT16),
    (8, True): (WEIGHT_INT8, ir.DataType.INT8),
    (8, False): (UINT8, ir.DataType.UINT8),
    (4, True): (INT4, ir.DataType.INT4),
    (4, False): (UINT4, ir.DataType.UINT4),
}
_BROADCASTS, _PER_CHANNEL, _BLOCKED = 7, 13, 21  # opsets of Mul, of scales along an axis, of blocks and of 4 bits
_LARGE_TABLE = 1 << 20

Packs: TypeAlias = "dict[tuple[str, Storage], Packed]"


@dataclass(frozen=True)
class StoredForm:
    """What a weight became.

    Attributes:
        bits: Of its integers.
        compute: What they become: ``float`` constants, what an ``integer`` kernel reads, or a ``table`` of integers.
    """

    bits: int
    compute: Literal["float", "integer", "table"]

    def __str__(self) -> str:
        endings = {"float": "", "integer": ", for integer kernels", "table": ", looked up as integers"}
        return f"weights in {self.bits} bits{endings[self.compute]}"


@dataclass(frozen=True)
class Storage:
    """How weights are stored.

    Attributes:
        bits: 16, 8 or 4.
        symmetric: Whether zero points are 0.
        blocks: How many elements share a scale, 0 for a whole row: the first that keeps the error tolerable.
        compute: ``float``, ``integer`` or ``auto``.
    """

    bits: int
    symmetric: bool
    blocks: tuple[int, ...]
    compute: Literal["auto", "float", "integer"]

    @property
    def grid(self) -> IntegerRange:
        """The integers."""
        return _TYPES[self.bits, self.symmetric][0]

    @property
    def kind(self) -> ir.DataType:
        """What they are stored as."""
        return _TYPES[self.bits, self.symmetric][1]

    @property
    def oldest_opset(self) -> int:
        """The opset that a model needs at least."""
        if self.bits == 4:
            return _BLOCKED
        return self._opset_of_kernels if self.compute == "integer" else _BROADCASTS

    @property
    def _opset_of_kernels(self) -> int:
        return _PER_CHANNEL if self.bits == 8 and self.blocks == (0,) else _BLOCKED

    @property
    def wider(self) -> Storage:
        """The next one with more bits, for weights that need them."""
        return Storage(16, True, (0,), "float") if self.bits == 8 else Storage(8, True, AUTOMATIC[8]["auto"], "float")

    def store(self, weight: StoredWeight, dequantizer: Dequantizer, packs: Packs) -> StoredForm:
        """Store ``weight``, which is finite; returns what it became.

        Args:
            weight: The weight.
            dequantizer: Puts the integers into the model.
            packs: What was quantized before, for the same weights of another copy of the model; is added to.
        """
        if self._has_kernel(weight, dequantizer.rewriter.opset(weight.nodes[0])):
            dequantizer.as_integers(weight, self._packed(weight, packs, pack_matrix, weight.matrix()))
            return StoredForm(self.bits, "integer")
        array, layout = weight.holder.tensor.numpy(), weight.layout
        if self._is_looked_up(weight):
            dequantizer.as_table(weight, pack(array, layout, self.grid, symmetric=True, block=0))
            return StoredForm(self.bits, "table")
        dequantizer.as_floats(weight, self._packed(weight, packs, partial(pack, layout=layout), array))
        return StoredForm(self.bits, "float")

    def _packed(self, weight: StoredWeight, packs: Packs, make: Callable[..., Packed], array: NDArray[Any]) -> Packed:
        """What the first length of blocks gives that keeps the error low enough; else the last one."""
        key = weight.holder.name, self
        if key not in packs:
            for block in self.blocks:
                packed = make(array, grid=self.grid, symmetric=self.symmetric, block=block)
                if packed.error <= TOLERATED:
                    break
            packs[key] = packed.stored_as(self.kind)
        return packs[key]

    def _has_kernel(self, weight: StoredWeight, opset: int) -> bool:
        if self.compute == "float" or opset < self._opset_of_kernels or not weight.is_matrix_of_one_product:
            return False
        return self.compute == "integer" or self.bits == 4 or weight.is_for_single_rows

    def _is_looked_up(self, weight: StoredWeight) -> bool:
        if self.bits == 4 or not self.symmetric or self.blocks[0] != 0 or not weight.is_table:
            return False
        is_large = weight.holder.tensor.size >= _LARGE_TABLE
        return self.compute == "integer" or (self.compute == "auto" and is_large)
