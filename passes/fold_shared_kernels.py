"""Compute and store once what channels say twice, or say without a run.

If output channels 1..n of a layer are equal, one is computed and the next layer's weights for them are summed:
``W_shared = W_1 + W_2 + ... + W_n``. Parallel channels count with their factor, constant ones move into the bias, and
those that no kernel reads go. How channels depend on each other is in
``optimizer.algorithms.channels.dependency.groups``, what is known of them in
``optimizer.algorithms.channels.redundancy.facts``, and what may go in
``optimizer.algorithms.channels.redundancy.redundant``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.channels import widths
from optimizer.algorithms.channels.redundancy.folding import FoldOptions, fold
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.algorithms.search.levels import Levels, within_budget
from optimizer.analysis import shape_inference
from optimizer.contract.choices import Choices
from optimizer.contract.options import ShareBelowOne
from optimizer.contract.passes import Gain, Note, Pass, PassResult, Step
from optimizer.graph import queries, traversal
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.algorithms.search.levels import Point
    from optimizer.contract.passes import Context

_HALVINGS = 5
_ROUNDS = 10  # what goes in one may leave something unused for the next
_STEPS = (
    Step("dead", "channels that are constant move into the biases of what reads them"),
    Step("shared", "of equal or parallel channels one is computed, and the weights that read them are summed"),
    Step("unused", "channels that are only multiplied by zero go"),
)


@dataclass(frozen=True)
class FoldChoices(Choices):
    """The tolerance that held the aim."""

    tolerance: ShareBelowOne


@dataclass(frozen=True)
class FoldSharedKernels(Pass):
    """Remove channels that are constant, equal or parallel to others, or that no kernel reads.

    Attributes:
        multiple: Widths stay multiples of it, so that no kernel gets slower; ``auto`` is what the target's kernels
            like, 1 removes all that can go.
        tolerance: How far the kernels of two channels may be apart, both of length 1, and still be called parallel, and
            how short one may be beside the median and still be called zero; above 0 the pass is lossy.
    """

    name: ClassVar[str] = "fold-shared-kernels"
    summary: ClassVar[str] = "remove constant, equal, parallel and unused channels, and sum the weights that read them"
    gain: ClassVar[Gain] = Gain.LATENCY
    choices_type: ClassVar[type[FoldChoices]] = FoldChoices

    multiple: widths.Multiple = "auto"
    tolerance: ShareBelowOne = 0.0

    @property
    def exact(self) -> bool:
        """Whether only channels go that are the same up to rounding."""
        return self.tolerance == 0

    def steps(self) -> Sequence[Step]:
        """The three kinds of channels that go."""
        return _STEPS

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Fold the channels of ``model``, in subgraphs too.

        With a tolerance, the largest one of it, a half, a quarter ... that stays within the allowance.
        """
        replayed = context.replayed(FoldChoices)
        if replayed is not None or not self.tolerance:
            return self._folded(model, context, replayed.tolerance if replayed is not None else 0.0)

        def build(context: Context, point: Point) -> PassResult:
            tolerance = self.tolerance / 2**point.level if point.level < _HALVINGS else 0.0
            context.progress.begin(f"tolerance={tolerance:.3g}")
            return self._folded(model, context, tolerance)

        return within_budget(Levels(build, dict, whole=_HALVINGS, mixes=False), context)

    def _folded(self, model: ir.Model, context: Context, tolerance: float) -> PassResult:
        work = clone(model)  # shapes are inferred in it: where nothing goes, the model is given back without them
        wish = FoldOptions(widths.resolve(self.multiple), tolerance)
        changes, notes = Counter[str](), list[Note]()
        for number in range(_ROUNDS):
            context.progress(number / _ROUNDS)
            shape_inference.infer(work)
            rewriter = Rewriter(work, context.sites)
            made = Counter[str]()
            notes = []
            for part in traversal.with_subgraphs(work.graph):
                folded = fold(part, queries.opset_version(work), wish, rewriter)
                made.update(folded.changes)
                notes += folded.notes
            if not made:
                break
            changes.update(made)
        if not changes:
            return PassResult(model, {}, notes)
        choices = FoldChoices(tolerance) if self.tolerance else None
        return PassResult(work, {f"{kind} channels removed": n for kind, n in sorted(changes.items())}, notes, choices)
