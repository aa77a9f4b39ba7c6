"""Weights stored as indices into small codebooks: non-uniform quantization and weight sharing in one; needs no data.

Each weight of Conv, ConvTranspose, MatMul, Gemm, LSTM, GRU, RNN and each table of Gather and Slice gets the values that
k-means finds for it (``optimizer.algorithms.clustering.kmeans``), one set for the whole weight or for each group of
channels, or vectors of several elements (``optimizer.algorithms.clustering.product_quantization``). With data an
element counts by the mean square of what it is multiplied with, and errors of a kernel's row make up for each other
(``optimizer.algorithms.clustering.gptq``). ONNX Runtime makes float constants of it when it loads the model
(``optimizer.algorithms.clustering.storage``), so speed and memory are those of the float model.

Where the error may be measured and is over what the stage may use, the weights that cost most of it for their size get
32 values, or 64, or 256, or stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from optimizer.algorithms.clustering.codes import Coding
from optimizer.algorithms.clustering.kmeans import Init
from optimizer.algorithms.clustering.search import STEP, ClusterChoices, ClusterSearch
from optimizer.algorithms.clustering.storage import OLDEST_OPSET
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.options import Count, between
from optimizer.contract.passes import Gain, Pass
from optimizer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Context, PassResult, Step

_WIDER = (32, 64, 256)  # values for weights that need more of them


@dataclass(frozen=True)
class ClusterWeights(NodeFilterOptions, Pass):
    """Store weights as indices into codebooks.

    Attributes:
        entries: Values of a codebook, 2 to 256.
        dims: How many elements that follow each other share an index; more than 1 is product quantization.
        group: How many channels, of like spread, share a codebook; 0 is all of the weight. ``auto``: as few as have
            64 elements for each entry.
        init: What k-means starts from: ``density`` of the weights, or ``linear`` steps.
        keep_zeros: Whether zeros stay 0, so that pruning survives. ``auto``: where they are more than an entry's share.
        min_elements: Leave smaller weights alone.
    """

    name: ClassVar[str] = "cluster-weights"
    summary: ClassVar[str] = "weights stored as indices into codebooks of 2 to 256 values, computed with in floats"
    gain: ClassVar[Gain] = Gain.SIZE
    choices_type: ClassVar[type[ClusterChoices]] = ClusterChoices
    oldest_opset: ClassVar[int] = OLDEST_OPSET  # of GatherElements

    entries: Annotated[int, between(2, 256)] = 256
    dims: Annotated[int, between(1, 64)] = 1
    group: Count | Literal["auto"] = 0
    init: Init = "density"
    keep_zeros: bool | Literal["auto"] = "auto"
    min_elements: Count = 1 << 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dims > 1 and self.group != 0:
            raise UsageError(f"dims={self.dims} and group={self.group} exclude each other; give one of them")

    @property
    def exact(self) -> bool:
        """It rounds weights."""
        return False

    def codings(self, seed: int = 0) -> tuple[Coding, ...]:
        """What is asked for, and then finer ones."""
        first = Coding(self.entries, self.dims, self.group, self.init, self.keep_zeros, seed)
        wider = (Coding(entries, 1, self.group, self.init, self.keep_zeros, seed) for entries in _WIDER)
        return (first, *(coding for coding in wider if coding.bits > first.bits))

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by weight."""
        return (STEP,)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Store the weights of ``model`` as indices; where models may be run, in as few values as hold the aim.

        Raises:
            ModelError: If external data cannot be read.
        """
        return ClusterSearch(model, context, self.codings(context.seed), self.node_filter, self.min_elements).run()
