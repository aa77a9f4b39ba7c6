"""Products with constant weights in int8, their activations quantized at each run; needs no data.

MatMul and Gemm become DynamicQuantizeLinear, MatMulInteger and a scaling, which ONNX Runtime fuses, an LSTM becomes
DynamicQuantizeLSTM; the algorithm and its formula are in ``optimizer.algorithms.quantization.dynamic``. Weights may be
initializers or Constant nodes, behind Identity, Cast, Transpose and Reshape, in the main graph, in subgraphs and in
functions. One that several nodes read is quantized once; one that an embedding reads too stays tied to it, in float.
Where the error may be measured and is over what the stage may use, the nodes that cost most of it stay in float.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from optimizer.algorithms.quantization.dynamic import Quantizer
from optimizer.algorithms.quantization.dynamic_candidates import OLDEST_OPSET, Candidate, candidate
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.algorithms.search.levels import Levels, Point, within_budget
from optimizer.contract import targets
from optimizer.contract.choices import Choices
from optimizer.contract.node_filter import NodeFilter, NodeFilterOptions
from optimizer.contract.options import Count
from optimizer.contract.passes import Gain, Pass, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.graph import queries, traversal
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from collections.abc import Set as AbstractSet

    import onnx_ir as ir

    from optimizer.algorithms.quantization.rows import Rows
    from optimizer.contract.passes import Context

STEP = Step("quantize-dynamic", "a node with constant weights computes in int8")


@dataclass(frozen=True)
class DynamicChoices(Choices):
    """The sites of nodes that stay in float."""

    float: tuple[str, ...]


@dataclass(frozen=True)
class QuantizeDynamic(NodeFilterOptions, Pass):
    """Compute MatMul, Gemm and LSTM in int8, with the ranges of activations taken at each run.

    Attributes:
        granularity: A weight scale for each output channel, or one for the whole tensor.
        weight_type: ``int8``, or ``uint8``, which is more exact and slower where the target's kernels saturate.
        reduced_range: Hold int8 weights to 7 bits; ``auto`` does it where the target's kernels saturate else.
        min_elements: Leave smaller weights alone, and ones less than four times that where x has a single row.
    """

    name: ClassVar[str] = "quantize-dynamic"
    summary: ClassVar[str] = "MatMul, Gemm and LSTM with constant weights in int8, activations quantized at each run"
    gain: ClassVar[Gain] = Gain.LATENCY
    choices_type: ClassVar[type[DynamicChoices]] = DynamicChoices
    oldest_opset: ClassVar[int] = OLDEST_OPSET

    granularity: Literal["channel", "tensor"] = "channel"
    weight_type: Literal["int8", "uint8"] = "int8"
    reduced_range: bool | Literal["auto"] = "auto"
    min_elements: Count = 1 << 14

    @property
    def exact(self) -> bool:
        """It rounds weights and activations."""
        return False

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by node."""
        return (STEP,)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Quantize what pays in ``model``; where models may be run, as much of it as holds the aim.

        Raises:
            ModelError: If external data cannot be read.
        """
        packed: dict[Hashable, Rows] = {}

        def build(context: Context, point: Point) -> PassResult:
            return self._quantized(clone(model), context, point.finer, packed)

        def elements() -> dict[str, float]:
            candidates = self._candidates(Rewriter(model, context.sites), SkippedNodes())
            return {queries.site(item.node): float(item.elements) for item in candidates}

        replayed = context.replayed(DynamicChoices)
        repeated = Point(finer=frozenset(replayed.float)) if replayed is not None else None
        return within_budget(Levels(build, elements), context, replayed=repeated)

    def _quantized(
        self, model: ir.Model, context: Context, floats: AbstractSet[str], known: dict[Hashable, Rows]
    ) -> PassResult:
        """``model`` with all candidates in int8 but those at the sites ``floats``."""
        left, changes, graph = SkippedNodes(), Counter[str](), Rewriter(model, context.sites)
        found = self._candidates(graph, left)
        if not found and not left:
            left.note("the model", "has no MatMul, Gemm or LSTM with constant weights")
        per_channel, unsigned = self.granularity == "channel", self.weight_type == "uint8"
        quantizer = Quantizer(graph, per_channel, self._is_reduced(context), unsigned, known)
        for done, item in enumerate(found):
            context.progress(done / len(found))
            site, op_type = queries.site(item.node), item.node.op_type
            if site in floats:
                left.note(item.node, "stays in float: its error would cost too much of the budget")
            elif not item.is_finite:
                left.note(item.node, "has weights that are not finite")
            elif context.sites.permits(STEP.name, site):
                quantizer.quantize(item)
                changes[f"{op_type} in int8"] += 1
        choices = DynamicChoices(tuple(sorted(floats))) if changes else None
        return PassResult(model, dict(changes), left.notes(), choices)

    def _is_reduced(self, context: Context) -> bool:
        if self.reduced_range == "auto":
            return targets.resolve(context.target).reduced_range
        return bool(self.reduced_range)

    def _candidates(self, rewriter: Rewriter, left: SkippedNodes) -> list[Candidate]:
        choice, found = self.node_filter, []
        left.unmatched(choice.unmatched(rewriter.model))
        for node in traversal.nodes(rewriter.model):
            item = candidate(node)
            if isinstance(item, str):
                left.note(node, item)
            elif item is not None:
                reason = self._obstacle(item, choice, rewriter)
                if reason is None:
                    found.append(item)
                else:
                    left.note(node, reason)
        return found

    def _obstacle(self, item: Candidate, chosen: NodeFilter, rewriter: Rewriter) -> str | None:
        """Why ``item`` stays as it is though it has an integer form."""
        if not chosen.matches(item.node, *(source.root.name for source in item.sources)):
            return "is left out by include= or exclude="
        if item.elements < self.min_elements * item.pays_from:
            return f"has less than {self.min_elements * item.pays_from} weights: no gain"
        if rewriter.opset(item.node) < OLDEST_OPSET:
            return f"is in a function of an opset below {OLDEST_OPSET}"
        return item.tie()
