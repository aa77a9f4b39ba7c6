"""Which weights go together, and how many: patterns of zeros.

::

    unstructured    single weights
    n:m             of each m weights that follow each other along the input channels, n stay: 2:4, 1:4, 4:8, …
    blockRxC        R output channels by C input channels, at one place of the window: block4x1, block1x8, …

Scores come as (groups, out, inputs, window): a weight as ``optimizer.statistics.im2col.as_matrix`` gives it, its last
axis unfolded. Input channels that are left over when m is taken from them stay; blocks at the edge are smaller. Among
equal scores the first goes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")
_BLOCK = re.compile(r"block([1-9]\d{0,3})x([1-9]\d{0,3})")


@dataclass(frozen=True)
class Pattern:
    """A pattern of zeros.

    Attributes:
        rows: Output channels of a block.
        columns: Input channels of a block.
        keep: How many of ``of`` stay; 0 where the pattern sets no number.
        of: The length of a group.
    """

    rows: int = 1
    columns: int = 1
    keep: int = 0
    of: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern of that name.

        Raises:
            UsageError: If it is none.
        """
        if text == "unstructured":
            return cls()
        if match := _OF.fullmatch(text):
            keep, of = int(match[1]), int(match[2])
            if keep < of:
                return cls(keep=keep, of=of)
        if match := _BLOCK.fullmatch(text):
            return cls(int(match[1]), int(match[2]))
        raise UsageError(f"pattern={text!r} is neither unstructured, n:m with n < m (2:4), nor blockRxC (block4x1)")

    @property
    def is_fixed(self) -> bool:
        """Whether the pattern itself says how many weights go."""
        return self.of > 0

    @property
    def is_block(self) -> bool:
        """Whether weights go in blocks of more than one."""
        return self.rows * self.columns > 1

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Why a weight of ``shape``, (groups, out, inputs, window), cannot have it; ``None`` if it can."""
        if self.is_fixed and shape[2] < self.of:
            return f"has {shape[2]} input channels, the pattern takes {self.of} at a time"
        return None

    def stays(self, scores: NDArray[Any], goal: int | float) -> NDArray[np.bool_]:
        """What stays when ``goal`` weights of least score go, or ``goal`` of what the pattern asks for.

        Args:
            scores: (groups, out, inputs, window), from 0 on.
            goal: How many weights go: as many whole blocks as fit into it. For n:m a share, up to 1, of those that the
                pattern takes.
        """
        if self.is_fixed:
            return self._of_each_group(scores, float(goal))
        if not self.is_block:
            return _all_but(scores.reshape(-1), int(goal)).reshape(scores.shape)
        # Whole blocks of least mean, as many as fit into the goal; blocks at an edge have fewer elements
        means, sizes = self.blocks(scores)
        order = np.argsort(means, axis=None, kind="stable")
        number = int(np.searchsorted(np.cumsum(sizes.reshape(-1)[order]), int(goal), side="right"))
        kept = np.ones(means.size, np.bool_)
        kept[order[:number]] = False
        return self._spread(kept.reshape(means.shape), scores.shape)

    def under(self, scores: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
        """What stays when every weight, or block by its mean, with a score below ``threshold`` goes."""
        if not self.is_block:
            return np.asarray(scores >= threshold)
        return self._spread(self.blocks(scores)[0] >= threshold, scores.shape)

    def blocks(self, scores: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The mean score of each block and how many weights it has, (groups, out blocks, input blocks, window)."""
        outputs, inputs = scores.shape[1:3]
        rows, columns = np.arange(0, outputs, self.rows), np.arange(0, inputs, self.columns)
        sums = np.add.reduceat(np.add.reduceat(scores.astype(np.float64), rows, axis=1), columns, axis=2)
        tall, wide = np.diff(rows, append=outputs), np.diff(columns, append=inputs)
        sizes = np.broadcast_to((tall[:, np.newaxis] * wide)[np.newaxis, :, :, np.newaxis], sums.shape)
        return sums / sizes, sizes

    def _spread(self, kept: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        tall = np.repeat(kept, self.rows, axis=1)[:, : shape[1]]
        return np.repeat(tall, self.columns, axis=2)[:, :, : shape[2]]

    def _of_each_group(self, scores: NDArray[Any], share: float) -> NDArray[np.bool_]:
        whole = scores.shape[2] // self.of * self.of
        groups = scores[:, :, :whole].reshape(*scores.shape[:2], -1, self.of, scores.shape[3])
        # The rank of each score in its group of ``of``: sorting twice gives the inverse permutation
        ranks = np.argsort(np.argsort(groups, axis=3, kind="stable"), axis=3, kind="stable")
        kept = np.ones(scores.shape, np.bool_)
        going = round(share * (self.of - self.keep))
        kept[:, :, :whole] = (ranks >= going).reshape(*scores.shape[:2], whole, scores.shape[3])
        return kept


def _all_but(scores: NDArray[Any], number: int) -> NDArray[np.bool_]:
    """False for the ``number`` least of ``scores``."""
    kept = np.ones(scores.size, np.bool_)
    if number > 0:
        kept[np.argsort(scores, kind="stable")[:number]] = False
    return kept
