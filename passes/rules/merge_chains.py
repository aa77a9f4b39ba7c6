"""Merge two operators in a row that one can do: Reshape, Transpose, Cast, Slice and Concat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from optimizer import graph
from optimizer.algorithms.rewriting.rules import Rule, Scope
from optimizer.algorithms.rewriting.squeeze import View, view
from optimizer.analysis.symbolic.operators import dims
from optimizer.analysis.symbolic.reshape_targets import Wish
from optimizer.graph import constants, file_size, tensors
from optimizer.graph.freed import freed_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def _inner(node: ir.Node, *ops: str) -> ir.Node | None:
    """The node that computes the first input of ``node``, if it is one of ``ops``."""
    value = node.inputs[0] if node.inputs else None
    producer = None if value is None else value.producer()
    if producer is None or not graph.is_standard(producer, *ops) or graph.has_references(producer):
        return None
    return producer


class MergeReshapes(Rule):
    """What only changes the shape, after what only changes the shape."""

    name: ClassVar[str] = "merge-reshapes"
    summary: ClassVar[str] = "Reshape, Flatten, Squeeze, Unsqueeze in a row become one Reshape"
    ops: ClassVar[frozenset[str]] = _MOVES

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Let ``node`` reshape what the node before it reads."""
        inner = _inner(node, *_MOVES)
        source = None if inner is None else inner.inputs[0]
        if inner is None or source is None or scope.opset(node) < 5:
            return False
        if node.op_type == "Reshape" and self._keeps_target(node, source):
            if not self.permits(node, scope):
                return False
            node.replace_input_with(0, source)
            return True
        if constants.reader(inner.outputs[0]) is not node:
            return False
        wanted = dims(node.outputs[0].shape)
        if wanted is None or 0 in wanted:
            return False
        targets = Wish(dims(source.shape), wanted, scope.nonzero(node)).targets()
        if targets:
            return self._become_reshape(node, inner, np.array(targets[0], dtype=np.int64), scope)
        return self._become_view(node, inner, view(dims(source.shape), wanted), scope)

    def _become_reshape(self, node: ir.Node, inner: ir.Node, array: NDArray[np.int64], scope: Scope) -> bool:
        cost = 0
        if scope.known_constant(node, array) is None:
            cost = file_size.tensor_bytes(tensors.compact(array, ""), "s_99999")
        if not scope.may_hold(node, ir.DataType.INT64) or cost + 12 > freed_bytes([inner]):
            return False
        if not self.permits(node, scope):
            return False
        node.op_type = "Reshape"
        node.attributes.clear()
        node.resize_inputs(2)
        graph.set_inputs(node, [inner.inputs[0], scope.constant(node, array, "s")])
        return True

    def _become_view(self, node: ir.Node, inner: ir.Node, found: View | None, scope: Scope) -> bool:
        """Where a -1 might not be found, ones can still be added or dropped at once."""
        if found is None or inner.inputs[0] is None or found.cost(node, scope) + 12 > freed_bytes([inner]):
            return False
        if not self.permits(node, scope):
            return False
        found.put(node, inner.inputs[0], scope)
        return True

    @staticmethod
    def _keeps_target(node: ir.Node, source: ir.Value) -> bool:
        target = graph.constant_ints(node.inputs[1])
        if target is None or node.attributes.get_int("allowzero", 0) != 0:
            return False
        before, after = dims(node.inputs[0].shape if node.inputs[0] else None), dims(source.shape)
        return all(
            size != 0 or (before is not None and after is not None and before[i : i + 1] == after[i : i + 1] != [])
            for i, size in enumerate(target)
        )


