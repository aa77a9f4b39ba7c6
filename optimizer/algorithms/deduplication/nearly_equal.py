"""How several nearly equal weights of a model become one.

What nearly equal is, ``optimizer.algorithms.deduplication.near_groups`` says. Where errors may be measured, as many
groups are merged as the budget allows, the nearest first, found by halving::

    count = max { c : share(model with the c nearest groups merged) <= allowance }
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optimizer.algorithms.deduplication import equal
from optimizer.algorithms.deduplication.near_groups import near_groups
from optimizer.algorithms.rewriting.stored_constants import StoredConstant, stored_constants
from optimizer.graph import constants, queries
from optimizer.graph.graph_tree import GraphTree
from optimizer.graph.sparse import SparseTensor
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.deduplication.near_groups import Near
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context, Sites, Step


@dataclass(frozen=True)
class Merger:
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
        groups = self._groups(model, context.seed)
        count = len(groups)
        if context.choices is not None:
            count = int(context.choices.get("near", 0))
        elif context.evaluator is not None:
            count = self._most(model, groups, context, context.evaluator)
        return self._merge(model, groups[:count], context.sites), count

    def _groups(self, model: ir.Model, seed: int) -> list[Near]:
        tree = GraphTree.of(model)
        found = self._holders(tree)
        by_root: dict[Hashable, list[int]] = {}
        for number, holder in enumerate(found):
            by_root.setdefault(tree.root(holder.graph), []).append(number)
        groups: list[Near] = []
        for numbers in by_root.values():
            tensors = [found[number].tensor for number in numbers]
            uses = [max(queries.use_count(found[number].value), 1) for number in numbers]
            near = near_groups(tensors, uses, self.tolerance, seed)
            groups += [replace(one, members=tuple(numbers[member] for member in one.members)) for one in near]
        return sorted(groups, key=lambda one: (one.distance, one.members))

    def _holders(self, tree: GraphTree) -> list[StoredConstant]:
        """The weights that may be merged, in the same order for each clone of the model."""
        return [holder for holder in stored_constants(tree, self.is_excluded) if self._may_merge(holder)]

    def _may_merge(self, holder: StoredConstant) -> bool:
        tensor = holder.tensor
        is_large = tensor.nbytes >= max(self.min_bytes, equal.WORTH_LIFTING)
        return (
            holder.keep_reason is None
            and is_large
            and tensor.dtype in constants.FLOATS
            and not isinstance(tensor, SparseTensor)
        )

    def _most(self, model: ir.Model, groups: Sequence[Near], context: Context, evaluator: Evaluator) -> int:
        low, high = 0, len(groups)
        while low < high:
            count = (low + high + 1) // 2
            candidate = clone(model)
            self._merge(candidate, groups[:count], replace(context.sites, permitted={}))
            low, high = (count, high) if evaluator.budget_used(candidate) <= context.budget_limit else (low, count - 1)
        return low

    def _merge(self, model: ir.Model, groups: Sequence[Near], sites: Sites) -> int:
        tree = GraphTree.of(model)
        found, merged = self._holders(tree), 0
        for near in groups:
            part = [found[number] for number in near.members]
            plan = equal.plan_merge(part, tree)
            if not isinstance(plan, equal.Merge) or not sites.permits(self.step.name, part[0].name):
                continue
            is_node = model.ir_version < 4 or tree.root(part[0].graph) in tree.functions
            kept = equal.merge(plan, tree, as_node=is_node)
            constants.set_array(kept.value, near.shared)
            merged += len(part) - 1
        return merged
