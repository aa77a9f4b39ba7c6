"""`refit-weights`: what is free in kernels that were changed is fitted so that layers answer as the reference's do.

For what follows a pass that has no repair of its own, in one stage with it: zeros made elsewhere, codebooks, merged
weights. A kernel is matched with the value of the reference that has its output's name; where that differs, or is too
far off to be the same, it is left alone. Free are

    a float constant      its elements that are not 0, and the bias
    one read twice        the biases
    a codebook            its entries that are not 0, and the bias

A weight that is dequantized stays as it is. From the first kernel to the last, each on what it reads in the changed
model (``optimizer.algorithms.reconstruction.sequential``). All of it is undone unless the error on the selection feeds
is smaller.

Measured (``benchmarks/refit_corpus.py``), relative L2 without and with it: half of the weights 0 and no other repair,
0.191 to 0.021 (a digit CNN) and 0.118 to 0.044 (YOLOv8n); codebooks of 16 values, 0.020 to 0.015 and 0.030 to 0.029.
Behind `insert-qdq` it has nothing to do: that rounds by the same second moments and corrects biases itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from optimizer.algorithms.reconstruction.codebook_entries import codebook
from optimizer.algorithms.reconstruction.kernel_matrices import Prunable, prunable
from optimizer.algorithms.reconstruction.sequential import refit_all
from optimizer.contract.choices import Choices
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.passes import Gain, Note, Pass, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.errors import PreconditionError
from optimizer.graph import constants, queries
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.reconstruction.codebook_entries import Codebook
    from optimizer.contract.passes import Context

STEP = Step("refit-weights", "the weight of a changed kernel is fitted to the reference's answer")


@dataclass(frozen=True)
class RefitChoices(Choices):
    """Whether fitting made the error smaller."""

    fitted: bool


@dataclass(frozen=True)
class RefitWeights(NodeFilterOptions, Pass):
    """Fit changed kernels to the reference.

    Attributes:
        everything: Whether kernels whose weight is the reference's are fitted too, to make up for others before them.
    """

    name: ClassVar[str] = "refit-weights"
    summary: ClassVar[str] = "kernels that were changed fitted so that their answers are the reference's again"
    gain: ClassVar[Gain] = Gain.ACCURACY
    choices_type: ClassVar[type[RefitChoices]] = RefitChoices

    everything: bool = False

    @property
    def exact(self) -> bool:
        """It changes weights."""
        return False

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by weight."""
        return (STEP,)

    def requires(self, model: ir.Model, context: Context) -> None:
        """Data and a runtime.

        Raises:
            PreconditionError: If one is missing.
        """
        super().requires(model, context)
        if context.evaluator is None:
            raise PreconditionError("fitting needs runs; leave out --no-run")
        if not context.evaluator.has_data:
            raise PreconditionError("fitting needs real inputs; give --data, or --allow-generated-data to make some up")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Fit the kernels of ``model``."""
        evaluator, left, fitted = context.evaluator, SkippedNodes(), clone(model)
        if evaluator is None:
            return PassResult(model, {})
        known = {value.name for node in context.reference.graph for value in node.outputs}
        found = []
        for weight in prunable(fitted, self.node_filter, left, guard=False):
            reason = self._reason(weight, fitted, context.reference, known)
            if reason is not None:
                left.note(weight.name, reason)
            elif context.sites.permits(STEP.name, queries.site(weight.nodes[0])):
                found.append(weight)
        books = list(self._codebooks(fitted, context, known, left))
        if not found and not books:
            return PassResult(model, {}, left.notes())
        done = refit_all(fitted, context.reference, found, evaluator, codebooks=books)
        for name in done.strange:
            left.note(name, "answers too far off what the reference calls so to be the same")
        before, after = evaluator.budget_used(model), evaluator.budget_used(fitted)
        if not after < before and context.choices is None:
            left.note("all kernels", f"stay: fitted, they use {after:.1%} of the budget, as they are {before:.1%}")
            return PassResult(model, {}, left.notes())
        changes = {
            "weights fitted": len(done.weights),
            "codebooks fitted": len(done.codebooks),
            "biases corrected": len(done.biases),
        }
        notes = [*left.notes(), Note("the budget", f"{after:.1%} of it is used, {before:.1%} before", skipped=False)]
        changes = {kind: count for kind, count in changes.items() if count}
        return PassResult(fitted, changes, notes, RefitChoices(fitted=True))

    def _codebooks(
        self, model: ir.Model, context: Context, known: set[str | None], left: SkippedNodes
    ) -> Iterator[Codebook]:
        choice, opset = self.node_filter, queries.opset_version(model)
        for node in model.graph:
            found = codebook(node, opset)
            if found is None:
                continue
            left.forget(node)
            if not choice.matches(node, found.value.name):
                left.note(node, "is left out by include= or exclude=")
            elif found.name not in known:
                left.note(node, "gives a value that the reference has under no such name")
            elif context.sites.permits(STEP.name, queries.site(node)):
                yield found

    def _reason(self, weight: Prunable, model: ir.Model, reference: ir.Model, known: set[str | None]) -> str | None:
        names = weight.measured(model)
        if not names:
            return "has inputs whose second moments are not known"
        if not known.issuperset(names):
            return "gives a value that the reference has under no such name"
        return None if self.everything or _differs(weight, reference) else "is the reference's"


def _differs(weight: Prunable, reference: ir.Model) -> bool:
    value = reference.graph.initializers.get(weight.name)
    tensor = constants.constant_tensor(value)
    if tensor is None or tuple(tensor.shape.numpy()) != weight.constant.shape:
        return True
    return not np.array_equal(tensor.numpy(), weight.constant.tensor.numpy())
