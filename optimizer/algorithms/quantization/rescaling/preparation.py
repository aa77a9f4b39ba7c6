"""Rescales the channels of a float model before it is quantized.

It does so by ``optimizer.algorithms.quantization.rescaling.cross_layer`` and by
``optimizer.algorithms.quantization.rescaling.smooth_quant``.

No float answer changes by a bit, so that what is observed of the rescaled model and what int8 costs it is compared
with the same reference as ever. Where weights have one scale each, equalization looks at weights alone; where they
have one for each output channel, at the largest activations too, which takes one more sweep over the feeds.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.algorithms.quantization.rescaling import cross_layer, smooth_quant
from optimizer.algorithms.search.memory import digest
from optimizer.contract.passes import Note
from optimizer.graph import constants, traversal
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.rescaling.rescale import Equalized
    from optimizer.contract.evaluator import Evaluator


@dataclass(frozen=True)
class Prepared:
    """A float model whose channels were rescaled.

    Attributes:
        model: It; the one that was given, if nothing was to be done.
        changes: Real changes by kind.
        notes: How much was rescaled by each option, what was left alone, and why.
    """

    model: ir.Model
    changes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def prepared(model: ir.Model, evaluator: Evaluator, *, equalize: bool, smooth: float, per_channel: bool) -> Prepared:
    """``model`` with its channels rescaled, a clone; what was done once is taken from the evaluator's memory.

    Args:
        model: The float model; not changed.
        evaluator: Observes the largest magnitude of channels.
        equalize: Whether to equalize channels between kernels.
        smooth: How much of the spread of what MatMul and Gemm read goes into their weights, 0 to 1; 0 is not at all.
        per_channel: Whether each output channel of a weight will have its own scale.
    """
    if not equalize and not smooth:
        return Prepared(model)
    key = ("prepared", digest(model), equalize, smooth, per_channel)
    known = evaluator.memory.get(key)
    if not isinstance(known, Prepared):
        known = evaluator.memory[key] = _prepared(model, evaluator, equalize, smooth, per_channel)
    return known


def _prepared(model: ir.Model, evaluator: Evaluator, equalize: bool, smooth: float, per_channel: bool) -> Prepared:
    copy = clone(model)
    done: dict[str, Equalized] = {}
    with _undeclared(copy):
        if equalize and per_channel:
            peaks = _peaks(copy, evaluator, cross_layer.to_observe(copy))
            done["equalize"] = cross_layer.equalize(copy, criterion="channel", channel_max=peaks)
        elif equalize:
            done["equalize"] = cross_layer.equalize(copy)
        if smooth:
            peaks = _peaks(copy, evaluator, smooth_quant.to_observe(copy))
            done["smooth"] = smooth_quant.smooth(copy, peaks, smooth, allow_mul=True)
    changes = {kind: count for one in done.values() for kind, count in one.changes.items()}
    notes = [note for option, one in done.items() for note in (_summary(option, one.changes), *one.notes)]
    return Prepared(copy if changes else model, changes, tuple(notes))


def _summary(option: str, changes: Mapping[str, int]) -> Note:
    done = ", ".join(f"{count} {kind}" for kind, count in changes.items())
    return Note(option, done or "nothing to rescale", left=not done)


@contextmanager
def _undeclared(model: ir.Model) -> Iterator[None]:
    """Take back the types and shapes that are inferred meanwhile: the result declares what the original does."""
    values = [value for node in traversal.nodes(model) for value in node.outputs]
    declared = [(value, value.type, value.shape) for value in values if constants.constant_tensor(value) is None]
    yield
    for value, kind, shape in declared:
        value.type, value.shape = kind, shape


def _peaks(model: ir.Model, evaluator: Evaluator, axes: Mapping[str, int]) -> dict[str, NDArray[np.float64]]:
    """The largest magnitude of each channel, of the values that a feed reached."""
    if not axes:
        return {}
    seen = evaluator.observe(model, list(axes), axes)
    return {
        name: one.channels.largest for name, one in seen.items() if one.channels is not None and one.channels.count.size
    }
