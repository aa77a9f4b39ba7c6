"""Keep one of equal weights: equal bytes, equal but for the shape, equal but for the order of axes.

Weights are equal by content, whatever their size and wherever they are: initializers and Constant nodes of the main
graph, of all subgraphs, and within one function. Equal tensors of one shape become one initializer that all readers
see; only those of less than 64 bytes do not leave the graph they are in. Large ones of other shapes, or transposed, are
made from the one that is kept by a Reshape or a Transpose, which ONNX Runtime folds when it loads the model. The file
never grows.

With a ``tolerance``, which makes it lossy, nearly equal float weights of one shape become one as well, their mean.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

from optimizer.algorithms.deduplication import derived, equal
from optimizer.algorithms.deduplication.nearly_equal import NearChoices, NearMerger
from optimizer.algorithms.deduplication.transposed import find_transposed
from optimizer.algorithms.rewriting.stored_constants import groups_of_equals, stored_constants
from optimizer.contract.node_filter import NodePattern
from optimizer.contract.options import Count, ShareBelowOne
from optimizer.contract.passes import Gain, Note, Pass, PassResult, Sites, Step
from optimizer.graph import queries
from optimizer.graph.graph_tree import GraphTree
from optimizer.graph.names import first_few
from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.rewriting.stored_constants import StoredConstant
    from optimizer.contract.passes import Context

EQUAL = Step("equal", "weights of equal content and shape become one")
RESHAPED = Step("reshaped", "large weights of equal content and another shape are made by a Reshape")
TRANSPOSED = Step("transposed", "large weights that are another one transposed are made by a Transpose")
NEAR = Step("near", "float weights of one shape within the tolerance of their mean become that")

MERGES = "initializers merged"
RESHAPES = "initializers made by a Reshape"
TRANSPOSES = "initializers made by a Transpose"
NEARS = "initializers merged that are nearly equal"


@dataclass(frozen=True)
class DedupInitializers(Pass):
    """Keep one of equal weights, anywhere in the model.

    Attributes:
        exclude: Weights to leave alone: name globs, or ``op:Conv`` for those that a Conv reads.
        min_bytes: Leave smaller weights alone.
        reshaped: Also make equal weights of another shape by a Reshape, from 16 KiB.
        transposed: Also make transposed weights by a Transpose, from 16 KiB.
        tolerance: Also merge float weights of one shape whose relative L2 distance to their mean, weighted by how often
            each is read, is at most this; the nearest first, as far as the budget goes. 0: only equal ones.
    """

    name: ClassVar[str] = "dedup-initializers"
    summary: ClassVar[str] = "keep one of equal weights, in all subgraphs, and transposed or reshaped ones too"
    gain: ClassVar[Gain] = Gain.SIZE
    choices_type: ClassVar[type[NearChoices]] = NearChoices

    exclude: tuple[NodePattern, ...] = ()
    min_bytes: Count = 0
    reshaped: bool = True
    transposed: bool = True
    tolerance: ShareBelowOne = 0.0

    @property
    def exact(self) -> bool:
        """Whether only equal weights become one."""
        return not self.tolerance

    def steps(self) -> Sequence[Step]:
        """The kinds of equality."""
        near = (NEAR, bool(self.tolerance))
        wanted = ((EQUAL, True), (RESHAPED, self.reshaped), (TRANSPOSED, self.transposed), near)
        return tuple(step for step, is_wanted in wanted if is_wanted)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Merge equal weights in ``model``, and nearly equal ones if there is a tolerance.

        Raises:
            ModelError: If external data cannot be read.
        """
        work = _Work(model, GraphTree.of(model), context.sites)
        self._merge_equal(work)
        if work.changes[RESHAPES]:  # the shapes that were added may equal others
            self._merge_equal(work)
        if self.transposed:
            work.transpose()
        if not self.tolerance or not context.sites.allows_step(NEAR.name):
            return PassResult(model, dict(work.changes), work.all_notes())
        merged, groups = NearMerger(NEAR, self.tolerance, self.min_bytes, self._is_excluded).run(model, context)
        changes = {**work.changes, **({NEARS: merged} if merged else {})}
        return PassResult(model, changes, work.all_notes(), NearChoices(groups) if merged else None)

    def _merge_equal(self, work: _Work) -> None:
        found = [holder for holder in stored_constants(work.tree, self._is_excluded) if not work.is_sparse(holder)]
        large = [holder for holder in found if not self.min_bytes or holder.tensor.nbytes >= self.min_bytes]
        if len(large) < len(found):
            work.notes[f"smaller than min-bytes={self.min_bytes}"] = {f"{len(found) - len(large)} tensors": None}
        work.alive = {id(holder.value): holder for holder in large}
        for group in groups_of_equals(large, work.tree):
            shapes = [work.merge(part) for part in _parts(group)]
            if self.reshaped:
                work.reshape([holder for holder in shapes if holder is not None])

    def _is_excluded(self, value: ir.Value) -> bool:
        producer = value.producer()
        names = {value.name or "", producer.name or "" if producer is not None else ""}
        readers = {f"op:{usage.node.op_type}" for usage in value.uses()}
        return any(pattern in readers or any(fnmatchcase(name, pattern) for name in names) for pattern in self.exclude)


