"""Prunes the weights of a model as far as the budget goes, and repairs what it breaks.

Each kernel's weight is pruned alone, and what stays of it fitted to the inputs that it has in the model as it was
(``optimizer.algorithms.sparsity.pruner``): one sweep over the calibration feeds. All kernels are tried at the full
sparsity, then at lower ones, until one holds the aim; between it and the one before,
``optimizer.algorithms.search.budgeted`` chooses kernel by kernel, by the squared error for a weight. At the end all
kernels are fitted once more, one after the other, to what the model as it was answers, on what they read now
(``optimizer.algorithms.reconstruction.sequential``), and that is kept where the error is smaller.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.reconstruction.sequential import refit_all
from optimizer.algorithms.search.budgeted import Search, grouped
from optimizer.algorithms.sparsity.pruner import Pruned, Pruner, put
from optimizer.contract.memo import MemoKey
from optimizer.contract.passes import Note, PassResult, Step
from optimizer.contract.progress import Progress
from optimizer.contract.skipped import SkippedNodes
from optimizer.graph import queries
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from optimizer.algorithms.sparsity.pruner import SparsityPlan
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context

STEP = Step("prune-magnitude", "some weights of a kernel become 0")
_NEARLY = 2.0  # times the allowance: what fitting once more may still bring under it


@dataclass
class _PruningMemory:
    """What was found out of one model, for the next try with another aim.

    Attributes:
        pruned: By part, weights by name.
        shares: Of the budget, for each part with the names of what is pruned so far, the others as in the next part.
        errors: Of single weights, by part.
    """

    pruned: dict[float, dict[str, Pruned]] = field(default_factory=dict)
    shares: dict[float, dict[frozenset[str], float]] = field(default_factory=dict)
    errors: dict[float, dict[str, float]] = field(default_factory=dict)


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

    def run(self) -> PassResult:
        """The pruned model; by ``context.choices``, or as measured."""
        evaluator, choices = self.context.evaluator, self.context.choices
        memory = self._memory(evaluator)
        if choices:
            result = self._built(memory, choices.get("level", 0), frozenset(choices.get("less", ())))
            return self._refitted(result, evaluator) if choices.get("refitted") and evaluator is not None else result
        if evaluator is None:
            return self._built(memory, 0, frozenset())
        for level, part in enumerate(self.plan.parts):
            self.context.progress.begin(f"all kernels, {part:.0%} of what is asked for")
            result = self._built(memory, level, frozenset())
            share = memory.shares.setdefault(part, {})[self._names()] = evaluator.budget_used(result.model)
            if not result.changes:
                return result
            if share <= self.context.budget_limit:
                return self._better(result, evaluator) if level == 0 else self._mixed(memory, level - 1, evaluator)
            if share <= _NEARLY * self.context.budget_limit:
                better = self._better(result, evaluator)
                if evaluator.budget_used(better.model) <= self.context.budget_limit:
                    return better
        return self._mixed(memory, len(self.plan.parts) - 1, evaluator)

    def _mixed(self, memory: _PruningMemory, level: int, evaluator: Evaluator) -> PassResult:
        """As many weights at this level as hold the aim, the others at the next, or as they are."""
        part, names = self.plan.parts[level], self._names()
        silent = replace(self, context=replace(self.context, progress=Progress()))  # to build is a part of the search
        sizes = {weight.name: float(weight.constant.tensor.size) for weight in self.plan.weights(self.model)}

        def build(pruned: frozenset[str]) -> PassResult:
            return silent._built(memory, level, names - pruned)  # noqa: SLF001 - itself

        search = Search(
            lambda pruned: build(pruned).model,
            evaluator,
            self.context.budget_limit,
            self.context.progress,
            memory.errors.setdefault(part, {}),
            memory.shares.setdefault(part, {}),
        )
        return self._better(build(search.run(grouped(list(sizes), sizes))), evaluator)

    def _better(self, result: PassResult, evaluator: Evaluator) -> PassResult:
        """``result`` fitted once more where that has a smaller error."""
        if not (self.plan.repair and evaluator.has_data and result.changes):
            return result
        again = self._refitted(result, evaluator)
        return again if evaluator.budget_used(again.model) < evaluator.budget_used(result.model) else result

    def _refitted(self, result: PassResult, evaluator: Evaluator) -> PassResult:
        model = clone(result.model)
        touched = frozenset(result.choices.get("pruned", ()))
        found = [weight for weight in self.plan.weights(model) if weight.name in touched]
        done = refit_all(model, self.model, found, evaluator, trusts_names=True)
        choices = {**result.choices, "refitted": True}
        changes = {**result.changes, "kernels fitted to their answers": len(done.weights)}
        changes = {kind: count for kind, count in changes.items() if count}
        return replace(result, model=model, changes=changes, choices=choices)

    def _built(self, memory: _PruningMemory, level: int, less: frozenset[str]) -> PassResult:
        """A copy pruned at ``level``, but for the weights ``less``, which are at the next or stay."""
        model, left, changes = clone(self.model), SkippedNodes(), Counter[str]()
        zeros, touched, sizes = 0, [], 0
        for weight in self.plan.weights(model, left):
            reason = self.plan.magnitudes.pattern.refusal(weight.shape)
            at = level + (weight.name in less)
            if reason is None and at >= len(self.plan.parts):
                reason = "stays as it is: the budget has no room for its error"
            if reason is not None:
                left.note(weight.name, reason)
                continue
            made = self._at(memory, at).get(weight.name)
            if made is None or not self.context.sites.permits(STEP.name, queries.site(weight.nodes[0])):
                continue
            before = weight.matrix()
            new = int(np.sum((made.matrix == 0) & (before != 0)))
            zeros += int(np.sum(before == 0))
            sizes += before.size
            if not new:
                left.note(weight.name, "has as many zeros already")
                continue
            put(model, weight, made)
            touched.append(weight.name)
            changes["kernels pruned"] += 1
            changes["weights set to 0"] += new
        notes = [*left.notes(), *_said(zeros, sizes, changes)]
        choices = {"level": level, "less": sorted(less), "pruned": touched} if changes else {}
        return PassResult(model, dict(changes), notes, choices)

    def _at(self, memory: _PruningMemory, level: int) -> dict[str, Pruned]:
        """All weights pruned at ``level``."""
        part = self.plan.parts[level]
        if part not in memory.pruned:
            memory.pruned[part] = dict(Pruner(self.model, self.plan, self.context.evaluator).run(part))
        return memory.pruned[part]

    def _names(self) -> frozenset[str]:
        return frozenset(weight.name for weight in self.plan.weights(self.model))

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
