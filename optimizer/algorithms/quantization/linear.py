"""Linear quantization as QuantizeLinear and DequantizeLinear define it (ONNX operator specification).

    quantize     q = saturate(round(x / scale) + zero_point)       round: to nearest, ties to even
    dequantize   x' = (q - zero_point) * scale

    symmetric    scale = max(|rmin|, |rmax|) / qmax                zero_point = 0 (the middle, if q is unsigned)
    asymmetric   scale = (rmax - rmin) / (qmax - qmin)             zero_point = round(qmin - rmin / scale)

A range is first widened to hold 0, so that zero padding, Relu and zero weights are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class IntegerRange:
    """The integers that values are mapped to.

    Attributes:
        dtype: ``int8``, ``uint8``, ``int16``, ``uint16`` or ``int32``: what they are stored as.
        qmin: The least that is used.
        qmax: The largest that is used.
    """

    dtype: np.dtype[Any]
    qmin: int
    qmax: int


INT8 = IntegerRange(np.dtype(np.int8), -128, 127)
UINT8 = IntegerRange(np.dtype(np.uint8), 0, 255)
WEIGHT_INT8 = IntegerRange(np.dtype(np.int8), -127, 127)
WEIGHT_INT7 = IntegerRange(np.dtype(np.int8), -63, 63)
INT32 = IntegerRange(np.dtype(np.int32), -(2**31), 2**31 - 1)


@dataclass(frozen=True)
class Parameters:
    """Scale and zero point of a tensor, or of each of its channels along ``axis``.

    Attributes:
        scale: float32, a scalar or one a channel.
        zero_point: Of the grid's dtype and the shape of ``scale``.
        grid: The integers.
        axis: Which axis has the channels; ``None`` per tensor.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    grid: IntegerRange
    axis: int | None = None


def asymmetric(rmin: float, rmax: float, grid: IntegerRange) -> Parameters:
    """Parameters per tensor that map [rmin, rmax] to the whole grid."""
    rmin, rmax = min(float(rmin), 0.0), max(float(rmax), 0.0)
    scale = np.float32(max((rmax - rmin) / (grid.qmax - grid.qmin), _SMALLEST_SCALE))
    zero_point = np.clip(np.rint(grid.qmin - rmin / np.float64(scale)), grid.qmin, grid.qmax)
    return Parameters(np.array(scale), np.array(zero_point, grid.dtype), grid)


def quantize(array: NDArray[Any], parameters: Parameters) -> NDArray[Any]:
    """The integers nearest to ``array``, ties to even, saturated."""
    scale, zero_point = _spread(parameters, array.ndim)
    steps = np.rint(array.astype(np.float64) / scale) + zero_point
    return np.clip(steps, parameters.grid.qmin, parameters.grid.qmax).astype(parameters.grid.dtype)


def dequantize(integers: NDArray[Any], parameters: Parameters) -> NDArray[np.float32]:
    """The float32 that ``integers`` stand for."""
    scale, zero_point = _spread(parameters, integers.ndim)
    return ((integers.astype(np.float64) - zero_point) * scale).astype(np.float32)


def _spread(parameters: Parameters, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and zero point in a shape that broadcasts against a tensor of ``rank``."""
    scale, zero_point = parameters.scale.astype(np.float64), parameters.zero_point.astype(np.float64)
    if parameters.axis is None:
        return scale, zero_point
    shape = [1] * rank
    shape[parameters.axis] = -1
    return scale.reshape(shape), zero_point.reshape(shape)
