"""Fuse a scaling and shift into the Conv, ConvTranspose, Gemm or MatMul before it.

    s * (W x + b) + t = (s W) x + (s b + t)        s and t constants, one for each output channel or for all

BatchNormalization at test time is such a scaling and shift (see ``optimizer.algorithms.rewriting.affine``). The new
weight and bias are computed in double precision, rounded once, and take the places of the old ones. A weight with
several users is scaled only if each of its users is followed by the same scaling; it is never copied.

Counterparts elsewhere: ``_fuse_batchnorm`` of onnxscript's rewriter, ``ConvBNFusion``, ``ConvMulFusion`` and
``ConvAddFusion`` of ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting import affine, replacement
from optimizer.algorithms.rewriting.edit import Edit, changed_form
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, linear_nodes, queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.edit import NodeForm
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_NOT_SCALED_ALIKE = Refusal("the weight has other users, which are not scaled alike")


@dataclass(frozen=True)
class _FusablePair:
    """A linear node, and the scaling and shift of all it computes."""

    linear: linear_nodes.LinearNode
    follower: affine.Affine


class _FuseAffine(Rule):
    """A scaling and shift into the linear node before it.

    Case 1: a shift alone. It changes the bias of this linear node and nothing else.
    Case 2: a scaling of a weight with one user. The weight gets other data.
    Case 3: a scaling of a weight with several users, each followed by the same scaling. All are fused at once.
    Case 4: a scaling and shift of a MatMul of matrices. With a bias it becomes a Gemm.
    """

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        pair = _pair(node, rewriter)
        if isinstance(pair, Refusal):
            return pair
        # Case 1 concerns one pair, case 3 all users of the weight
        pairs = [pair] if pair.follower.scale is None else _pairs_of_weight(pair, rewriter)
        if isinstance(pairs, Refusal):
            return pairs
        weights, biases = _new_weights(pair), _new_biases(pairs)
        if isinstance(weights, Refusal):
            return weights
        if isinstance(biases, Refusal):
            return biases
        bypassed = {each.follower.node.outputs[0]: each.linear.node.outputs[0] for each in pairs}
        wanted = Edit(forms=_forms(pairs, biases), bypassed=bypassed, data=weights)
        return self.apply(wanted, rewriter, *(each.follower.node for each in pairs))


def _pair(node: ir.Node, rewriter: Rewriter) -> _FusablePair | Refusal:
    """``node`` and the linear node whose result it alone reads, if that can take it in."""
    if rewriter.opset(node) < affine.OLDEST_OPSET:
        return NO_MATCH
    refusal = NO_MATCH
    for operand, value in enumerate(node.inputs[:2]):
        linear = None if value is None else linear_nodes.as_linear(value.producer())
        if linear is None or linear.node.graph is not node.graph:
            continue
        follower = affine.as_affine(node, operand, linear.axis, linear.outputs, linear.rank)
        if follower is None:
            continue
        if queries.only_consumer(value) is not node:
            refusal = Refusal("what the Conv, Gemm or MatMul computes has other users")
            continue
        pair = _FusablePair(linear, follower)
        return _obstacle(pair) or pair
    return refusal


def _obstacle(pair: _FusablePair) -> Refusal | None:
    """Why the linear node has no place for the shift, or no constants to fold into; ``None`` if it has."""
    linear, follower = pair.linear, pair.follower
    is_constant = constants.float_array(linear.weight) is not None
    if follower.scale is not None and not is_constant:
        return Refusal("the weight is not a constant of floats")
    if not is_constant and linear.node.op_type == "Gemm":
        # One that dequantizes its weight is fast only while its bias is an integer.
        return Refusal("the weight of the Gemm is dequantized")
    if linear.node.op_type == "MatMul":
        # Case 4
        may_become_gemm = linear.rank == 2 and follower.scale is not None
        return None if follower.shift is None or may_become_gemm else Refusal("a MatMul has no bias")
    return None if linear.bias_array() is not None else Refusal("the bias is not a constant for each channel")


def _pairs_of_weight(pair: _FusablePair, rewriter: Rewriter) -> list[_FusablePair] | Refusal:
    """The pairs of all users of the weight of ``pair``, if each of them is scaled alike."""
    weight = pair.linear.weight
    if weight.is_graph_output():
        return Refusal("the weight is a graph output")
    pairs = []
    for node, index in weight.uses():
        pair_of_user = _pair_of_user(node, index, pair, rewriter)
        if isinstance(pair_of_user, Refusal):
            return pair_of_user
        pairs.append(pair_of_user)
    return pairs


def _pair_of_user(node: ir.Node, index: int, pair: _FusablePair, rewriter: Rewriter) -> _FusablePair | Refusal:
    """The user ``node`` of the weight of ``pair`` with what follows it, if it is scaled as ``pair`` is."""
    linear = pair.linear
    if node is linear.node and index == 1:
        return pair  # case 2
    # Case 3
    follower = queries.only_consumer(node.outputs[0]) if index == 1 and node.op_type == linear.node.op_type else None
    other: _FusablePair | Refusal = NO_MATCH
    if follower is not None and queries.is_standard(follower, *affine.OPS):
        other = _pair(follower, rewriter)
    if isinstance(other, Refusal) or other.linear.node is not node:
        return _NOT_SCALED_ALIKE
    same_layout = (other.linear.groups, other.linear.transposed) == (linear.groups, linear.transposed)
    return other if same_layout and other.follower.same_scale(pair.follower) else _NOT_SCALED_ALIKE


def _new_weights(pair: _FusablePair) -> Mapping[ir.Value, NDArray[np.floating]] | Refusal:
    """The scaled weight, if anything is scaled."""
    array = pair.linear.weight_array()
    if pair.follower.scale is None or array is None:
        return {}
    exact = linear_nodes.scaled_outputs(pair.linear, array, pair.follower.scale)
    scaled = constants.round_once(exact, array.dtype, pair.linear.output_axis)
    return Refusal("the scaled weight leaves the range of its type") if scaled is None else {pair.linear.weight: scaled}


def _new_biases(pairs: Sequence[_FusablePair]) -> list[NDArray[np.floating] | None] | Refusal:
    """The bias of each pair, ``None`` where there is to be none."""
    biases: list[NDArray[np.floating] | None] = []
    for pair in pairs:
        bias = _new_bias(pair)
        if isinstance(bias, Refusal):
            return bias
        biases.append(bias)
    return biases


def _new_bias(pair: _FusablePair) -> NDArray[np.floating] | Refusal | None:
    linear, follower = pair.linear, pair.follower
    if linear.bias is None and follower.shift is None:
        return None
    old, dtype = linear.bias_array(), _dtype(pair)
    if old is None or dtype is None:
        return Refusal("the bias is not a constant for each channel")
    exact = old * (1.0 if follower.scale is None else follower.scale)
    exact = exact + (0.0 if follower.shift is None else follower.shift)
    if exact.ndim == 0:
        exact = np.full(1 if linear.node.op_type == "Gemm" else linear.outputs, exact)
    bias = constants.round_once(exact, dtype)
    return Refusal("the new bias leaves the range of its type") if bias is None else bias


def _dtype(pair: _FusablePair) -> np.dtype[np.floating] | None:
    """The float type of what the linear node computes."""
    for value in (pair.linear.bias, pair.linear.weight, *pair.follower.node.inputs):
        array = constants.float_array(value)
        if array is not None:
            return array.dtype
    return None


def _forms(pairs: Sequence[_FusablePair], biases: Sequence[NDArray[np.floating] | None]) -> dict[ir.Node, NodeForm]:
    """The linear nodes that get a bias: in the place of the old one, or of a constant that goes, or new."""
    forms: dict[ir.Node, NodeForm] = {}
    spares = replacement.constants_only_read_by({pair.follower.node for pair in pairs})
    for pair, bias in zip(pairs, biases, strict=True):
        if bias is None:
            continue
        linear = pair.linear
        constant = replacement.replacement_for(bias, f"{linear.weight.name}_bias", spares)
        if linear.bias is not None and _is_own_bias(linear.bias, bias, pairs, biases):
            constant = replacement.ReplacementConstant(bias, "", linear.bias)
        spares = [value for value in spares if value is not constant.reusable]
        op_type = "Gemm" if linear.node.op_type == "MatMul" else None  # case 4
        inputs = [*linear.node.inputs[:2], constant]
        forms[linear.node] = changed_form(linear.node, op_type, inputs, without=["beta"])
    return forms


def _is_own_bias(
    value: ir.Value,
    new: NDArray[np.floating],
    pairs: Sequence[_FusablePair],
    biases: Sequence[NDArray[np.floating] | None],
) -> bool:
    """Whether the bias ``value`` becomes ``new`` for all nodes that read it."""
    agreeing = {
        pair.linear.node
        for pair, bias in zip(pairs, biases, strict=True)
        if pair.linear.bias is value and bias is not None and np.array_equal(bias, new)
    }
    return constants.is_only_read_by(value, agreeing)


class FuseBatchNorm(_FuseAffine):
    """BatchNormalization into the linear node before it."""

    name: ClassVar[str] = "fuse-batch-norm"
    summary: ClassVar[str] = "BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul before it"
    ops: ClassVar[frozenset[str]] = frozenset({"BatchNormalization"})


class FuseScale(_FuseAffine):
    """Mul, Div and Neg by constants into the linear node before them."""

    name: ClassVar[str] = "fuse-scale"
    summary: ClassVar[str] = "Mul, Div by a constant and Neg into the Conv, ConvTranspose, Gemm or MatMul before them"
    ops: ClassVar[frozenset[str]] = affine.SCALES


class FuseShift(_FuseAffine):
    """Add and Sub of constants into the linear node before them."""

    name: ClassVar[str] = "fuse-shift"
    summary: ClassVar[str] = "Add and Sub of a constant into the bias of the Conv, ConvTranspose or Gemm before them"
    ops: ClassVar[frozenset[str]] = affine.SHIFTS


RULES: tuple[Rule, ...] = (FuseBatchNorm(), FuseScale(), FuseShift())
