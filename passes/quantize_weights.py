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
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from optimizer.algorithms.quantization.weight_only.dequantization import Dequantizer
from optimizer.algorithms.quantization.weight_only.storage import AUTOMATIC, Packs, Storage
from optimizer.algorithms.quantization.weight_only.weights import StoredWeight, stored_weights
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.algorithms.search.budgeted import Search, grouped
from optimizer.contract.node_filter import NodeFilterOptions
from optimizer.contract.options import Count, Only
from optimizer.contract.passes import Gain, Pass, PassResult, Step
from optimizer.contract.progress import Progress
from optimizer.contract.skipped import SkippedNodes
from optimizer.graph import queries
from optimizer.graph.graph_tree import GraphTree
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import onnx_ir as ir

    from optimizer.contract.evaluator import Evaluator
    from optimizer.contract.passes import Context

STEP = Step("quantize-weights", "a weight is stored as integers")
_IR_VERSION_OF_4_BITS = 10
_SLOWER = 1.05  # times the float model's time: what one coarse comparison can tell


def _is_length(block: int) -> bool:
    """Whether ONNX Runtime's kernels have blocks of this length."""
    return block == 0 or (block >= 16 and block & (block - 1) == 0)


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
        if context.choices:
            return self.repeated(model, context, context.choices, packs)
        if context.evaluator is None:
            return self._stored(model, context, next(iter(self.storages)), frozenset(), packs)
        result = self._within_aim(model, context, context.evaluator, packs)
        if not self._is_slowed(model, result, context.evaluator):
            return result
        choices = {**result.choices, "compute": "float"}
        return self.repeated(model, context, choices, packs)

    def repeated(self, model: ir.Model, context: Context, choices: Mapping[str, Any], packs: Packs) -> PassResult:
        """What ``choices`` say, without measuring anything."""
        wide, name = frozenset(choices.get("wide", ())), choices.get("block", list(self.storages)[-1])
        chosen = replace(self, compute=choices.get("compute", self.compute))
        result = chosen._stored(model, context, name, wide, packs)  # noqa: SLF001 - the same pass with one other option
        return replace(result, choices=choices if result.changes else {})

    def _within_aim(self, model: ir.Model, context: Context, evaluator: Evaluator, packs: Packs) -> PassResult:
        """The largest blocks that hold the aim, or the search's answer if none do."""
        for name in self.storages:
            context.progress.begin(f"all weights, block={name}")
            result = self._stored(clone(model), context, name, frozenset(), packs)
            if not result.changes or evaluator.budget_used(result.model) <= context.budget_limit:
                return result
        return self._searched(model, context, evaluator, packs)

    def _is_slowed(self, model: ir.Model, result: PassResult, evaluator: Evaluator) -> bool:
        """Whether ``auto`` chose integer kernels that cost time in this model, on this machine."""
        if self.compute != "auto" or not evaluator.is_timed or not any(map(Storage.for_kernels, result.changes)):
            return False
        return evaluator.seconds(result.model) > _SLOWER * evaluator.seconds(model)

    def _searched(self, model: ir.Model, context: Context, evaluator: Evaluator, packs: Packs) -> PassResult:
        """``model`` with as many bytes in the last storage as hold the aim, the others in the next wider."""
        name = list(self.storages)[-1]
        sizes = {
            weight.holder.name: float(weight.holder.tensor.nbytes) for weight in self._weights(model, SkippedNodes())
        }

        silent = replace(context, progress=Progress())  # what is built is a part of the search

        def build(narrow: frozenset[str]) -> PassResult:
            return self._stored(clone(model), silent, name, sizes.keys() - narrow, packs)

        search = Search(lambda narrow: build(narrow).model, evaluator, context.budget_limit, context.progress)
        return build(search.run(grouped(list(sizes), sizes)))

    def _stored(self, model: ir.Model, context: Context, name: str, wide: AbstractSet[str], packs: Packs) -> PassResult:
        """``model`` with its weights in the storage called ``name``, but for ``wide`` ones, which get more bits."""
        left, changes, storage = SkippedNodes(), Counter[str](), self.storages[name]
        dequantizer, found = Dequantizer(Rewriter(model, context.sites)), list(self._weights(model, left))
        if not found and not left:
            left.note("the model", "has no float32 weights that a kernel reads")
        for done, weight in enumerate(found):
            context.progress(done / len(found))
            if not np.isfinite(weight.holder.tensor.numpy()).all():
                left.note(weight.holder.name, "is not finite")
            elif context.sites.permits(STEP.name, queries.site(weight.nodes[0])):
                chosen = storage.wider if weight.holder.name in wide else storage
                changes[chosen.store(weight, dequantizer, packs)] += 1
        if changes and self.bits == 4:
            model.ir_version = max(model.ir_version, _IR_VERSION_OF_4_BITS)
        choices = {"block": name, "wide": sorted(wide)} if changes else {}
        return PassResult(model, dict(changes), left.notes(), choices)

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
