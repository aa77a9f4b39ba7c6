"""Where the window of a convolution lies along one axis of its map (ONNX operator specification).

::

    Conv            tap k of output p reads input  p * stride - before + k * dilation
    ConvTranspose   tap k of output p reads input (p + before - k * dilation) / stride, if that is a whole number

What is read outside of the input is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray


@dataclass(frozen=True)
class WindowAxis:
    """One axis of a map.

    Attributes:
        size: Of the input.
        taps: Of the window.
        stride: Of the window over the input; of a ConvTranspose, of the input over the output.
        dilation: Distance of the taps.
        before: Padding in front.
        after: Padding behind.
        extra: A ConvTranspose's output padding.
        is_transposed: Whether it is of a ConvTranspose.
    """

    size: int
    taps: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    extra: int = 0
    is_transposed: bool = False

    @property
    def outputs(self) -> int:
        """The size of the output."""
        reach = self.dilation * (self.taps - 1) + 1
        if self.is_transposed:
            return max(self.stride * (self.size - 1) + self.extra + reach - self.before - self.after, 0)
        return max((self.size + self.before + self.after - reach) // self.stride + 1, 0)

    def read_at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What the taps of the outputs ``places`` read: indices (places, taps), and which of them are in the input."""
        taps = np.arange(self.taps, dtype=np.int64) * self.dilation
        if self.is_transposed:
            read, remainder = np.divmod(places[:, np.newaxis] + self.before - taps, self.stride)
        else:
            read = places[:, np.newaxis] * self.stride - self.before + taps
            remainder = np.zeros_like(read)
        inside = (remainder == 0) & (read >= 0) & (read < self.size)
        return np.where(inside, read, 0), inside


def padding(node: ir.Node, axis: int, size: int, taps: int) -> tuple[int, int]:
    """The padding in front of and behind the axis of the map that has the number ``axis``.

    Args:
        node: A Conv, or a ConvTranspose that says its padding.
        axis: 0 for the first axis after the channels.
        size: The size of the input.
        taps: The size of the window.
    """
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    if automatic == "VALID":
        return 0, 0
    if automatic == "NOTSET":
        pads = node.attributes.get_ints("pads", ())
        return (pads[axis], pads[axis + len(pads) // 2]) if pads else (0, 0)
    stride, dilation = (_of_axis(node, name, axis) for name in ("strides", "dilations"))
    # SAME: ceil(size / stride) outputs, and what their windows reach beyond the input is split between both ends
    missing = max((-(-size // stride) - 1) * stride + dilation * (taps - 1) + 1 - size, 0)
    less = missing // 2
    return (less, missing - less) if automatic == "SAME_UPPER" else (missing - less, less)


def _of_axis(node: ir.Node, name: str, axis: int) -> int:
    numbers = node.attributes.get_ints(name, ())
    return numbers[axis] if numbers else 1
