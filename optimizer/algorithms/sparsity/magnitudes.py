"""How many weights of each kernel go, by their size: as many of each, or the smallest of all kernels together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from optimizer.algorithms.reconstruction.kernel_matrices import Prunable
    from optimizer.algorithms.sparsity.patterns import Pattern


@dataclass(frozen=True)
class WeightMagnitudes:
    """What the size of weights says.

    Attributes:
        pattern: Of zeros.
        importance: ``l1``: the mean of |w| over a block; ``l2``: of w^2; the same for single weights.
        scope: Whether each kernel loses the same share, or the smallest go wherever they are.
        sparsity: The share of zeros to reach, those that are there included.
        threshold: Instead: what goes is below it in |w|, or a block's mean or root mean square is.
    """

    pattern: Pattern
    importance: Literal["l1", "l2"]
    scope: Literal["layer", "global"]
    sparsity: float
    threshold: float = 0.0

    def scores(self, weight: Prunable) -> NDArray[np.float32]:
        """Of each element, (groups, out, inputs, window)."""
        size = np.abs(weight.matrix()).astype(np.float32).reshape(weight.shape)
        return size if self.importance == "l1" else size**2

    def goals(self, weights: Sequence[Prunable], sparsity_share: float) -> Mapping[str, float]:
        """What ``Pattern.stays`` is to take of each weight when ``sparsity_share`` of the sparsity is asked for."""
        if self.pattern.is_fixed:
            return dict.fromkeys((weight.name for weight in weights), 1.0)
        if self.threshold:
            return {weight.name: float(np.sum(~self.under(weight, sparsity_share))) for weight in weights}
        if self.scope == "layer":
            return {
                weight.name: round(self.sparsity * sparsity_share * weight.constant.tensor.size) for weight in weights
            }
        return self._smallest(weights, self.sparsity * sparsity_share)

    def under(self, weight: Prunable, sparsity_share: float) -> NDArray[np.bool_]:
        """What stays at ``sparsity_share`` of the threshold."""
        limit = self.threshold * sparsity_share
        return self.pattern.under(self.scores(weight), limit if self.importance == "l1" else limit**2)

    def _smallest(self, weights: Sequence[Prunable], share: float) -> dict[str, float]:
        scores: list[NDArray[Any]] = []
        sizes: list[NDArray[Any]] = []
        for weight in weights:
            mean: NDArray[Any] = self.scores(weight)
            size: NDArray[Any] = np.broadcast_to(np.int64(1), mean.shape)
            if self.pattern.is_block:
                mean, size = self.pattern.blocks(mean)
            scores.append(mean.astype(np.float32).reshape(-1))
            sizes.append(size.reshape(-1))
        # All blocks of all weights in one order; the smallest go until the share of elements is reached
        owners = np.repeat(np.arange(len(weights), dtype=np.int32), [len(weight_scores) for weight_scores in scores])
        order = np.argsort(np.concatenate(scores), kind="stable")
        ordered = np.concatenate(sizes)[order]
        wanted = round(share * sum(weight.constant.tensor.size for weight in weights))
        number = int(np.searchsorted(np.cumsum(ordered), wanted, side="right"))
        taken = np.bincount(owners[order[:number]], weights=ordered[:number], minlength=len(weights))
        return {weight.name: float(count) for weight, count in zip(weights, taken, strict=True)}
