"""Drop operators that give out what they read, by their attributes, their constants or their shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.analysis.symbolic.operators import dims
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_END = 1 << 31  # what exporters write for "to the end" is at least nearly this large


def _same_shape(node: ir.Node, _rewriter: Rewriter) -> bool:
    source, output = node.inputs[0], node.outputs[0]
    before = dims(source.shape if source is not None else None)
    return before is not None and before == dims(output.shape)


def _always(_node: ir.Node, _rewriter: Rewriter) -> bool:
    return True


def _dropout(node: ir.Node, rewriter: Rewriter) -> bool:
    if any(queries.has_uses(mask) for mask in node.outputs[1:]):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if rewriter.opset(node) < 7:
        return False
    known = constants.constant_array(training, 1)
    return training is None or (known is not None and not known.any())


def _cast(node: ir.Node, _rewriter: Rewriter) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and source.dtype == node.attributes.get_int("to", 0)


def _transpose(node: ir.Node, _rewriter: Rewriter) -> bool:
    perm = node.attributes.get_ints("perm")
    return perm is not None and list(perm) == list(range(len(perm)))


def _slice(node: ir.Node, rewriter: Rewriter) -> bool:
    if len(node.inputs) < 3:
        return False
    starts, ends = (constants.constant_ints(value) for value in node.inputs[1:3])
    steps = constants.constant_ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if steps is None or any(step != 1 for step in steps):
        return False
    if starts is not None and ends is not None and not any(starts) and all(end >= _END - 1 for end in ends):
        return True
    return _same_shape(node, rewriter)


def _pad(node: ir.Node, _rewriter: Rewriter) -> bool:
    pads = node.attributes.get_ints("pads") if len(node.inputs) < 2 else constants.constant_ints(node.inputs[1])
    return pads is not None and not any(pads)


def _tile(node: ir.Node, _rewriter: Rewriter) -> bool:
    repeats = constants.constant_ints(node.inputs[1]) if len(node.inputs) == 2 else None
    return repeats is not None and all(repeat == 1 for repeat in repeats)


def _only(node: ir.Node, _rewriter: Rewriter) -> bool:
    return len(node.inputs) == 1


def _flatten(node: ir.Node, _rewriter: Rewriter) -> bool:
    return node.attributes.get_int("axis", 1) == 1 and queries.rank(node.inputs[0]) == 2


IDENTITIES: dict[str, Callable[[ir.Node, Rewriter], bool]] = {
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
    **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), _only),
}


class DropIdentities(Rule):
    """Operators that move nothing."""

    name: ClassVar[str] = "drop-identities"
    summary: ClassVar[str] = (
        "Identity, Dropout, and Cast, Reshape, Transpose, Slice, Pad, Tile, Concat … without effect"
    )
    ops: ClassVar[frozenset[str]] = frozenset(IDENTITIES)

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let the readers of ``node`` read what it reads."""
        source = node.inputs[0] if node.inputs else None
        if (
            source is None
            or not IDENTITIES[node.op_type](node, rewriter)
            or not editing.may_bypass(source, node.outputs[0])
        ):
            return False
        return self.permits(node, rewriter) and editing.bypass(node, source)


_NEUTRAL = {"Add": (0, True), "Sub": (0, False), "Mul": (1, True), "Div": (1, False), "Pow": (1, False)}


class DropNeutral(Rule):
    """Arithmetic with the neutral element."""

    name: ClassVar[str] = "drop-neutral"
    summary: ClassVar[str] = "x + 0, x - 0, x * 1, x / 1, x ** 1"
    ops: ClassVar[frozenset[str]] = frozenset(_NEUTRAL)

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let the readers of ``node`` read its other operand."""
        if rewriter.opset(node) < 7 or len(node.inputs) != 2:
            return False
        neutral, commutes = _NEUTRAL[node.op_type]
        for index in (1, 0) if commutes else (1,):
            source, constant = node.inputs[1 - index], constants.constant_array(node.inputs[index], 1 << 16)
            if (
                source is None
                or constant is None
                or constant.dtype.kind not in "fiu"
                or not np.all(constant == neutral)
            ):
                continue
            keeps_shape = constant.ndim == 0 or (constant.size == 1 and constant.ndim <= (queries.rank(source) or 0))
            known = dims(source.shape)
            if not keeps_shape and (known is None or known != dims(node.outputs[0].shape)):
                continue
            if editing.may_bypass(source, node.outputs[0]):
                return self.permits(node, rewriter) and editing.bypass(node, source)
        return False


class DropDoubleNot(Rule):
    """Not(Not(x))."""

    name: ClassVar[str] = "drop-inverse"
    summary: ClassVar[str] = "Not of Not, Neg of Neg"
    ops: ClassVar[frozenset[str]] = frozenset({"Not", "Neg"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let the readers of ``node`` read what the first of the two reads."""
        inner = node.inputs[0].producer() if node.inputs[0] is not None else None
        if inner is None or not queries.is_standard(inner, node.op_type) or inner.inputs[0] is None:
            return False
        source = inner.inputs[0]
        return (
            editing.may_bypass(source, node.outputs[0])
            and self.permits(node, rewriter)
            and editing.bypass(node, source)
        )


RULES: tuple[Rule, ...] = (DropIdentities(), DropNeutral(), DropDoubleNot())
