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
        size: Size of the input.
        taps: Size of the window.
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
        """The size of the output; 0 where the window does not fit."""
        # From the first tap to the last: a dilated window of k taps covers d (k - 1) + 1 elements.
        reach = self.dilation * (self.taps - 1) + 1
        if self.is_transposed:
            return max(self.stride * (self.size - 1) + self.extra + reach - self.before - self.after, 0)
        return max((self.size + self.before + self.after - reach) // self.stride + 1, 0)

    def read_at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What the taps of the outputs ``places`` read.

        Args:
            places: Coordinates of outputs along this axis, (places,).

        Returns:
            Indices into the input, (places, taps), 0 where the tap reads padding; and which do not.
        """
        offsets = np.arange(self.taps, dtype=np.int64) * self.dilation
        if self.is_transposed:
            # Only every stride-th output meets an input: the others lie between two of them.
            index, remainder = np.divmod(places[:, np.newaxis] + self.before - offsets, self.stride)
        else:
            index = places[:, np.newaxis] * self.stride - self.before + offsets
            remainder = np.zeros_like(index)
        inside = (remainder == 0) & (index >= 0) & (index < self.size)
        return np.where(inside, index, 0), inside


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
    # SAME: as many outputs as ceil(size / stride); the odd element goes behind (SAME_UPPER) or in front (SAME_LOWER).
    stride, dilation = (_of_axis(node, name, axis) for name in ("strides", "dilations"))
    total = max((-(-size // stride) - 1) * stride + dilation * (taps - 1) + 1 - size, 0)
    half = total // 2
    return (half, total - half) if automatic == "SAME_UPPER" else (total - half, half)


def _of_axis(node: ir.Node, name: str, axis: int) -> int:
    sizes = node.attributes.get_ints(name, ())
    return sizes[axis] if sizes else 1
