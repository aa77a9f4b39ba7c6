"""Scales the channels of a region: its sources divide, its readers multiply, and no answer changes.

    W1' = W1 / s    b1' = b1 / s    W2' = W2 * s        by output channel, by input channel

If every s is a power of two, each product and each sum is the old one times a power of two: every answer is the same
to the last bit, as long as nothing leaves the range of normal numbers. Of weights that is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.contract.passes import Note
from optimizer.graph import constants, linear_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.axes import Channels
    from optimizer.algorithms.channels.homogeneous import HomogeneousShift
    from optimizer.algorithms.quantization.rescaling.regions import RescalingRegion
    from optimizer.graph.linear_nodes import LinearNode


OVERFLOW = "a weight would leave the range of normal float32"
LEAST, MOST = -10.0, 10.0  # binary exponents of factors: 8 bits tell apart no more, and float32 has room for it


@dataclass(frozen=True)
class Equalized:
    """What was rescaled.

    Attributes:
        changes: Real changes by kind.
        notes: What was left alone, and why.
        names: Values whose channels were scaled: what was observed of them holds no more.
    """

    changes: dict[str, int]
    notes: tuple[Note, ...] = ()
    names: frozenset[str] = frozenset()


def as_notes(what: str, reasons: Mapping[str, Sequence[str]]) -> tuple[Note, ...]:
    """One note for each reason, so that a net of a hundred Sigmoids says it once.

    Args:
        what: What was not done.
        reasons: Why, to the names of the places.
    """
    notes = []
    for reason, names in reasons.items():
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        notes.append(Note(f"{names[0]}{more}", f"{what}: {reason}"))
    return tuple(notes)


def spread(scale: NDArray[np.float64], channels: Channels) -> NDArray[np.float64]:
    """One factor for each element along the axis, in a shape that broadcasts against the values."""
    return np.repeat(scale, channels.block).reshape(-1, *[1] * (channels.from_end - 1))


def power_of_two(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest powers of two within bounds."""
    return np.exp2(np.rint(np.clip(exponents, LEAST, MOST)))


def rescale(region: RescalingRegion, scale: NDArray[np.float64], *, exact: bool = True) -> bool:
    """Divide the channels of the values of ``region`` by ``scale``.

    Args:
        region: One without an obstacle.
        scale: Positive, one for each channel.
        exact: Whether it hinders that a weight would be rounded; numbers that are denormal already do not count.

    Returns:
        Whether it was done; an overflow hinders too, and then nothing is changed.
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
    made = {value: _rounded(value, array, exact=exact) for value, array in wanted.items()}
    if any(array is None for array in made.values()):
        return False
    for value, rounded in made.items():
        if rounded is not None:
            constants.set_array(value, rounded)
    return True


def _shifts(region: RescalingRegion) -> Iterator[HomogeneousShift]:
    yield from region.shifts.values()
    for source in region.sources.values():
        yield from source.shifts


def _double(value: ir.Value) -> NDArray[np.float64]:
    array = constants.float_array(value)
    if array is None:
        raise ValueError(f"{value.name} is no float constant")
    return array.astype(np.float64)


def _rounded(value: ir.Value, wanted: NDArray[np.float64], *, exact: bool) -> NDArray[np.floating] | None:
    """``wanted`` in the type of the constant ``value``, or ``None`` if that loses what ``rescale`` does not allow."""
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
    return None if exact and np.any(lost) else new


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
