"""Numbers of 1 to 8 bits in whole bytes, and back by nodes that ONNX Runtime folds.

Bits are split into planes of 8, 4, 2 and 1 bits, as the binary digits of their number say: 6 bits are a plane of 4 and
one of 2. Each byte of a plane holds 1, 2, 4 or 8 elements that follow each other, the first in its lowest bits. A plane
is read back by a look-up in a table with a line for each byte, which holds for any opset; planes of 4 bits are of the
type uint4, with the same bytes, where opset and IR version know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_WIDTHS = (8, 4, 2, 1)
GRAIN = 8  # elements: what every plane holds whole bytes of


@dataclass(frozen=True)
class Plane:
    """Some bits of every number.

    Attributes:
        width: How many: 8, 4, 2 or 1.
        shift: How many bits are below them.
        digits: These bits of every number.
    """

    width: int
    shift: int
    digits: NDArray[np.uint8]

    @property
    def packed(self) -> NDArray[np.uint8]:
        """The bytes."""
        digits_by_byte = self.digits.reshape(-1, 8 // self.width)
        packed_bytes = np.zeros(len(digits_by_byte), np.uint8)
        for place in range(digits_by_byte.shape[1]):
            packed_bytes |= digits_by_byte[:, place] << (place * self.width)
        return packed_bytes

    @property
    def table(self) -> NDArray[np.uint8]:
        """What the elements of each byte add to their numbers, (256, elements of a byte)."""
        places = np.arange(0, 8, self.width)
        digits = np.arange(256)[:, np.newaxis] >> places & ((1 << self.width) - 1)
        return (digits << self.shift).astype(np.uint8)


def bits_for(entries: int) -> int:
    """Bits that number ``entries`` things."""
    return max((entries - 1).bit_length(), 1)


def planes(numbers: NDArray[np.uint8], bits: int) -> Iterator[Plane]:
    """The planes of flat ``numbers``, the lowest bits first.

    Args:
        numbers: A multiple of ``GRAIN`` of them, each below 2 ** bits.
        bits: 1 to 8.
    """
    shift = 0
    for width in _WIDTHS:
        if bits & width:
            yield Plane(width, shift, (numbers >> shift & ((1 << width) - 1)).astype(np.uint8))
            shift += width
