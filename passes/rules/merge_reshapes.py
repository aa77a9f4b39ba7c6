"""Reshape, Flatten, Squeeze and Unsqueeze behind each other as one Reshape."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.algorithms.rewriting.squeeze import View, view
from optimizer.analysis.symbolic.operators import dims
from optimizer.analysis.symbolic.reshape_targets import ReshapeTarget
from optimizer.graph import constants, editing, file_size, queries, tensors
from optimizer.graph.file_size import bytes_removed_with

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optimizer.algorithms.rewriting.rewriter import Rewriter


_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


class MergeReshapes(Rule):
    """What only changes the shape, after what only changes the shape."""

    name: ClassVar[str] = "merge-reshapes"
    summary: ClassVar[str] = "Reshape, Flatten, Squeeze, Unsqueeze in a row become one Reshape"
    ops: ClassVar[frozenset[str]] = _MOVES

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let ``node`` reshape what the node before it reads."""
        inner = queries.producer_of_first_input(node, *_MOVES)
        source = None if inner is None else inner.inputs[0]
        if inner is None or source is None or rewriter.opset(node) < 5:
            return False
        if node.op_type == "Reshape" and self._keeps_target(node, source):
            if not self.permits(node, rewriter):
                return False
            node.replace_input_with(0, source)
            return True
        if queries.only_consumer(inner.outputs[0]) is not node:
            return False
        wanted = dims(node.outputs[0].shape)
        if wanted is None or 0 in wanted:
            return False
        targets = ReshapeTarget(dims(source.shape), wanted, rewriter.nonzero(node)).targets()
        if targets:
            return self._become_reshape(node, inner, np.array(targets[0], dtype=np.int64), rewriter)
        return self._become_view(node, inner, view(dims(source.shape), wanted), rewriter)

    def _become_reshape(self, node: ir.Node, inner: ir.Node, array: NDArray[np.int64], rewriter: Rewriter) -> bool:
        cost = 0
        if rewriter.known_constant(node, array) is None:
            cost = file_size.tensor_bytes(tensors.compact(array, ""), "s_99999")
        if not rewriter.may_hold(node, ir.DataType.INT64) or cost + 12 > bytes_removed_with([inner]):
            return False
        if not self.permits(node, rewriter):
            return False
        node.op_type = "Reshape"
        node.attributes.clear()
        node.resize_inputs(2)
        editing.set_inputs(node, [inner.inputs[0], rewriter.constant(node, array, "s")])
        return True

    def _become_view(self, node: ir.Node, inner: ir.Node, found: View | None, rewriter: Rewriter) -> bool:
        """Where a -1 might not be found, ones can still be added or dropped at once."""
        if found is None or inner.inputs[0] is None or found.cost(node, rewriter) + 12 > bytes_removed_with([inner]):
            return False
        if not self.permits(node, rewriter):
            return False
        found.put(node, inner.inputs[0], rewriter)
        return True

    @staticmethod
    def _keeps_target(node: ir.Node, source: ir.Value) -> bool:
        target = constants.constant_ints(node.inputs[1])
        if target is None or node.attributes.get_int("allowzero", 0) != 0:
            return False
        before, after = dims(node.inputs[0].shape if node.inputs[0] else None), dims(source.shape)
        return all(
            size != 0 or (before is not None and after is not None and before[i : i + 1] == after[i : i + 1] != [])
            for i, size in enumerate(target)
        )


RULES: tuple[Rule, ...] = (MergeReshapes(),)
