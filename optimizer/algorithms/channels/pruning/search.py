"""How much of a model's channels goes: to a goal, and no further than the budget allows.

    s_f       share of the budget that is used when a quarter of width group f is removed alone, and repaired
    lambda_f  s_f^2 / (what the curve of f says that this costs): squared errors of independent width groups add up, so
              lambda_f times the curve is each width group's price in one measure, that of the outputs
    choose    the longest prefix of the order (``optimizer.algorithms.channels.pruning.pruner``) up to the goal that
              stays within the budget, by bisection, each length built, repaired and measured as a whole

What was measured is kept in the evaluator's memory: a second try with a smaller budget only bisects again.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.algorithms.search import profile_gains

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.channels.pruning.costs import Costs
    from optimizer.algorithms.channels.pruning.importance import Curve
    from optimizer.algorithms.channels.pruning.pruner import Portion, Pruning
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.progress import Progress

_SAFETY = 0.9  # of the budget's limit: the validation feeds are others
_PROBE = 0.25  # of a width group, to learn how sensitive it is
_SIGNIFICANT = 1e-3  # of the variance of its consumers' outputs: smaller costs may be those of rounding
_MEASURING = 0.5  # share of the time after which no more width groups are measured
_KNOWN_TIMES = 0.5  # of all seconds have to be known by node, if they are to count
_FINEST = 48  # lengths that are tried between nothing and all


@dataclass
class PruningSearch:
    """One model, and what was measured about pruning it.

    Attributes:
        pruning: Builds candidates.
        curves: Of its width groups.
        costs: What is to be saved.
        evaluator: Measures.
        sensitivity: lambda_f by width group.
        shares: Budget used, by the units that are gone.
        ratios: Latency relative to the model's, by the units that are gone.
    """

    pruning: Pruning
    curves: Sequence[Curve]
    costs: Costs
    evaluator: Evaluator
    sensitivity: dict[int, float] = field(default_factory=dict)
    shares: dict[tuple[int, ...], float] = field(default_factory=dict)
    ratios: dict[tuple[int, ...], float] = field(default_factory=dict)

    def measure(self, progress: Progress) -> None:
        """Measure how sensitive width groups are, as far as there is time."""
        if self.sensitivity:
            return
        members = self.pruning.width_groups.members
        groups = [group for group, width_group in enumerate(members) if width_group.ends()]
        begun = max(self.evaluator.time_left(), 0.0)
        progress.begin(f"how sensitive {len(groups)} width groups of channels are")
        # Those that save most first; the budget's share is an error, the curve's cost a squared one
        for measured, group in enumerate(sorted(groups, key=lambda group: -self._saved(group))):
            progress(measured / len(groups))
            if self.evaluator.time_left() < (1 - _MEASURING) * begun:
                break
            # The first step that removes a quarter, and costs more than rounding does
            width_group, curve = members[group], self.curves[group]
            cumulated = curve.costs.cumsum()
            ends_over_noise = (
                end
                for end in width_group.ends()
                if end >= _PROBE * width_group.units.size and cumulated[end - 1] > _SIGNIFICANT
            )
            end = next(ends_over_noise, width_group.ends()[-1])
            cost, share = float(cumulated[end - 1]), self.share(tuple(curve.order[:end].tolist()))
            if cost > 0 and math.isfinite(share):
                self.sensitivity[group] = share**2 / cost
        if self.sensitivity:
            # Width groups for which there was no time count as the usual one
            median = statistics.median(self.sensitivity.values())
            self.sensitivity.update({group: median for group in groups if group not in self.sensitivity})

    def _saved(self, number: int) -> float:
        full = self.pruning.full()
        return float(self.costs.gradient(full)[number] * full[number])

    def order(self) -> list[Portion]:
        """All units, the cheapest first."""
        useful = any(self.sensitivity.values())
        return self.pruning.order(self.curves, self.costs, self.sensitivity if useful else None)

    def share(self, gone: tuple[int, ...]) -> float:
        """The share of the budget that the model without the units ``gone`` uses."""
        if gone not in self.shares:
            self.shares[gone] = self.evaluator.budget_used(self.pruning.build(gone)) if gone else 0.0
        return self.shares[gone]

    def ratio(self, gone: tuple[int, ...]) -> float:
        """How many times as long as the model it takes without the units ``gone``."""
        if gone not in self.ratios:
            pruned = self.pruning.build(gone)
            self.ratios[gone] = self.evaluator.seconds(pruned) / self.evaluator.seconds(self.pruning.model)
        return self.ratios[gone]

    def within(self, portions: Sequence[Portion], most: int, budget_limit: float, progress: Progress) -> int:
        """The length of the longest prefix of ``portions``, at most ``most``, that stays below ``budget_limit``."""
        progress.begin("how much the budget allows")
        limit = budget_limit * _SAFETY
        if self.share(units(portions[:most])) <= limit:
            return most
        return self._longest(most, lambda length: self.share(units(portions[:length])) <= limit, progress)

    def to_latency(self, portions: Sequence[Portion], goal: float, progress: Progress) -> int:
        """The length of the shortest prefix that takes at most ``goal`` times as long; all if none does."""
        progress.begin("how much is fast enough")
        if self.ratio(units(portions)) > goal:
            return len(portions)
        return self._longest(len(portions), lambda length: self.ratio(units(portions[:length])) > goal, progress) + 1

    def _longest(self, most: int, holds: Callable[[int], bool], progress: Progress) -> int:
        """The longest length below ``most`` that holds, to ``1 / _FINEST`` of ``most``."""
        # Bisection: ``low`` holds, ``high`` does not
        low, high, tried = 0, most, 0
        finest = max(most // _FINEST, 1)
        while high - low > finest and self.evaluator.time_left() > 0:
            middle = (low + high) // 2
            progress(min(tried / math.log2(_FINEST), 1.0))
            tried += 1
            if holds(middle):
                low = middle
            else:
                high = middle
        return low


def to_cost(pruning: Pruning, portions: Sequence[Portion], costs: Costs, goal: float) -> int:
    """The length of the shortest prefix that leaves at most ``goal`` of ``costs``; all if none does."""
    full_cost = costs.total(pruning.full())
    remaining = pruning.full()
    for length, portion in enumerate(portions, 1):
        remaining[portion.width_group] -= len(portion.units)
        if costs.total(remaining) <= goal * full_cost:
            return length
    return len(portions)


def units(portions: Sequence[Portion]) -> tuple[int, ...]:
    """The units of ``portions``."""
    return tuple(unit for portion in portions for unit in portion.units)


def seconds_by_node(model: ir.Model, profile: Mapping[str, float]) -> dict[ir.Node, float]:
    """Seconds of each node by the names that ONNX Runtime may give it; empty if too few are known."""
    # ONNX Runtime calls a node by its name, or by one of its outputs
    by_name = profile_gains.by_name(profile)
    by_node: dict[ir.Node, float] = {}
    for node in model.graph:
        for name in (node.name, *(output.name for output in node.outputs)):
            if name in by_name:
                by_node[node] = by_name.pop(name)
                break
    named = sum(by_node.values())
    return by_node if named > _KNOWN_TIMES * (named + sum(by_name.values())) else {}
