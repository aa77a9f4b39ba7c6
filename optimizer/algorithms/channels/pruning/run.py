"""One run of the pruning pass: what is frozen, what is measured, what is chosen, and the notes on it.

``optimizer.algorithms.search.levels`` is of no use here: channels go in one order, that of all width groups together,
so what is searched is one number, how many of them go, and it has a goal besides the budget.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.pruning.importance import NEED_DATA, curves
from optimizer.algorithms.channels.pruning.pruner import Pruning, sizes_of
from optimizer.algorithms.channels.pruning.repair import repairable_consumers
from optimizer.algorithms.channels.pruning.search import PruningSearch, seconds_by_node, to_cost, units
from optimizer.contract.choices import Choices
from optimizer.contract.memo import MemoKey
from optimizer.contract.options import Count
from optimizer.contract.passes import Note, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.errors import PreconditionError, no_such
from optimizer.graph import queries, traversal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.algorithms.channels.pruning.costs import Costs
    from optimizer.algorithms.channels.pruning.importance import Curve
    from optimizer.algorithms.channels.pruning.pruner import Portion
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.node_filter import NodeFilter
    from optimizer.contract.passes import Context
    from optimizer.statistics.second_moments import SecondMoments

STEP = Step("channels", "channels that are made by a kernel, and all that depends on them, are removed")


@dataclass(frozen=True)
class Goal:
    """The share of what to leave; all ``None``: as much goes as the budget allows."""

    macs: float | None = None
    params: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class ChannelChoices(Choices):
    """The positions of the channels that go, by the site of the first kernel that makes each."""

    removed: Mapping[str, tuple[Count, ...]]


@dataclass(frozen=True)
class _ChannelMoments(MemoKey["Mapping[str, SecondMoments]"]):
    """Second moments of what kernels read, by first output."""


@dataclass(frozen=True)
class _Profile(MemoKey["Mapping[str, float]"]):
    """Seconds of one inference by node name."""


@dataclass(frozen=True)
class _PruningSearchFor(MemoKey[PruningSearch]):
    """The search with these options of the pass, see ``PruningRun``."""

    goal: Goal
    importance: str
    repair: bool
    multiple: int
    choice: NodeFilter


@dataclass
class PruningRun:
    """One run of the pass.

    Attributes:
        model: With its shapes inferred.
        context: Of the pass.
        goal: How much is to go.
        importance: See ``optimizer.algorithms.channels.pruning.importance``.
        repair: Whether channels that stay compensate for those that go.
        multiple: Of widths.
        choice: Which kernels' channels.
    """

    model: ir.Model
    context: Context
    goal: Goal
    importance: str
    repair: bool
    multiple: int
    choice: NodeFilter

    def run(self) -> PassResult:
        """The model without the channels that are chosen, or that an earlier run removed."""
        skipped = SkippedNodes()
        pruning = self._pruning()
        self._note_frozen(pruning, skipped)
        if not pruning.width_groups.members:
            skipped.note("the model", "has no channels that may go")
            return PassResult(self.model, {}, skipped.notes())
        replayed = self.context.replayed(ChannelChoices)
        if replayed is not None:
            chosen = _by_position(pruning, replayed.removed)
        else:
            chosen = units(self._portions(pruning, skipped))
        gone = self._permitted(pruning, chosen)
        if not gone:
            return PassResult(self.model, {}, skipped.notes())
        pruned = pruning.build(gone)
        widths = _widths(pruning, gone)
        removed = sum(before - after for before, after in widths.values())
        changes = {"units of channels removed": len(gone), "output channels of kernels removed": removed}
        width_notes = [
            Note(site, f"{before} -> {after} channels", skipped=False) for site, (before, after) in widths.items()
        ]
        return PassResult(pruned, changes, (*width_notes, *skipped.notes()), ChannelChoices(_positions(pruning, gone)))

    def _pruning(self) -> Pruning:
        """The units of the model; what was measured of them is in the evaluator's memo."""
        evaluator = self.context.evaluator
        sizes = (
            sizes_of(self.model, evaluator.calibration[0])
            if evaluator is not None and len(evaluator.calibration)
            else {}
        )
        pruning = Pruning(self.model, self.multiple, sizes)
        for node, channel_ids in pruning.groups.producers.items():
            if not self.choice.matches(node):
                pruning.groups.freeze(channel_ids, "left out by include= or exclude=")
        pruning.find_width_groups()
        if self.repair and evaluator is not None:
            pruning.moments = self._moments(pruning, evaluator)
        return pruning

    def _moments(self, pruning: Pruning, evaluator: Evaluator) -> Mapping[str, SecondMoments]:
        return evaluator.memo.get(self.model, _ChannelMoments(), lambda: pruning.observe(evaluator))

    def _portions(self, pruning: Pruning, skipped: SkippedNodes) -> Sequence[Portion]:
        """What goes, in order."""
        evaluator, progress = self.context.evaluator, self.context.progress
        costs = self._costs(pruning)
        share = self.goal.macs or self.goal.params or self.goal.latency or 0.0
        # 1. Nothing can be run: the order of the weights, up to the goal
        if evaluator is None:
            portions = pruning.order(self._curves(pruning), costs)
            return portions[: to_cost(pruning, portions, costs, share)]
        # 2. Otherwise the sensitivity of width groups is part of the order
        search = self._search(pruning, costs, evaluator)
        search.measure(progress)
        portions = search.order()
        # 3. The goal says how much at most, the budget how much of that
        if self.goal.latency is not None and evaluator.is_timed:
            most = search.to_latency(portions, self.goal.latency, progress)
        else:
            most = to_cost(pruning, portions, costs, share)
        length = search.within(portions, most, self.context.budget_limit, progress)
        if length < most and self.goal != Goal():
            skipped.note("the model", "is pruned less than asked for: the budget allows no more")
        return portions[:length]

    def _search(self, pruning: Pruning, costs: Costs, evaluator: Evaluator) -> PruningSearch:
        """A new search, or the one that was made for this model before."""
        key = _PruningSearchFor(self.goal, self.importance, self.repair, self.multiple, self.choice)
        return evaluator.memo.get(
            self.model, key, lambda: PruningSearch(pruning, self._curves(pruning), costs, evaluator)
        )

    def _curves(self, pruning: Pruning) -> list[Curve]:
        evaluator = self.context.evaluator
        moments = self._moments(pruning, evaluator) if evaluator is not None and self.importance in NEED_DATA else {}
        self.context.progress.begin("in which order channels may go")
        return curves(
            pruning.groups, pruning.width_groups, repairable_consumers(pruning.groups), moments, self.importance
        )

    def _costs(self, pruning: Pruning) -> Costs:
        evaluator = self.context.evaluator
        if self.goal.params is not None:
            return pruning.parameters()
        if self.goal.macs is None and evaluator is not None and evaluator.is_timed:
            profile = evaluator.memo.get(self.model, _Profile(), lambda: evaluator.profile(self.model))
            node_seconds = seconds_by_node(self.model, profile)
            if node_seconds:
                return pruning.seconds(node_seconds)
        return pruning.macs()

    def _permitted(self, pruning: Pruning, chosen: Sequence[int]) -> tuple[int, ...]:
        """Those of the units ``chosen`` whose width group may be touched."""
        groups, sites = pruning.width_groups, self.context.sites
        allowed = {
            number: sites.permits(STEP.name, groups.members[number].site)
            for number in dict.fromkeys(groups.of[root] for root in chosen)
        }
        return tuple(root for root in chosen if allowed[groups.of[root]])

    def _note_frozen(self, pruning: Pruning, skipped: SkippedNodes) -> None:
        skipped.unmatched(self.choice.unmatched(self.model))
        frozen = pruning.groups.frozen()
        for node, channel_ids in pruning.groups.producers.items():
            for root in pruning.groups.roots(channel_ids).tolist():
                if root in frozen:
                    skipped.note(node, f"keeps channels: {frozen[root]}")
        for node in self.model.graph:
            if any(sub for sub in traversal.subgraphs_of(node)):
                skipped.note(node, "has subgraphs, whose channels are left alone")


