"""Fuse a Pad into the Conv or the pooling after it, which pads by itself.

::

    Conv(Pad(x, p, 0), pads=q)        = Conv(x, pads=p+q)
    AveragePool(Pad(x, p, 0))         = AveragePool(x, pads=p, count_include_pad=1)
    MaxPool(Pad(x, p, lowest))        = MaxPool(x, pads=p)

A MaxPool does not see its own padding, so it also replaces a Pad that repeats the edge, and a Pad with 0 of what is
never negative. A pooling has to see something real in each window: it takes no padding as wide as its window.

Counterparts elsewhere: ``_fuse_pad_into_conv`` of onnxscript's rewriter, ``PadFusion`` of ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_PADS_ARE_INPUTS = 11
_OLDEST_OPSET = 7
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "Abs", "Exp", "Softmax", "Softplus", "HardSigmoid", "Sqrt"})
_OTHER_PADDING = Refusal("the operator pads with something else than the Pad")


class FusePad(Rule):
    """Pad of spatial dimensions into Conv, AveragePool, MaxPool."""

    name: ClassVar[str] = "fuse-pad"
    summary: ClassVar[str] = "Pad into the Conv, AveragePool or MaxPool after it"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "AveragePool", "MaxPool"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let ``node`` pad by itself."""
        source, opset = node.inputs[0] if node.inputs else None, rewriter.opset(node)
        pad = None if source is None else source.producer()
        if pad is None or not queries.is_standard(pad, "Pad") or pad.graph is not node.graph or opset < _OLDEST_OPSET:
            return NO_MATCH
        if queries.only_consumer(source) is not node:
            return Refusal("what is padded has other users")
        if queries.has_references(pad):
            return Refusal("the Pad has attributes that only the call of its function knows")
        pads = _spatial_pads(pad, opset)
        if isinstance(pads, Refusal):
            return pads
        own_pads = _own_pads(node, len(pads))
        if own_pads is None:
            return Refusal("the operator finds its own padding out by itself (auto_pad)")
        obstacle = _obstacle(node, pad, pads, own_pads, opset)
        if obstacle is not None:
            return obstacle
        sums = [mine + theirs for mine, theirs in zip(own_pads, pads, strict=True)]
        counts = [ir.AttrInt64("count_include_pad", 1)] if node.op_type == "AveragePool" else []
        attributes = [*counts, ir.AttrInt64s("pads", sums)]
        new = changed_form(node, None, [pad.inputs[0], *node.inputs[1:]], attributes, without=["auto_pad"])
        return self.apply(Edit(forms={node: new}), rewriter, node)


def _spatial_pads(pad: ir.Node, opset: int) -> list[int] | Refusal:
    """Begin and end of each spatial dimension, if nothing else is padded and nothing cut off."""
    if opset < _PADS_ARE_INPUTS:
        both = list(pad.attributes.get_ints("pads", ()))
    elif len(pad.inputs) > 3 and pad.inputs[3] is not None:
        return Refusal("the Pad names its axes")
    else:
        both = constants.constant_ints(pad.inputs[1]) or []
    rank = len(both) // 2
    if not both:
        return Refusal("the amounts of the Pad are not constant")
    if rank < 3 or len(both) % 2:
        return Refusal("the Pad has no spatial dimensions")
    if any(amount < 0 for amount in both):
        return Refusal("the Pad cuts something off")
    begins, ends = both[:rank], both[rank:]
    if any(begins[:2] + ends[:2]):
        return Refusal("the Pad adds to the batch or the channels")
    return begins[2:] + ends[2:]


def _own_pads(node: ir.Node, count: int) -> list[int] | None:
    """The padding of ``node`` itself, if it is given in numbers."""
    if queries.has_references(node) or node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") == "VALID":
        return [0] * count
    numbers = list(node.attributes.get_ints("pads", ())) or [0] * count
    return numbers if len(numbers) == count else None


def _obstacle(node: ir.Node, pad: ir.Node, pads: Sequence[int], own_pads: Sequence[int], opset: int) -> Refusal | None:
    """Why ``node`` does not come to the same with the padding of ``pad``; ``None`` if it does."""
    mode, value = pad.attributes.get_string("mode", "constant"), _value(pad, opset)
    is_zero = mode == "constant" and value == 0
    if node.op_type == "Conv":
        return None if is_zero else _OTHER_PADDING
    window = node.attributes.get_ints("kernel_shape", ())
    if 2 * len(window) != len(pads):
        return Refusal("the window of the pooling is not known")
    if node.attributes.get_int("ceil_mode", 0) != 0:
        return Refusal("the pooling rounds its size up")
    if any(mine + theirs >= size for mine, theirs, size in zip(own_pads, pads, [*window, *window], strict=True)):
        return Refusal("the padding is as wide as the window of the pooling")
    if any(step != 1 for step in node.attributes.get_ints("dilations", ())):
        return Refusal("the pooling is dilated")
    if node.op_type == "AveragePool":
        counts = node.attributes.get_int("count_include_pad", 0) == 1 or not any(own_pads)
        return None if is_zero and counts else _OTHER_PADDING
    if len(node.outputs) > 1 and queries.has_uses(node.outputs[1]):
        return Refusal("the indices of the MaxPool are used")
    is_unseen = mode == "edge" or (mode == "constant" and _is_never_above(value, pad.inputs[0]))
    return None if is_unseen and not any(own_pads) else _OTHER_PADDING


def _value(pad: ir.Node, opset: int) -> float | None:
    """What is padded with."""
    if opset < _PADS_ARE_INPUTS:
        return pad.attributes.get_float("value", 0.0)
    if len(pad.inputs) < 3 or pad.inputs[2] is None:
        return 0.0
    array = constants.float_array(pad.inputs[2])
    return None if array is None or array.size != 1 else float(array.item())


def _is_never_above(value: float | None, source: ir.Value | None) -> bool:
    """Whether no element of ``source`` can be below ``value``."""
    if value is None or source is None or source.dtype not in constants.FLOATS:
        return False
    if value <= float(np.finfo(source.dtype.numpy()).min):
        return True
    producer = source.producer()
    return value == 0 and producer is not None and queries.is_standard(producer, *_NEVER_NEGATIVE)


RULES: tuple[Rule, ...] = (FusePad(),)
