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
from optimizer.graph.constants import FLOATS, rounded

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Scope

_CANCELLATION = 0.1  # a sum of constants below this share of them has bits that the two steps did not keep


def _rounded(exact: NDArray[np.float64], step: affine.Step) -> NDArray[np.floating] | None:
    """``exact`` in the float type of ``step``, if each element keeps its precision."""
    kind = next((value.dtype for value in (*step.node.inputs, step.source) if value and value.dtype in FLOATS), None)
    if kind is None:
        return None
    flat = rounded(exact.reshape(-1), np.dtype(kind.numpy()), axis=0)
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

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Fuse ``node`` with what it reads."""
        last = affine.step(node) if scope.opset(node) >= affine.OLDEST_OPSET else None
        middle = None if last is None else last.before
        if last is None or middle is None:
            return False
        if last.scales == middle.scales:
            return self._fuse_alike(middle, last, scope)
        first = middle.before
        if first is None or first.scales != last.scales:
            return False
        return self._fuse_alternating(first, middle, last, scope)

    def _fuse_alike(self, middle: affine.Step, last: affine.Step, scope: Scope) -> bool:
        exact = np.asarray(middle.array * last.array) if last.scales else _sum(middle.array, last.array)
        return exact is not None and self._replace([middle, last], {last: (middle.source, exact)}, scope)

    def _fuse_alternating(self, first: affine.Step, middle: affine.Step, last: affine.Step, scope: Scope) -> bool:
        shift = middle.array * last.array if last.scales else _sum(first.array * middle.array, last.array)
        scale = first.array * last.array if last.scales else middle.array
        if shift is None:
            return False
        gone = [first, middle, last]
        return self._replace(
            gone, {middle: (first.source, np.asarray(scale)), last: (last.source, np.asarray(shift))}, scope
        )

    def _replace(
        self, gone: list[affine.Step], new: dict[affine.Step, tuple[ir.Value, NDArray[np.float64]]], scope: Scope
    ) -> bool:
        """Make ``gone`` do what ``new`` says: a scaling first, a shift last."""
        arrays = {step: _rounded(exact, step) for step, (_, exact) in new.items()}
        nodes = {step.node for step in gone}
        constants = replacement.dying(nodes)
        swaps: dict[affine.Step, replacement.Swap] = {}
        for step, array in arrays.items():
            if array is None:
                return False
            swaps[step] = replacement.swap(array, f"{step.node.outputs[0].name}_constant", constants)
            constants = [value for value in constants if value is not swaps[step].spare]
        left = [step.node for step in gone if step not in new]
        if replacement.saved(left, replacement.dying(nodes), swaps.values()) < 0 or not self.permits(
            gone[-1].node, scope
        ):
            return False
        for step, (source, _) in new.items():
            alternating = len(gone) == 3
            scales = (step is not gone[-1]) if alternating else gone[-1].scales
            step.node.op_type = "Mul" if scales else "Add"
            step.node.resize_inputs(2)
            if step is not gone[-1]:
                step.node.outputs[0].shape = None  # a shift that enlarged it may be gone from it
            editing.set_inputs(step.node, [source, swaps[step].put(step.node, scope)])
        return True


RULES: tuple[Rule, ...] = (FuseConstants(),)
