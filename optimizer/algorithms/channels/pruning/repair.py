"""Lets the channels that stay compensate for those that were removed, as well as a linear function of them can.

A kernel that reads the channels x = (x_S, x_R) and keeps S only would lose sum W_R x_R. With the covariance C and the
mean m of its inputs over the calibration feeds, the best prediction of what is gone is

    x_R ~ m_R + A (x_S - m_S)             A = C_RS (C_SS + damping)^-1
    W_S <- W_S + W_R A                    b <- b + sum W_R (m_R - A m_S)

which is the least squares fit of its outputs (He et al. 2017, arXiv:1707.06168; Luo et al. 2017, arXiv:1707.06342), the
same A for every tap of a window. Where a border of zeros, or strides of a ConvTranspose, would show a constant, the
fit has none: second moments take the place of C, and the bias stays. Sums are in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.redundancy.linear_facts import array_of, is_steady
from optimizer.graph import constants
from optimizer.statistics.damping import damped

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelConsumer, ChannelGroups
    from optimizer.statistics.second_moments import SecondMoments


_DAMPING = 1e-6  # of the mean variance of a channel, in any case
_FEW_ROWS = 0.1  # and so much more, times the square of channels by row: few rows move together by chance


@dataclass(frozen=True)
class Repair:
    """What a consumer is to be given.

    Attributes:
        weight: (C, all the rest); rows of channels that are removed are as they were.
        shift: What is added to each output, or gate, (outputs,); empty if nothing is.
    """

    weight: NDArray[np.float64]
    shift: NDArray[np.float64]


def damped_covariance(covariance: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """``covariance`` (C, C) with more on the diagonal, the more the fewer ``rows`` it was taken from."""
    share = _DAMPING + _FEW_ROWS * (covariance.shape[0] / max(rows, 1)) ** 2
    return damped(covariance, share, at_zero=float(np.finfo(np.float64).tiny))


def repair(
    consumer: RepairableConsumer, gone: NDArray[np.bool_], moments: Mapping[str, SecondMoments]
) -> Repair | None:
    """The weight of ``consumer`` without the channels ``gone``; ``None`` if none goes, all go, or moments are missing.

    Args:
        consumer: A weight and its kernels.
        gone: Which channels go; (C,).
        moments: Second moments of what is read, by the name of the value.
    """
    input_moments = consumer.moments(moments)
    if input_moments is None or not gone.any() or gone.all():
        return None
    second, mean, rows = input_moments
    # 1. Where a constant would not be one at the border, the fit has none: moments about zero
    if not all(is_steady(channel_consumer.node) for channel_consumer in consumer.consumers):
        mean = np.zeros_like(mean)
    matrix = consumer.matrix()
    stays = ~gone
    # 2. A^T = (C_SS + damping)^-1 C_SR; W_S + A^T W_R
    covariance = damped_covariance(second[np.ix_(stays, stays)] - np.outer(mean[stays], mean[stays]), rows)
    cross_covariance = second[np.ix_(stays, gone)] - np.outer(mean[stays], mean[gone])
    coefficients = np.linalg.solve(covariance, cross_covariance)  # A^T, (staying, gone)
    repaired = matrix.copy()
    repaired[stays] += coefficients @ matrix[gone]
    if not mean.any():
        return Repair(repaired, np.zeros(0))
    # 3. (m_R - A m_S) W_R, summed over the taps of each output
    shift = (mean[gone] - mean[stays] @ coefficients) @ matrix[gone]
    outputs = consumer.consumers[0].produced.size or shift.size
    return Repair(repaired, shift.reshape(outputs, -1).sum(axis=1))


def put(consumer: RepairableConsumer, repaired: Repair) -> bool:
    """Give ``consumer`` its new weight; ``False``, and nothing changes, if that does not fit into its type."""
    tensor, axis = constants.constant_tensor(consumer.weight), consumer.consumers[0].axis
    if tensor is None:
        return False
    shape = tuple(tensor.shape.numpy())
    matrix = repaired.weight.reshape(shape[axis], *shape[:axis], *shape[axis + 1 :])
    array = constants.round_once(np.moveaxis(matrix, 0, axis), tensor.dtype.numpy())
    if array is not None:
        constants.set_array(consumer.weight, np.ascontiguousarray(array))
    return array is not None


@dataclass
class RepairableConsumer:
    """A weight and the kernels that read channels with it; more than one if it is shared.

    Attributes:
        weight: The weight.
        consumers: Its kernels.
        roots: The unit of each input channel; (C,).
    """

    weight: ir.Value
    consumers: list[ChannelConsumer]
    roots: NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """The values that are read."""
        return [str(consumer.node.inputs[0].name) for consumer in self.consumers if consumer.node.inputs[0] is not None]

    def matrix(self) -> NDArray[np.float64]:
        """The weight as (input channels, all the rest)."""
        array = array_of(self.weight)
        if array is None:
            raise ValueError(f"{self.weight.name} is no constant")
        return np.moveaxis(array, self.consumers[0].axis, 0).reshape(self.roots.size, -1)

    def moments(
        self, by_name: Mapping[str, SecondMoments]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
        """Second moment (C, C), mean (C,) and rows of what is read; ``None`` if that is not known."""
        of_consumers = [by_name.get(name) for name in self.names]
        if any(moments is None for moments in of_consumers):
            return None
        # Kernels that read the same value, or values that are summed up as one, count once
        different = {id(moments): moments for moments in of_consumers if moments is not None}.values()
        rows = sum(moments.rows for moments in different)
        second = sum((moments.sums[0] for moments in different), np.zeros((self.roots.size,) * 2)) / rows
        mean = sum((moments.totals[0] for moments in different), np.zeros(self.roots.size)) / rows
        return second, mean, rows


def repairable_consumers(groups: ChannelGroups) -> list[RepairableConsumer]:
    """The consumers of all channel axes, by weight, in the order of the graph."""
    by_value: dict[ir.Value, RepairableConsumer] = {}
    for consumer in groups.consumers:
        if consumer.weight in by_value:
            by_value[consumer.weight].consumers.append(consumer)
        else:
            by_value[consumer.weight] = RepairableConsumer(
                consumer.weight, [consumer], groups.roots(consumer.channel_axis.channel_ids)
            )
    return list(by_value.values())
