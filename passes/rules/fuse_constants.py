"""Fuse operators with constants in a row.

::

    (x * c) * d = x * (c d)      (x / c) * d = x * (d / c)      -(x * c) = x * (-c)
    (x + c) + d = x + (c + d)    (x - c) + d = x + (d - c)
    (x * c + d) * e = x * (c e) + d e
    (x + c) * d + e = x * d + (c d + e)

The constants broadcast as they did. Sums that nearly cancel, and factors that leave the range of their type, stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting import affine, replacement
from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import editing
from optimizer.graph.constants import FLOATS, round_once

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_CANCELLATION = 0.1  # a sum of constants below this share of them has bits that the two steps did not keep


def _rounded(exact: NDArray[np.float64], step: affine.AffineStep) -> NDArray[np.floating] | None:
    """``exact`` in the float type of ``step``, if each element keeps its precision."""
    kind = next((value.dtype for value in (*step.node.inputs, step.source) if value and value.dtype in FLOATS), None)
    if kind is None:
        return None
    flat = round_once(exact.reshape(-1), np.dtype(kind.numpy()), axis=0)
    return None if flat is None else flat.reshape(exact.shape)


def _sum(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The sum, unless it nearly cancels somewhere."""
    total = np.asarray(first + second)
    larger = np.maximum(np.abs(first), np.abs(second))
    return total if bool(np.all(np.abs(total) >= _CANCELLATION * larger)) else None


class FuseConstants(Rule):
    """Two scalings, two shifts, or three alternating ones in a row."""

    name: ClassVar[str] = "fuse-constants"
    summary: ClassVar[str] = "Mul, Div, Neg, Add, Sub with constants in a row into one Mul, one Add, or one of each"
    ops: ClassVar[frozenset[str]] = affine.SCALES | affine.SHIFTS

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Fuse ``node`` with what it reads."""
        last = affine.affine_step(node) if rewriter.opset(node) >= affine.OLDEST_OPSET else None
        middle = None if last is None else last.before
        if last is None or middle is None:
            return False
        if last.scales == middle.scales:
            return self._fuse_alike(middle, last, rewriter)
        first = middle.before
        if first is None or first.scales != last.scales:
            return False
        return self._fuse_alternating(first, middle, last, rewriter)

    def _fuse_alike(self, middle: affine.AffineStep, last: affine.AffineStep, rewriter: Rewriter) -> bool:
        exact = np.asarray(middle.array * last.array) if last.scales else _sum(middle.array, last.array)
        return exact is not None and self._replace([middle, last], {last: (middle.source, exact)}, rewriter)

    def _fuse_alternating(
        self, first: affine.AffineStep, middle: affine.AffineStep, last: affine.AffineStep, rewriter: Rewriter
    ) -> bool:
        shift = middle.array * last.array if last.scales else _sum(first.array * middle.array, last.array)
        scale = first.array * last.array if last.scales else middle.array
        if shift is None:
            return False
        gone = [first, middle, last]
        return self._replace(
            gone, {middle: (first.source, np.asarray(scale)), last: (last.source, np.asarray(shift))}, rewriter
        )

    def _replace(
        self,
        gone: list[affine.AffineStep],
        new: dict[affine.AffineStep, tuple[ir.Value, NDArray[np.float64]]],
        rewriter: Rewriter,
    ) -> bool:
        """Make ``gone`` do what ``new`` says: a scaling first, a shift last."""
        arrays = {step: _rounded(exact, step) for step, (_, exact) in new.items()}
        nodes = {step.node for step in gone}
        constants = replacement.constants_only_read_by(nodes)
        swaps: dict[affine.AffineStep, replacement.ReplacementConstant] = {}
        for step, array in arrays.items():
            if array is None:
                return False
            swaps[step] = replacement.replacement_for(array, f"{step.node.outputs[0].name}_constant", constants)
            constants = [value for value in constants if value is not swaps[step].reusable]
        left = [step.node for step in gone if step not in new]
        if replacement.bytes_saved(
            left, replacement.constants_only_read_by(nodes), swaps.values()
        ) < 0 or not self.permits(gone[-1].node, rewriter):
            return False
        for step, (source, _) in new.items():
            alternating = len(gone) == 3
            scales = (step is not gone[-1]) if alternating else gone[-1].scales
            step.node.op_type = "Mul" if scales else "Add"
            step.node.resize_inputs(2)
            if step is not gone[-1]:
                step.node.outputs[0].shape = None  # a shift that enlarged it may be gone from it
            editing.set_inputs(step.node, [source, swaps[step].put(step.node, rewriter)])
        return True


RULES: tuple[Rule, ...] = (FuseConstants(),)
