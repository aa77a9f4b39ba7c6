"""Recognize HardSigmoid and HardSwish in what exporters spell out.

::

    clip(x + b, 0, h) / h = HardSigmoid(x, alpha=1/h, beta=b/h)        also with a product between Clip and Div
    x * HardSigmoid(x, alpha=1/6, beta=1/2) = HardSwish(x)             from opset 14

The factor after the Clip may be any constant ``k``; what is left of it is ``h k``, and nothing where that is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting import affine, clipping, replacement
from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    """Add, Clip and a later Div or Mul into HardSigmoid."""

    name: ClassVar[str] = "fuse-hard-sigmoid"
    summary: ClassVar[str] = "Add, Clip from 0 and a later scaling into HardSigmoid"
    ops: ClassVar[frozenset[str]] = frozenset({"Clip"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Turn the Clip ``node`` into a HardSigmoid, if a factor after it takes up its height."""
        ramp = _ramp(node, rewriter.opset(node))
        scaling = None if ramp is None else _scaling_after(node)
        if ramp is None or scaling is None:
            return False
        factor = constants.round_once(scaling.array * ramp.height, np.dtype(np.float32))
        if factor is None or not self.permits(node, rewriter):
            return False
        _become_hard_sigmoid(node, ramp)
        _rescale(scaling, factor, rewriter)
        return True


def _ramp(node: ir.Node, opset: int) -> _Ramp | None:
    """``node`` as a ramp of 32-bit floats (ONNX Runtime's HardSigmoid knows no others)."""
    found = clipping.clip_bounds(node, opset)
    before = None if found is None else found.source.producer()
    if (
        found is None
        or before is None
        or queries.only_consumer(found.source) is not node
        or before.graph is not node.graph
    ):
        return None
    shift = affine.affine_step(before)
    if shift is None or shift.scales or shift.array.size != 1 or shift.source.dtype != ir.DataType.FLOAT:
        return None
    enlarges = shift.array.ndim > (queries.rank(shift.source) or 0)
    if enlarges or found.low != 0 or not math.isfinite(found.high) or found.high <= 0:
        return None
    return _Ramp(shift.source, float(shift.array.reshape(())), found.high)


def _scaling_after(node: ir.Node) -> affine.AffineStep | None:
    """The scaling by a constant that alone follows ``node``, or the product that alone follows it."""
    after = queries.only_consumer(node.outputs[0])
    for _ in range(2):
        if after is None or after.graph is not node.graph or not queries.is_standard(after, "Mul", "Div"):
            return None
        found = affine.affine_step(after)
        if found is not None:
            return found if found.scales else None
        if after.op_type != "Mul":
            return None
        after = queries.only_consumer(after.outputs[0])
    return None


def _become_hard_sigmoid(node: ir.Node, ramp: _Ramp) -> None:
    node.op_type = "HardSigmoid"
    node.attributes.clear()
    node.attributes.add(ir.AttrFloat32("alpha", 1.0 / ramp.height))
    node.attributes.add(ir.AttrFloat32("beta", ramp.offset / ramp.height))
    node.resize_inputs(1)
    node.replace_input_with(0, ramp.source)


def _rescale(scaling: affine.AffineStep, factor: NDArray[np.floating], rewriter: Rewriter) -> None:
    """Scale by ``factor`` instead, or not at all where that is 1 and broadcasts nothing."""
    node = scaling.node
    if (
        factor.ndim <= (queries.rank(scaling.source) or 0)
        and factor.size == 1
        and abs(factor.item() - 1) <= _ONE_ROUNDING
    ):
        editing.bypass(node, scaling.source)
        editing.remove_unused([node])
        return
    swap = replacement.replacement_for(
        factor, f"{node.outputs[0].name}_factor", replacement.constants_only_read_by({node})
    )
    node.op_type = "Mul"
    editing.set_inputs(node, [scaling.source, swap.put(node, rewriter)])


class FuseHardSwish(Rule):
    """HardSigmoid times its own input into HardSwish."""

    name: ClassVar[str] = "fuse-hard-swish"
    summary: ClassVar[str] = "a product with the HardSigmoid of the same value into HardSwish, from opset 14"
    ops: ClassVar[frozenset[str]] = frozenset({"Mul"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Turn the product ``node`` into a HardSwish."""
        if rewriter.opset(node) < _HARD_SWISH:
            return False
        for index, value in enumerate(node.inputs):
            gate = None if value is None else value.producer()
            if gate is None or queries.only_consumer(value) is not node or gate.graph is not node.graph:
                continue
            if _is_hard_swish_gate(gate) and gate.inputs[0] is node.inputs[1 - index] and self.permits(node, rewriter):
                node.op_type = "HardSwish"
                node.resize_inputs(1)
                node.replace_input_with(0, gate.inputs[0])
                return True
        return False


def _is_hard_swish_gate(node: ir.Node) -> bool:
    if not queries.is_standard(node, "HardSigmoid") or queries.has_references(node):
        return False
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return abs(alpha * 6 - 1) <= _ONE_ROUNDING and abs(beta * 2 - 1) <= _ONE_ROUNDING


RULES: tuple[Rule, ...] = (FuseHardSigmoid(), FuseHardSwish())
