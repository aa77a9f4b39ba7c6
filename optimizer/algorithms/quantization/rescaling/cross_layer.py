"""Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1): channels of like size quantize alike.

Dividing channel j of a value by s_j and multiplying what reads it changes no answer
(``optimizer.algorithms.quantization.rescaling.rescale``), but it changes what 8 bits do to the channel. With its share
of the range before (p) and behind (q)::

    s_j = sqrt(p_j / q_j)            so that both become sqrt(p_j * q_j)

    criterion   p_j                                       q_j
    tensor      max |W1[j, :]| / max |W1|                 max |W2[:, j]| / max |W2|
    channel     max |x_j| / max |x|                       max over o of |W2[o, j]| / max |W2[o, :]|

``tensor`` is the paper's, for weights with one scale; its s = sqrt(r1 * r2) / r2 differs by a common factor only.
Where each output channel of a weight has a scale of its own, the rows of W1 cost nothing, and what is left to
balance is the activation against the columns of W2: ``channel``, which is SmoothQuant (arXiv:2211.10438) with
alpha = 1/2, but moves the factor into W1.

A value may have several sources and readers (residual branches): the largest share counts. A kernel is a reader of
one region and a source of the next, so all are done in turn until nothing moves. Factors are powers of two, so that
every answer stays the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from optimizer.algorithms.quantization.rescaling.regions import RescalingRegion, find_regions
from optimizer.algorithms.quantization.rescaling.rescale import (
    LEAST,
    MOST,
    OVERFLOW,
    ChannelMagnitudes,
    Equalized,
    as_notes,
    power_of_two,
    rescale,
)
from optimizer.algorithms.quantization.rescaling.sources import kernel_source
from optimizer.analysis import shape_inference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

_ROUNDS = 30
_AT_REST = 0.02  # in binary exponents
_DEAD = 2.0**-20  # of the largest weight: such a channel says nothing
_UNSEEN = 2.0**-8  # of the largest activation or weight: 8 bits do not tell it from 0


@dataclass
class _Balance:
    """A region while its factors are being found.

    Attributes:
        region: It.
        peaks: The largest magnitude of each channel in the values that kernels read, as far as they were observed.
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
    """Values whose channels ``equalize`` would know the largest magnitudes of, and the axis of the channels."""
    shape_inference.infer(model)
    regions = [region for region in find_regions(model, kernel_source) if not region.obstacle]
    return {value.name or "": -region.values[value].from_end for region in regions for value in region.read()}


def equalize(
    model: ir.Model,
    *,
    criterion: Literal["tensor", "channel"] = "tensor",
    channel_max: Mapping[str, NDArray[np.floating]] | None = None,
    exact: bool = True,
) -> Equalized:
    """Equalize the channels between kernels of the main graph, in place; tensors are replaced, never written into.

    Args:
        model: A clone, whose tensors others may share.
        criterion: ``tensor`` for weights with one scale, ``channel`` for those with one for each output channel.
        channel_max: The largest magnitude of each channel of the values in ``to_observe``; ``channel`` needs it.
        exact: Whether factors are powers of two.
    """
    shape_inference.infer(model)
    seen = {name: np.asarray(peaks, np.float64) for name, peaks in (channel_max or {}).items()}
    work: list[_Balance] = []
    reasons: dict[str, list[str]] = {}
    for region in find_regions(model, kernel_source):
        reason = region.obstacle or _lack(region, seen, criterion)
        if reason:
            reasons.setdefault(reason, []).append(region.name)
        else:
            work.append(_balance(region, seen))
    _settle(work, criterion)
    kept, names = 0, set[str]()
    for item in work:
        scale = power_of_two(item.exponents) if exact else np.exp2(item.exponents)
        if np.all(scale == 1):
            continue
        if not rescale(item.region, scale, exact=exact):
            reasons.setdefault(OVERFLOW, []).append(item.region.name)
            continue
        kept += int(np.count_nonzero(scale != 1))
        names.update(value.name or "" for value in item.region.values)
    changes = {"channels equalized": kept} if kept else {}
    return Equalized(changes, as_notes("not equalized", reasons), frozenset(names))


def _lack(region: RescalingRegion, seen: Mapping[str, NDArray[np.float64]], criterion: str) -> str:
    """What is missing to equalize ``region``; empty if nothing."""
    if criterion == "tensor":
        return ""
    unseen = [value for value in region.read() if value.name not in seen]
    return f"{unseen[0].name} was not observed" if unseen else ""


def _balance(region: RescalingRegion, seen: Mapping[str, NDArray[np.float64]]) -> _Balance:
    read = [seen[value.name or ""] for value in region.read() if value.name in seen]
    peaks = [np.asarray(one.reshape(region.count, -1).max(axis=1)) for one in read]
    return _Balance(region, peaks, np.zeros(region.count))


def _settle(work: Sequence[_Balance], criterion: str) -> None:
    """Balance region after region until none moves."""
    tables: dict[ir.Node, ChannelMagnitudes] = {}
    for item in work:
        kernels = [source.kernel for source in item.region.sources.values()]
        kernels += [reader.kernel for reader in item.region.readers.values()]
        tables.update(
            {kernel.node: ChannelMagnitudes(kernel) for kernel in kernels if kernel and kernel.node not in tables}
        )
    for _ in range(_ROUNDS):
        furthest = 0.0
        for item in work:
            steps = item.move(_wanted(item, tables, criterion))
            furthest = max(furthest, float(np.abs(steps).max(initial=0.0)))
            factors = np.exp2(steps)
            for node in item.region.sources:
                tables[node].scale_outputs(1 / factors)
            for node, reader in item.region.readers.items():
                tables[node].scale_inputs(np.repeat(factors, reader.block))
        if furthest < _AT_REST:
            return


def _wanted(item: _Balance, tables: Mapping[ir.Node, ChannelMagnitudes], criterion: str) -> NDArray[np.float64]:
    """How far, in binary exponents, each channel is from balance."""
    before, behind = _before(item, tables, criterion), _behind(item, tables, criterion)
    alive = (before > 0) & (behind > 0)
    ratio = np.divide(before, behind, out=np.ones_like(before), where=alive)
    return 0.5 * np.log2(ratio)


def _before(item: _Balance, tables: Mapping[ir.Node, ChannelMagnitudes], criterion: str) -> NDArray[np.float64]:
    if criterion == "channel":
        return np.asarray(np.max([_shares(peaks, _UNSEEN) for peaks in item.peaks], axis=0))
    rows = [_shares(tables[node].outputs(), _DEAD, 0.0) for node in item.region.sources]
    return np.asarray(np.max(rows, axis=0))


def _behind(item: _Balance, tables: Mapping[ir.Node, ChannelMagnitudes], criterion: str) -> NDArray[np.float64]:
    found = []
    for node, reader in item.region.readers.items():
        table = tables[node]
        by_input = table.inputs_in_rows() if criterion == "channel" else table.inputs()
        peaks = by_input.reshape(-1, reader.block).max(axis=1)
        found.append(_shares(peaks, _UNSEEN) if criterion == "channel" else _shares(peaks, _DEAD, 0.0))
    return np.asarray(np.max(found, axis=0))


def _shares(peaks: NDArray[np.float64], floor: float, below: float | None = None) -> NDArray[np.float64]:
    """``peaks`` as shares of the largest; what is less than ``floor`` is ``below``, by default ``floor`` itself."""
    largest = peaks.max(initial=0.0)
    shares = peaks / largest if largest > 0 else np.ones_like(peaks)
    return np.where(shares < floor, floor if below is None else below, shares)
