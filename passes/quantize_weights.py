"""Weights stored as 8 or 4 bit integers, computed with in floats; needs no data.

Weights of Conv, ConvTranspose, MatMul, Gemm, LSTM, GRU, RNN and the tables of Gather and Slice, wherever they are
stored and whoever shares them. Each becomes integers with a scale for each row, or for each block of one: the formula
is in ``optimizer.algorithms.quantization.rows``. What ONNX Runtime makes of them is told in
``optimizer.algorithms.quantization.weight_only.dequantization``: float32 constants when it loads the model, with the
speed and the memory of the float model and no error but that of the weights; or MatMulNBits, with the memory of the
integers and an error of its own; tables are looked up in integers where they are large.

Where the error may be measured and is over what the stage may use, blocks get smaller, and if that is not enough the
weights that cost most of it for their size are stored in 16 bits instead of 8, or 8 instead of 4.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np

from optimizer.algorithms.quantization.weight_only.dequantization import Dequantizer
from optimizer.algorithms.quantization.weight_only.storage import AUTOMATIC, Packs, Storage, StoredForm
from optimizer.algorithms.quantization.weight_only.weights import StoredWeight, stored_weights
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.algorithms.search.levels import Levels, within_budget
from optimizer.contract.choices import Choices
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.options import Count, Only
from optimizer.contract.passes import Gain, Pass, PassResult, Step
from optimizer.contract.skipped import SkippedNodes
from optimizer.errors import PreconditionError, no_such
from optimizer.graph import queries
from optimizer.graph.graph_tree import GraphTree
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from optimizer.algorithms.search.levels import Point
    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context

STEP = Step("quantize-weights", "a weight is stored as integers")
_IR_VERSION_OF_4_BITS = 10
_SLOWER = 1.05  # times the float model's time: what one coarse comparison can tell


def _is_length(block: int) -> bool:
    """Whether ONNX Runtime's kernels have blocks of this length."""
    return block == 0 or (block >= 16 and block & (block - 1) == 0)


@dataclass(frozen=True)
class WeightChoices(Choices):
    """What was decided.

    Attributes:
        block: One of the pass's ``storages``.
        wide: Names of weights that have more bits.
        compute: What the integers become, where that is not by the option.
    """

    block: str
    wide: tuple[str, ...]
    compute: Literal["float"] | None = None


@dataclass(frozen=True)
class _Stored(PassResult):
    """What was done, and whether integer kernels read a weight."""

    choices: WeightChoices | None = None
    has_integer_kernels: bool = False


