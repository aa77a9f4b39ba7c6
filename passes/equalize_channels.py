"""Give the channels between kernels like sizes, so that 8 bits lose less, at no change of any answer.

Meant in front of `insert-qdq` in one stage: `-p equalize-channels+insert-qdq:granularity=tensor`.

::

    method        balances                                                         meant for
    weights       the rows of a kernel against the columns of the next             granularity=tensor
    activations   what is between them against the columns of the next             granularity=channel
    smooth        what MatMul and Gemm read against their weights (SmoothQuant)    transformers

Factors are powers of two, so that every float answer stays the same to the last bit. Formulas and sources are in
``optimizer.algorithms.quantization.rescaling.cross_layer`` and ``smooth_quant``, what a factor passes through in
``optimizer.algorithms.channels.homogeneous``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from optimizer.algorithms.quantization.rescaling import cross_layer, smooth_quant
from optimizer.algorithms.quantization.rescaling.rescale import Rescaler
from optimizer.analysis.annotation import annotated
from optimizer.contract.options import between
from optimizer.contract.passes import Gain, Pass, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.errors import PreconditionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context

CHANNELS = Step("channels", "the channels between kernels are rescaled")
_TO_OBSERVE = {"activations": cross_layer.to_observe, "smooth": smooth_quant.to_observe}


@dataclass(frozen=True)
class EqualizeChannels(Pass):
    """Rescale channels that are made by kernels or normalizations and read by kernels.

    Attributes:
        method: What is balanced: ``weights`` of kernel and next kernel; ``activations`` and the next kernel's weights;
            or ``smooth``: what MatMul and Gemm read, by the normalization in front, or a Mul where outliers pay for it.
        alpha: Of ``smooth``: how much of the spread of what is read goes into the weights, 0 to 1.
    """

    name: ClassVar[str] = "equalize-channels"
    summary: ClassVar[str] = "give channels between kernels like sizes, so that insert-qdq behind it loses less"
    gain: ClassVar[Gain] = Gain.ENABLING

    method: Literal["weights", "activations", "smooth"] = "weights"
    alpha: Annotated[float, between(0, 1)] = 0.5

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by place."""
        return (CHANNELS,)

    def requires(self, model: ir.Model, context: Context) -> None:
        """Real inputs, unless weights alone decide.

        Raises:
            PreconditionError: Saying what is missing.
        """
        super().requires(model, context)
        if self.method != "weights" and not _evaluator(context).has_data:
            raise PreconditionError("activations need real inputs; give --data, or --allow-generated-data")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Rescale the channels of ``model``."""
        skipped = SkippedNodes()
        rescaler = Rescaler(partial(context.sites.permits, CHANNELS.name), skipped)
        to_observe = _TO_OBSERVE.get(self.method)
        peaks = None if to_observe is None else _peaks(model, context, to_observe)
        with annotated(model):
            if self.method == "smooth" and peaks is not None:
                changes = smooth_quant.smooth(model, peaks, self.alpha, rescaler)
            else:
                changes = cross_layer.equalize(model, peaks, rescaler)
        return PassResult(model, changes, skipped.notes())


def _evaluator(context: Context) -> Evaluator:
    if context.evaluator is None:
        raise PreconditionError("activations are seen beside insert-qdq, without --no-run; or take method=weights")
    return context.evaluator


def _peaks(
    model: ir.Model, context: Context, to_observe: Callable[[ir.Model], dict[str, int]]
) -> dict[str, NDArray[np.float64]]:
    """The largest magnitude of each channel over the calibration feeds, of the values that a feed reached."""
    with annotated(model):
        axes = to_observe(model)
    seen = _evaluator(context).observe(model, list(axes), axes) if axes else {}
    return {
        name: one.channels.largest for name, one in seen.items() if one.channels is not None and one.channels.count.size
    }
