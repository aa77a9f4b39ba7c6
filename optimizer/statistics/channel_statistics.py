"""Minimum, maximum, mean and second moment of each channel of a tensor, over feeds.

Counterpart: PyTorch's ``PerChannelMinMaxObserver``, which has no moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class ChannelStatistics:
    """Sums over all feeds; each array has one number a channel. Elements that are not finite are left out.

    Attributes:
        axis: The axis of the channels; negative counts from the end.
        count: Finite elements, int64.
        minimum: Least element; infinite where there was none.
        maximum: Largest element; minus infinity where there was none.
        total: Sum of elements.
        squares: Sum of squares.
    """

    axis: int
    count: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def along(cls, axis: int) -> ChannelStatistics:
        """Nothing yet; the first array tells the number of channels."""
        nothing = np.zeros(0)
        return cls(axis, np.zeros(0, np.int64), nothing, nothing, nothing, nothing)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each channel, 0 where there was no element."""
        return self.total / np.maximum(self.count, 1)

    @property
    def second_moment(self) -> NDArray[np.float64]:
        """The mean square of each channel."""
        return self.squares / np.maximum(self.count, 1)

    @property
    def variance(self) -> NDArray[np.float64]:
        """The variance of each channel, over positions and feeds."""
        return np.maximum(self.second_moment - self.mean**2, 0)

    @property
    def largest(self) -> NDArray[np.float64]:
        """The largest magnitude of each channel, 0 where there was no element."""
        return np.where(self.count > 0, np.maximum(np.abs(self.minimum), np.abs(self.maximum)), 0)

    def add(self, array: NDArray[Any], *, finite: bool) -> None:
        """Take in ``array``, float32 or float64.

        Args:
            array: Any shape that has the axis; its channels are as many as before.
            finite: Whether every element is known to be finite.

        Raises:
            DataError: If the axis is not there, or has another number of channels than before.
        """
        # 1. (before, channels, after): every statistic reduces the axes 0 and 2.
        cube = self._as_cube(array)
        mask: Any = True if finite else np.isfinite(cube)
        double = cube.astype(np.float64)
        count = np.full(cube.shape[1], cube.shape[0] * cube.shape[2]) if finite else mask.sum(axis=(0, 2))
        # 2. Of this array. Sums are in float64, extremes in the type of the array, where they are exact.
        statistics = (
            count.astype(np.int64),
            np.min(cube, axis=(0, 2), initial=np.inf, where=mask).astype(np.float64),
            np.max(cube, axis=(0, 2), initial=-np.inf, where=mask).astype(np.float64),
            np.sum(double, axis=(0, 2), where=mask),
            np.sum(np.square(double, out=double, where=mask), axis=(0, 2), where=mask),
        )
        # 3. Together with the arrays before.
        if not self.count.size:
            self.count, self.minimum, self.maximum, self.total, self.squares = statistics
            return
        self.count = self.count + statistics[0]
        self.minimum, self.maximum = np.minimum(self.minimum, statistics[1]), np.maximum(self.maximum, statistics[2])
        self.total, self.squares = self.total + statistics[3], self.squares + statistics[4]

    def _as_cube(self, array: NDArray[Any]) -> NDArray[Any]:
        """``array`` as (before, channels, after): the axes on either side of the channels' made one each."""
        if not -array.ndim <= self.axis < array.ndim:
            raise DataError(f"there are no channels along axis {self.axis} of shape {list(array.shape)}")
        axis = self.axis % array.ndim
        size = array.shape[axis]
        if self.count.size not in {0, size}:
            raise DataError(f"axis {self.axis} has {size} channels and had {self.count.size} in the feeds before")
        return array.reshape(int(np.prod(array.shape[:axis])), size, int(np.prod(array.shape[axis + 1 :])))
