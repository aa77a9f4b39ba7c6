"""Drop limits that nothing comes up to, and fuse limits in a row.

::

    Relu(y) = y                          for y = Relu(x), Sigmoid(x), Clip(x, 0, 6) …
    Relu(Clip(x, a, b)) = Clip(x, max(a, 0), max(b, 0))
    Clip(Clip(x, a, b), c, d) = Clip(x, clip(a, c, d), clip(b, c, d))
    Max(x, a) = Clip(x, a, inf)          Min(x, b) = Clip(x, -inf, b)      for one number a, b, where two meet

Only limits that are constants, and they are fused only where what is between has no other users.

Counterparts elsewhere: ``_fuse_relus_clips`` and ``_min_max_to_clip`` of onnxscript's rewriter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting import clipping, replacement
from optimizer.algorithms.rewriting.edit import Edit, NodeForm, form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.algorithms.rewriting.clipping import ClipBounds
    from optimizer.algorithms.rewriting.edit import Input
    from optimizer.algorithms.rewriting.rewriter import Rewriter


class DropClip(Rule):
    """Relu, Clip, Min, Max of what is within their limits anyway."""

    name: ClassVar[str] = "drop-clip"
    summary: ClassVar[str] = "Relu, Clip, Min, Max of what is within their limits by Relu, Sigmoid, Softmax, Clip …"
    ops: ClassVar[frozenset[str]] = clipping.OPS

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let the users of ``node`` read what it limits."""
        opset = rewriter.opset(node)
        bounds = clipping.clip_bounds(node, opset)
        if bounds is None:
            return NO_MATCH
        low, high = clipping.range_of(bounds.source, opset)
        if not bounds.low <= low <= high <= bounds.high:
            return NO_MATCH
        if opset < clipping.ARE_INPUTS and not np.isfinite([bounds.low, bounds.high]).any():
            return Refusal("a Clip without limits before opset 11 has the largest numbers of its type")
        return self.bypass(node, bounds.source, rewriter)


class FuseClip(Rule):
    """Relu, Clip, Min, Max that follow one another.

    Case 1: both together limit to what is not negative: a Relu.
    Case 2: before opset 11 a Clip has its limits as attributes, which are 32-bit floats.
    Case 3: from opset 11 on they are inputs, which take the places of the old ones.
    """

    name: ClassVar[str] = "fuse-clip"
    summary: ClassVar[str] = "Relu, Clip, and Min, Max with one number, in a row into one of them"
    ops: ClassVar[frozenset[str]] = clipping.OPS

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Give ``node`` the limits of what it reads as well."""
        opset = rewriter.opset(node)
        last = clipping.clip_bounds(node, opset)
        before = None if last is None else last.source.producer()
        if last is None or before is None or before.graph is not node.graph:
            return NO_MATCH
        first = clipping.clip_bounds(before, opset)
        if first is None:
            return NO_MATCH
        if queries.only_consumer(last.source) is not node:
            return Refusal("what is between the two has other users")
        if not first.low <= first.high or not last.low <= last.high:
            return Refusal("a lower limit is above the upper one")
        dtype = last.source.dtype or first.source.dtype or node.outputs[0].dtype
        if dtype not in constants.FLOATS:
            return Refusal("only limits of floats are fused")
        if opset < clipping.ARE_INPUTS and dtype == ir.DataType.DOUBLE:
            return Refusal("a Clip before opset 11 has limits of 32 bits")
        both = first.then(last)
        if (both.low, both.high) == (0.0, np.inf):
            new = form("Relu", [both.source])  # case 1
        elif opset >= clipping.ARE_INPUTS:
            new = _clip_by_inputs(both, dtype, replacement.constants_only_read_by({node, before}))
        else:
            new = _clip_by_attributes(both)
        return self.apply(Edit(forms={node: new}), rewriter, node)


def _clip_by_attributes(bounds: ClipBounds) -> NodeForm:
    """Case 2."""
    limits = (("min", bounds.low), ("max", bounds.high))
    return form("Clip", [bounds.source], *(ir.AttrFloat32(name, limit) for name, limit in limits if np.isfinite(limit)))


def _clip_by_inputs(bounds: ClipBounds, dtype: ir.DataType, spares: Iterable[ir.Value]) -> NodeForm:
    """Case 3: the finite limits as constants; a missing upper one is left out, a missing lower one leaves a gap."""
    limits = (("min", bounds.low), ("max", bounds.high))
    finite = [(np.array(limit, dtype.numpy()), name) for name, limit in limits if np.isfinite(limit)]
    new: list[Input] = [*replacement.replacements_for(finite, spares)]
    if new and not np.isfinite(bounds.low):
        new.insert(0, None)
    return form("Clip", [bounds.source, *new])


RULES: tuple[Rule, ...] = (DropClip(), FuseClip())
