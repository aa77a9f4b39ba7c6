"""Weights and biases of kernels as integers.

    weight   int8, symmetric, one scale for each output channel or one for all: scale = max |w| / 127
    bias     int32 with scale = input scale x weight scale, as the integer kernels add it to their sums

Where a bias would not fit into 31 bits, because its channel's weights are nearly zero, the channel's weight scale is
raised until it does: such weights lose little, a wrapped bias loses everything.

A weight's scale is the one of least squared error, see ``optimizer.algorithms.quantization.rows``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.algorithms.quantization import linear
from optimizer.algorithms.quantization.linear import Parameters
from optimizer.algorithms.quantization.rows import quantize_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.linear import IntegerRange

_ROOM = 2.0**30  # of an int32 accumulator, for the bias


@dataclass(frozen=True)
class KernelWeight:
    """The weight of one kernel.

    Attributes:
        integers: In the shape of the float weight.
        parameters: Scale and zero point.
        shift: What to add to the bias so that the output's mean stays, one a channel; ``None`` if nothing is known.
    """

    integers: NDArray[Any]
    parameters: Parameters
    shift: NDArray[np.float64] | None = None

    def floats(self) -> NDArray[np.float32]:
        """The weight that the kernel computes with."""
        return linear.dequantize(self.integers, self.parameters)


def quantize_weight(array: NDArray[Any], grid: IntegerRange, axis: int | None) -> KernelWeight:
    """The integers of ``array``.

    Args:
        array: The float weight.
        grid: The integers to use.
        axis: The axis of the output channels, ``None`` for one scale.
    """
    rows = array.reshape(1, -1) if axis is None else np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    scale = quantize_rows(rows, grid).scale
    scale = scale.reshape(()) if axis is None else scale
    parameters = Parameters(scale, np.zeros(scale.shape, grid.dtype), grid, axis)
    return KernelWeight(linear.quantize(array, parameters), parameters)


def fit_bias(weight: KernelWeight, array: NDArray[Any], bias: NDArray[Any], input_scale: float) -> KernelWeight:
    """``weight``, or one with larger scales for the channels whose bias would not fit into an int32.

    Only those channels are rounded anew, to the nearest.

    Args:
        weight: The integers of ``array``.
        array: The float weight.
        bias: One number a channel.
        input_scale: The scale of the kernel's input.
    """
    # |b| / (s_x s_w) <= 2^30 asks for s_w >= |b| / (s_x 2^30)
    needed = np.abs(bias.astype(np.float64)) / (input_scale * _ROOM)
    if weight.parameters.axis is None:
        needed = np.asarray(needed.max(initial=0.0))
    if np.all(needed <= weight.parameters.scale):
        return weight
    scale = np.maximum(weight.parameters.scale, needed).astype(np.float32)
    parameters = replace(weight.parameters, scale=scale)
    raised = _along(scale > weight.parameters.scale, weight.parameters.axis, array.ndim)
    integers = np.where(raised, linear.quantize(array, parameters), weight.integers)
    return KernelWeight(integers, parameters, weight.shift)


def _along(channels: NDArray[Any], axis: int | None, rank: int) -> NDArray[Any]:
    """``channels`` in a shape that broadcasts along ``axis``."""
    return channels if axis is None else channels.reshape([-1 if at == axis % rank else 1 for at in range(rank)])


def quantize_bias(bias: NDArray[Any], weight: KernelWeight, input_scale: float) -> tuple[NDArray[np.int32], Parameters]:
    """The int32 bias and its parameters.

    Args:
        bias: One number a channel; ``weight.shift`` is added.
        weight: The kernel's weight.
        input_scale: The scale of its input.
    """
    # b32 = round(b / (s_x s_w)): the unit of the kernel's int32 sums
    wanted = bias.astype(np.float64) + (0 if weight.shift is None else weight.shift)
    scale = (np.float32(input_scale) * weight.parameters.scale).astype(np.float32)
    axis = None if weight.parameters.axis is None else 0
    parameters = Parameters(scale, np.zeros(scale.shape, np.int32), linear.INT32, axis)
    return linear.quantize(wanted, parameters), parameters