@dataclass(frozen=True)
class QuantizeWeights(NodeFilterOptions, Pass):
    """Store weights as integers.

    Attributes:
        bits: 8 or 4.
        block: How many elements of a row share a scale, 0 for all. ``auto``: 32 with 4 bits; with 8 the largest of
            0, 128 and 32 that keeps the weight's own error within 1 %; and smaller ones if the budget asks for it.
        scheme: ``symmetric``, or ``asymmetric`` with a zero point for each scale. ``auto``: symmetric with 8 bits.
        compute: What the integers become: ``float`` constants, or ``integer`` kernels where there are ones. ``auto``:
            kernels for products with 4 bits or of a single row, unless the model is slower with them here, and for
            large tables.
        min_elements: Leave smaller weights alone.
    """

    name: ClassVar[str] = "quantize-weights"
    summary: ClassVar[str] = "weights stored as 8 or 4 bit integers, in rows or blocks, computed with in floats"
    gain: ClassVar[Gain] = Gain.SIZE
    choices_type: ClassVar[type[WeightChoices]] = WeightChoices

    bits: Literal[4, 8] = 8
    block: Annotated[int, Only("that is 0 or a power of two from 16", _is_length)] | Literal["auto"] = "auto"
    scheme: Literal["auto", "symmetric", "asymmetric"] = "auto"
    compute: Literal["auto", "float", "integer"] = "auto"
    min_elements: Count = 1 << 10

    @property
    def exact(self) -> bool:
        """It rounds weights."""
        return False

    @property
    def storages(self) -> dict[str, Storage]:
        """What to try, by what ``choices`` call it: finer blocks, one after the other, where ``block`` is ``auto``."""
        symmetric = self.scheme == "symmetric" or (self.scheme == "auto" and self.bits == 8)
        tries = {str(self.block): (self.block,)} if self.block != "auto" else AUTOMATIC[self.bits]
        return {name: Storage(self.bits, symmetric, blocks, self.compute) for name, blocks in tries.items()}

    def steps(self) -> Sequence[Step]:
        """One; the manager splits it by weight."""
        return (STEP,)

    @property
    def oldest_opset(self) -> int:
        """The first that holds what the options ask for."""
        return max(storage.oldest_opset for storage in self.storages.values())

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Store the weights of ``model`` as integers.

        Where models may be run, in the largest blocks that hold the aim; if none do, some weights get more bits.

        Raises:
            ModelError: If external data cannot be read.
        """
        packs: Packs = {}
        replayed = context.replayed(WeightChoices)
        if replayed is not None:
            return self._repeated(model, context, replayed, packs)
        names = list(self.storages)

        def build(context: Context, point: Point) -> _Stored:
            name = names[point.level]
            context.progress.begin(f"all weights, block={name}")
            return self._stored(clone(model), context, name, point.finer, packs)

        def sizes() -> dict[str, float]:
            weights = self._weights(model, SkippedNodes())
            return {weight.holder.name: float(weight.holder.tensor.nbytes) for weight in weights}

        result = within_budget(Levels(build, sizes, whole=len(names), mixes=False), context)
        if result.choices is None or not self._is_slowed(model, result, context.evaluator):
            return result
        return self._repeated(model, context, replace(result.choices, compute="float"), packs)

    def _repeated(self, model: ir.Model, context: Context, choices: WeightChoices, packs: Packs) -> PassResult:
        """What ``choices`` say, without measuring anything."""
        if choices.block not in self.storages:
            raise PreconditionError(f"choices:block: {no_such('block', choices.block, list(self.storages))}")
        same = replace(self, compute=choices.compute or self.compute)
        result = same._stored(model, context, choices.block, frozenset(choices.wide), packs)  # noqa: SLF001 - itself
        return replace(result, choices=choices if result.changes else None)

    def _is_slowed(self, model: ir.Model, result: _Stored, evaluator: Evaluator | None) -> bool:
        """Whether ``auto`` chose integer kernels that cost time in this model, on this machine."""
        if evaluator is None or self.compute != "auto" or not evaluator.is_timed or not result.has_integer_kernels:
            return False
        return evaluator.seconds(result.model) > _SLOWER * evaluator.seconds(model)

    def _stored(self, model: ir.Model, context: Context, name: str, wide: frozenset[str], packs: Packs) -> _Stored:
        """``model`` with its weights in the storage called ``name``, but for ``wide`` ones, which get more bits."""
        skipped, forms, storage = SkippedNodes(), Counter[StoredForm](), self.storages[name]
        dequantizer, weights = Dequantizer(Rewriter(model, context.sites)), list(self._weights(model, skipped))
        if not weights and not skipped:
            skipped.note("the model", "has no float32 weights that a kernel reads")
        for number, weight in enumerate(weights):
            context.progress(number / len(weights))
            if not np.isfinite(weight.holder.tensor.numpy()).all():
                skipped.note(weight.holder.name, "is not finite")
            elif context.sites.permits(STEP.name, queries.site(weight.nodes[0])):
                chosen = storage.wider if weight.holder.name in wide else storage
                forms[chosen.store(weight, dequantizer, packs)] += 1
        if forms and self.bits == 4:
            model.ir_version = max(model.ir_version, _IR_VERSION_OF_4_BITS)
        choices = WeightChoices(name, tuple(sorted(wide))) if forms else None
        changes = {str(form): count for form, count in forms.items()}
        return _Stored(model, changes, skipped.notes(), choices, any(form.compute == "integer" for form in forms))

    def _weights(self, model: ir.Model, left: SkippedNodes) -> Iterator[StoredWeight]:
        choice = self.node_filter
        left.unmatched(choice.unmatched(model))
        for weight in stored_weights(GraphTree.of(model)):
            if not isinstance(weight, StoredWeight):
                left.note(*weight)
            elif weight.holder.tensor.size < self.min_elements:
                left.note(weight.holder.name, f"has less than {self.min_elements} elements")
            elif all(choice.matches(node, weight.holder.name) for node in weight.nodes):
                yield weight
            else:
                left.note(weight.holder.name, "is left out by include= or exclude=")
