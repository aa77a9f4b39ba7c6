"""Fuse two operators with constants in a row into one.

::

    (x * c) * d = x * (c d)      (x / c) * d = x * (d / c)      -(x * c) = x * (-c)
    (x + c) + d = x + (c + d)    (x - c) + d = x + (d - c)
    (1 / y) * x = x / y

The constants broadcast as they did. Sums that nearly cancel, and factors that leave the range of their type, stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer import graph
from optimizer.algorithms import affine, weights
from optimizer.algorithms.sweep import Rule, Scope

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

_CANCELLATION = 0.25  # a sum of constants below this share of them has lost bits that the two steps kept
_MAX_ELEMENTS = 1 << 22


def _factor(node: ir.Node) -> tuple[ir.Value, NDArray[np.float64]] | None:
    """The value that ``node`` scales and by what, if it scales by a constant."""
    return _moving_and_constant(node, affine.SCALES, {"Mul": np.array, "Div": lambda c: 1.0 / c})


def _summand(node: ir.Node) -> tuple[ir.Value, NDArray[np.float64]] | None:
    """The value that ``node`` shifts and by what, if it shifts by a constant."""
    return _moving_and_constant(node, affine.SHIFTS, {"Add": np.array, "Sub": np.negative})


def _moving_and_constant(node, kinds, convert):
    if not graph.is_standard(node, *kinds):
        return None
    raise NotImplementedError
