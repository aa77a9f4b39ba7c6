"""Drop operators that give out what they read, by their attributes, their constants or their shapes.

Counterparts elsewhere: ``IdentityEliminationPass`` of onnx-ir, and a rule for each operator in onnxscript's rewriter
(``CastIdentity``, ``TransposeIdentity``, ``_no_op``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.analysis.symbolic.operators import dims
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_END = 1 << 31  # what exporters write for "to the end" is at least nearly this large
_MAX_ELEMENTS = 1 << 16  # larger constants are weights
_OLDEST_OPSET = 7  # before it, Dropout had a test mode, and arithmetic broadcast by attribute


def _same_shape(node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    source, output = node.inputs[0], node.outputs[0]
    before = dims(source.shape if source is not None else None)
    return None if before is not None and before == dims(output.shape) else NO_MATCH


def _always(_node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    return None


def _dropout(node: ir.Node, rewriter: Rewriter) -> Refusal | None:
    if any(queries.has_uses(mask) for mask in node.outputs[1:]):
        return Refusal("the mask of the Dropout is used")
    if rewriter.opset(node) < _OLDEST_OPSET:
        return Refusal("a Dropout before opset 7 may train")
    training = node.inputs[2] if len(node.inputs) > 2 else None
    training_array = constants.constant_array(training, 1)
    is_off = training is None or (training_array is not None and not training_array.any())
    return None if is_off else Refusal("the Dropout may train: its training mode is not a constant false")


def _cast(node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    source = node.inputs[0]
    is_same = source is not None and source.dtype is not None and source.dtype == node.attributes.get_int("to", 0)
    return None if is_same else NO_MATCH


def _transpose(node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    perm = node.attributes.get_ints("perm")
    return None if perm is not None and list(perm) == list(range(len(perm))) else NO_MATCH


def _slice(node: ir.Node, rewriter: Rewriter) -> Refusal | None:
    if len(node.inputs) < 3:
        return NO_MATCH
    starts, ends = (constants.constant_ints(value) for value in node.inputs[1:3])
    steps = constants.constant_ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if steps is None or any(step != 1 for step in steps):
        return NO_MATCH
    if starts is not None and ends is not None and not any(starts) and all(end >= _END - 1 for end in ends):
        return None
    return _same_shape(node, rewriter)


def _pad(node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    pads = node.attributes.get_ints("pads") if len(node.inputs) < 2 else constants.constant_ints(node.inputs[1])
    return None if pads is not None and not any(pads) else NO_MATCH


def _tile(node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    repeats = constants.constant_ints(node.inputs[1]) if len(node.inputs) == 2 else None
    return None if repeats is not None and all(repeat == 1 for repeat in repeats) else NO_MATCH


def _single_input(node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    return None if len(node.inputs) == 1 else NO_MATCH


def _flatten(node: ir.Node, _rewriter: Rewriter) -> Refusal | None:
    return None if node.attributes.get_int("axis", 1) == 1 and queries.rank(node.inputs[0]) == 2 else NO_MATCH


# Why an operator is not dropped; ``None`` where it gives out what it reads.
IDENTITIES: dict[str, Callable[[ir.Node, Rewriter], Refusal | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Reshape": _same_shape,
    "Expand": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Tile": _tile,
    **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), _single_input),
}


class DropIdentities(Rule):
    """Operators that move nothing."""

    name: ClassVar[str] = "drop-identities"
    summary: ClassVar[str] = (
        "Identity, Dropout, and Cast, Reshape, Transpose, Slice, Pad, Tile, Concat … without effect"
    )
    ops: ClassVar[frozenset[str]] = frozenset(IDENTITIES)

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let the users of ``node`` read what it reads."""
        source = node.inputs[0] if node.inputs else None
        if source is None:
            return NO_MATCH
        refusal = IDENTITIES[node.op_type](node, rewriter)
        return self.bypass(node, source, rewriter) if refusal is None else refusal


_NEUTRAL = {"Add": (0, True), "Sub": (0, False), "Mul": (1, True), "Div": (1, False), "Pow": (1, False)}


class DropNeutral(Rule):
    """Arithmetic with the neutral element, on either side where the operator commutes."""

    name: ClassVar[str] = "drop-neutral"
    summary: ClassVar[str] = "x + 0, x - 0, x * 1, x / 1, x ** 1"
    ops: ClassVar[frozenset[str]] = frozenset(_NEUTRAL)

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let the users of ``node`` read its other operand."""
        if rewriter.opset(node) < _OLDEST_OPSET or len(node.inputs) != 2:
            return NO_MATCH
        neutral, commutes = _NEUTRAL[node.op_type]
        result: Applied | Refusal = NO_MATCH
        for index in (1, 0) if commutes else (1,):
            source, constant = node.inputs[1 - index], constants.constant_array(node.inputs[index], _MAX_ELEMENTS)
            if source is None or constant is None or constant.dtype.kind not in "fiu":
                continue
            if not np.all(constant == neutral):
                continue
            is_one_number = constant.size == 1 and constant.ndim <= (queries.rank(source) or 0)
            shape = dims(source.shape)
            if not is_one_number and (shape is None or shape != dims(node.outputs[0].shape)):
                result = Refusal("the neutral constant may enlarge the other operand")
                continue
            result = self.bypass(node, source, rewriter)
            if not isinstance(result, Refusal):
                return result
        return result


class DropDoubleNot(Rule):
    """Not(Not(x))."""

    name: ClassVar[str] = "drop-inverse"
    summary: ClassVar[str] = "Not of Not, Neg of Neg"
    ops: ClassVar[frozenset[str]] = frozenset({"Not", "Neg"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let the users of ``node`` read what the first of the two reads."""
        inner = node.inputs[0].producer() if node.inputs[0] is not None else None
        if inner is None or not queries.is_standard(inner, node.op_type) or inner.inputs[0] is None:
            return NO_MATCH
        return self.bypass(node, inner.inputs[0], rewriter)


RULES: tuple[Rule, ...] = (DropIdentities(), DropNeutral(), DropDoubleNot())
