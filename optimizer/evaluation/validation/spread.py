"""How much an output varies over feeds: |r - m| / |r|, m being the mean over the feeds of one shape, by element."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Spread:
    """Collects arrays; what is not finite counts as zero."""

    moments: dict[tuple[int, ...], _Moments] = field(default_factory=dict)

    def add(self, array: NDArray[Any]) -> None:
        """Take in the output of one more feed."""
        numbers = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
        known = self.moments.setdefault(numbers.shape, _Moments(0, np.zeros(numbers.shape), 0.0))
        known.count += 1
        known.total += numbers
        known.squares += float(np.vdot(numbers, numbers))

    def relative(self) -> float | None:
        """|r - m| / |r| over all shapes that at least two feeds have; ``None`` if there is none."""
        groups = [group for group in self.moments.values() if group.count > 1]
        squares = sum(group.squares for group in groups)
        if not squares:
            return None
        around = sum(group.squares - float(np.vdot(group.total, group.total)) / group.count for group in groups)
        return float(np.sqrt(max(around, 0.0) / squares))


@dataclass
class _Moments:
    count: int
    total: NDArray[np.float64]
    squares: float
