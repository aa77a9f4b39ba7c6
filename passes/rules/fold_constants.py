"""Compute before any run what depends on nothing but constants, if the file does not grow by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.analysis import constant_evaluation
from optimizer.analysis.symbolic.expressions import is_known
from optimizer.analysis.symbolic.operators import EVALUATORS
from optimizer.graph import constants, file_size, queries, tensors
from optimizer.graph.file_size import bytes_removed_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter


def _replace(rule: Rule, node: ir.Node, rewriter: Rewriter, found: Mapping[ir.Value, NDArray[np.generic]]) -> bool:
    """Let the outputs of ``node`` be constants, if that pays in bytes."""
    if not found or any(value.is_graph_output() for value in found):
        return False
    new = {value: ir.tensor(array) for value, array in found.items() if rewriter.known_constant(node, array) is None}
    if not all(rewriter.may_hold(node, tensor.dtype) for tensor in new.values()):
        return False
    cost = sum(file_size.tensor_bytes(tensors.compact(found[value], ""), value.name) for value in new)
    if cost > bytes_removed_with([node]) or not rule.permits(node, rewriter):
        return False
    for value, array in found.items():
        rewriter.replace_by_constant(value, array)
    return True


class FoldConstants(Rule):
    """A node whose inputs are constants becomes a constant."""

    name: ClassVar[str] = "fold-constants"
    summary: ClassVar[str] = "nodes whose inputs are all constants become constants, unless the file would grow"
    ops: ClassVar[frozenset[str]] = constant_evaluation.FOLDED

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Fold ``node``."""
        if not any(value is not None for value in node.inputs) or any(out.is_graph_output() for out in node.outputs):
            return False
        if any(value is not None and constants.constant_tensor(value) is None for value in node.inputs):
            return False
        arrays = constant_evaluation.evaluate(node, rewriter.opset(node))
        if arrays is None:
            return False
        pairs = zip(node.outputs, arrays, strict=True)
        return _replace(self, node, rewriter, {value: array for value, array in pairs if queries.has_uses(value)})


class FoldShapes(Rule):
    """A small integer tensor that follows from shapes becomes a constant."""

    name: ClassVar[str] = "fold-shapes"
    summary: ClassVar[str] = "shape arithmetic whose result is the same at every run becomes a constant"
    ops: ClassVar[frozenset[str]] = frozenset(EVALUATORS)

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Fold ``node``."""
        found: dict[ir.Value, NDArray[np.generic]] = {}
        for value in node.outputs:
            if not queries.has_uses(value):
                continue
            array = rewriter.values.computed(value)
            if array is None or value.dtype is None or not all(map(is_known, array.flat)):
                return False
            found[value] = np.array(list(array.flat), dtype=value.dtype.numpy()).reshape(array.shape)
        return _replace(self, node, rewriter, found)


RULES: tuple[Rule, ...] = (FoldShapes(), FoldConstants())
