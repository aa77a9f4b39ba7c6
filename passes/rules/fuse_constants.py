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
from optimizer.algorithms.rewriting.edit import Edit, NodeForm
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import queries
from optimizer.graph.constants import FLOATS, constant_tensor, round_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.affine import AffineStep
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_STEPS = affine.SCALES | affine.SHIFTS
_CANCELLATION = 0.1  # a sum of constants below this share of them has bits that the two steps did not keep
_CANCELS = Refusal("the sum of the constants nearly cancels")


class FuseConstants(Rule):
    """Scalings and shifts in a row.

    Case 1: two scalings, or two shifts, become one.
    Case 2: scaling, shift, scaling become a scaling and a shift.
    Case 3: shift, scaling, shift become a scaling and a shift.
    """

    name: ClassVar[str] = "fuse-constants"
    summary: ClassVar[str] = "Mul, Div, Neg, Add, Sub with constants in a row into one Mul, one Add, or one of each"
    ops: ClassVar[frozenset[str]] = _STEPS

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Fuse ``node`` with what it reads."""
        last = affine.affine_step(node) if rewriter.opset(node) >= affine.OLDEST_OPSET else None
        if last is None:
            return NO_MATCH
        middle = _before(last)
        if isinstance(middle, Refusal):
            return middle
        if last.scales == middle.scales:
            return self._fuse_alike(middle, last, rewriter)
        first = _before(middle)
        if isinstance(first, Refusal):
            return first
        if first.scales != last.scales:
            return NO_MATCH
        return self._fuse_alternating(first, middle, last, rewriter)

    def _fuse_alike(self, middle: AffineStep, last: AffineStep, rewriter: Rewriter) -> Applied | Refusal:
        """Case 1."""
        exact = np.asarray(middle.array * last.array) if last.scales else _sum(middle.array, last.array)
        if exact is None:
            return _CANCELS
        return self._replace([middle, last], [(last, middle.source, exact, last.scales)], rewriter)

    def _fuse_alternating(
        self, first: AffineStep, middle: AffineStep, last: AffineStep, rewriter: Rewriter
    ) -> Applied | Refusal:
        if last.scales:  # case 2
            scale = np.asarray(first.array * last.array)
            shift: NDArray[np.float64] | None = np.asarray(middle.array * last.array)
        else:  # case 3
            scale, shift = middle.array, _sum(first.array * middle.array, last.array)
        if shift is None:
            return _CANCELS
        new = [
            (middle, first.source, scale, True),
            (last, last.source, shift, False),
        ]
        return self._replace([first, middle, last], new, rewriter)

    def _replace(
        self,
        steps: Sequence[AffineStep],
        new: Sequence[tuple[AffineStep, ir.Value, NDArray[np.float64], bool]],
        rewriter: Rewriter,
    ) -> Applied | Refusal:
        """Let some of ``steps`` do what ``new`` says: what they read, the constant, and whether it scales."""
        arrays = [_rounded(exact, step) for step, _, exact, _ in new]
        if any(array is None for array in arrays):
            return Refusal("the fused constant leaves the range of its type")
        hints = [f"{step.node.outputs[0].name}_constant" for step, *_ in new]
        pairs = [(array, hint) for array, hint in zip(arrays, hints, strict=True) if array is not None]
        spares = replacement.constants_only_read_by({step.node for step in steps})
        constants = replacement.replacements_for(pairs, spares)
        forms = {}
        for (step, source, _, scales), constant in zip(new, constants, strict=True):
            # A shift that enlarged what is between may be gone from it.
            is_last = step is steps[-1]
            forms[step.node] = NodeForm("Mul" if scales else "Add", [source, constant], keeps_shape=is_last)
        return self.apply(Edit(forms=forms), rewriter, steps[-1].node)


def _before(step: AffineStep) -> AffineStep | Refusal:
    """The step that computes what ``step`` alone reads."""
    producer = step.source.producer()
    if producer is None or producer.graph is not step.node.graph or not queries.is_standard(producer, *_STEPS):
        return NO_MATCH
    if queries.only_consumer(step.source) is not step.node:
        has_constant = any(constant_tensor(value) is not None for value in producer.inputs)
        return Refusal("what is between the two has other users") if has_constant else NO_MATCH
    return affine.affine_step(producer) or NO_MATCH


def _rounded(exact: NDArray[np.float64], step: AffineStep) -> NDArray[np.floating] | None:
    """``exact`` in the float type of ``step``, if each element keeps its precision."""
    dtype = next((value.dtype for value in (*step.node.inputs, step.source) if value and value.dtype in FLOATS), None)
    if dtype is None:
        return None
    flat = round_once(exact.reshape(-1), np.dtype(dtype.numpy()), axis=0)
    return None if flat is None else flat.reshape(exact.shape)


def _sum(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The sum, unless it nearly cancels somewhere."""
    total = np.asarray(first + second)
    larger = np.maximum(np.abs(first), np.abs(second))
    return total if bool(np.all(np.abs(total) >= _CANCELLATION * larger)) else None


RULES: tuple[Rule, ...] = (FuseConstants(),)
