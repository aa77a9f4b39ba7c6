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
from typing import TYPE_CHECKING, ClassVar, Literal

from optimizer.algorithms.clustering.codes import Coding
from optimizer.algorithms.clustering.kmeans import INITS
from optimizer.algorithms.clustering.search import STEP, ClusterSearch
from optimizer.algorithms.clustering.storage import OLDEST_OPSET
from optimizer.contract.node_filter import NodeFilter
from optimizer.contract.passes import Gain, Pass
from optimizer.errors import PreconditionError, UsageError
from optimizer.graph import queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from optimizer.contract.passes import Context, PassResult, Step

_WIDER = (32, 64, 256)  # values for weights that need more of them


@dataclass(frozen=True)
class ClusterWeights(Pass):
    """Store weights as indices into codebooks.

    Attributes:
        entries: Values of a codebook, 2 to 256.
        dims: How many elements that follow each other share an index; more than 1 is product quantization.
        group: How many channels, of like spread, share a codebook; 0 is all of the weight. ``auto``: as few as have
            64 elements for each entry.
        init: What k-means starts from: ``density`` of the weights, or ``linear`` steps.
        keep_zeros: Whether zeros stay 0, so that pruning survives. ``auto``: where they are more than an entry's share.
        include: Touch only weights of these nodes: globs of names of nodes or weights, or ``op:Conv``.
        exclude: Leave the weights of these nodes alone.
        min_elements: Leave smaller weights alone.
    """

    name: ClassVar[str] = "cluster-weights"
    summary: ClassVar[str] = "weights stored as indices into codebooks of 2 to 256 values, computed with in floats"
    gain: ClassVar[Gain] = Gain.SIZE

    entries: int = 256
    dims: int = 1
    group: int | Literal["auto"] = 0
    init: Literal["density", "linear"] = "density"
    keep_zeros: bool | Literal["auto"] = "auto"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_elements: int = 1 << 10

    def __post_init__(self) -> None:
        if not 2 <= self.entries <= 256:
            raise UsageError(f"entries={self.entries} is not in 2 to 256")
        if not 1 <= self.dims <= 64:
            raise UsageError(f"dims={self.dims} is not in 1 to 64")
        if self.group != "auto" and not (isinstance(self.group, int) and self.group >= 0):
            raise UsageError(f"group={self.group} is neither auto nor a number of channels from 0")
        if self.dims > 1 and self.group != 0:
            raise UsageError(f"dims={self.dims} and group={self.group} exclude each other; give one of them")
        if self.init not in INITS:
            raise UsageError(f"init={self.init} is neither density nor linear")
        if self.keep_zeros not in {True, False, "auto"}:
            raise UsageError(f"keep-zeros={self.keep_zeros} is neither auto, true nor false")
        if self.min_elements < 0:
            raise UsageError(f"min-elements={self.min_elements} is negative: give a number of elements from 0")
        NodeFilter(self.include, self.exclude)

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

    def requires(self, model: ir.Model, context: Context) -> None:  # noqa: ARG002 - the contract of a pass
        """Refuse a model of an opset without GatherElements.

        Raises:
            PreconditionError: If it is one.
        """
        version = queries.opset_version(model)
        if version < OLDEST_OPSET:
            raise PreconditionError(f"needs opset {OLDEST_OPSET}, the model has {version}: run upgrade-opset first")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Store the weights of ``model`` as indices; where models may be run, in as few values as hold the aim.

        Raises:
            ModelError: If external data cannot be read.
        """
        choice = NodeFilter(self.include, self.exclude)
        return ClusterSearch(model, context, self.codings(context.seed), choice, self.min_elements).run()
