"""Values whose channels kernels read, and what those kernels make of them: where pruning is felt, and repaired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.redundancy.kernel_facts import array_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups, Sink
    from optimizer.statistics.second_moments import SecondMoments


@dataclass
class Reader:
    """A weight and the kernels that read channels with it; more than one if it is shared.

    Attributes:
        weight: The weight.
        sinks: Its kernels.
        roots: The unit of each input channel; (C,).
    """

    weight: ir.Value
    sinks: list[Sink]
    roots: NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """The values that are read."""
        return [str(sink.node.inputs[0].name) for sink in self.sinks if sink.node.inputs[0] is not None]

    def matrix(self) -> NDArray[np.float64]:
        """The weight as (input channels, all the rest)."""
        array = array_of(self.weight)
        if array is None:
            raise ValueError(f"{self.weight.name} is no constant")
        return np.moveaxis(array, self.sinks[0].axis, 0).reshape(self.roots.size, -1)

    def moments(
        self, known: Mapping[str, SecondMoments]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
        """Second moment (C, C), mean (C,) and rows of what is read; ``None`` if that is not known."""
        found = [known.get(name) for name in self.names]
        if any(moments is None for moments in found):
            return None
        several = {id(moments): moments for moments in found if moments is not None}.values()
        rows = sum(moments.rows for moments in several)
        second = sum((moments.sums[0] for moments in several), np.zeros((self.roots.size,) * 2)) / rows
        mean = sum((moments.totals[0] for moments in several), np.zeros(self.roots.size)) / rows
        return second, mean, rows


def readers(groups: ChannelGroups) -> list[Reader]:
    """The readers of all lanes, by weight, in the order of the graph."""
    found: dict[ir.Value, Reader] = {}
    for sink in groups.sinks:
        if sink.weight in found:
            found[sink.weight].sinks.append(sink)
        else:
            found[sink.weight] = Reader(sink.weight, [sink], groups.roots(sink.lane.atoms))
    return list(found.values())
