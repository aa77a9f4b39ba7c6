"""Removes units of channels from a model, cheapest first, and repairs what reads them.

The units of each width group go in the order of their curve (``optimizer.algorithms.channels.pruning.importance``).
Which width group gives next is decided by what its next units cost for what they save,

    sensitivity_f * (cost of the next units of f) / (their share of MACs, parameters or seconds)

where what they save depends on how many units of the other width groups are left, since a kernel costs the product of
its widths (``optimizer.algorithms.channels.pruning.costs``). So there is one order of all units, and the question is
only how many of it go.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.channels.dependency.operators import channel_groups
from optimizer.algorithms.channels.dependency.removal import remove
from optimizer.algorithms.channels.pruning import costs as channel_costs
from optimizer.algorithms.channels.pruning import repair
from optimizer.algorithms.channels.pruning.moments import channel_moments, observed_value
from optimizer.algorithms.channels.pruning.repair import repairable_consumers
from optimizer.algorithms.channels.pruning.units import width_groups
from optimizer.algorithms.channels.redundancy.merging import add_to_bias
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.analysis import shape_inference
from optimizer.contract.passes import Sites
from optimizer.graph import queries
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelGroups
    from optimizer.algorithms.channels.pruning.costs import Costs
    from optimizer.algorithms.channels.pruning.importance import Curve
    from optimizer.algorithms.channels.pruning.units import WidthGroups
    from optimizer.contract.evaluator import Evaluator
    from optimizer.statistics.second_moments import SecondMoments


@dataclass(frozen=True)
class Portion:
    """Units of one width group that go together.

    Attributes:
        width_group: Its number.
        units: By root.
    """

    width_group: int
    units: tuple[int, ...]


@dataclass
class Pruning:
    """A model and the units that can be removed from it.

    Attributes:
        model: Its shapes are inferred; not changed.
        multiple: What widths stay multiples of.
        sizes: Shapes of values by name, for those that the model leaves open.
        moments: Of the channels of what kernels read, for the repair; empty for none.
        groups: The channels of ``model``.
        width_groups: Their width groups.
    """

    model: ir.Model
    multiple: int
    sizes: Mapping[str, Sequence[int | ir.SymbolicDim]] = field(default_factory=dict)
    moments: Mapping[str, SecondMoments] = field(default_factory=dict)
    groups: ChannelGroups = field(init=False)
    width_groups: WidthGroups = field(init=False)

    def __post_init__(self) -> None:
        self.groups = channel_groups(self.model.graph, queries.opset_version(self.model), prunes_states=True)
        self.find_width_groups()

    def find_width_groups(self) -> None:
        """Find the width groups again, after more was frozen."""
        self.width_groups = width_groups(self.groups, self.multiple)

    def observe(self, evaluator: Evaluator) -> dict[str, SecondMoments]:
        """The second moments of the channels of what kernels read, by the value's name, as far as any feed tells."""
        observed: dict[str, ir.Value] = {}
        weights: dict[str, set[ir.Value]] = defaultdict(set)
        for consumer in self.groups.consumers:
            value = consumer.node.inputs[0]
            if value is not None:
                observed[str(value.name)] = value_to_observe = observed_value(self.groups, value)
                weights[str(value_to_observe.name)].add(consumer.weight)
        channel_axes = {str(value.name): self.groups.channel_axes[value] for value in observed.values()}
        channels = {name: (channel_axis.from_end, channel_axis.size) for name, channel_axis in channel_axes.items()}
        sum_keys = {name: frozenset(group) for name, group in weights.items()}
        moments = channel_moments(self.model, channels, sum_keys, evaluator)
        return {name: moments[str(value.name)] for name, value in observed.items() if value.name in moments}

    def macs(self) -> Costs:
        """What the model costs in MACs."""
        return channel_costs.macs(self.model.graph, self.groups, self.width_groups, self.sizes)

    def parameters(self) -> Costs:
        """What the model costs in elements of weights."""
        return channel_costs.parameters(self.model.graph, self.groups, self.width_groups)

    def seconds(self, node_seconds: Mapping[ir.Node, float]) -> Costs:
        """What the model costs in seconds, of which ``node_seconds`` says what each node takes."""
        return channel_costs.seconds(self.model.graph, self.groups, self.width_groups, node_seconds)

    def full(self) -> NDArray[np.float64]:
        """How many units each width group has; (width groups,)."""
        return np.array([width_group.units.size for width_group in self.width_groups.members], np.float64)

    def remaining(self, gone: Sequence[Portion]) -> NDArray[np.float64]:
        """How many are left without ``gone``."""
        remaining = self.full()
        for portion in gone:
            remaining[portion.width_group] -= len(portion.units)
        return remaining

    def order(
        self, curves: Sequence[Curve], costs: Costs, sensitivity: Mapping[int, float] | None = None
    ) -> list[Portion]:
        """All units that can go, the cheapest for what they save first.

        Args:
            curves: Of the width groups.
            costs: What is to be saved.
            sensitivity: By width group, what to multiply its curve with; 1 where it is left out. Width groups that
                save nothing are left out.
        """
        # Lazy greedy: a price can only rise while others give, so an old one is a lower bound. The cheapest is priced
        # again when it comes up, and goes back into the heap if it is not the cheapest any more
        remaining = self.full()
        ends = [width_group.ends() for width_group in self.width_groups.members]
        steps_taken = [0] * len(ends)
        portions: list[Portion] = []

        def price(group: int) -> float:
            begin, end = _bounds(ends[group], steps_taken[group])
            saved = float(costs.gradient(remaining)[group]) * (end - begin)
            cost = float(curves[group].costs[begin:end].sum()) * (sensitivity or {}).get(group, 1.0)
            return cost / saved if saved > 0 else np.inf

        heap = [(price(group), group) for group, group_ends in enumerate(ends) if group_ends]
        heapq.heapify(heap)
        while heap:
            old_price, group = heapq.heappop(heap)
            new_price = price(group)
            if new_price == np.inf:
                continue
            if new_price > old_price and heap and new_price > heap[0][0]:
                heapq.heappush(heap, (new_price, group))
                continue
            begin, end = _bounds(ends[group], steps_taken[group])
            portions.append(Portion(group, tuple(curves[group].order[begin:end].tolist())))
            remaining[group] -= end - begin
            steps_taken[group] += 1
            if steps_taken[group] < len(ends[group]):
                heapq.heappush(heap, (price(group), group))
        return portions

    def build(self, gone: Sequence[int]) -> ir.Model:
        """A copy of the model without the units ``gone``, repaired as far as moments are known."""
        # 1. Weights, at their old sizes; 2. channels go; 3. biases, which are as wide as what stays
        pruned = clone(self.model)
        groups = channel_groups(pruned.graph, queries.opset_version(pruned), prunes_states=True)
        rewriter = Rewriter(pruned, Sites())
        removed = np.array(sorted(gone), np.int64)
        shifts = []
        for consumer in repairable_consumers(groups):
            repaired = repair.repair(consumer, np.isin(consumer.roots, removed), self.moments)
            if repaired is None or not repair.put(consumer, repaired) or not repaired.shift.size:
                continue
            for channel_consumer in consumer.consumers:
                stays = ~np.isin(groups.roots(channel_consumer.produced), removed)
                shifts.append((channel_consumer.node, repaired.shift.compress(stays) if stays.size else repaired.shift))
        remove(groups, gone, rewriter)
        for node, shift in shifts:
            add_to_bias(node, shift, rewriter)
        return pruned


def sizes_of(model: ir.Model, feed: Mapping[str, Any]) -> dict[str, list[int | ir.SymbolicDim]]:
    """Shapes of the values of ``model`` by name where its inputs have the shapes of ``feed``."""
    # Shapes of intermediate values are those of dynamic inputs: forget them, and infer from those of the feed
    copy = clone(model)
    for node in copy.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    for value in copy.graph.inputs:
        if hasattr(feed.get(str(value.name)), "shape"):
            value.shape = ir.Shape(feed[str(value.name)].shape)
    shape_inference.infer(copy)
    return {
        str(value.name): list(value.shape) for node in copy.graph for value in node.outputs if value.shape is not None
    }


def _bounds(ends: Sequence[int], steps_taken: int) -> tuple[int, int]:
    return (ends[steps_taken - 1] if steps_taken else 0), ends[steps_taken]
