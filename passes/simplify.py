"""`simplify`: the same outputs from fewer nodes; the file never grows.

Rounds of shape inference, one sweep of all rules, merging of equal nodes and removal of what is unused, until a round
changes nothing. Inferred shapes are only looked at, they never get into the model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.rewriting.common_subexpressions import merge_equal
from optimizer.algorithms.rewriting.dead_code import remove_dead
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.algorithms.rewriting.rules import Rule, sweep
from optimizer.analysis.annotation import annotated
from optimizer.contract.passes import Context, Gain, Pass, PassResult, Step
from optimizer.graph import traversal
from passes.rules import (
    constant_targets,
    drop_identities,
    drop_zero_bias,
    fold_constants,
    fuse_affine,
    fuse_affine_before,
    fuse_clip,
    fuse_constants,
    fuse_gemm,
    fuse_hard_sigmoid,
    fuse_pad,
    fuse_reciprocal,
    fuse_reduce,
    fuse_slice_squeeze,
    fuse_views,
    inline_if,
    lift_constants,
    merge_casts,
    merge_concats,
    merge_reshapes,
    merge_slices,
    merge_transposes,
    reshape_views,
    reuse_shapes,
    slice_shapes,
    transposes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Sites

MAX_ROUNDS = 12
MERGE_EQUAL = Step("merge-equal-nodes", "nodes that compute the same from the same are one")
REMOVE_UNUSED = Step("remove-unused", "nodes, initializers, functions and imports that no output needs go")
RULES: tuple[Rule, ...] = (
    *lift_constants.RULES,
    *fold_constants.RULES,
    *reuse_shapes.RULES,
    *constant_targets.RULES,
    *reshape_views.RULES,
    *slice_shapes.RULES,
    *inline_if.RULES,
    *drop_identities.RULES,
    *drop_zero_bias.RULES,
    *merge_reshapes.RULES,
    *merge_transposes.RULES,
    *merge_casts.RULES,
    *merge_slices.RULES,
    *merge_concats.RULES,
    *fuse_clip.RULES,
    *fuse_reduce.RULES,
    *fuse_slice_squeeze.RULES,
    *fuse_views.RULES,
    *transposes.RULES,
    *fuse_affine.RULES,
    *fuse_affine_before.RULES,
    *fuse_constants.RULES,
    *fuse_reciprocal.RULES,
    *fuse_hard_sigmoid.RULES,
    *fuse_pad.RULES,
    *fuse_gemm.RULES,
)


@dataclass(frozen=True)
class Simplify(Pass):
    """Fold, drop, merge and fuse until nothing changes."""

    name: ClassVar[str] = "simplify"
    summary: ClassVar[str] = "folds constants and shapes, drops and merges operators, fuses scalings into kernels"
    gain: ClassVar[Gain] = Gain.LATENCY
    keeps_training: ClassVar[bool] = False

    def steps(self) -> Sequence[Step]:
        """Every rule, and what follows a sweep."""
        return (*(rule.step() for rule in RULES), MERGE_EQUAL, REMOVE_UNUSED)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Rewrite ``model`` until nothing changes."""
        changes: Counter[str] = Counter(_sort(model))
        for number in range(MAX_ROUNDS):
            round_changes = _round(model, context.sites)
            changes.update(round_changes)
            context.progress((number + 1) / MAX_ROUNDS)
            if not round_changes.total():
                break
        return PassResult(model, {kind: count for kind, count in changes.items() if count})


def _sort(model: ir.Model) -> Mapping[str, int]:
    """Put the nodes in topological order, which ONNX asks for and the rules count on, if they are not."""
    unsorted = [root for root in traversal.roots(model) if not traversal.is_sorted(root)]
    for root in unsorted:
        root.sort()
    return {"graphs sorted": len(unsorted)}


def _round(model: ir.Model, sites: Sites) -> Counter[str]:
    changes = Counter[str]()
    with annotated(model) as values:
        changes.update(sweep(model, RULES, sites, Rewriter(model, sites, values)))
        if sites.allows_step(MERGE_EQUAL.name):
            changes["equal nodes merged"] += merge_equal(Rewriter(model, sites), MERGE_EQUAL)
    if sites.allows_step(REMOVE_UNUSED.name):
        changes.update(remove_dead(model, REMOVE_UNUSED, sites))
    return changes
