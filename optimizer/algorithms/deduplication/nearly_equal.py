"""Nearly equal weights become one: their mean.

::

    shared = sum_i uses_i * weight_i / sum_i uses_i          ||weight_i - shared|| <= tolerance * ||shared||  for each i

Only weights of the same type and shape are compared. Most pairs are told apart by count sketches, which are linear: of
a weight w that of 256 numbers, each the sum of the elements that a hash sends there, with random signs. The distance of
two sketches is that of the weights up to about 9 %; only groups that it lets through are measured. The cost is one
look at each weight, one more at each that has a near one, and the comparison of sketches.

Where errors may be measured, as many groups are merged as the budget allows, the nearest first, found by halving::

    count = max { c : budget_used(model with the c nearest groups merged) <= budget_limit }

There is one level only, and the order of the groups is known, so ``optimizer.algorithms.search.levels`` is of no use.

Source of the sketch: Charikar, Chen, Farach-Colton 2002, "Finding frequent items in data streams".
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.deduplication import equal
from optimizer.algorithms.rewriting.stored_constants import stored_constants
from optimizer.algorithms.search.budgeted import longest_prefix
from optimizer.contract.choices import Choices
from optimizer.contract.options import Count
from optimizer.graph import constants, queries
from optimizer.graph.graph_tree import GraphTree
from optimizer.graph.sparse import SparseTensor
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.stored_constants import StoredConstant
    from optimizer.contract.passes import Context, Sites, Step

_BUCKETS = 256
_DOUBT = 1.4  # by so much a distance of sketches may be too large
_CHUNK = 1 << 22


@dataclass(frozen=True)
class NearGroup:
    """Weights that one value can stand for.

    Attributes:
        members: Their positions in the list that they are from, ascending.
        shared: The value, in their type and shape.
        distance: The largest relative distance of a member to it.
    """

    members: tuple[int, ...]
    shared: NDArray[np.floating]
    distance: float


@dataclass(frozen=True)
class NearChoices(Choices):
    """How many of the nearest groups were merged."""

    near: Count


@dataclass(frozen=True)
class NearMerger:
    """Merges nearly equal weights.

    Attributes:
        step: Asked for permission.
        tolerance: The relative L2 distance that a weight may have to what stands for it.
        min_bytes: Smaller weights are left alone.
        is_excluded: Whether a weight is left alone.
    """

    step: Step
    tolerance: float
    min_bytes: int
    is_excluded: Callable[[ir.Value], bool]

    def run(self, model: ir.Model, context: Context) -> tuple[int, int]:
        """Merge in ``model``; returns how many weights went, and how many of the nearest groups were merged for it.

        Raises:
            ModelError: If external data cannot be read.
        """
        groups, evaluator = self._groups(model, context.seed), context.evaluator
        count = len(groups)

        def holds(length: int) -> bool:
            candidate = clone(model)
            self._merge(candidate, groups[:length], replace(context.sites, permitted={}))
            return evaluator is not None and evaluator.budget_used(candidate) <= context.budget_limit

        replayed = context.replayed(NearChoices)
        if replayed is not None:
            count = replayed.near
        elif evaluator is not None:
            count = longest_prefix(count, holds)
        return self._merge(model, groups[:count], context.sites), count

    def _groups(self, model: ir.Model, seed: int) -> list[NearGroup]:
        """Disjoint groups of weights in the order of ``_holders``, the nearest first."""
        tree = GraphTree.of(model)
        holders = self._holders(tree)
        alike: dict[Hashable, list[int]] = defaultdict(list)
        for number, holder in enumerate(holders):
            alike[tree.root(holder.graph), holder.tensor.dtype, holder.shape].append(number)
        groups: list[NearGroup] = []
        for numbers in alike.values():
            tensors = [holders[number].tensor for number in numbers]
            uses = [max(queries.use_count(holders[number].value), 1) for number in numbers]
            near = near_groups(tensors, uses, self.tolerance, seed)
            groups += [replace(group, members=tuple(numbers[at] for at in group.members)) for group in near]
        return sorted(groups, key=lambda group: (group.distance, group.members))

    def _holders(self, tree: GraphTree) -> list[StoredConstant]:
        """The weights that may be merged, in the same order for each clone of the model."""
        least = max(self.min_bytes, equal.WORTH_LIFTING)
        return [
            holder
            for holder in stored_constants(tree, self.is_excluded)
            if holder.keep_reason is None
            and holder.tensor.nbytes >= least
            and holder.tensor.dtype in constants.FLOATS
            and not isinstance(holder.tensor, SparseTensor)
        ]

    def _merge(self, model: ir.Model, groups: Sequence[NearGroup], sites: Sites) -> int:
        tree = GraphTree.of(model)
        holders, merged = self._holders(tree), 0
        for group in groups:
            members = [holders[number] for number in group.members]
            plan = equal.plan_merge(members, tree)
            if not isinstance(plan, equal.Merge) or not sites.permits(self.step.name, members[0].name):
                continue
            is_node = model.ir_version < 4 or tree.root(members[0].graph) in tree.functions
            constants.set_array(equal.merge(plan, tree, as_node=is_node).value, group.shared)
            merged += len(members) - 1
        return merged


def near_groups(
    tensors: Sequence[ir.TensorProtocol], uses: Sequence[int], tolerance: float, seed: int
) -> Iterator[NearGroup]:
    """Disjoint groups of at least two of ``tensors``: around each in turn, those near it that are in no group yet.

    Args:
        tensors: Of one float type and one shape.
        uses: How many readers each has.
        tolerance: The relative L2 distance that a member may have to the shared value.
        seed: Of the sketches.
    """
    if len(tensors) < 2:
        return
    sketches = _sketches(tensors, seed)
    norms = np.linalg.norm(sketches, axis=1)
    is_free = np.isfinite(norms) & (norms > 0)
    for first in range(len(tensors)):
        if not is_free[first]:
            continue
        is_free[first] = False
        # Two members are at most twice the tolerance apart; the norm of what they share is unknown, but not far away
        reach = 2 * tolerance * _DOUBT * norms[first] / max(1 - tolerance, 0.1)
        others = np.flatnonzero(is_free & (np.abs(norms - norms[first]) <= reach))
        near = others[np.linalg.norm(sketches[others] - sketches[first], axis=1) <= reach].tolist()
        rough = _around_mean([first, *near], sketches.__getitem__, uses, tolerance * _DOUBT)
        if rough is None:
            continue
        group = _around_mean(rough.members, lambda member: tensors[member].numpy(), uses, tolerance)
        if group is not None:
            is_free[list(group.members)] = False
            yield group


def _sketches(tensors: Sequence[ir.TensorProtocol], seed: int) -> NDArray[np.float64]:
    """A sketch of each of ``tensors``: (tensors, buckets)."""
    sketches = np.zeros((len(tensors), _BUCKETS))
    arrays = [tensor.numpy().reshape(-1) for tensor in tensors]
    random = np.random.default_rng(seed)
    for start in range(0, arrays[0].size, _CHUNK):
        chunks = [array[start : start + _CHUNK] for array in arrays]
        drawn = random.integers(
            0, 2 * _BUCKETS, chunks[0].size, np.uint16
        )  # the bucket, and the sign as the upper half
        for number, chunk in enumerate(chunks):
            sums = np.bincount(drawn, chunk.astype(np.float64), 2 * _BUCKETS)
            sketches[number] += sums[:_BUCKETS] - sums[_BUCKETS:]
    return sketches


def _around_mean(
    members: Sequence[int], array_of: Callable[[int], NDArray[np.floating]], uses: Sequence[int], tolerance: float
) -> NearGroup | None:
    """Those of ``members`` within ``tolerance`` of their mean, the farthest going first; ``None`` if one is left."""
    members = sorted(members)
    while len(members) > 1:
        total = np.zeros_like(array_of(members[0]), np.float64)
        for member in members:
            total += uses[member] * array_of(member).astype(np.float64)
        shared = (total / sum(uses[member] for member in members)).astype(array_of(members[0]).dtype)
        norm = float(np.linalg.norm(shared.astype(np.float64)))
        distances = [float(np.linalg.norm(array_of(member).astype(np.float64) - shared)) for member in members]
        worst = int(np.argmax(distances))
        if np.isfinite(norm) and distances[worst] <= tolerance * norm:
            return NearGroup(tuple(members), shared, distances[worst] / norm)
        del members[worst]
    return None
