"""Prunes single weights: which elements stay, and what they become.

The first is ``optimizer.algorithms.sparsity.magnitudes``, the second
``optimizer.algorithms.reconstruction.least_squares``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.reconstruction import least_squares
from optimizer.algorithms.reconstruction.bias import bias_of
from optimizer.algorithms.reconstruction.kernel_matrices import Prunable, prunable
from optimizer.algorithms.reconstruction.least_squares import Fit
from optimizer.contract.skipped import SkippedNodes
from optimizer.statistics.second_moments import SecondMoments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.sparsity.magnitudes import WeightMagnitudes
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.node_filter import NodeFilter

PARTS = (1.0, 0.8, 0.6, 0.4)


@dataclass(frozen=True)
class SparsityPlan:
    """What to prune.

    Attributes:
        magnitudes: How many weights go of each kernel.
        by_error: Whether, where moments are known, those go whose loss costs least, and not the smallest.
        repair: Whether what stays is fitted anew, where there are data.
        choice: Which nodes.
        guard: Whether the first and the last kernels are left out.
    """

    magnitudes: WeightMagnitudes
    by_error: bool
    repair: bool
    choice: NodeFilter
    guard: bool

    @property
    def parts(self) -> tuple[float, ...]:
        """The shares of what is asked for to try."""
        return (1.0,) if self.magnitudes.pattern.is_fixed else PARTS

    def weights(self, model: ir.Model, skipped: SkippedNodes | None = None) -> list[Prunable]:
        """The weights of ``model`` that may be pruned; ``skipped`` is told of the others."""
        return prunable(model, self.choice, SkippedNodes() if skipped is None else skipped, guard=self.guard)


@dataclass(frozen=True)
class Pruned:
    """A weight with zeros, (groups, out, K), and what to add to the bias for it."""

    matrix: NDArray[np.float32]
    shift: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Pruner:
    """Prunes the weights of a model one by one, none of them in place.

    Attributes:
        model: Not changed but for shapes of views of weights.
        plan: What to prune.
        evaluator: Where second moments come from; ``None`` for no repair.
    """

    model: ir.Model
    plan: SparsityPlan
    evaluator: Evaluator | None

    def run(self, sparsity_share: float) -> Iterator[tuple[str, Pruned]]:
        """Each weight by name, at ``sparsity_share`` of the sparsity that is asked for."""
        pattern = self.plan.magnitudes.pattern
        weights = {w.name: w for w in self.plan.weights(self.model) if pattern.refusal(w.shape) is None}
        goals = self.plan.magnitudes.goals(list(weights.values()), sparsity_share)
        unrepaired = dict(weights)
        for name, moments, centred in self._moments(list(weights.values())):
            yield name, self._repaired(unrepaired.pop(name), goals[name], sparsity_share, moments, centred=centred)
        # Without moments: zeros by size, and nothing is fitted
        for name, weight in unrepaired.items():
            yield (
                name,
                Pruned((weight.matrix() * self._by_size(weight, goals[name], sparsity_share)).astype(np.float32)),
            )

    def _by_size(self, weight: Prunable, goal: float, sparsity_share: float) -> NDArray[np.bool_]:
        """What stays, by size."""
        sizes = self.plan.magnitudes
        is_under = sizes.threshold and not sizes.pattern.is_fixed
        stays = sizes.under(weight, sparsity_share) if is_under else sizes.pattern.stays(sizes.scores(weight), goal)
        return stays.reshape(*weight.shape[:2], -1)

    def _repaired(
        self, weight: Prunable, goal: float, sparsity_share: float, moments: SecondMoments, *, centred: bool
    ) -> Pruned:
        matrix = weight.matrix()
        square = moments.covariance if centred else moments.second_moment
        # Where a bias takes up the mean error, only the covariance of the inputs counts
        fit = Fit.same(matrix, square, least_squares.damping(matrix.shape[-1], moments.rows))
        if self.plan.by_error:

            def mask(costs: NDArray[np.float64], done: float) -> NDArray[np.bool_]:
                pattern = self.plan.magnitudes.pattern
                wanted = goal * done if pattern.is_fixed else round(goal * done)
                return pattern.stays(costs.reshape(weight.shape), wanted).reshape(matrix.shape)

            fitted = least_squares.optimal_brain_surgeon(matrix, fit, mask)
        else:
            fitted = least_squares.least_squares(
                matrix, self._by_size(weight, goal, sparsity_share) & (matrix != 0), fit
            )
        shift = ((matrix - fitted) @ moments.mean[..., np.newaxis]).reshape(-1) if centred else None
        return Pruned(fitted.astype(np.float32), shift)

    def _moments(self, weights: Sequence[Prunable]) -> Iterator[tuple[str, SecondMoments, bool]]:
        """Name of a weight, moments of all that its kernels read, and whether a bias makes up for the mean."""
        evaluator = self.evaluator
        if evaluator is None or not (self.plan.repair and evaluator.has_data):
            return
        owners = {output: weight for weight in weights for output in weight.measured(self.model)}
        if not owners:
            return
        sums: dict[str, SecondMoments] = {}
        missing = {weight.name: len(weight.nodes) for weight in weights}
        for output, moments in evaluator.second_moments(self.model, list(owners)):
            weight = owners[output]
            sums[weight.name] = _added(sums[weight.name], moments) if weight.name in sums else moments
            missing[weight.name] -= 1
            if not missing[weight.name]:
                total = sums.pop(weight.name)
                if total.rows:
                    yield weight.name, total, len(weight.nodes) == 1 and bias_of(weight.nodes[0]) is not None


def put(model: ir.Model, weight: Prunable, pruned: Pruned) -> None:
    """Give ``weight`` of ``model`` what was made of it."""
    bias = bias_of(weight.nodes[0]) if pruned.shift is not None else None
    if bias is not None and pruned.shift is not None:
        bias.add(pruned.shift, model)
    weight.write(pruned.matrix)


def _added(first: SecondMoments, second: SecondMoments) -> SecondMoments:
    return SecondMoments(first.sums + second.sums, first.totals + second.totals, first.rows + second.rows)
