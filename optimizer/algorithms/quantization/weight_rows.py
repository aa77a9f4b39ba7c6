"""How the rows of a weight, which share scales, lie in its tensor, and its integers in the order of storage.

::

    read by                         tensor                       a row
    Conv, ConvTranspose             (channels, ...)              one channel: out of Conv, in of ConvTranspose
    Gemm with transB, Gather        (channels, inputs)           one channel, or line of the table
    LSTM, GRU, RNN                  (directions, gates, inputs)  one gate of a direction
    Slice                           (..., elements)              what lies along the last axis
    MatMul, Gemm                    (inputs, outputs)            a column

A row may be cut into blocks with a scale each. Where a block has to divide the row (``divisor``), it is a little
shorter than asked for: rows of 120 have blocks of 30 for 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.algorithms.quantization.rows import quantize_rows, relative_error

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.linear import IntegerRange


@dataclass(frozen=True)
class RowLayout:
    """Where the rows of a weight are.

    Attributes:
        shape: Of the tensor.
        lead: How many leading axes number the rows, whose elements follow; 0 if the rows are the columns of a matrix.
    """

    shape: tuple[int, ...]
    lead: int

    @property
    def length(self) -> int:
        """Elements in a row."""
        return math.prod(self.shape[self.lead :]) if self.lead else self.shape[0]

    def rows(self, array: NDArray[Any]) -> NDArray[Any]:
        """``array`` as (rows, elements)."""
        return array.reshape(-1, self.length) if self.lead else array.T


@dataclass(frozen=True)
class Packed:
    """A weight in integers.

    Attributes:
        integers: In a shape in which ``scale`` broadcasts.
        scale: float32.
        zero_point: Like ``scale``, of the type of ``integers``; ``None`` if they are all 0.
        shape: Of the weight, if ``integers`` have another.
        error: See ``relative_error``.
        block: Elements that share a scale, 0 for a whole row.
    """

    integers: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: NDArray[Any] | None
    shape: tuple[int, ...] | None
    error: float
    block: int

    def stored_as(self, dtype: ir.DataType) -> Packed:
        """The same in the type of a tensor, which for 4 bits is another than numpy computes with."""
        numpy_dtype = dtype.numpy()
        zero = None if self.zero_point is None else self.zero_point.astype(numpy_dtype)
        return replace(self, integers=self.integers.astype(numpy_dtype), zero_point=zero)


def divisor(length: int, block: int) -> int:
    """The length of blocks of about ``block`` that divide a row; ``length`` itself if there is no such."""
    if not 0 < block < length:
        return length
    largest = next(size for size in range(block, 0, -1) if length % size == 0)
    # Below half of what was asked for, scales cost more than blocks gain
    return largest if largest * 2 >= block else length


def pack(array: NDArray[Any], layout: RowLayout, grid: IntegerRange, *, symmetric: bool, block: int) -> Packed:
    """Quantize ``array`` in blocks that divide its rows, for a product of integers and scales.

    Args:
        array: The weight, float32 and finite.
        layout: Its rows.
        grid: The integers.
        symmetric: Whether zero points are 0.
        block: About how many elements share a scale; 0 for a whole row.
    """
    rows = layout.rows(array)
    size = divisor(layout.length, block)
    blocks = np.ascontiguousarray(rows).reshape(-1, size)
    quantized = quantize_rows(blocks, grid, symmetric=symmetric)
    # 1. (rows, blocks, elements), so that one scale a block broadcasts over its elements
    cut = (rows.shape[0], layout.length // size, size)
    integers, scale, zero = (
        numbers.reshape(*cut[:2], -1) for numbers in (quantized.integers, quantized.scale, quantized.zero_point)
    )
    if not layout.lead:
        integers, scale, zero = (numbers.transpose(1, 2, 0) for numbers in (integers, scale, zero))
    # 2. One block a row is the plain form: integers in the shape of the weight, scales along its leading axes
    is_whole = size == layout.length
    if is_whole:
        narrow = (*layout.shape[: layout.lead], *[1] * (len(layout.shape) - layout.lead)) if layout.lead else (1, -1)
        integers, scale, zero = integers.reshape(layout.shape), scale.reshape(narrow), zero.reshape(narrow)
    return Packed(
        np.ascontiguousarray(integers),
        np.ascontiguousarray(scale),
        None if symmetric else np.ascontiguousarray(zero),
        None if is_whole else layout.shape,
        relative_error(rows, quantized.floats().reshape(rows.shape)),
        0 if is_whole else size,
    )


def pack_matrix(array: NDArray[Any], grid: IntegerRange, *, symmetric: bool, block: int) -> Packed:
    """Quantize the matrix (inputs, outputs) for DequantizeLinear: the last block of a column may be shorter.

    Args:
        array: The weight, float32 and finite.
        grid: The integers.
        symmetric: Whether zero points are 0.
        block: How many elements of a column share a scale, 0 for all.
    """
    length, columns = array.shape
    size = block if 0 < block < length else length
    count = -(-length // size)
    # Zeros behind the last block change neither its scale nor its error
    padded = np.zeros((columns, count * size), np.float32)
    padded[:, :length] = array.T
    quantized = quantize_rows(padded.reshape(-1, size), grid, symmetric=symmetric)
    back = quantized.floats().reshape(columns, -1)
    scale, zero = (numbers.reshape(columns, count).T for numbers in (quantized.scale, quantized.zero_point))
    if size == length:
        scale, zero = scale[0], zero[0]
    return Packed(
        np.ascontiguousarray(quantized.integers.reshape(columns, -1).T[:length]),
        np.ascontiguousarray(scale),
        None if symmetric else np.ascontiguousarray(zero),
        None,
        relative_error(padded, back),
        0 if size == length else size,
    )
