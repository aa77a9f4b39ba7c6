"""What a kernel makes of the channels that it reads, as far as its weight tells (``channel_facts``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer import graph
from optimizer.algorithms import kernels
from optimizer.algorithms.channel_facts import Facts, leaders

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channel_facts import Contents
    from optimizer.algorithms.kernels import Kernel

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


def kernel_facts(node: ir.Node, read: Facts | None, contents: Contents) -> Facts:
    """The facts of what a kernel with a constant weight gives out.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        read: Of what it reads; ``None`` if nothing is known.
        contents: Where contents are numbered.
    """
    item = kernels.kernel(node)
    array = None if item is None else item.array()
    bias = None if item is None else item.bias_array()
    if item is None or array is None or bias is None or not np.isfinite(array).all():
        return contents.fresh(0 if item is None else item.outputs)
    alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    shift = np.broadcast_to(bias, (item.outputs,)).astype(np.float64) / alpha
    plain = rows = by_output(item, array)
    if item.groups == 1:
        keys = np.zeros(item.outputs, np.int64)
        if read is not None:
            rows, shift = _reduced(node, rows, shift, read)
    else:
        rows, shift, keys = _grouped(item, rows, shift, read)
    peaks = (
        np.abs(plain).max(axis=(1, 2), initial=0.0).astype(np.float64) if item.groups == 1 else np.zeros(item.outputs)
    )
    found = _Rows(rows.reshape(item.outputs, -1), shift, keys, peaks)
    return _compared(node, found, contents, float(np.finfo(array.dtype).eps), alpha)


@dataclass(frozen=True)
class _Rows:
    """What a kernel's outputs are made by.

    Attributes:
        weight: (outputs, elements).
        shift: (outputs,), what is added.
        keys: (outputs,), of what they are made; rows with different keys are of different things.
        peaks: (outputs,), the largest weights before those of parallel channels were summed.
    """

    weight: NDArray[np.floating]
    shift: NDArray[np.float64]
    keys: NDArray[np.int64]
    peaks: NDArray[np.float64]


def by_output(item: Kernel, array: NDArray[np.floating]) -> NDArray[np.floating]:
    """The weight as (outputs, inputs of a group, taps); float64 or float32."""
    wide = array.astype(np.float32) if array.dtype == np.float16 else array
    taps = math.prod(item.shape[2:])
    if item.node.op_type == "ConvTranspose":
        parted = wide.reshape(item.groups, item.inputs // item.groups, item.outputs // item.groups, taps)
        return np.swapaxes(parted, 1, 2).reshape(item.outputs, -1, taps)
    if item.node.op_type == "Conv":
        return wide.reshape(item.outputs, -1, taps)
    return (wide if item.transposed else wide.T)[:, :, np.newaxis]


def _reduced(
    node: ir.Node, rows: NDArray[np.floating], shift: NDArray[np.float64], read: Facts
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Rows without what constant channels add, and with parallel channels summed into the first of them."""
    gone = read.is_constant if is_steady(node) else read.constant == 0
    order = np.flatnonzero(~gone)
    _, first, inverse = np.unique(read.content[order], return_index=True, return_inverse=True)
    lead = order[first[inverse]]
    if not gone.any() and np.array_equal(lead, np.arange(read.size)):
        return rows, shift
    constant = np.flatnonzero(gone & (read.constant != 0))
    shift = shift + rows[:, constant].sum(axis=2, dtype=np.float64) @ read.constant[constant]
    exact = rows.astype(np.float64)
    exact[:, gone] = 0
    for position, to in zip(order.tolist(), lead.tolist(), strict=True):
        if position != to:
            exact[:, to] += exact[:, position] * (read.scale[position] / read.scale[to])
            exact[:, position] = 0
    return exact, shift


def _grouped(
    item: Kernel, rows: NDArray[np.floating], shift: NDArray[np.float64], read: Facts | None
) -> tuple[NDArray[np.floating], NDArray[np.float64], NDArray[np.int64]]:
    """Rows times the scale of what they read, and a key for its content; of wider groups nothing is equal."""
    group = np.repeat(np.arange(item.groups), item.outputs // item.groups)
    if read is None or item.inputs != item.groups:
        return rows, shift, np.arange(item.outputs)
    mine = read.take(group)
    gone = mine.is_constant if is_steady(item.node) else mine.constant == 0
    shift = shift + np.where(gone, np.nan_to_num(mine.constant), 0) * rows.sum(axis=(1, 2), dtype=np.float64)
    return np.where(gone, 0, mine.scale)[:, np.newaxis, np.newaxis] * rows, shift, mine.content


def _compared(node: ir.Node, rows: _Rows, contents: Contents, rounding: float, alpha: float) -> Facts:
    """Facts by comparing rows with each other; ``alpha`` times them is what comes out."""
    peaks = np.abs(rows.weight).max(axis=1, initial=0.0).astype(np.float64)
    nothing = peaks <= peaks.max(initial=0.0) * rounding * _NOTHING
    scale = np.where(nothing, 1.0, peaks)
    kind = rows.weight.dtype
    relative = _tamed(rows.shift / scale).astype(kind)
    whole = np.hstack([rows.weight / scale[:, np.newaxis].astype(kind), relative[:, np.newaxis]])
    noise = np.clip(rows.peaks / scale, 1.0, _MOST_NOISE)
    lead = leaders(whole, rows.keys, _ROUNDINGS * rounding * noise)
    made = Facts(contents.numbers(("kernel", id(node)), [lead]), scale * abs(alpha), np.full(scale.size, math.nan))
    return contents.settled(made, np.where(nothing, rows.shift * alpha, math.nan))


def _tamed(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Biases in a measure in which equal means nearly the same share of a large one, and nearly equal a small one."""
    return np.asarray(np.sign(relative) * np.log1p(np.abs(relative)))


def array_of(value: ir.Value | None) -> NDArray[np.float64] | None:
    """A constant in double precision, if it is one of numbers."""
    array = graph.constant_array(value)
    if array is None or array.dtype.kind not in "fiub":
        return None
    return array.astype(np.float64)
