"""Fuse a Pad into the Conv or the pooling after it, which pads by itself.

::

    Conv(Pad(x, p, 0), pads=q)        = Conv(x, pads=p+q)
    AveragePool(Pad(x, p, 0))         = AveragePool(x, pads=p, count_include_pad=1)
    MaxPool(Pad(x, p, lowest))        = MaxPool(x, pads=p)

A MaxPool does not see its own padding, so it also replaces a Pad that repeats the edge, and a Pad with 0 of what is
never negative. A pooling has to see something real in each window: it takes no padding as wide as its window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_PADS_ARE_INPUTS = 11
_OLDEST_OPSET = 7
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "Abs", "Exp", "Softmax", "Softplus", "HardSigmoid", "Sqrt"})


class FusePad(Rule):
    """Pad of spatial dimensions into Conv, AveragePool, MaxPool."""

    name: ClassVar[str] = "fuse-pad"
    summary: ClassVar[str] = "Pad into the Conv, AveragePool or MaxPool after it"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "AveragePool", "MaxPool"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let ``node`` pad by itself."""
        source = node.inputs[0] if node.inputs else None
        pad = None if source is None else source.producer()
        if pad is None or not queries.is_standard(pad, "Pad") or pad.graph is not node.graph:
            return False
        if (
            queries.only_consumer(source) is not node
            or queries.has_references(pad)
            or rewriter.opset(node) < _OLDEST_OPSET
        ):
            return False
        pads = _pads(pad, rewriter.opset(node))
        own = _own_pads(node, len(pads or ()))
        if pads is None or own is None or not _may_pad(node, pad, pads, own, rewriter.opset(node)):
            return False
        if not self.permits(node, rewriter):
            return False
        if node.op_type == "AveragePool":
            node.attributes.add(ir.AttrInt64("count_include_pad", 1))
        node.attributes.pop("auto_pad", None)
        node.attributes.add(ir.AttrInt64s("pads", [ours + theirs for ours, theirs in zip(own, pads, strict=True)]))
        node.replace_input_with(0, pad.inputs[0])
        return True


def _pads(pad: ir.Node, opset: int) -> list[int] | None:
    """Begin and end of each spatial dimension, if nothing else is padded and nothing cut off."""
    if opset < _PADS_ARE_INPUTS:
        both = list(pad.attributes.get_ints("pads", ()))
    else:
        if len(pad.inputs) > 3 and pad.inputs[3] is not None:
            return None
        both = constants.constant_ints(pad.inputs[1]) or []
    rank = len(both) // 2
    if rank < 3 or len(both) % 2 or any(amount < 0 for amount in both):
        return None
    begins, ends = both[:rank], both[rank:]
    if any(begins[:2] + ends[:2]):
        return None
    return begins[2:] + ends[2:]


def _own_pads(node: ir.Node, count: int) -> list[int] | None:
    """The padding of ``node`` itself, if it is given in numbers."""
    if queries.has_references(node) or node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") == "VALID":
        return [0] * count
    own = list(node.attributes.get_ints("pads", ())) or [0] * count
    return own if len(own) == count else None


def _may_pad(node: ir.Node, pad: ir.Node, pads: Sequence[int], own: Sequence[int], opset: int) -> bool:
    mode, value = pad.attributes.get_string("mode", "constant"), _value(pad, opset)
    if node.op_type == "Conv":
        return mode == "constant" and value == 0
    window = node.attributes.get_ints("kernel_shape", ())
    if 2 * len(window) != len(pads) or node.attributes.get_int("ceil_mode", 0) != 0:
        return False
    wide = any(ours + theirs >= size for ours, theirs, size in zip(own, pads, [*window, *window], strict=True))
    if wide or any(step != 1 for step in node.attributes.get_ints("dilations", ())):
        return False
    if node.op_type == "AveragePool":
        counts = node.attributes.get_int("count_include_pad", 0) == 1 or not any(own)
        return mode == "constant" and value == 0 and counts
    if len(node.outputs) > 1 and queries.has_uses(node.outputs[1]):
        return False
    return not any(own) and (mode == "edge" or (mode == "constant" and _never_above(value, pad.inputs[0])))


def _value(pad: ir.Node, opset: int) -> float | None:
    """What is padded with."""
    if opset < _PADS_ARE_INPUTS:
        return pad.attributes.get_float("value", 0.0)
    if len(pad.inputs) < 3 or pad.inputs[2] is None:
        return 0.0
    array = constants.float_array(pad.inputs[2])
    return None if array is None or array.size != 1 else float(array.item())


def _never_above(value: float | None, source: ir.Value | None) -> bool:
    """Whether no element of ``source`` can be below ``value``."""
    if value is None or source is None or source.dtype not in constants.FLOATS:
        return False
    if value <= float(np.finfo(source.dtype.numpy()).min):
        return True
    producer = source.producer()
    return value == 0 and producer is not None and queries.is_standard(producer, *_NEVER_NEGATIVE)


RULES: tuple[Rule, ...] = (FusePad(),)
