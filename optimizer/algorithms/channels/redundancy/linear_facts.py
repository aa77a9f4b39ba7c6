"""What a kernel makes of the channels that it reads, as far as its weight tells.

Two outputs are parallel if their rows of the weight and their biases are: w_i = s w_j and b_i = s b_j. Before rows are
compared, what is known of the inputs is worked in, so that kernels of equal function count as equal:

    x_c = k everywhere           b <- b + k sum W_c,   W_c <- 0
    x_c = s * x_r                W_r <- W_r + s W_c,   W_c <- 0

Facts are those of ``optimizer.algorithms.channels.redundancy.facts``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.redundancy.facts import ChannelFacts, leaders, near_leaders
from optimizer.graph import constants, linear_nodes

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.redundancy.facts import ValueNumbers
    from optimizer.graph.linear_nodes import LinearNode

_ROUNDINGS = 2  # how many of its type two elements may be apart and still be called equal
_MOST_NOISE = 64.0  # how much larger that may get where sums of weights cancel
# Of one rounding of the kernel's largest weight: what such a row adds to any sum is lost in its rounding
_ZERO_SHARE = 2.0**-7


def is_steady(node: ir.Node) -> bool:
    """Whether a constant channel gives the same everywhere: nothing is padded, and each output sums all taps."""
    if node.op_type == "ConvTranspose":
        return False
    return node.attributes.get_string("auto_pad", "NOTSET") in {"NOTSET", "VALID"} and not any(
        node.attributes.get_ints("pads", ())
    )


def kernel_facts(
    node: ir.Node, input_facts: ChannelFacts | None, value_numbers: ValueNumbers, tolerance: float = 0.0
) -> ChannelFacts:
    """The facts of what a kernel with a constant weight gives out.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        input_facts: Of what it reads; ``None`` if nothing is known.
        value_numbers: Where value numbers are given.
        tolerance: How far kernels of length 1 may be apart and still be called parallel, and how short one may be
            beside the median and still be called zero; 0 is what float rounding does.
    """
    linear_node = linear_nodes.as_linear(node)
    array = None if linear_node is None else linear_node.weight_array()
    bias = None if linear_node is None else linear_node.bias_array()
    if linear_node is None or array is None or bias is None or not np.isfinite(array).all():
        return value_numbers.fresh(0 if linear_node is None else linear_node.outputs)
    # alpha (W x + b / alpha): what is compared has no factor in front
    alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    shift = np.broadcast_to(bias, (linear_node.outputs,)).astype(np.float64) / alpha
    rows = _Rows(
        by_output(linear_node, array), shift, np.zeros(linear_node.outputs, np.int64), np.zeros(linear_node.outputs)
    )
    reduced = rows
    if linear_node.groups > 1:
        reduced = _grouped(linear_node, rows, input_facts)
    elif input_facts is not None:
        reduced = _reduced(node, rows, input_facts)
    leader, scale, is_zero = (
        _nearly_parallel(reduced, tolerance) if tolerance else _parallel(reduced, float(np.finfo(array.dtype).eps))
    )
    facts = ChannelFacts(
        value_numbers.numbers(("kernel", id(node)), [leader]), scale * abs(alpha), np.full(scale.size, math.nan)
    )
    return value_numbers.with_constants(facts, np.where(is_zero, reduced.shift * alpha, math.nan))


@dataclass(frozen=True)
class _Rows:
    """What a kernel's outputs are computed by.

    Attributes:
        weight: (outputs, inputs of a group, taps).
        shift: (outputs,), what is added.
        keys: (outputs,), value numbers of what they are computed from; rows with different keys are not compared.
        gross: (outputs,), the largest sum of magnitudes where weights were summed, which may have cancelled.
    """

    weight: NDArray[np.floating]
    shift: NDArray[np.float64]
    keys: NDArray[np.int64]
    gross: NDArray[np.float64]

    @property
    def flat(self) -> NDArray[np.floating]:
        """The weight as (outputs, elements)."""
        return self.weight.reshape(self.weight.shape[0], -1)


def by_output(linear_node: LinearNode, array: NDArray[np.floating]) -> NDArray[np.floating]:
    """The weight as (outputs, inputs of a group, taps); float64 or float32."""
    weight = array.astype(np.float32) if array.dtype == np.float16 else array
    taps = math.prod(linear_node.shape[2:])
    if linear_node.node.op_type == "ConvTranspose":
        by_group = weight.reshape(
            linear_node.groups,
            linear_node.inputs // linear_node.groups,
            linear_node.outputs // linear_node.groups,
            taps,
        )
        return np.swapaxes(by_group, 1, 2).reshape(linear_node.outputs, -1, taps)
    if linear_node.node.op_type == "Conv":
        return weight.reshape(linear_node.outputs, -1, taps)
    return (weight if linear_node.transposed else weight.T)[:, :, np.newaxis]


def _reduced(node: ir.Node, rows: _Rows, input_facts: ChannelFacts) -> _Rows:
    """Rows without what constant channels add, and with parallel channels summed into the first of them."""
    absorbed = input_facts.is_constant if is_steady(node) else input_facts.constant == 0
    remaining = np.flatnonzero(~absorbed)
    _, first, inverse = np.unique(input_facts.value_number[remaining], return_index=True, return_inverse=True)
    leader = remaining[first[inverse]]
    if not absorbed.any() and np.array_equal(leader, np.arange(input_facts.size)):
        return rows
    # 1. Constant channels become part of the bias
    constant = np.flatnonzero(absorbed & (input_facts.constant != 0))
    constant_terms = rows.weight[:, constant].sum(axis=2, dtype=np.float64) * input_facts.constant[constant]
    weight = rows.weight.astype(np.float64)
    weight[:, absorbed] = 0
    # 2. Parallel channels are summed into the first of them; what cancels in a sum leaves rounding of its terms behind
    gross = np.abs(rows.shift) + np.abs(constant_terms).sum(axis=1)
    for target in np.unique(leader[remaining != leader]).tolist():
        parallel = remaining[leader == target]
        scaled = weight[:, parallel] * (input_facts.scale[parallel] / input_facts.scale[target])[:, np.newaxis]
        gross = np.maximum(gross, np.abs(scaled).sum(axis=1).max(axis=1, initial=0.0))
        weight[:, parallel] = 0
        weight[:, target] = scaled.sum(axis=1)
    return _Rows(weight, rows.shift + constant_terms.sum(axis=1), rows.keys, gross)


def _grouped(linear_node: LinearNode, rows: _Rows, input_facts: ChannelFacts | None) -> _Rows:
    """Rows times the scale of what they read, and a key for its value number; of wider groups nothing is equal."""
    group = np.repeat(np.arange(linear_node.groups), linear_node.outputs // linear_node.groups)
    if input_facts is None or linear_node.inputs != linear_node.groups:
        return replace(rows, keys=np.arange(linear_node.outputs))
    group_facts = input_facts.take(group)
    absorbed = group_facts.is_constant if is_steady(linear_node.node) else group_facts.constant == 0
    constant_terms = np.where(absorbed, np.nan_to_num(group_facts.constant), 0) * rows.weight.sum(
        axis=(1, 2), dtype=np.float64
    )
    scaled = np.where(absorbed, 0, group_facts.scale)[:, np.newaxis, np.newaxis] * rows.weight
    return _Rows(scaled, rows.shift + constant_terms, group_facts.value_number, rows.gross)


def _parallel(rows: _Rows, rounding: float) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """What each row is a multiple of, up to rounding; its scale; and which rows are zero; each (outputs,)."""
    # 1. In the measure of the largest element, rows that are multiples of each other are equal
    weight = rows.flat
    peaks = np.abs(weight).max(axis=1, initial=0.0).astype(np.float64)
    is_zero = peaks <= peaks.max(initial=0.0) * rounding * _ZERO_SHARE
    scale = np.where(is_zero, 1.0, peaks)
    # 2. The bias is one element more
    relative = _log_scaled(rows.shift / scale).astype(weight.dtype)
    normalized = np.hstack([weight / scale[:, np.newaxis].astype(weight.dtype), relative[:, np.newaxis]])
    noise = np.clip(rows.gross / scale, 1.0, _MOST_NOISE)
    return leaders(normalized, rows.keys, _ROUNDINGS * rounding * noise), scale, is_zero


def _nearly_parallel(rows: _Rows, tolerance: float) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """The same for rows that are nearly multiples of another, and those that are short."""
    weight = rows.flat
    lengths = np.linalg.norm(weight, axis=1).astype(np.float64)
    is_zero = lengths <= np.median(lengths) * tolerance
    with_shift = np.hstack([weight, rows.shift.astype(weight.dtype)[:, np.newaxis]])
    scale = np.where(is_zero, 1.0, np.linalg.norm(with_shift, axis=1))
    return (
        near_leaders(with_shift / scale[:, np.newaxis].astype(with_shift.dtype), rows.keys, tolerance),
        scale,
        is_zero,
    )


def _log_scaled(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(1 + |b|) with the sign of b: one tolerance is relative for large biases, and absolute for small ones."""
    return np.asarray(np.sign(relative) * np.log1p(np.abs(relative)))


def array_of(value: ir.Value | None) -> NDArray[np.float64] | None:
    """A constant in double precision, if it is one of numbers."""
    array = constants.constant_array(value)
    if array is None or array.dtype.kind not in "fiub":
        return None
    return array.astype(np.float64)
