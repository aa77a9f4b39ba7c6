"""Drop limits that nothing comes up to, and fuse limits in a row.

::

    Relu(y) = y                          for y = Relu(x), Sigmoid(x), Clip(x, 0, 6) …
    Relu(Clip(x, a, b)) = Clip(x, max(a, 0), max(b, 0))
    Clip(Clip(x, a, b), c, d) = Clip(x, clip(a, c, d), clip(b, c, d))
    Max(x, a) = Clip(x, a, inf)          Min(x, b) = Clip(x, -inf, b)      for one number a, b, where two meet

Only limits that are constants, and they are fused only where nobody else reads what is between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting import clipping, replacement
from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.algorithms.rewriting.rewriter import Rewriter


class DropClip(Rule):
    """Relu, Clip, Min, Max of what is within their limits anyway."""

    name: ClassVar[str] = "drop-clip"
    summary: ClassVar[str] = "Relu, Clip, Min, Max of what is within their limits by Relu, Sigmoid, Softmax, Clip …"
    ops: ClassVar[frozenset[str]] = clipping.OPS

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let the readers of ``node`` read what it limits."""
        opset = rewriter.opset(node)
        found = clipping.clip_bounds(node, opset)
        if found is None:
            return False
        low, high = clipping.range_of(found.source, opset)
        if opset < clipping.ARE_INPUTS and not np.isfinite([found.low, found.high]).any():
            return False  # without limits, such a Clip has the largest numbers of its type
        if not found.low <= low <= high <= found.high or not editing.may_bypass(found.source, node.outputs[0]):
            return False
        return self.permits(node, rewriter) and editing.bypass(node, found.source)


class FuseClip(Rule):
    """Relu, Clip, Min, Max that follow one another."""

    name: ClassVar[str] = "fuse-clip"
    summary: ClassVar[str] = "Relu, Clip, and Min, Max with one number, in a row into one of them"
    ops: ClassVar[frozenset[str]] = clipping.OPS

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Give ``node`` the limits of what it reads as well."""
        opset = rewriter.opset(node)
        last = clipping.clip_bounds(node, opset)
        before = None if last is None else last.source.producer()
        if (
            last is None
            or before is None
            or before.graph is not node.graph
            or queries.only_consumer(last.source) is not node
        ):
            return False
        first = clipping.clip_bounds(before, opset)
        if first is None or not first.low <= first.high or not last.low <= last.high:
            return False
        both = first.then(last)
        kind = last.source.dtype or first.source.dtype or node.outputs[0].dtype
        if kind not in constants.FLOATS or (opset < clipping.ARE_INPUTS and kind == ir.DataType.DOUBLE):
            return False
        if (both.low, both.high) == (0.0, np.inf):
            return self.permits(node, rewriter) and _become_relu(node, both)
        new = (
            []
            if opset < clipping.ARE_INPUTS
            else _swaps(both, kind, replacement.constants_only_read_by({node, before}))
        )
        if replacement.bytes_saved(
            [before], replacement.constants_only_read_by({node, before}), new
        ) < 0 or not self.permits(node, rewriter):
            return False
        _become_clip(node, both, new, rewriter)
        return True


def _become_relu(node: ir.Node, found: clipping.ClipBounds) -> bool:
    node.op_type = "Relu"
    node.attributes.clear()
    node.resize_inputs(1)
    node.replace_input_with(0, found.source)
    return True


def _swaps(
    found: clipping.ClipBounds, kind: ir.DataType, spares: Iterable[ir.Value]
) -> list[replacement.ReplacementConstant]:
    """The finite limits as constants, in the places of those that go."""
    swaps: list[replacement.ReplacementConstant] = []
    left = list(spares)
    for limit, name in ((found.low, "min"), (found.high, "max")):
        if np.isfinite(limit):
            swaps.append(replacement.replacement_for(np.array(limit, kind.numpy()), name, left))
            left = [value for value in left if value is not swaps[-1].reusable]
    return swaps


def _become_clip(
    node: ir.Node, found: clipping.ClipBounds, swaps: list[replacement.ReplacementConstant], rewriter: Rewriter
) -> None:
    node.op_type = "Clip"
    values = [swap.put(node, rewriter) for swap in swaps]
    node.attributes.clear()
    if not values:
        for name, limit in (("min", found.low), ("max", found.high)):
            if np.isfinite(limit):
                node.attributes.add(ir.AttrFloat32(name, limit))
        node.resize_inputs(1)
        node.replace_input_with(0, found.source)
        return
    low = values.pop(0) if np.isfinite(found.low) else None
    node.resize_inputs(3 if values else 2)
    editing.set_inputs(node, [found.source, low, *values])


RULES: tuple[Rule, ...] = (DropClip(), FuseClip())
