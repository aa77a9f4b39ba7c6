"""Recognize HardSigmoid and HardSwish in what exporters spell out.

::

    clip(x + b, 0, h) / h = HardSigmoid(x, alpha=1/h, beta=b/h)        also with a product between Clip and Div
    x * HardSigmoid(x, alpha=1/6, beta=1/2) = HardSwish(x)             from opset 14

The factor after the Clip may be any constant ``k``; what remains of it is ``h k``, and nothing where that is 1.

Counterpart elsewhere: ``_fuse_hardswish`` of onnxscript's rewriter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting import affine, clipping, replacement
from optimizer.algorithms.rewriting.edit import Edit, changed_form, form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    from optimizer.algorithms.rewriting.affine import AffineStep
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_HARD_SWISH = 14
_ONE_ROUNDING = 1e-6


@dataclass(frozen=True)
class _Ramp:
    """``clip(source + offset, 0, height)``."""

    source: ir.Value
    offset: float
    height: float


class FuseHardSigmoid(Rule):
    """Add, Clip and a later Div or Mul into HardSigmoid.

    Case 1: height times factor is 1, as in what exporters write. The scaling goes.
    Case 2: it is something else, or the factor enlarges what it scales. The scaling keeps that.
    """

    name: ClassVar[str] = "fuse-hard-sigmoid"
    summary: ClassVar[str] = "Add, Clip from 0 and a later scaling into HardSigmoid"
    ops: ClassVar[frozenset[str]] = frozenset({"Clip"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Turn the Clip ``node`` into a HardSigmoid, if a factor after it takes up its height."""
        ramp = _ramp(node, rewriter.opset(node))
        if isinstance(ramp, Refusal):
            return ramp
        scaling = _scaling_after(node)
        if scaling is None:
            return Refusal("no scaling follows that takes up the height of the Clip")
        factor = constants.round_once(scaling.array * ramp.height, np.dtype(np.float32))
        if factor is None:
            return Refusal("the factor leaves the range of its type")
        alpha = ir.AttrFloat32("alpha", 1.0 / ramp.height)
        beta = ir.AttrFloat32("beta", ramp.offset / ramp.height)
        forms = {node: form("HardSigmoid", [ramp.source], alpha, beta)}
        enlarges = factor.size != 1 or factor.ndim > (queries.rank(scaling.source) or 0)
        is_one = not enlarges and abs(factor.item() - 1) <= _ONE_ROUNDING
        output = scaling.node.outputs[0]
        if is_one and editing.may_bypass(scaling.source, output):  # case 1
            return self.apply(Edit(forms=forms, bypassed={output: scaling.source}), rewriter, node)
        spares = replacement.constants_only_read_by({scaling.node})  # case 2
        constant = replacement.replacement_for(factor, f"{output.name}_factor", spares)
        forms[scaling.node] = changed_form(scaling.node, "Mul", [scaling.source, constant])
        return self.apply(Edit(forms=forms), rewriter, node)


def _ramp(node: ir.Node, opset: int) -> _Ramp | Refusal:
    """``node`` as a ramp of 32-bit floats."""
    bounds = clipping.clip_bounds(node, opset)
    producer = None if bounds is None else bounds.source.producer()
    if bounds is None or producer is None or producer.graph is not node.graph:
        return NO_MATCH
    if bounds.low != 0 or not math.isfinite(bounds.high) or bounds.high <= 0:
        return NO_MATCH
    shift = affine.affine_step(producer)
    if shift is None or shift.scales or shift.array.size != 1:
        return NO_MATCH
    if queries.only_consumer(bounds.source) is not node:
        return Refusal("what is clipped has other users")
    if shift.source.dtype != ir.DataType.FLOAT:
        return Refusal("the HardSigmoid of ONNX Runtime is one of 32-bit floats")
    if shift.array.ndim > (queries.rank(shift.source) or 0):
        return Refusal("the offset may enlarge what it is added to")
    return _Ramp(shift.source, float(shift.array.reshape(())), bounds.high)


def _scaling_after(node: ir.Node) -> AffineStep | None:
    """The scaling by a constant that alone follows ``node``, or the product that alone follows it."""
    follower = queries.only_consumer(node.outputs[0])
    for _ in range(2):
        if follower is None or follower.graph is not node.graph or not queries.is_standard(follower, "Mul", "Div"):
            return None
        step = affine.affine_step(follower)
        if step is not None:
            return step if step.scales else None
        if follower.op_type != "Mul":
            return None
        follower = queries.only_consumer(follower.outputs[0])
    return None


class FuseHardSwish(Rule):
    """HardSigmoid times its own input into HardSwish."""

    name: ClassVar[str] = "fuse-hard-swish"
    summary: ClassVar[str] = "a product with the HardSigmoid of the same value into HardSwish, from opset 14"
    ops: ClassVar[frozenset[str]] = frozenset({"Mul"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Turn the product ``node`` into a HardSwish."""
        refusal = NO_MATCH
        for index, value in enumerate(node.inputs):
            gate = None if value is None else value.producer()
            if gate is None or gate.graph is not node.graph or not _is_hard_swish_gate(gate):
                continue
            if gate.inputs[0] is not node.inputs[1 - index]:
                continue
            if rewriter.opset(node) < _HARD_SWISH:
                refusal = Refusal("there is no HardSwish before opset 14")
            elif queries.only_consumer(value) is not node:
                refusal = Refusal("the HardSigmoid has other users")
            else:
                return self.apply(Edit(forms={node: changed_form(node, "HardSwish", gate.inputs)}), rewriter, node)
        return refusal


def _is_hard_swish_gate(node: ir.Node) -> bool:
    if not queries.is_standard(node, "HardSigmoid") or queries.has_references(node):
        return False
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return abs(alpha * 6 - 1) <= _ONE_ROUNDING and abs(beta * 2 - 1) <= _ONE_ROUNDING


RULES: tuple[Rule, ...] = (FuseHardSigmoid(), FuseHardSwish())
