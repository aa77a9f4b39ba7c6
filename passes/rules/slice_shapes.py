"""Take a part of a shape at once: ``Gather``, ``Slice``, ``Concat`` … of ``Shape(x)`` as ``Shape(x, start, end)``.

Since opset 15, Shape gives any run of dimensions. What picks them one by one and joins them again is not needed then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.edit import Edit, form
from optimizer.algorithms.rewriting.edit_bytes import nodes_removed
from optimizer.algorithms.rewriting.rules import NO_MATCH, Applied, Rule
from optimizer.analysis.symbolic.operators import dims
from optimizer.contract.refusal import Refusal
from optimizer.graph import queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.algorithms.rewriting.rewriter import Rewriter

_FIRST_OPSET = 15
_MAX_DEPTH = 4
_PICKING = frozenset({"Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Split", "Reshape", "Cast"})


class SliceShapes(Rule):
    """Shape of a run of dimensions."""

    name: ClassVar[str] = "slice-shapes"
    summary: ClassVar[str] = "Gather, Slice, Concat of dimensions of one Shape become a Shape with start and end"
    ops: ClassVar[frozenset[str]] = frozenset({"Concat", "Gather", "Slice", "Unsqueeze", "Reshape"})

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> Applied | Refusal:
        """Let ``node`` be a Shape."""
        output = node.outputs[0]
        array = rewriter.values.computed(output) if rewriter.opset(node) >= _FIRST_OPSET else None
        if array is None or array.ndim != 1 or not array.size or output.dtype != ir.DataType.INT64:
            return NO_MATCH
        wanted = list(array)
        result: Applied | Refusal = NO_MATCH
        for source in _sources(node, _MAX_DEPTH):
            shape = dims(source.shape) or []
            start = next((i for i in range(len(shape)) if shape[i : i + len(wanted)] == wanted), None)
            if start is None:
                continue
            result = self._become_shape(node, source, start, start + len(wanted), rewriter)
            if not isinstance(result, Refusal):
                break
        return result

    def _become_shape(
        self, node: ir.Node, source: ir.Value, start: int, end: int, rewriter: Rewriter
    ) -> Applied | Refusal:
        starts = [ir.AttrInt64("start", start)] if start else []
        ends = [ir.AttrInt64("end", end)] if end < len(source.shape or ()) else []
        wanted = Edit(forms={node: form("Shape", [source], *starts, *ends)})
        if not nodes_removed(wanted):
            return Refusal("what it picks from has other users")
        return self.apply(wanted, rewriter, node)


def _sources(node: ir.Node, depth: int) -> Iterator[ir.Value]:
    """What the Shape nodes before ``node`` look at."""
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if producer is None or queries.has_references(producer):
            continue
        if queries.is_standard(producer, "Shape") and producer.inputs[0] is not None:
            yield producer.inputs[0]
        elif depth and queries.is_standard(producer, *_PICKING):
            yield from _sources(producer, depth - 1)


RULES: tuple[Rule, ...] = (SliceShapes(),)
