"""Constants that are kernels' weights, and what is to be told of them before they are stored as integers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from optimizer.algorithms.quantization.weight_rows import RowLayout
from optimizer.algorithms.rewriting.stored_constants import stored_constants
from optimizer.graph import constants, queries, weight_sources
from optimizer.graph.operators import Trait, having
from optimizer.graph.sparse import SparseTensor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.stored_constants import StoredConstant
    from optimizer.graph.graph_tree import GraphTree

PRODUCTS, _RECURRENT = having(Trait.PRODUCT), having(Trait.RECURRENT)
_POSITIONS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(having(Trait.LINEAR), (1,)),
    **dict.fromkeys(PRODUCTS, (0, 1)),
    **dict.fromkeys(_RECURRENT, (1, 2)),
    "Gather": (0,),
    "Slice": (0,),
}
_ALONG_LAST_AXIS = frozenset({*PRODUCTS, "Slice"})
OPERATORS = frozenset(_POSITIONS)
_DEPTH = 8  # nodes between the indices of a codebook and their bytes, at most


@dataclass(frozen=True)
class StoredWeight:
    """A constant that only kernels and look-ups read.

    Attributes:
        holder: The constant.
        readers: Who reads it, through views or not, and at which position.
        layout: Its rows.
    """

    holder: StoredConstant
    readers: tuple[tuple[ir.Node, int], ...]
    layout: RowLayout

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The readers without positions."""
        return tuple(node for node, _ in self.readers)

    @property
    def is_table(self) -> bool:
        """Whether it is a matrix whose lines are looked up, and nothing else is done with it."""
        gathers = (node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0 for node in self.nodes)
        return len(self.layout.shape) == 2 and all(gathers) and all(self._directly())

    @property
    def is_matrix_of_one_product(self) -> bool:
        """Whether all that is done with it is one product that ONNX Runtime can do with integers.

        Weights that several nodes share are not fused: they would be dequantized at each run.
        """
        (node, position), *others = self.readers
        return not others and position == 1 and _is_plain_product(node)

    @property
    def is_for_single_rows(self) -> bool:
        """Whether every product with it is known to have a single row of activations."""
        shapes = [queries.static_shape(node.inputs[0]) for node in self.nodes]
        return all(shape is not None and math.prod(shape[:-1]) == 1 for shape in shapes)

    def matrix(self) -> NDArray[Any]:
        """What the one product that reads it multiplies with, as (inputs, outputs)."""
        (node,) = self.nodes
        source = weight_sources.origin_of(node.inputs[1])
        if source is None:
            raise ValueError(f"{queries.site(node)} has no constant weight")
        return source.array().T if node.attributes.get_int("transB", 0) else source.array()

    def _directly(self) -> Iterator[bool]:
        return (node.inputs[position] is self.holder.value for node, position in self.readers)


def stored_weights(
    tree: GraphTree, types: Collection[ir.DataType] = (ir.DataType.FLOAT,)
) -> Iterator[StoredWeight | tuple[str, str]]:
    """Each float constant that a kernel or a look-up reads as its weight; those to be left alone as (name, reason)."""
    for holder in stored_constants(tree, lambda _: False):
        if not holder.tensor.dtype.is_floating_point():
            continue
        readers = tuple(weight_sources.readers(holder.value))
        fitting = [(node, position) for node, position in readers if _is_weight(node, position)]
        if not fitting:
            continue
        others = [node.op_type for node, position in readers if (node, position) not in fitting]
        reason = "is a codebook: it is looked up at constant places" if _is_codebook(fitting) else None
        reason = reason or _obstacle(holder, others, types)
        yield StoredWeight(holder, readers, _layout(holder, *fitting[0])) if reason is None else (holder.name, reason)


def _is_weight(node: ir.Node, position: int) -> bool:
    return queries.is_standard(node, *OPERATORS) and position in _POSITIONS[node.op_type]


def _is_codebook(readers: Iterable[tuple[ir.Node, int]]) -> bool:
    """Whether some look-up is folded to a constant."""
    return any(node.op_type == "Gather" and _is_folded(node.inputs[1]) for node, _ in readers)


def _is_folded(value: ir.Value | None, depth: int = _DEPTH) -> bool:
    """Whether ``value`` is computed from nothing but constants, in at most ``depth`` steps."""
    if value is None or constants.constant_tensor(value) is not None:
        return value is not None
    node = value.producer()
    return node is not None and depth > 0 and all(_is_folded(source, depth - 1) for source in node.inputs)


def _obstacle(holder: StoredConstant, others: list[str], types: Collection[ir.DataType]) -> str | None:
    if holder.keep_reason is not None:
        return holder.keep_reason.value
    if isinstance(holder.tensor, SparseTensor):
        return "is sparse"
    if holder.tensor.dtype not in types:
        return f"is of type {holder.tensor.dtype.name.lower()}: only float32 is quantized"
    if others:
        return f"is read by a {others[0]} too"
    if weight_sources.is_given_out(holder.value):
        return "is a graph output"
    return "is a vector" if len(holder.shape) < 2 else None


def _layout(holder: StoredConstant, node: ir.Node, position: int) -> RowLayout:
    """The rows that belong to output channels of ``node``, as far as views between it and the constant let them."""
    shape = holder.shape
    if node.op_type in _RECURRENT and len(shape) == 3:
        return RowLayout(shape, 2)
    if node.op_type not in PRODUCTS or len(shape) != 2:
        return RowLayout(shape, len(shape) - 1 if node.op_type in _ALONG_LAST_AXIS else 1)
    source = weight_sources.origin_of(node.inputs[position])
    flips = [step.op_type for step in source.path if step.op_type in {"Transpose", "Reshape"}] if source else []
    has_columns = position == 1 and not node.attributes.get_int("transB", 0)
    if len(flips) % 2:
        has_columns = not has_columns
    return RowLayout(shape, 0 if has_columns else 1)


def _is_plain_product(node: ir.Node) -> bool:
    """Whether ``node`` is a MatMul with a matrix, or a Gemm that is one with an addition behind it."""
    if not queries.is_standard(node, *PRODUCTS) or queries.has_references(node):
        return False
    source = weight_sources.origin_of(node.inputs[1])
    if source is None or source.dtype != ir.DataType.FLOAT or source.array().ndim != 2:
        return False
    attribute = node.attributes.get_float
    return not node.attributes.get_int("transA", 0) and attribute("alpha", 1.0) == 1.0 and attribute("beta", 1.0) == 1.0