class MergeTransposes(Rule):
    """Transpose of Transpose."""

    name: ClassVar[str] = "merge-transposes"
    summary: ClassVar[str] = "Transpose of Transpose becomes one, or none"
    ops: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Let ``node`` transpose what the node before it reads."""
        inner = _inner(node, "Transpose")
        if inner is None or inner.inputs[0] is None:
            return False
        first, second = inner.attributes.get_ints("perm"), node.attributes.get_ints("perm")
        if first is None or second is None or len(first) != len(second) or not self.permits(node, scope):
            return False
        node.attributes.add(ir.AttrInt64s("perm", [first[axis] for axis in second]))
        node.replace_input_with(0, inner.inputs[0])
        return True


_EXACT = {
    ir.DataType.BOOL: frozenset(
        {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}
    ),
    ir.DataType.FLOAT16: frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE}),
    ir.DataType.FLOAT: frozenset({ir.DataType.DOUBLE}),
    ir.DataType.INT32: frozenset({ir.DataType.INT64, ir.DataType.DOUBLE}),
    ir.DataType.INT8: frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE}),
    ir.DataType.UINT8: frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE}),
}


class MergeCasts(Rule):
    """Cast of a Cast that lost nothing."""

    name: ClassVar[str] = "merge-casts"
    summary: ClassVar[str] = "Cast of a Cast that lost nothing becomes one, or none"
    ops: ClassVar[frozenset[str]] = frozenset({"Cast"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Let ``node`` cast what the node before it reads."""
        inner = _inner(node, "Cast")
        source = None if inner is None else inner.inputs[0]
        if inner is None or source is None or source.dtype is None:
            return False
        middle, last = inner.attributes.get_int("to", 0), node.attributes.get_int("to", 0)
        if middle not in _EXACT.get(source.dtype, ()) or last not in {*_EXACT[source.dtype], source.dtype}:
            return False
        if not self.permits(node, scope):
            return False
        node.replace_input_with(0, source)
        return True


class MergeSlices(Rule):
    """Slices of different axes."""

    name: ClassVar[str] = "merge-slices"
    summary: ClassVar[str] = "Slice of a Slice of other axes becomes one"
    ops: ClassVar[frozenset[str]] = frozenset({"Slice"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Let ``node`` slice what the node before it reads."""
        inner = _inner(node, "Slice")
        rank = graph.rank(node.outputs[0])
        if inner is None or rank is None or constants.reader(inner.outputs[0]) is not node:
            return False
        first, second = _slice_numbers(inner, rank), _slice_numbers(node, rank)
        if first is None or second is None or first.keys() & second.keys():
            return False
        both = {**first, **second}
        columns = [list(both), *(list(column) for column in zip(*both.values(), strict=True))]
        axes, starts, ends, steps = (np.array(column, dtype=np.int64) for column in columns)
        arrays = [starts, ends, axes, *([steps] if np.any(steps != 1) else [])]
        new = [array for array in arrays if scope.known_constant(node, array) is None]
        cost = sum(file_size.tensor_bytes(tensors.compact(array, ""), "s_99999") for array in new)
        if cost + 40 > freed_bytes([inner]) or not self.permits(node, scope):
            return False
        node.resize_inputs(1 + len(arrays))
        graph.set_inputs(node, [inner.inputs[0], *(scope.constant(node, array, "s") for array in arrays)])
        return True


def _slice_numbers(node: ir.Node, rank: int) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis, if all are constants."""
    if len(node.inputs) < 3:
        return None
    columns = [graph.constant_ints(value) for value in node.inputs[1:] if value is not None]
    if len(columns) != len(node.inputs) - 1 or any(column is None for column in columns):
        return None
    starts, ends, *rest = [column for column in columns if column is not None]
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    return {axis % rank: item for axis, *item in zip(axes, starts, ends, steps, strict=True)}  # type: ignore[misc]  # three items, which a starred name forgets


class MergeConcats(Rule):
    """Concat of Concat."""

    name: ClassVar[str] = "merge-concats"
    summary: ClassVar[str] = "Concat of Concat along the same axis becomes one"
    ops: ClassVar[frozenset[str]] = frozenset({"Concat"})

    def rewrite(self, node: ir.Node, scope: Scope) -> bool:
        """Take in the inputs of the Concats that ``node`` alone reads."""
        axis, rank = node.attributes.get_int("axis", 0), graph.rank(node.outputs[0])
        values: list[ir.Value | None] = []
        for value in node.inputs:
            inner = None if value is None or constants.reader(value) is not node else value.producer()
            if inner is not None and graph.is_standard(inner, "Concat") and not graph.has_references(inner):
                other = inner.attributes.get_int("axis", 0)
                if other == axis or (rank is not None and (other - axis) % rank == 0):
                    values += inner.inputs
                    continue
            values.append(value)
        if len(values) == len(node.inputs) or not self.permits(node, scope):
            return False
        node.resize_inputs(len(values))
        graph.set_inputs(node, values)
        return True


RULES: tuple[Rule, ...] = (
    MergeReshapes(),
    MergeTransposes(),
    MergeCasts(),
    MergeSlices(),
    MergeConcats(),
)
