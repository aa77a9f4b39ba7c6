"""Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1): channels of like size quantize alike.

Dividing channel j of a value by s_j and multiplying what reads it changes no answer
(``optimizer.algorithms.quantization.rescaling.rescale``), but it changes what 8 bits do to the channel. With its share
of the range before (p) and behind (q)::

    s_j = sqrt(p_j / q_j)            so that both become sqrt(p_j * q_j)

    by            p_j                                       q_j
    weights       max |W1[j, :]| / max |W1|                 max |W2[:, j]| / max |W2|
    activations   max |x_j| / max |x|                       max over o of |W2[o, j]| / max |W2[o, :]|

By weights alone is the paper's, for weights with one scale; its s = sqrt(r1 * r2) / r2 differs by a common factor only.
Where each output channel of a weight has a scale of its own, the rows of W1 cost nothing, and what is left to balance
is the activation against the columns of W2, which is SmoothQuant (arXiv:2211.10438) with alpha = 1/2, but moves the
factor into W1.

A value may have several sources and readers (residual branches): the largest share counts. A kernel is a reader of
one region and a source of the next, so all are done in turn until nothing moves. Factors are powers of two, so that
every answer stays the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.quantization.rescaling.regions import RescalingRegion, find_regions
from optimizer.algorithms.quantization.rescaling.rescale import LEAST, MOST, ChannelMagnitudes, power_of_two
from optimizer.algorithms.quantization.rescaling.sources import kernel_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.rescaling.rescale import Rescaler

_ROUNDS = 30
_AT_REST = 0.02  # in binary exponents
_DEAD = 2.0**-20  # of the largest weight: such a channel says nothing
_UNSEEN = 2.0**-8  # of the largest activation or weight: 8 bits do not tell it from 0


@dataclass
class _Balance:
    """A region while its factors are being found.

    Attributes:
        region: It.
        peaks: The largest magnitude of each channel in the values that kernels read; none: by weights alone.
        exponents: Binary exponents of the factors.
    """

    region: RescalingRegion
    peaks: list[NDArray[np.float64]]
    exponents: NDArray[np.float64]

    def move(self, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Go by ``wanted`` binary exponents, as far as the bounds allow; returns how far each channel went."""
        steps = np.clip(self.exponents + wanted, LEAST, MOST) - self.exponents
        self.exponents = self.exponents + steps
        self.peaks = [peaks / np.exp2(steps) for peaks in self.peaks]
        return steps


def to_observe(model: ir.Model) -> dict[str, int]:
    """Values whose channels ``equalize`` can be told the largest magnitudes of, and the axis of the channels."""
    regions = [region for region in find_regions(model, kernel_source) if not region.obstacle]
    return {value.name or "": -region.values[value].from_end for region in regions for value in region.read()}


def equalize(
    model: ir.Model, channel_max: Mapping[str, NDArray[np.floating]] | None, rescaler: Rescaler
) -> dict[str, int]:
    """Equalize the channels between kernels of the main graph, in place; tensors are replaced, never written into.

    Args:
        model: With shapes on its values, as far as they are known.
        channel_max: The largest magnitude of each channel of the values in ``to_observe``; ``None``: by weights alone.
        rescaler: Asked for each region, by the site of the node that it begins at.

    Returns:
        Real changes by kind.
    """
    peaks = (
        None
        if channel_max is None
        else {name: np.asarray(largest, np.float64) for name, largest in channel_max.items()}
    )
    balances: list[_Balance] = []
    for region in find_regions(model, kernel_source):
        unseen = [] if peaks is None else [value.name for value in region.read() if value.name not in peaks]
        if reason := region.obstacle or (f"{unseen[0]} was not observed" if unseen else ""):
            rescaler.skipped.note(region.name, reason)
        else:
            balances.append(_balance(region, peaks or {}))
    _settle(balances)
    count = sum(
        rescaler.rescale(largest.region, power_of_two(largest.exponents), largest.region.name) for largest in balances
    )
    return {"channels equalized": count} if count else {}


def _balance(region: RescalingRegion, seen: Mapping[str, NDArray[np.float64]]) -> _Balance:
    read = [seen[value.name or ""] for value in region.read() if value.name in seen]
    peaks = [np.asarray(array.reshape(region.count, -1).max(axis=1)) for array in read]
    return _Balance(region, peaks, np.zeros(region.count))


def _settle(balances: Sequence[_Balance]) -> None:
    """Balance region after region until none moves."""
    tables: dict[ir.Node, ChannelMagnitudes] = {}
    for balance in balances:
        kernels = [source.kernel for source in balance.region.sources.values()]
        kernels += [reader.kernel for reader in balance.region.readers.values()]
        tables.update(
            {kernel.node: ChannelMagnitudes(kernel) for kernel in kernels if kernel and kernel.node not in tables}
        )
    for _ in range(_ROUNDS):
        furthest = 0.0
        for balance in balances:
            steps = balance.move(_wanted(balance, tables))
            furthest = max(furthest, float(np.abs(steps).max(initial=0.0)))
            factors = np.exp2(steps)
            for node in balance.region.sources:
                tables[node].scale_outputs(1 / factors)
            for node, reader in balance.region.readers.items():
                tables[node].scale_inputs(np.repeat(factors, reader.block))
        if furthest < _AT_REST:
            return


def _wanted(balance: _Balance, tables: Mapping[ir.Node, ChannelMagnitudes]) -> NDArray[np.float64]:
    """How far, in binary exponents, each channel is from balance."""
    before, behind = _before(balance, tables), _behind(balance, tables)
    alive = (before > 0) & (behind > 0)
    ratio = np.divide(before, behind, out=np.ones_like(before), where=alive)
    return 0.5 * np.log2(ratio)


def _before(balance: _Balance, tables: Mapping[ir.Node, ChannelMagnitudes]) -> NDArray[np.float64]:
    """The p of each channel: the largest of all values that are read, or of all sources."""
    if balance.peaks:
        return np.asarray(np.max([_shares(peaks, _UNSEEN) for peaks in balance.peaks], axis=0))
    rows = [_shares(tables[node].outputs(), _DEAD, 0.0) for node in balance.region.sources]
    return np.asarray(np.max(rows, axis=0))


def _behind(balance: _Balance, tables: Mapping[ir.Node, ChannelMagnitudes]) -> NDArray[np.float64]:
    """The q of each channel: the largest of all readers."""
    columns = []
    for node, reader in balance.region.readers.items():
        by_input = tables[node].inputs_in_rows() if balance.peaks else tables[node].inputs()
        peaks = by_input.reshape(-1, reader.block).max(axis=1)
        columns.append(_shares(peaks, _UNSEEN) if balance.peaks else _shares(peaks, _DEAD, 0.0))
    return np.asarray(np.max(columns, axis=0))


def _shares(peaks: NDArray[np.float64], floor: float, below: float | None = None) -> NDArray[np.float64]:
    """``peaks`` as shares of the largest; what is less than ``floor`` is ``below``, by default ``floor`` itself."""
    largest = peaks.max(initial=0.0)
    shares = peaks / largest if largest > 0 else np.ones_like(peaks)
    return np.where(shares < floor, floor if below is None else below, shares)
