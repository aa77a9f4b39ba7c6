"""Sibling kernels on one input become one wider kernel and a Split, where that measures faster.

Query, key and value projections, the branches of an inception block, the real and imaginary part of a filter bank: see
``optimizer.algorithms.horizontal_fusion.siblings`` for what siblings are, and ``widening`` for what becomes of them.
One product of matrices with more columns uses caches and threads better than several, but the Split copies what was in
its place before: only a measurement can tell, so the stage is undone unless the model is faster. The file never grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.horizontal_fusion.siblings import families, parts
from optimizer.algorithms.horizontal_fusion.widening import plan
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.analysis.annotation import annotated
from optimizer.contract.node_filter import NodeFilter
from optimizer.contract.passes import Gain, Pass, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.errors import PreconditionError
from optimizer.graph import queries, traversal
from optimizer.io.protos.preserved import TRAINING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.algorithms.horizontal_fusion.siblings import Family
    from optimizer.contract.passes import Context

STEP = Step("merge-siblings", "kernels that read one value alike become a wider one and a Split")
MERGED = "sibling kernels merged"
_MAX_ROUNDS = 8
_OLDEST = 7  # before, Gemm and Add broadcast only where an attribute says so


@dataclass(frozen=True)
class MergeSiblings(Pass):
    """Merge sibling Conv, MatMul and Gemm nodes, anywhere in the model.

    Attributes:
        include: Touch only these kernels: globs of names of nodes, outputs or weights, or ``op:Conv``.
        exclude: Leave these kernels alone.
    """

    name: ClassVar[str] = "merge-siblings"
    summary: ClassVar[str] = "Conv, MatMul and Gemm on one input become a wider one and a Split, where that is faster"
    gain: ClassVar[Gain] = Gain.LATENCY
    must_pay: ClassVar[bool] = True

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        NodeFilter(self.include, self.exclude)

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by place."""
        return (STEP,)

    def requires(self, model: ir.Model, context: Context) -> None:  # noqa: ARG002 - the contract of a pass
        """Refuse what cannot be kept whole.

        Raises:
            PreconditionError: If the model has a training part, or is of an opset before 7.
        """
        if TRAINING in model.graph.meta:
            raise PreconditionError("the model has a training part, whose references to values would break")
        version = queries.opset_version(model)
        if version < _OLDEST:
            raise PreconditionError(f"needs opset {_OLDEST}, the model has {version}: run upgrade-opset first")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Merge the siblings of ``model``."""
        choice, merged = NodeFilter(self.include, self.exclude), 0
        with annotated(model) as values:
            rewriter = Rewriter(model, context.sites, values)
            for _ in range(_MAX_ROUNDS):  # a constant may have one reader less now
                left = SkippedNodes()
                left.unmatched(choice.unmatched(model))
                found = [each for inner in traversal.graphs(model) for each in families(inner, choice, left)]
                count = sum(_merge(family, rewriter, left) for family in found)
                merged += count
                if not count:
                    break
        return PassResult(model, {MERGED: merged} if merged else {}, left.notes())


def _merge(whole: Family, rewriter: Rewriter, left: SkippedNodes) -> int:
    """Widen ``whole``, or parts of it if it would grow the file; returns how many kernels became part of others."""
    merged, is_smaller = 0, False
    for family in parts(whole):
        widening = plan(family, rewriter)
        is_smaller |= widening.grows <= 0
        if widening.grows > 0 or not rewriter.sites.permits(STEP.name, queries.site(family[0][0].item.node)):
            widening.abandon()
            continue
        widening.put(rewriter)
        merged += sum(map(len, family))
        if family is whole:
            break
    if not is_smaller:
        left.note(whole[0][0].item.node, "and its siblings would make the file larger, merged")
    return merged
