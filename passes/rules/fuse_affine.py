"""Fuse a scaling and shift into the Conv, ConvTranspose, Gemm or MatMul before it.

    s * (W x + b) + t = (s W) x + (s b + t)        s and t constants, one for each output channel or for all

BatchNormalization at test time is such a scaling and shift (see ``optimizer.algorithms.rewriting.affine``). The new
weight and bias are computed in double precision, rounded once, and take the places of the old ones. A weight with
several users is scaled only if each of its users is followed by the same scaling; it is never copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.rewriting import affine, replacement
from optimizer.algorithms.rewriting.rules import Rule
from optimizer.graph import constants, editing, linear_nodes, queries

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter


@dataclass(frozen=True)
class _FusablePair:
    """A kernel and the scaling and shift of all it computes."""

    item: linear_nodes.LinearNode
    follower: affine.Affine


class _FuseAffine(Rule):
    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        pair = _pair(node, rewriter)
        if pair is None or not _takes(pair):
            return False
        pairs = [pair] if pair.follower.scale is None else _sharers(pair, rewriter)
        if not pairs:
            return False
        weight = _new_weight(pair)
        biases = [_new_bias(each) for each in pairs]
        if weight is None or any(bias is None for bias in biases):
            return False
        swaps = _swaps(pairs, [bias for bias in biases if bias is not None])
        gone = {each.follower.node for each in pairs}
        if replacement.bytes_saved(gone, replacement.constants_only_read_by(gone), swaps.values()) < 0:
            return False
        if not all(self.permits(each.follower.node, rewriter) for each in pairs):
            return False
        if pair.follower.scale is not None:
            constants.set_array(pair.item.weight, weight)
        for each in pairs:
            _apply(each, swaps.get(each.item.node), rewriter)
        editing.remove_unused(gone)
        return True


def _pair(node: ir.Node, rewriter: Rewriter) -> _FusablePair | None:
    """``node`` and the kernel whose result it alone reads."""
    if rewriter.opset(node) < affine.OLDEST_OPSET:
        return None
    for operand, value in enumerate(node.inputs[:2]):
        if value is None or queries.only_consumer(value) is not node:
            continue
        item = linear_nodes.as_linear(value.producer())
        if item is None or item.node.graph is not node.graph:
            continue
        follower = affine.as_affine(node, operand, item.axis, item.outputs, item.rank)
        if follower is not None:
            return _FusablePair(item, follower)
    return None


def _takes(pair: _FusablePair) -> bool:
    """Whether the kernel has a place for the shift, and constants to fold into."""
    item, follower = pair.item, pair.follower
    is_constant = constants.float_array(item.weight) is not None
    if not is_constant and (follower.scale is not None or item.node.op_type == "Gemm"):
        return False  # a Gemm that dequantizes its weight is fast only while its bias is an integer
    if item.node.op_type == "MatMul":
        return follower.shift is None or (item.rank == 2 and follower.scale is not None)
    return item.bias_array() is not None


def _sharers(pair: _FusablePair, rewriter: Rewriter) -> list[_FusablePair]:
    """The pairs of all users of the kernel's weight, if each of them is scaled alike; else an empty list."""
    weight = pair.item.weight
    if weight.is_graph_output():
        return []
    pairs = [_sharer(node, index, pair, rewriter) for node, index in weight.uses()]
    agreeing = [other for other in pairs if other is not None]
    return agreeing if len(agreeing) == len(pairs) else []


def _sharer(node: ir.Node, index: int, pair: _FusablePair, rewriter: Rewriter) -> _FusablePair | None:
    """The user ``node`` of the weight of ``pair`` with what follows it, if it is scaled as ``pair`` is."""
    if node is pair.item.node:
        return pair if index == 1 else None
    if index != 1 or node.op_type != pair.item.node.op_type:
        return None
    follower = queries.only_consumer(node.outputs[0])
    if follower is None or not queries.is_standard(follower, *affine.OPS):
        return None
    other = _pair(follower, rewriter)
    if other is None or other.item.node is not node or not _takes(other):
        return None
    same_layout = (other.item.groups, other.item.transposed) == (pair.item.groups, pair.item.transposed)
    return other if same_layout and other.follower.same_scale(pair.follower) else None


