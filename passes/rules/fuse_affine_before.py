"""Fuse a scaling and shift into the Conv, Gemm or MatMul after it.

    W (s x + t) + b = (W s) x + (b + W t)        s and t constants, one for each input channel or for all

A shift may only be fused where nothing is padded, since the padding is not shifted. What ends a normalization
(``x / sqrt(…)``, scaled and shifted) stays: ONNX Runtime fuses it as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting import affine, replacement
from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, linear_nodes, queries

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_OLDEST_BIASLESS_GEMM = 11


class FuseAffineBefore(Rule):
    """BatchNormalization, Mul, Div, Neg, Add, Sub with constants into the kernel after them."""

    name: ClassVar[str] = "fuse-affine-before"
    summary: ClassVar[str] = (
        "BatchNormalization, Mul, Div, Neg, Add, Sub of constants into the Conv, Gemm or MatMul after them"
    )
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Fold the node that computes the first input of ``node`` into its weight and bias."""
        item = linear_nodes.as_linear(node)
        before = None if item is None else _before(item, rewriter)
        array = None if item is None else item.weight_array()
        if item is None or before is None or array is None:
            return False
        weight = _scaled(item, array, before)
        swap = _shifted(item, array, before) if before.shift is not None and _may_shift(item, rewriter) else None
        if (before.scale is None) != (weight is None) or (before.shift is None) != (swap is None):
            return False
        swaps = [] if swap is None else [swap]
        if replacement.bytes_saved(
            [before.node], replacement.constants_only_read_by({before.node}), swaps
        ) < 0 or not self.permits(node, rewriter):
            return False
        if weight is not None:
            constants.set_array(item.weight, weight)
        if swap is not None:
            node.attributes.pop("beta", None)
            node.resize_inputs(3)
            node.replace_input_with(2, swap.put(node, rewriter))
        node.replace_input_with(0, before.source)
        return True


def _before(item: linear_nodes.LinearNode, rewriter: Rewriter) -> affine.Affine | None:
    """The scaling and shift whose result only ``item`` reads."""
    value = item.node.inputs[0]
    if (
        queries.only_consumer(value) is not item.node
        or value is None
        or rewriter.opset(item.node) < affine.OLDEST_OPSET
    ):
        return None
    node = value.producer()
    if node is None or not queries.is_standard(node, *affine.OPS) or node.graph is not item.node.graph:
        return None
    if _ends_normalization(node):
        return None
    found = [
        affine.as_affine(node, operand, item.axis, item.inputs, item.rank) for operand in range(len(node.inputs[:2]))
    ]
    return next((each for each in found if each is not None), None)


def _ends_normalization(node: ir.Node) -> bool:
    """Whether ``node`` scales or shifts what was divided by a square root, at most two such nodes before it."""
    for _ in range(3):
        if not queries.is_standard(node, "Mul", "Add", "Sub", "Div"):
            return False
        moving = [value for value in node.inputs if value is not None and constants.constant_tensor(value) is None]
        if len(moving) != 1:
            return any(_is_root(value, depth=2) for value in moving)
        producer = moving[0].producer()
        if producer is None:
            return False
        node = producer
    return False


def _is_root(value: ir.Value | None, depth: int) -> bool:
    """Whether ``value`` is a square root or the reciprocal of one."""
    node = None if value is None else value.producer()
    if node is None or depth == 0:
        return False
    if queries.is_standard(node, "Sqrt"):
        return True
    return queries.is_standard(node, "Reciprocal", "Div") and any(_is_root(each, depth - 1) for each in node.inputs)


def _may_shift(item: linear_nodes.LinearNode, rewriter: Rewriter) -> bool:
    """Whether a shift of the input is the same everywhere, and its answer has a place."""
    attributes = item.node.attributes
    match item.node.op_type:
        case "Conv":
            padded = any(attributes.get_ints("pads", ()))
            return not padded and attributes.get_string("auto_pad", "NOTSET") in {"NOTSET", "VALID"}
        case "Gemm":
            return item.bias is not None or rewriter.opset(item.node) >= _OLDEST_BIASLESS_GEMM
    return False


def _scaled(
    item: linear_nodes.LinearNode, array: NDArray[np.floating], before: affine.Affine
) -> NDArray[np.floating] | None:
    """The weight with its input channels scaled, if nobody else reads it and nothing overflows."""
    if before.scale is None or not constants.is_only_read_by(item.weight, {item.node}):
        return None
    return constants.round_once(linear_nodes.scaled_inputs(item, array, before.scale), array.dtype, item.output_axis)


def _shifted(
    item: linear_nodes.LinearNode, array: NDArray[np.floating], before: affine.Affine
) -> replacement.ReplacementConstant | None:
    """The bias with the answer to the shift, if the old one is a constant and nothing overflows."""
    bias = item.bias_array()
    if bias is None or before.shift is None:
        return None
    alpha = item.node.attributes.get_float("alpha", 1.0)
    new = constants.round_once(bias + alpha * linear_nodes.response(item, array, before.shift), array.dtype)
    if new is None:
        return None
    if item.bias is not None and constants.is_only_read_by(item.bias, {item.node}):
        return replacement.ReplacementConstant(new, "", item.bias)
    return replacement.replacement_for(
        new, f"{item.weight.name}_bias", replacement.constants_only_read_by({before.node})
    )


RULES: tuple[Rule, ...] = (FuseAffineBefore(),)
