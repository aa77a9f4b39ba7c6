"""What a kernel makes of the channels that it reads, as far as its weight tells.

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
_NOTHING = (
    2.0**-7
)  # of one rounding of the kernel's largest weight: what such a row adds to any sum is lost in its rounding


def is_steady(node: ir.Node) -> bool:
    """Whether a constant channel gives the same everywhere: nothing is padded, and each output sums all taps."""
    if node.op_type == "ConvTranspose":
        return False
    return node.attributes.get_string("auto_pad", "NOTSET") in {"NOTSET", "VALID"} and not any(
        node.attributes.get_ints("pads", ())
    )


def kernel_facts(
    node: ir.Node, read: ChannelFacts | None, value_numbers: ValueNumbers, tolerance: float = 0.0
) -> ChannelFacts:
    """The facts of what a kernel with a constant weight gives out.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        read: Of what it reads; ``None`` if nothing is known.
        value_numbers: Where value numbers are given.
        tolerance: How far kernels of length 1 may be apart and still be called parallel, and how short one may be
            beside the median and still be called zero; 0 is what float rounding does.
    """
    linear_node = linear_nodes.as_linear(node)
    array = None if linear_node is None else linear_node.weight_array()
    bias = None if linear_node is None else linear_node.bias_array()
    if linear_node is None or array is None or bias is None or not np.isfinite(array).all():
        return value_numbers.fresh(0 if linear_node is None else linear_node.outputs)
    alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    shift = np.broadcast_to(bias, (linear_node.outputs,)).astype(np.float64) / alpha
    plain = _Rows(
        by_output(linear_node, array), shift, np.zeros(linear_node.outputs, np.int64), np.zeros(linear_node.outputs)
    )
    reduced = plain
    if linear_node.groups > 1:
        reduced = _grouped(linear_node, plain, read)
    elif read is not None:
        reduced = _reduced(node, plain, read)
    lead, scale, nothing = _near(reduced, tolerance) if tolerance else _same(reduced, float(np.finfo(array.dtype).eps))
    facts = ChannelFacts(
        value_numbers.numbers(("kernel", id(node)), [lead]), scale * abs(alpha), np.full(scale.size, math.nan)
    )
    return value_numbers.settled(facts, np.where(nothing, reduced.shift * alpha, math.nan))


@dataclass(frozen=True)
class _Rows:
    """What a kernel's outputs are made by.

    Attributes:
        weight: (outputs, inputs of a group, taps).
        shift: (outputs,), what is added.
        keys: (outputs,), of what they are made; rows with different keys are of different things.
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
    wide = array.astype(np.float32) if array.dtype == np.float16 else array
    taps = math.prod(linear_node.shape[2:])
    if linear_node.node.op_type == "ConvTranspose":
        parted = wide.reshape(
            linear_node.groups,
            linear_node.inputs // linear_node.groups,
            linear_node.outputs // linear_node.groups,
            taps,
        )
        return np.swapaxes(parted, 1, 2).reshape(linear_node.outputs, -1, taps)
    if linear_node.node.op_type == "Conv":
        return wide.reshape(linear_node.outputs, -1, taps)
    return (wide if linear_node.transposed else wide.T)[:, :, np.newaxis]


def _reduced(node: ir.Node, rows: _Rows, read: ChannelFacts) -> _Rows:
    """Rows without what constant channels add, and with parallel channels summed into the first of them."""
    gone = read.is_constant if is_steady(node) else read.constant == 0
    order = np.flatnonzero(~gone)
    _, first, inverse = np.unique(read.value_number[order], return_index=True, return_inverse=True)
    lead = order[first[inverse]]
    if not gone.any() and np.array_equal(lead, np.arange(read.size)):
        return rows
    constant = np.flatnonzero(gone & (read.constant != 0))
    moved = rows.weight[:, constant].sum(axis=2, dtype=np.float64) * read.constant[constant]
    exact = rows.weight.astype(np.float64)
    exact[:, gone] = 0
    gross = np.abs(rows.shift) + np.abs(moved).sum(axis=1)
    for to in np.unique(lead[order != lead]).tolist():
        parallel = order[lead == to]
        scaled = exact[:, parallel] * (read.scale[parallel] / read.scale[to])[:, np.newaxis]
        gross = np.maximum(gross, np.abs(scaled).sum(axis=1).max(axis=1, initial=0.0))
        exact[:, parallel] = 0
        exact[:, to] = scaled.sum(axis=1)
    return _Rows(exact, rows.shift + moved.sum(axis=1), rows.keys, gross)


def _grouped(linear_node: LinearNode, rows: _Rows, read: ChannelFacts | None) -> _Rows:
    """Rows times the scale of what they read, and a key for its value number; of wider groups nothing is equal."""
    group = np.repeat(np.arange(linear_node.groups), linear_node.outputs // linear_node.groups)
    if read is None or linear_node.inputs != linear_node.groups:
        return replace(rows, keys=np.arange(linear_node.outputs))
    mine = read.take(group)
    gone = mine.is_constant if is_steady(linear_node.node) else mine.constant == 0
    moved = np.where(gone, np.nan_to_num(mine.constant), 0) * rows.weight.sum(axis=(1, 2), dtype=np.float64)
    scaled = np.where(gone, 0, mine.scale)[:, np.newaxis, np.newaxis] * rows.weight
    return _Rows(scaled, rows.shift + moved, mine.value_number, rows.gross)


def _same(rows: _Rows, rounding: float) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """What each row is a multiple of, up to rounding; its scale; and which rows are zero."""
    flat = rows.flat
    peaks = np.abs(flat).max(axis=1, initial=0.0).astype(np.float64)
    nothing = peaks <= peaks.max(initial=0.0) * rounding * _NOTHING
    scale = np.where(nothing, 1.0, peaks)
    relative = _tamed(rows.shift / scale).astype(flat.dtype)
    whole = np.hstack([flat / scale[:, np.newaxis].astype(flat.dtype), relative[:, np.newaxis]])
    noise = np.clip(rows.gross / scale, 1.0, _MOST_NOISE)
    return leaders(whole, rows.keys, _ROUNDINGS * rounding * noise), scale, nothing


def _near(rows: _Rows, tolerance: float) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """The same for rows that are nearly multiples of another, and those that are short."""
    flat = rows.flat
    lengths = np.linalg.norm(flat, axis=1).astype(np.float64)
    nothing = lengths <= np.median(lengths) * tolerance
    whole = np.hstack([flat, rows.shift.astype(flat.dtype)[:, np.newaxis]])
    scale = np.where(nothing, 1.0, np.linalg.norm(whole, axis=1))
    return near_leaders(whole / scale[:, np.newaxis].astype(whole.dtype), rows.keys, tolerance), scale, nothing


def _tamed(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Biases in a measure in which equal means nearly the same share of a large one, and nearly equal a small one."""
    return np.asarray(np.sign(relative) * np.log1p(np.abs(relative)))


def array_of(value: ir.Value | None) -> NDArray[np.float64] | None:
    """A constant in double precision, if it is one of numbers."""
    array = constants.constant_array(value)
    if array is None or array.dtype.kind not in "fiub":
        return None
    return array.astype(np.float64)
