"""Fuse a scaling and shift into the Conv, Gemm or MatMul after it.

    W (s x + t) + b = (W s) x + (b + W t)        s and t constants, one for each input channel or for all

A shift may only be fused where nothing is padded, since the padding is not shifted. What ends a normalization
(``x / sqrt(…)``, scaled and shifted) stays: ONNX Runtime fuses it as a whole.

Counterpart elsewhere: ``_fuse_conv_affine`` of onnxscript's rewriter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting import affine, replacement
from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, linear_nodes, queries

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.edit import Input
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_OLDEST_BIASLESS_GEMM = 11
_MAX_NORMALIZATION = 3  # nodes from the scaling or shift back to the division by the square root


class FuseAffineBefore(Rule):
    """BatchNormalization, Mul, Div, Neg, Add, Sub with constants into the linear node after them.

    Case 1: a scaling. The weight gets other data, and has to have no other users.
    Case 2: a shift. The bias gets what the weight answers to it, and the linear node has to have a place for one.
    """

    name: ClassVar[str] = "fuse-affine-before"
    summary: ClassVar[str] = (
        "BatchNormalization, Mul, Div, Neg, Add, Sub of constants into the Conv, Gemm or MatMul after them"
    )
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Fold the node that computes the first input of ``node`` into its weight and bias."""
        linear = linear_nodes.as_linear(node)
        if linear is None:
            return NO_MATCH
        before = _affine_before(linear, rewriter)
        if isinstance(before, Refusal):
            return before
        array = linear.weight_array()
        if array is None:
            return Refusal("the weight is not a constant of floats")
        data: dict[ir.Value, NDArray[np.floating]] = {}
        inputs: list[Input] = [before.source, *node.inputs[1:]]
        # Case 1
        if before.scale is not None:
            weight = _scaled_weight(linear, array, before.scale)
            if isinstance(weight, Refusal):
                return weight
            data[linear.weight] = weight
        # Case 2
        if before.shift is not None:
            bias = _shifted_bias(linear, array, before, rewriter)
            if isinstance(bias, Refusal):
                return bias
            inputs[2:] = [bias]
        new = changed_form(node, None, inputs, without=["beta"] if before.shift is not None else [])
        return self.apply(Edit(forms={node: new}, data=data), rewriter, node)


def _affine_before(linear: linear_nodes.LinearNode, rewriter: Rewriter) -> affine.Affine | Refusal:
    """The scaling and shift whose result only ``linear`` reads."""
    value = linear.node.inputs[0]
    producer = None if value is None else value.producer()
    if producer is None or not queries.is_standard(producer, *affine.OPS) or producer.graph is not linear.node.graph:
        return NO_MATCH
    if rewriter.opset(linear.node) < affine.OLDEST_OPSET:
        return NO_MATCH
    for operand in range(len(producer.inputs[:2])):
        before = affine.as_affine(producer, operand, linear.axis, linear.inputs, linear.rank)
        if before is None:
            continue
        if queries.only_consumer(value) is not linear.node:
            return Refusal("what is scaled or shifted has other users")
        if _ends_normalization(producer):
            return Refusal("the scaling or shift ends a normalization, which ONNX Runtime fuses as a whole")
        return before
    return NO_MATCH


def _ends_normalization(node: ir.Node) -> bool:
    """Whether ``node`` scales or shifts what was divided by a square root, at most two such nodes before it."""
    for _ in range(_MAX_NORMALIZATION):
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


def _scaled_weight(
    linear: linear_nodes.LinearNode, array: NDArray[np.floating], scale: NDArray[np.float64]
) -> NDArray[np.floating] | Refusal:
    """The weight with its input channels scaled."""
    if not constants.is_only_read_by(linear.weight, {linear.node}):
        return Refusal("the weight has other users")
    exact = linear_nodes.scaled_inputs(linear, array, scale)
    weight = constants.round_once(exact, array.dtype, linear.output_axis)
    return Refusal("the scaled weight leaves the range of its type") if weight is None else weight


def _shifted_bias(
    linear: linear_nodes.LinearNode, array: NDArray[np.floating], before: affine.Affine, rewriter: Rewriter
) -> replacement.ReplacementConstant | Refusal:
    """The bias with what the weight answers to the shift, in the place of the old one or of the shift."""
    obstacle = _obstacle_to_shift(linear, rewriter)
    if obstacle is not None:
        return obstacle
    old = linear.bias_array()
    if old is None or before.shift is None:
        return Refusal("the bias is not a constant for each channel")
    alpha = linear.node.attributes.get_float("alpha", 1.0)
    exact = old + alpha * linear_nodes.response(linear, array, before.shift)
    bias = constants.round_once(exact, array.dtype)
    if bias is None:
        return Refusal("the new bias leaves the range of its type")
    if linear.bias is not None and constants.is_only_read_by(linear.bias, {linear.node}):
        return replacement.ReplacementConstant(bias, "", linear.bias)
    spares = replacement.constants_only_read_by({before.node})
    return replacement.replacement_for(bias, f"{linear.weight.name}_bias", spares)


def _obstacle_to_shift(linear: linear_nodes.LinearNode, rewriter: Rewriter) -> Refusal | None:
    """Why a shift of the input is not the same everywhere, or its answer has no place; ``None`` if it has."""
    attributes = linear.node.attributes
    match linear.node.op_type:
        case "Conv":
            is_unpadded = attributes.get_string("auto_pad", "NOTSET") in {"NOTSET", "VALID"}
            if not is_unpadded or any(attributes.get_ints("pads", ())):
                return Refusal("the Conv pads, and its padding is not shifted")
            return None
        case "Gemm":
            has_place = linear.bias is not None or rewriter.opset(linear.node) >= _OLDEST_BIASLESS_GEMM
            return None if has_place else Refusal("a Gemm before opset 11 has to have a bias")
        case "MatMul":
            return Refusal("a MatMul has no bias")
    return Refusal("a ConvTranspose answers to a shift in another way at its borders")


RULES: tuple[Rule, ...] = (FuseAffineBefore(),)
