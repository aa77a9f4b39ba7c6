"""Prunes the weights of a model as far as the budget goes, and repairs what it breaks.

Each kernel's weight is pruned alone, and what stays of it fitted to the inputs that it has in the model as it was
(``optimizer.algorithms.sparsity.pruner``): one sweep over the calibration feeds. The full sparsity and lower ones are
the levels of ``optimizer.algorithms.search.levels``; past the last, weights stay as they are. Kernels are told apart by
the squared error for a weight. At the end all kernels are fitted once more, one after the other, to what the model as
it was answers, on what they read now (``optimizer.algorithms.reconstruction.sequential``), and that is kept where the
error is smaller.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.reconstruction.sequential import refit_all
from optimizer.algorithms.search.levels import Levels, Measured, Point, within_budget
from optimizer.algorithms.sparsity.pruner import Pruned, Pruner, put
from optimizer.contract.choices import Choices
from optimizer.contract.memo import MemoKey
from optimizer.contract.options import Count
from optimizer.contract.passes import Note, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.graph import queries
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx_ir as ir

    from optimizer.algorithms.sparsity.pruner import SparsityPlan
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context

STEP = Step("prune-magnitude", "some weights of a kernel become 0")


@dataclass(frozen=True)
class PruneChoices(Choices):
    """What was decided.

    Attributes:
        level: The number of the share of what is asked for, of those that are tried.
        less: Names of weights that are pruned by the next share, or stay.
        pruned: Names of all that are pruned.
        refitted: Whether they are fitted once more, one after the other.
    """

    level: Count
    less: tuple[str, ...]
    pruned: tuple[str, ...]
    refitted: bool = False


@dataclass(frozen=True)
class PruneResult(PassResult):
    """What was done."""

    choices: PruneChoices | None = None


@dataclass
class _PruningMemory:
    """What was found out of one model, for the next try with another aim.

    Attributes:
        pruned: By level, weights by name.
        measured: What candidates use of the budget.
    """

    pruned: dict[int, dict[str, Pruned]] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)


@dataclass(frozen=True)
class _SparsityMemoryOf(MemoKey[_PruningMemory]):
    """What was found out for a plan."""

    plan: SparsityPlan


@dataclass
class PruneSearch:
    """One run.

    Attributes:
        model: The model; not changed but for shapes of views of weights.
        context: Of the pass.
        plan: What to prune.
    """

    model: ir.Model
    context: Context
    plan: SparsityPlan

    def run(self) -> PruneResult:
        """The pruned model; as an earlier run decided, or as measured."""
        evaluator, replayed = self.context.evaluator, self.context.replayed(PruneChoices)
        memory = self._memory(evaluator)
        levels = Levels(
            partial(self._built, memory), self._sizes, whole=len(self.plan.parts), finish=self._finish(evaluator)
        )
        repeated = Point(replayed.level, frozenset(replayed.less)) if replayed is not None else None
        result = within_budget(levels, self.context, memory.measured, repeated)
        is_refitted = replayed is not None and replayed.refitted
        return self._refitted(result, evaluator) if is_refitted and evaluator is not None else result

    def _finish(self, evaluator: Evaluator | None) -> Callable[[PruneResult], PruneResult] | None:
        """Fits a candidate once more where that has a smaller error; ``None`` where nothing is fitted."""
        if evaluator is None or not (self.plan.repair and evaluator.has_data):
            return None

        def better(result: PruneResult) -> PruneResult:
            if not result.changes:
                return result
            again = self._refitted(result, evaluator)
            return again if evaluator.budget_used(again.model) < evaluator.budget_used(result.model) else result

        return better

    def _refitted(self, result: PruneResult, evaluator: Evaluator) -> PruneResult:
        if result.choices is None:
            return result
        model = clone(result.model)
        touched = frozenset(result.choices.pruned)
        found = [weight for weight in self.plan.weights(model) if weight.name in touched]
        done = refit_all(model, self.model, found, evaluator, trusts_names=True)
        choices = replace(result.choices, refitted=True)
        changes = {**result.changes, "kernels fitted to their answers": len(done.weights)}
        changes = {kind: count for kind, count in changes.items() if count}
        return replace(result, model=model, changes=changes, choices=choices)

    def _built(self, memory: _PruningMemory, context: Context, point: Point) -> PruneResult:
        """A clone pruned at a level, but for the finer weights, which are at the next or stay."""
        context.progress.begin(f"all kernels, {self.plan.parts[point.level]:.0%} of what is asked for")
        model, left, changes = clone(self.model), SkippedNodes(), Counter[str]()
        zeros, touched, sizes = 0, [], 0
        for weight in self.plan.weights(model, left):
            reason = self.plan.magnitudes.pattern.refusal(weight.shape)
            at = point.level + (weight.name in point.finer)
            if reason is None and at >= len(self.plan.parts):
                reason = "stays as it is: the budget has no room for its error"
            if reason is not None:
                left.note(weight.name, reason)
                continue
            pruned = self._at(memory, at).get(weight.name)
            if pruned is None or not context.sites.permits(STEP.name, queries.site(weight.nodes[0])):
                continue
            before = weight.matrix()
            new = int(np.sum((pruned.matrix == 0) & (before != 0)))
            zeros += int(np.sum(before == 0))
            sizes += before.size
            if not new:
                left.note(weight.name, "has as many zeros already")
                continue
            put(model, weight, pruned)
            touched.append(weight.name)
            changes["kernels pruned"] += 1
            changes["weights set to 0"] += new
        notes = [*left.notes(), *_said(zeros, sizes, changes)]
        choices = PruneChoices(point.level, tuple(sorted(point.finer)), tuple(touched)) if changes else None
        return PruneResult(model, dict(changes), notes, choices)

    def _at(self, memory: _PruningMemory, level: int) -> dict[str, Pruned]:
        """All weights pruned at ``level``."""
        if level not in memory.pruned:
            pruner = Pruner(self.model, self.plan, self.context.evaluator)
            memory.pruned[level] = dict(pruner.run(self.plan.parts[level]))
        return memory.pruned[level]

    def _sizes(self) -> dict[str, float]:
        """How many elements the weights have, by name."""
        return {weight.name: float(weight.constant.tensor.size) for weight in self.plan.weights(self.model)}

    def _memory(self, evaluator: Evaluator | None) -> _PruningMemory:
        if evaluator is None:
            return _PruningMemory()
        return evaluator.memo.get(self.model, _SparsityMemoryOf(self.plan), _PruningMemory)


def _said(zeros: int, sizes: int, changes: Mapping[str, int]) -> Iterator[Note]:
    """What the report is to say of pruned weights."""
    if not changes:
        return
    now = zeros + changes["weights set to 0"]
    yield Note(
        "zeros",
        f"{now / max(sizes, 1):.1%} of {sizes:,} weights of kernels, {zeros / max(sizes, 1):.1%} before",
        skipped=False,
    )
    slow = "ONNX Runtime computes with zeros as with any number: it will not run this model faster"
    yield Note("speed", slow, skipped=False)
