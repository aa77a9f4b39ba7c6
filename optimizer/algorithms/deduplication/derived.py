"""Constants that are made from another one by a Reshape or a Transpose, which ONNX Runtime folds when it loads.

The file then holds one copy instead of two; what runs is the same, since constant folding writes the result back into
an initializer before kernels are chosen. It takes a node, so it is worth it for large weights only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.deduplication.equal import prepend, remove
from optimizer.graph import constants, editing, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.rewriting.stored_constants import StoredConstant
    from optimizer.graph.graph_tree import GraphTree

# Below this the node costs more time at load than the bytes are worth; and constant folders, which fold what is
# smaller than 8 KiB, would write the copy back.
WORTH_A_NODE = 16 * 1024

_DTYPES = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    }
)
# Operators that take any of their inputs at run time; others may want an initializer, and nothing is folded for them
# when the caller switches the optimizations off.
_READERS = (
    *("Add", "Conv", "ConvTranspose", "Div", "Einsum", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "Mul", "PRelu"),
    *("Pow", "RNN", "Sub", "Where"),
)


def must_stay(holder: StoredConstant) -> str | None:
    """Why ``holder`` may not be made by a node, or ``None`` if it may."""
    if holder.keep_reason is not None:
        return holder.keep_reason.value
    if holder.tensor.dtype not in _DTYPES:
        return f"holds {holder.tensor.dtype.name}, on which Reshape and Transpose are not folded everywhere"
    strangers = [usage.node for usage in holder.value.uses() if not queries.is_standard(usage.node, *_READERS)]
    return f"is read by {strangers[0].op_type}, which may want an initializer" if strangers else None


def is_source(kept: StoredConstant, duplicate: StoredConstant, tree: GraphTree) -> bool:
    """Whether a node beside ``kept`` can make ``duplicate``: it lends itself, and the other's graph sees it."""
    may_lend = kept.keep_reason is None or (kept.keep_reason.may_stand_for_equals and kept.is_initializer)
    is_seen = tree.encloses(kept.graph, duplicate.graph) and tree.names.count(kept.name) == 1
    return may_lend and is_seen and tree.root(kept.graph) not in tree.functions


def derive_reshaped(kept: StoredConstant, duplicate: StoredConstant, tree: GraphTree) -> None:
    """Let a Reshape of ``kept`` make what ``duplicate`` holds, and remove ``duplicate``; ``is_source`` holds."""
    dims = np.array(duplicate.shape, np.int64)
    shape = constants.add_initializer(kept.graph, tree.names.fresh(f"{kept.name}_shape"), dims)
    _derive(kept, duplicate, ir.node("Reshape", [kept.value, shape]), tree)


def derive_transposed(kept: StoredConstant, duplicate: StoredConstant, axes: Sequence[int], tree: GraphTree) -> None:
    """Let a Transpose of ``kept`` by ``axes`` make what ``duplicate`` holds, and remove ``duplicate``."""
    _derive(kept, duplicate, ir.node("Transpose", [kept.value], {"perm": list(axes)}), tree)


def _derive(kept: StoredConstant, duplicate: StoredConstant, node: ir.Node, tree: GraphTree) -> None:
    """Put ``node`` first in the graph of ``kept``; its output takes the name of ``duplicate`` where that is free."""
    output = node.outputs[0]
    editing.describe_like(output, duplicate.value)
    output.type, output.shape = ir.TensorType(duplicate.tensor.dtype), ir.Shape(duplicate.shape)
    remove(duplicate, output, tree)
    output.name = tree.names.fresh(duplicate.name)
    prepend(kept.graph, node)
