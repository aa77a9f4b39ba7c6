"""Take a part of a shape at once: ``Gather``, ``Slice``, ``Concat`` … of ``Shape(x)`` as ``Shape(x, start, end)``.

Since opset 15, Shape gives any run of dimensions. What picks them one by one and joins them again is not needed then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from optimizer.algorithms.rewriting.rules import Rule
from optimizer.analysis.symbolic.operators import dims
from optimizer.graph import file_size, queries
from optimizer.graph.file_size import bytes_removed_with, nodes_removed_with

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

    def rewrite(self, node: ir.Node, rewriter: Rewriter) -> bool:
        """Let ``node`` be a Shape."""
        output = node.outputs[0]
        array = rewriter.values.computed(output) if rewriter.opset(node) >= _FIRST_OPSET else None
        if array is None or array.ndim != 1 or not array.size or output.dtype != ir.DataType.INT64:
            return False
        wanted = list(array)
        for source in _sources(node, _MAX_DEPTH):
            known = dims(source.shape) or []
            start = next((i for i in range(len(known)) if known[i : i + len(wanted)] == wanted), None)
            if start is not None and self._becomes(node, source, (start, start + len(wanted), len(known)), rewriter):
                return True
        return False

    def _becomes(self, node: ir.Node, source: ir.Value, run: tuple[int, int, int], rewriter: Rewriter) -> bool:
        start, end, rank = run
        bounds = [
            *([ir.AttrInt64("start", start)] if start else []),
            *([ir.AttrInt64("end", end)] if end < rank else []),
        ]
        costs = file_size.text_bytes([source.name, node.outputs[0].name, "Shape", node.name or None]) + sum(
            file_size.field_bytes(file_size.attribute_bytes(bound)) for bound in bounds
        )
        if (
            len(nodes_removed_with([node])) < 2
            or costs > bytes_removed_with([node])
            or not self.permits(node, rewriter)
        ):
            return False
        node.op_type = "Shape"
        node.attributes.clear()
        for bound in bounds:
            node.attributes.add(bound)
        node.resize_inputs(1)
        node.replace_input_with(0, source)
        return True


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
