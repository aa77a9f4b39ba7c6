"""Siamese branches become one branch on a batch: Concat, the nodes once, Split, where that measures faster.

See ``optimizer.algorithms.horizontal_fusion.branches`` for what branches are, and ``batching`` for what becomes of
them. Weights have to be shared already: ``dedup-initializers`` does that. The batch makes better use of caches and
threads where single inputs are small, and none where they are large: only a measurement can tell, so the stage is
undone unless the model is faster. The file never grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.horizontal_fusion.batching import plan
from optimizer.algorithms.horizontal_fusion.branches import grow, seeds, side_by_side
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.analysis.annotation import annotated
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.passes import Gain, Pass, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.graph import queries, traversal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Context

STEP = Step("batch-branches", "the same nodes on several inputs become one chain on a batch")
BATCHED = "branches batched"


@dataclass(frozen=True)
class BatchBranches(NodeFilterOptions, Pass):
    """Batch the branches of siamese nets, anywhere in the model; a filter of nodes is asked for their first kernels."""

    name: ClassVar[str] = "batch-branches"
    summary: ClassVar[str] = "the same kernels on several inputs run once on a batch of them, where that is faster"
    gain: ClassVar[Gain] = Gain.LATENCY
    must_pay: ClassVar[bool] = True
    keeps_training: ClassVar[bool] = False
    oldest_opset: ClassVar[int] = 7  # before, Gemm and Add broadcast only where an attribute says so

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by place."""
        return (STEP,)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Batch the branches of ``model``."""
        left, choice, batched = SkippedNodes(), self.node_filter, 0
        left.unmatched(choice.unmatched(model))
        were_sorted = [root for root in traversal.roots(model) if traversal.is_sorted(root)]
        with annotated(model) as values:
            rewriter = Rewriter(model, context.sites, values)
            for inner in list(traversal.graphs(model)):
                for kernels in seeds(inner):
                    chosen = [node for node in kernels if choice.matches(node)]
                    batched += _batch_all(chosen, inner, rewriter, left)
        for root in were_sorted if batched else ():
            if not traversal.is_sorted(root):
                root.sort()
        return PassResult(model, {BATCHED: batched} if batched else {}, left.notes())


def _batch_all(kernels: list[ir.Node], inner: ir.Graph, rewriter: Rewriter, left: SkippedNodes) -> int:
    """Batch those branches that begin with ``kernels`` and do not need each other; returns how many became one."""
    alive, batched = [node for node in kernels if node.graph is inner], 0
    for group in side_by_side(alive, inner) if len(alive) > 1 else ():
        if all(node.graph is inner for node in group):  # none went into branches that began earlier
            batched += _batch(group, rewriter, left)
    return batched


def _batch(kernels: list[ir.Node], rewriter: Rewriter, left: SkippedNodes) -> int:
    branches = grow(kernels, rewriter.opset(kernels[0]))
    if not any(kernels[0] in step for step in branches.steps):
        left.note(kernels[0], "and its like do more than act on each element of a batch alone")
        return 0
    batching = plan(branches, rewriter)
    if isinstance(batching, str):
        left.note(kernels[0], batching)
        return 0
    if batching.grows > 0:
        left.note(kernels[0], "and its like would make the file larger, batched")
    elif rewriter.sites.permits(STEP.name, queries.site(kernels[0])):
        batching.put(rewriter)
        return len(kernels)
    batching.abandon()
    return 0