def _parts(group: Sequence[StoredConstant]) -> list[list[StoredConstant]]:
    """Holders of equal content by shape, and by graph if they are too small to be worth lifting."""
    is_worth_lifting = group[0].tensor.nbytes >= equal.WORTH_LIFTING
    parts: dict[Hashable, list[StoredConstant]] = {}
    for holder in group:
        parts.setdefault((holder.shape, None if is_worth_lifting else holder.graph), []).append(holder)
    return list(parts.values())


@dataclass
class _Work:
    """One run of the pass: the model, what was changed, and what was left alone by reason."""

    model: ir.Model
    tree: GraphTree
    sites: Sites
    alive: dict[int, StoredConstant] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)
    notes: dict[str, dict[str, None]] = field(default_factory=dict)

    def is_sparse(self, holder: StoredConstant) -> bool:
        """Whether ``holder`` holds a sparse tensor, which is small already and takes far more memory to read."""
        if not isinstance(holder.tensor, SparseTensor):
            return False
        self._note(holder.name, "is sparse")
        return True

    def merge(self, part: list[StoredConstant]) -> StoredConstant | None:
        """Make one of equal holders of one shape; returns what stands for them, ``None`` if they stay several."""
        if len(part) == 1:
            return part[0]
        plan = equal.plan_merge(part, self.tree)
        kept = plan.kept if isinstance(plan, equal.Merge) else None
        for holder in part:
            if holder.keep_reason is not None and holder is not kept:
                self._note(holder.name, holder.keep_reason.value)
        if not isinstance(plan, equal.Merge):
            if plan is not None:
                self._note(next(holder.name for holder in part if holder.keep_reason is None), plan)
            return None
        if not self.sites.permits(EQUAL.name, part[0].name):
            return None
        stays = equal.merge(plan, self.tree, as_node=self._holds_only_nodes(plan.goes[0].graph))
        self._replaced(plan.goes, stays)
        self.changes[MERGES] += len(plan.goes) - (plan.kept is None)
        return stays

    def reshape(self, shapes: list[StoredConstant]) -> None:
        """Make holders of equal content and several shapes from one of them."""
        if len(shapes) < 2 or not _is_worth_a_node(shapes[0]) or queries.opset_version(self.model) < 5:
            return
        ranked = _most_needed_first(shapes)
        for index in range(1, len(ranked)):
            if self._may_derive(RESHAPED, ranked[0], ranked[index]):
                ranked[0] = self._as_initializer(ranked[0])
                derived.derive_reshaped(ranked[0], ranked[index], self.tree)
                self._replaced([ranked[index]], None)
                self.changes[RESHAPES] += 1

    def transpose(self) -> None:
        """Make holders that are another one transposed from that one."""
        ranked = _most_needed_first(holder for holder in self.alive.values() if _is_worth_a_node(holder))
        for first, second, axes in find_transposed([holder.tensor for holder in ranked]):
            if self._may_derive(TRANSPOSED, ranked[first], ranked[second]):
                ranked[first] = self._as_initializer(ranked[first])
                derived.derive_transposed(ranked[first], ranked[second], axes, self.tree)
                self._replaced([ranked[second]], None)
                self.changes[TRANSPOSES] += 1

    def all_notes(self) -> tuple[Note, ...]:
        """What was left alone, one note a reason."""
        return tuple(Note(first_few(list(names)), reason) for reason, names in self.notes.items())

    def _may_derive(self, step: Step, kept: StoredConstant, other: StoredConstant) -> bool:
        reason = derived.must_stay(other)
        if reason is None and not derived.is_source(kept, other, self.tree):
            reason = "is in a graph that does not see its equal"
        if reason is None and not kept.is_initializer and self._holds_only_nodes(kept.graph):
            reason = f"has its equal in a Constant node, which IR version {self.model.ir_version} holds to that"
        if reason is not None:
            self._note(other.name, reason)
            return False
        return self.sites.permits(step.name, other.name)

    def _as_initializer(self, holder: StoredConstant) -> StoredConstant:
        if holder.is_initializer:
            return holder
        lifted = equal.lift([holder], self.tree, as_node=False)
        self._replaced([holder], lifted)
        return lifted

    def _holds_only_nodes(self, graph: ir.Graph) -> bool:
        """Whether an initializer may not be added to ``graph``: in IR version 3 it would have to be an input."""
        return self.model.ir_version < 4 or self.tree.root(graph) in self.tree.functions

    def _replaced(self, gone: Iterable[StoredConstant], by: StoredConstant | None) -> None:
        for holder in gone:
            del self.alive[id(holder.value)]
        if by is not None:
            self.alive[id(by.value)] = by

    def _note(self, name: str, reason: str) -> None:
        self.notes.setdefault(reason, {})[name] = None


def _most_needed_first(holders: Iterable[StoredConstant]) -> list[StoredConstant]:
    """Those that no node may make come first, so that the others are made from them."""
    return sorted(holders, key=lambda holder: derived.must_stay(holder) is None)


def _is_worth_a_node(holder: StoredConstant) -> bool:
    return holder.tensor.nbytes >= derived.WORTH_A_NODE