def _widths(pruning: Pruning, gone: Sequence[int]) -> dict[str, tuple[int, int]]:
    """How many channels each kernel that loses some gave out, and how many are left, by its name or first output's."""
    removed = np.array(sorted(gone), np.int64)
    widths = {
        node: (channel_ids.size, int(np.count_nonzero(~np.isin(pruning.groups.roots(channel_ids), removed))))
        for node, channel_ids in pruning.groups.producers.items()
    }
    return {node.name or str(node.outputs[0].name): pair for node, pair in widths.items() if pair[0] > pair[1]}


def _positions(pruning: Pruning, gone: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The positions of the units ``gone`` in the output of the first kernel that produces each, by its site."""
    remaining, by_site = set(gone), defaultdict(list)
    for node, channel_ids in pruning.groups.producers.items():
        for position, root in enumerate(pruning.groups.roots(channel_ids).tolist()):
            if root in remaining:
                remaining.remove(root)
                by_site[queries.site(node)].append(position)
    return {site: tuple(positions) for site, positions in by_site.items()}


def _by_position(pruning: Pruning, positions: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The roots of the units of which ``positions`` are ``_positions``.

    Raises:
        PreconditionError: If a kernel or one of its channels does not exist.
    """
    sites = {queries.site(node): channel_ids for node, channel_ids in pruning.groups.producers.items()}
    units: dict[int, None] = {}
    for site in positions:
        if site not in sites:
            raise PreconditionError(f"choices:removed: {no_such('kernel', site, list(sites))}")
    for site, channel_ids in sites.items():
        roots = pruning.groups.roots(channel_ids).tolist()
        for position in positions.get(site, ()):
            if position >= len(roots):
                raise PreconditionError(f"choices:removed: {site} has no channel {position}, but {len(roots)} of them")
            units[roots[position]] = None
    return tuple(root for root in units if root in pruning.width_groups.of)
