"""`prune-magnitude`: weights of kernels become 0, and what stays is fitted so that answers change least.

Which weights: the smallest, or with data those whose loss costs the layer's answer least
(``optimizer.algorithms.reconstruction.least_squares``). How many: ``sparsity`` of each kernel or of all, those below
``threshold``, or what the pattern says (2:4), and less where the budget asks for it. The file stays as large as it was,
unless ``store=sparse``, but compresses well. ONNX Runtime makes sparse weights dense when it loads them and multiplies
with zeros as with any number, so nothing gets faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from optimizer.algorithms.sparsity.magnitudes import WeightMagnitudes
from optimizer.algorithms.sparsity.patterns import Pattern
from optimizer.algorithms.sparsity.pruner import SparsityPlan
from optimizer.algorithms.sparsity.search import STEP, PruneChoices, PruneSearch
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.options import ShareBelowOne, at_least
from optimizer.contract.passes import Gain, Pass
from optimizer.errors import UsageError
from optimizer.graph.tensors import store_sparse
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Context, PassResult, Step

_SPARSITY = 0.5


@dataclass(frozen=True)
class PruneMagnitude(NodeFilterOptions, Pass):
    """Set weights to 0.

    Attributes:
        sparsity: The share of zeros in what is pruned, those that are there included; 0 is 0.5, unless ``threshold`` or
            the pattern says otherwise.
        threshold: Instead: what is below it in |w| goes; of a block, its mean or root mean square.
        pattern: ``unstructured``, ``n:m`` (of each m along the input channels n stay) or ``blockRxC`` (R output
            channels by C input channels).
        scope: Whether each kernel loses the same share, or the smallest of all kernels go.
        importance: ``l1`` and ``l2`` take the smallest, which differ for blocks alone; ``error`` what costs least,
            where ``repair`` has data, else the smallest. ``auto`` is ``error``, with a threshold ``l1``. How many go of
            each kernel under ``scope=global`` is always by size.
        repair: Whether what stays is fitted anew, where there are data.
        guard: Whether the first and the last kernels are left alone.
        store: ``sparse``: as values and places, where that is smaller.
    """

    name: ClassVar[str] = "prune-magnitude"
    summary: ClassVar[str] = "weights set to 0, the others fitted anew: smaller under gzip, not faster"
    gain: ClassVar[Gain] = Gain.COMPRESSED_SIZE
    choices_type: ClassVar[type[PruneChoices]] = PruneChoices

    sparsity: ShareBelowOne = 0.0
    threshold: Annotated[float, at_least(0)] = 0.0
    pattern: str = "unstructured"
    scope: Literal["layer", "global"] = "layer"
    importance: Literal["auto", "l1", "l2", "error"] = "auto"
    repair: bool = True
    guard: bool = True
    store: Literal["dense", "sparse"] = "dense"

    def __post_init__(self) -> None:
        super().__post_init__()
        pattern = Pattern.parse(self.pattern)
        if self.sparsity and self.threshold:
            raise UsageError("sparsity= and threshold= exclude each other; give one of them")
        if pattern.is_fixed and (self.sparsity or self.threshold or self.scope == "global"):
            raise UsageError(
                f"pattern={self.pattern} says how many weights go: leave out sparsity=, threshold=, scope="
            )
        if self.threshold and self.importance == "error":
            raise UsageError("threshold= goes by size: importance=error has no use for it")

    @property
    def exact(self) -> bool:
        """It changes weights."""
        return False

    @property
    def plan(self) -> SparsityPlan:
        """What the options ask for."""
        by_size: Literal["l1", "l2"] = "l2" if self.importance == "l2" else "l1"
        by_error = self.importance == "error" or (self.importance == "auto" and not self.threshold)
        magnitudes = WeightMagnitudes(
            Pattern.parse(self.pattern), by_size, self.scope, self.sparsity or _SPARSITY, self.threshold
        )
        return SparsityPlan(magnitudes, by_error, self.repair, self.node_filter, self.guard)

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by weight."""
        return (STEP,)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Prune ``model``; where models may be run, as far as the aim allows.

        Raises:
            ModelError: If external data cannot be read.
        """
        result = PruneSearch(clone(model), context, self.plan).run()  # on a copy, which gets shapes
        if result.choices is None:
            return replace(result, model=model)
        if self.store == "dense":
            return result
        initializers = result.model.graph.initializers
        names = [name for name in result.choices.pruned if name in initializers]
        stored = store_sparse(result.model, [initializers[name] for name in names])
        return replace(result, changes={**result.changes, **({"weights stored sparse": stored} if stored else {})})
