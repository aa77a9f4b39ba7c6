"""Scales the channels of a region: its sources divide, its readers multiply, and no answer changes.

    W1' = W1 / s    b1' = b1 / s    W2' = W2 * s        by output channel, by input channel

If every s is a power of two, each product and each sum is the old one times a power of two: every answer is the same
to the last bit, as long as nothing leaves the range of normal numbers. Of weights that is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.graph import constants, linear_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.axes import Channels
    from optimizer.algorithms.channels.homogeneous import HomogeneousShift
    from optimizer.algorithms.quantization.rescaling.regions import RescalingRegion
    from optimizer.contract.skipped import SkippedNodes
    from optimizer.graph.linear_nodes import LinearNode

_OVERFLOW = "a weight would leave the range of normal float32"
LEAST, MOST = -10.0, 10.0  # binary exponents of factors: 8 bits tell apart no more, and float32 has room for it


def spread(scale: NDArray[np.float64], channels: Channels) -> NDArray[np.float64]:
    """One factor for each element along the axis, in a shape that broadcasts against the values."""
    return np.repeat(scale, channels.block).reshape(-1, *[1] * (channels.from_end - 1))


def power_of_two(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest powers of two within bounds."""
    return np.exp2(np.rint(np.clip(exponents, LEAST, MOST)))


@dataclass(frozen=True)
class Rescaler:
    """Rescales regions, where it is exact and permitted.

    Attributes:
        permits: Asked for each place, by its site.
        skipped: Is told what is left alone, and why.
    """

    permits: Callable[[str], bool]
    skipped: SkippedNodes

    def rescale(self, region: RescalingRegion, scale: NDArray[np.float64], site: str) -> int:
        """Divide the channels of the values of ``region`` by ``scale``; returns how many channels that changed."""
        count = int(np.count_nonzero(scale != 1))
        arrays = _scaled(region, scale) if count else {}
        if arrays is None:
            self.skipped.note(site, _OVERFLOW)
        if not arrays or not self.permits(site):
            return 0
        for value, array in arrays.items():
            constants.set_array(value, array)
        return count


def _scaled(region: RescalingRegion, scale: NDArray[np.float64]) -> dict[ir.Value, NDArray[np.floating]] | None:
    """The constants of ``region`` for values whose channels are divided by ``scale``.

    Args:
        region: One without an obstacle.
        scale: Powers of two, one for each channel.

    Returns:
        ``None`` if a weight would overflow or be rounded; numbers that are denormal already do not count.
    """
    wanted: dict[ir.Value, NDArray[np.float64]] = {}
    for shift in _shifts(region):
        array = _double(shift.value)
        if np.any(array):  # a bias of zeros may be shared
            wanted[shift.value] = array / spread(scale, shift.channels)
    for source in region.sources.values():
        if source.kernel is not None:
            value = source.kernel.weight
            wanted[value] = linear_nodes.scaled_outputs(source.kernel, _double(value), 1 / scale)
    for reader in region.readers.values():
        value = reader.kernel.weight
        array = wanted.get(value, _double(value))
        wanted[value] = linear_nodes.scaled_inputs(reader.kernel, array, np.repeat(scale, reader.block))
    rounded = {value: _rounded(value, array) for value, array in wanted.items()}
    kept = {value: array for value, array in rounded.items() if array is not None}
    return kept if len(kept) == len(rounded) else None


def _shifts(region: RescalingRegion) -> Iterator[HomogeneousShift]:
    yield from region.shifts.values()
    for source in region.sources.values():
        yield from source.shifts


def _double(value: ir.Value) -> NDArray[np.float64]:
    array = constants.float_array(value)
    if array is None:
        raise ValueError(f"{value.name} is no float constant")
    return array.astype(np.float64)


def _rounded(value: ir.Value, wanted: NDArray[np.float64]) -> NDArray[np.floating] | None:
    """``wanted`` in the type of the constant ``value``, or ``None`` if a normal number overflows or is rounded."""
    old = constants.float_array(value)
    if old is None:
        return None
    with np.errstate(over="ignore", under="ignore"):
        new = wanted.astype(old.dtype)
    if not np.isfinite(new).all():
        return None
    tiny = np.finfo(old.dtype).tiny
    was_normal = np.broadcast_to(np.abs(old) >= tiny, new.shape) if old.size in {1, new.size} else np.True_
    lost = was_normal & ((new != wanted) | (np.abs(new) < tiny))
    return None if np.any(lost) else new


class ChannelMagnitudes:
    """The largest magnitude for each pair of output and input channel.

    Attributes:
        table: Shape (groups, outputs in a group, inputs in a group).
    """

    def __init__(self, kernel: LinearNode) -> None:
        array = constants.float_array(kernel.weight)
        if array is None:
            raise ValueError(f"{kernel.weight.name} is no float constant")
        flat = np.abs(array).reshape(*array.shape[:2], -1).max(axis=2, initial=0)
        flat = np.where(np.isfinite(flat), flat, 0)  # a weight that is not finite is left alone in the end
        if kernel.node.op_type in {"Conv", "ConvTranspose"}:
            flat = flat.reshape(kernel.groups, -1, flat.shape[1])
        else:
            flat = flat[np.newaxis]
        turned = kernel.node.op_type != "Conv" and not kernel.transposed
        self.table: NDArray[np.floating] = np.swapaxes(flat, 1, 2) if turned else flat

    def scale_outputs(self, factors: NDArray[np.float64]) -> None:
        """Multiply each output channel."""
        self.table = (self.table * factors.reshape(len(self.table), -1, 1)).astype(self.table.dtype)

    def scale_inputs(self, factors: NDArray[np.float64]) -> None:
        """Multiply each input channel."""
        self.table = (self.table * factors.reshape(len(self.table), 1, -1)).astype(self.table.dtype)

    def outputs(self) -> NDArray[np.float64]:
        """The largest magnitude of each output channel."""
        return np.asarray(self.table.max(axis=2).reshape(-1), np.float64)

    def inputs(self) -> NDArray[np.float64]:
        """The largest magnitude of each input channel."""
        return np.asarray(self.table.max(axis=1).reshape(-1), np.float64)

    def inputs_in_rows(self) -> NDArray[np.float64]:
        """The largest share of each input channel in the range of an output channel, 0 to 1."""
        peaks = self.table.max(axis=2, keepdims=True)
        shares = np.divide(self.table, peaks, out=np.zeros_like(self.table), where=peaks > 0)
        return np.asarray(shares.max(axis=1).reshape(-1), np.float64)
