"""Which weights get how many values: the fewest bytes within the allowance.

Codings, from the smallest file to the least error, are the levels of ``optimizer.algorithms.search.levels``; past the
last, weights stay floats. Weights are told apart by the squared error for a byte.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.clustering import codes
from optimizer.algorithms.clustering.activation_norms import input_power
from optimizer.algorithms.clustering.gptq import Input
from optimizer.algorithms.clustering.storage import OLDEST_OPSET, CodebookWriter, stored_bytes
from optimizer.algorithms.quantization.weight_only.weights import StoredWeight, stored_weights
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.algorithms.search.levels import Levels, Measured, Point, within_budget
from optimizer.contract.choices import Choices
from optimizer.contract.memo import MemoKey
from optimizer.contract.options import Count
from optimizer.contract.passes import PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.graph import queries
from optimizer.graph.graph_tree import GraphTree
from optimizer.io.model import clone
from optimizer.statistics import second_moments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from optimizer.algorithms.clustering.activation_norms import ActivationNorms
    from optimizer.algorithms.clustering.codes import Clustered, Coding
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.node_filter import NodeFilter
    from optimizer.contract.passes import Context

STEP = Step("cluster-weights", "a weight is stored as indices into codebooks")
TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
_WORTH = 0.9  # of a weight's bytes: what takes more stays


@dataclass(frozen=True)
class ClusterChoices(Choices):
    """What was decided.

    Attributes:
        level: The number of the coding, of those that are tried.
        wide: Names of weights that have the next one, or stay.
    """

    level: Count
    wide: tuple[str, ...]


@dataclass
class _ClusteringMemory:
    """What was found out of one model, for the next try with another aim.

    Attributes:
        powers: See ``optimizer.algorithms.clustering.activation_norms``.
        clustered: Weights by name and coding; ``None`` for what is no smaller.
        measured: What candidates use of the budget.
        fitted: Codings for which second moments were asked.
    """

    powers: Mapping[str, ActivationNorms]
    clustered: dict[tuple[str, Coding], Clustered | None] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    fitted: set[Coding] = field(default_factory=set)


@dataclass(frozen=True)
class _Powers(MemoKey["Mapping[str, ActivationNorms]"]):
    """What the weights of the chosen nodes are multiplied with, see ``_ClusteringMemory``."""

    choice: NodeFilter
    min_elements: int


@dataclass(frozen=True)
class _ClusteringMemoryOf(MemoKey[_ClusteringMemory]):
    """What was found out with these options of the pass, see ``ClusterSearch``."""

    codings: tuple[Coding, ...]
    choice: NodeFilter
    min_elements: int


@dataclass
class ClusterSearch:
    """One run of the pass.

    Attributes:
        model: The model.
        context: Of the pass.
        codings: To try, from the smallest file to the least error.
        choice: Which nodes' weights.
        min_elements: Smaller weights stay.
    """

    model: ir.Model
    context: Context
    codings: Sequence[Coding]
    choice: NodeFilter
    min_elements: int

    def run(self) -> PassResult:
        """The model with its weights as indices; as an earlier run decided, or as measured."""
        memory = self._memory(self.context.evaluator)
        levels = Levels(partial(self._stored, memory), self._sizes, whole=len(self.codings))
        replayed = self.context.replayed(ClusterChoices)
        repeated = Point(replayed.level, frozenset(replayed.wide)) if replayed is not None else None
        return within_budget(levels, self.context, memory.measured, repeated)

    def _stored(self, memory: _ClusteringMemory, context: Context, point: Point) -> PassResult:
        """A clone in the coding of a level, but for the finer weights, which have the next or stay."""
        self._fit(memory, self.codings[point.level : point.level + 1 + bool(point.finer)])
        context.progress.begin(f"all weights in {self.codings[point.level].entries} values")
        model, left, changes = clone(self.model), SkippedNodes(), Counter[str]()
        rewriter = Rewriter(model, context.sites)
        writer = CodebookWriter(rewriter)
        found = list(self._weights(left, model))
        if not found and not left:
            left.note("the model", "has no float weights that a kernel reads")
        for done, weight in enumerate(found):
            context.progress(done / len(found))
            at = point.level + (weight.holder.name in point.finer)
            reason = self._obstacle(weight, rewriter, at)
            clustered = self._clustered(weight, self.codings[at], memory) if reason is None else None
            if reason is None and clustered is None:
                reason = "would not get smaller"
            if reason is not None:
                left.note(weight.holder.name, reason)
            elif clustered is not None and context.sites.permits(STEP.name, queries.site(weight.nodes[0])):
                writer.put(weight, clustered)
                changes[_kind(self.codings[at])] += 1
                changes["distinct values in all"] += clustered.books.shape[0] * clustered.books.shape[1]
        choices = ClusterChoices(point.level, tuple(sorted(point.finer))) if changes else None
        return PassResult(model, dict(changes), left.notes(), choices)

    def _sizes(self) -> dict[str, float]:
        """Bytes of the weights by name."""
        return {weight.holder.name: float(weight.holder.tensor.nbytes) for weight in self._weights(SkippedNodes())}

    def _obstacle(self, weight: StoredWeight, rewriter: Rewriter, at: int) -> str | None:
        if at >= len(self.codings):
            return "stays as it is: the budget has no room for its error"
        if rewriter.opset(weight.nodes[0]) < OLDEST_OPSET:
            return f"is in a function of an opset before {OLDEST_OPSET}"
        reason = codes.obstacle(weight.holder.shape, self.codings[at])
        return reason if reason is not None or _is_finite(weight) else "is not finite"

    def _fit(self, memory: _ClusteringMemory, asked: Sequence[Coding]) -> None:
        """Cluster the weights of single kernels by the second moments of what they multiply with."""
        evaluator = self.context.evaluator
        codings = [coding for coding in asked if coding not in memory.fitted and coding.dims == 1]
        if evaluator is None or not evaluator.has_data or not codings:
            return
        memory.fitted.update(codings)
        weights = {
            _output(weight): weight for weight in self._weights(SkippedNodes()) if _has_moments(weight, self.model)
        }
        for name, moments in evaluator.second_moments(self.model, list(weights)):
            if evaluator.time_left() < 0:
                return
            weight = weights[name]
            source = Input(weight.nodes[0], moments) if moments.rows else None
            for coding in codings:
                if _is_finite(weight):
                    self._clustered(weight, coding, memory, source)

    def _clustered(
        self, weight: StoredWeight, coding: Coding, memory: _ClusteringMemory, source: Input | None = None
    ) -> Clustered | None:
        key = weight.holder.name, coding
        if key not in memory.clustered:
            power = memory.powers.get(weight.holder.name)
            found = codes.cluster(weight.holder.tensor.numpy(), weight.layout, coding, power, source)
            is_smaller = stored_bytes(found) < _WORTH * weight.holder.tensor.nbytes
            memory.clustered[key] = found if is_smaller else None
        return memory.clustered[key]

    def _weights(self, left: SkippedNodes, model: ir.Model | None = None) -> Iterator[StoredWeight]:
        chosen = model or self.model
        left.unmatched(self.choice.unmatched(chosen))
        for weight in stored_weights(GraphTree.of(chosen), TYPES):
            if not isinstance(weight, StoredWeight):
                left.note(*weight)
            elif weight.holder.tensor.size < self.min_elements:
                left.note(weight.holder.name, f"has less than {self.min_elements} elements")
            elif all(self.choice.matches(node, weight.holder.name) for node in weight.nodes):
                yield weight
            else:
                left.note(weight.holder.name, "is left out by include= or exclude=")

    def _memory(self, evaluator: Evaluator | None) -> _ClusteringMemory:
        if evaluator is None:
            return _ClusteringMemory({})
        choice, least = self.choice, self.min_elements
        powers = evaluator.memo.get(self.model, _Powers(choice, least), lambda: self._powers(evaluator))
        key = _ClusteringMemoryOf(tuple(self.codings), choice, least)
        return evaluator.memo.get(self.model, key, lambda: _ClusteringMemory(powers))

    def _powers(self, evaluator: Evaluator) -> Mapping[str, ActivationNorms]:
        """What weights are multiplied with, as far as there are data."""
        return input_power(self.model, self._weights(SkippedNodes()), evaluator) if evaluator.has_data else {}


def _output(weight: StoredWeight) -> str:
    """The name of what the first reader of ``weight`` gives."""
    return weight.nodes[0].outputs[0].name or ""


def _has_moments(weight: StoredWeight, model: ir.Model) -> bool:
    """Whether one kernel alone multiplies with ``weight``, as it is, and the moments of its input can be known."""
    (node, position), *others = weight.readers
    is_direct = position == 1 and node.inputs[1] is weight.holder.value and node.graph is model.graph
    return not others and is_direct and second_moments.refusal(node) is None


def _is_finite(weight: StoredWeight) -> bool:
    return bool(np.isfinite(weight.holder.tensor.numpy()).all())


def _kind(coding: Coding) -> str:
    """What a weight becomes, for the report."""
    if coding.dims > 1:
        return f"weights in {coding.entries} vectors of {coding.dims}"
    return f"weights in {coding.entries} values{'' if coding.group == 0 else ' a group of channels'}"
