"""Compute before any run what depends on nothing but constants, if the file does not grow by it.

Counterparts elsewhere: ``FoldConstantsPass`` of onnxscript's optimizer, ``ConstantFolding`` of ONNX Runtime. They take
a limit of bytes where this counts by how many the file gets smaller or larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.analysis import constant_evaluation
from optimizer.analysis.symbolic.expressions import is_known
from optimizer.analysis.symbolic.operators import EVALUATORS
from optimizer.contract.refusal import Refusal
from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_IS_OUTPUT = Refusal("a graph output is computed by a node, and is no constant")


def _fold(
    rule: Rule, node: ir.Node, rewriter: Rewriter, arrays: Mapping[ir.Value, NDArray[np.generic]]
) -> Applied | Refusal:
    """Let the outputs of ``node`` that have uses be constants."""
    if not arrays:
        return NO_MATCH
    if any(value.is_graph_output() for value in arrays):
        return _IS_OUTPUT
    if not all(
        rewriter.may_hold(node, ir.Tensor(array).dtype)
        for array in arrays.values()
        if rewriter.known_constant(node, array) is None
    ):
        return Refusal("a Constant node before opset 9 holds floats only")
    return rule.apply(Edit(computed=arrays), rewriter, node)


class FoldConstants(Rule):
    """A node whose inputs are constants becomes a constant."""

    name: ClassVar[str] = "fold-constants"
    summary: ClassVar[str] = "nodes whose inputs are all constants become constants, unless the file would grow"
    ops: ClassVar[frozenset[str]] = constant_evaluation.FOLDED

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Fold ``node``."""
        if not any(value is not None for value in node.inputs):
            return NO_MATCH
        if any(value is not None and constants.constant_tensor(value) is None for value in node.inputs):
            return NO_MATCH
        if any(output.is_graph_output() for output in node.outputs):
            return _IS_OUTPUT
        arrays = constant_evaluation.evaluate(node, rewriter.opset(node))
        if arrays is None:
            return Refusal("its value cannot be told for certain, or is much larger than what it is made of")
        pairs = zip(node.outputs, arrays, strict=True)
        return _fold(self, node, rewriter, {value: array for value, array in pairs if queries.has_uses(value)})


class FoldShapes(Rule):
    """A small integer tensor that follows from shapes becomes a constant."""

    name: ClassVar[str] = "fold-shapes"
    summary: ClassVar[str] = "shape arithmetic whose result is the same at every run becomes a constant"
    ops: ClassVar[frozenset[str]] = frozenset(EVALUATORS)

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Fold ``node``."""
        arrays: dict[ir.Value, NDArray[np.generic]] = {}
        for value in node.outputs:
            if not queries.has_uses(value):
                continue
            elements = rewriter.values.computed(value)
            if elements is None or value.dtype is None or not all(map(is_known, elements.flat)):
                return NO_MATCH
            arrays[value] = np.array(list(elements.flat), dtype=value.dtype.numpy()).reshape(elements.shape)
        return _fold(self, node, rewriter, arrays)


RULES: tuple[Rule, ...] = (FoldShapes(), FoldConstants())
