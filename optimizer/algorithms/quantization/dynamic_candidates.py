"""Nodes that compute in integers with activations quantized at each run, and why the others do not.

What pays was measured (ONNX Runtime 1.32, one thread, AVX2): weights of 128 x 128 break even with one row of
activations, and gain 15 to 20 % with 64; 256 x 256 gain 15 % with one row; less than 64 output channels lose at any
size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.graph import queries, weight_sources
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from optimizer.graph.weight_sources import ConstantOrigin

OLDEST_OPSET = 11  # of DynamicQuantizeLinear
PRODUCTS, RECURRENT = having(Trait.PRODUCT), having(Trait.RECURRENT)
LEAST_COLUMNS = 64  # with fewer, quantizing x costs what the product gains
ONE_ROW = 4  # so many times the elements does a weight need to pay where x has a single row


@dataclass(frozen=True)
class Candidate:
    """A node that has an integer form.

    Attributes:
        node: MatMul, Gemm or LSTM.
        sources: Its weights: one, for an LSTM two.
    """

    node: ir.Node
    sources: tuple[ConstantOrigin, ...]

    @property
    def elements(self) -> int:
        """How many elements the weights have."""
        return sum(source.tensor.size for source in self.sources)

    @property
    def pays_from(self) -> int:
        """How many times ``min-elements`` it takes to pay."""
        shape = queries.static_shape(self.node.inputs[0])
        is_product = self.node.op_type in PRODUCTS
        return ONE_ROW if is_product and shape is not None and math.prod(shape[:-1]) == 1 else 1

    @property
    def is_finite(self) -> bool:
        """Whether the weights are free of NaN and infinities."""
        return all(bool(np.isfinite(source.tensor.numpy()).all()) for source in self.sources)

    def tie(self) -> str | None:
        """What keeps it in float because it reads the same weight and has no integer form."""
        for source in self.sources:
            for reader, _ in weight_sources.readers(source.root):
                if not queries.is_standard(reader, *PRODUCTS, "LSTM"):
                    return f"shares its weight with a {reader.op_type}, to which it stays tied"
        return None


def candidate(node: ir.Node) -> Candidate | str | None:
    """``node`` with its weights; why it has to stay; or ``None`` if it has no constant weights to begin with."""
    if not queries.is_standard(node, *PRODUCTS, *RECURRENT) or queries.has_references(node) or len(node.inputs) < 2:
        return None
    positions = (1,) if node.op_type in PRODUCTS else (1, 2)
    sources = [weight_sources.origin_of(node.inputs[position]) for position in positions]
    weights = tuple(source for source in sources if source is not None)
    if len(weights) < len(sources) or weight_sources.origin_of(node.inputs[0]) is not None:
        return None
    reason = _obstacle(node, weights)
    return Candidate(node, weights) if reason is None else reason


def _obstacle(node: ir.Node, sources: tuple[ConstantOrigin, ...]) -> str | None:
    dtypes = {source.dtype for source in sources}
    if not all(source.is_float_throughout for source in sources):
        return "is quantized already"
    if dtypes != {ir.DataType.FLOAT}:
        return f"computes in {sources[0].dtype.name.lower()}, its integer form in float32 only"
    if node.op_type in {"GRU", "RNN"}:
        return f"is a {node.op_type}, for which ONNX Runtime has no integer kernel"
    if node.op_type == "LSTM":
        return "has layout=1, which the integer kernel does not know" if node.attributes.get_int("layout", 0) else None
    if node.attributes.get_int("transA", 0):
        return "reads its activation transposed"
    array = sources[0].array()
    if array.ndim != 2 or 0 in array.shape:
        return "has a weight that is no matrix"
    columns = array.shape[0 if node.attributes.get_int("transB", 0) else 1]
    return f"has less than {LEAST_COLUMNS} output channels: no gain" if columns < LEAST_COLUMNS else None