def _new_weight(pair: _FusablePair) -> NDArray[np.floating] | None:
    """The scaled weight; if nothing is scaled, any array."""
    if pair.follower.scale is None:
        return np.empty(0)
    array = pair.item.weight_array()
    if array is None:
        return None
    exact = linear_nodes.scaled_outputs(pair.item, array, pair.follower.scale)
    return constants.round_once(exact, array.dtype, pair.item.output_axis)


def _new_bias(pair: _FusablePair) -> NDArray[np.floating] | None:
    """The new bias; empty if there is to be none."""
    item, follower = pair.item, pair.follower
    old, kind = item.bias_array(), _kind(pair)
    if item.bias is None and follower.shift is None:
        return np.empty(0)
    if old is None or kind is None:
        return None
    exact = old * (1.0 if follower.scale is None else follower.scale)
    exact = exact + (0.0 if follower.shift is None else follower.shift)
    if exact.ndim == 0:
        exact = np.full(1 if item.node.op_type == "Gemm" else item.outputs, exact)
    return constants.round_once(exact, kind)


def _kind(pair: _FusablePair) -> np.dtype[np.floating] | None:
    """The float type of what the kernel computes."""
    for value in (pair.item.bias, pair.item.weight, *pair.follower.node.inputs):
        array = constants.float_array(value)
        if array is not None:
            return array.dtype
    return None


def _swaps(
    pairs: list[_FusablePair], biases: list[NDArray[np.floating]]
) -> dict[ir.Node, replacement.ReplacementConstant]:
    """The new biases by kernel node: in the place of the old one, or of a constant that goes, or new."""
    swaps: dict[ir.Node, replacement.ReplacementConstant] = {}
    spares = replacement.constants_only_read_by({pair.follower.node for pair in pairs})
    for pair, bias in zip(pairs, biases, strict=True):
        if not bias.size:
            continue
        swap = replacement.replacement_for(bias, f"{pair.item.weight.name}_bias", spares)
        if pair.item.bias is not None and _owned(pair.item.bias, bias, pairs, biases):
            swap = replacement.ReplacementConstant(bias, "", pair.item.bias)
        spares = [value for value in spares if value is not swap.reusable]
        swaps[pair.item.node] = swap
    return swaps


def _owned(
    value: ir.Value, new: NDArray[np.floating], pairs: list[_FusablePair], biases: list[NDArray[np.floating]]
) -> bool:
    """Whether the bias ``value`` becomes ``new`` for all who read it."""
    becoming = {
        p.item.node for p, b in zip(pairs, biases, strict=True) if p.item.bias is value and np.array_equal(b, new)
    }
    return constants.is_only_read_by(value, becoming)


def _apply(pair: _FusablePair, swap: replacement.ReplacementConstant | None, rewriter: Rewriter) -> None:
    node = pair.item.node
    if swap is not None:
        if node.op_type == "MatMul":
            node.op_type = "Gemm"
        node.attributes.pop("beta", None)
        node.resize_inputs(3)
        node.replace_input_with(2, swap.put(node, rewriter))
    editing.bypass(pair.follower.node, node.outputs[0])


class FuseBatchNorm(_FuseAffine):
    """BatchNormalization into the kernel before it."""

    name: ClassVar[str] = "fuse-batch-norm"
    summary: ClassVar[str] = "BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul before it"
    ops: ClassVar[frozenset[str]] = frozenset({"BatchNormalization"})


class FuseScale(_FuseAffine):
    """Mul, Div and Neg by constants into the kernel before them."""

    name: ClassVar[str] = "fuse-scale"
    summary: ClassVar[str] = "Mul, Div by a constant and Neg into the Conv, ConvTranspose, Gemm or MatMul before them"
    ops: ClassVar[frozenset[str]] = affine.SCALES


class FuseShift(_FuseAffine):
    """Add and Sub of constants into the kernel before them."""

    name: ClassVar[str] = "fuse-shift"
    summary: ClassVar[str] = "Add and Sub of a constant into the bias of the Conv, ConvTranspose or Gemm before them"
    ops: ClassVar[frozenset[str]] = affine.SHIFTS


RULES: tuple[Rule, ...] = (FuseBatchNorm(), FuseScale(), FuseShift())
