"""Put one chain of nodes on a batch in the place of parallel branches, where the file does not grow by it.

::

    x_1 -> f -> y_1                                                                        -> y_1
    x_2 -> f -> y_2      becomes    x_1, x_2 -> Concat(axis 0) -> f -> Split(axis 0) -> y_2

Batches of equal length are split evenly. Others are told to the Split, by a constant or, where they are only known at
run time, by the shapes of the inputs, which takes opset 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.horizontal_fusion.split import give_input, split
from optimizer.algorithms.rewriting.planned_constants import PlannedConstants
from optimizer.graph import editing, file_size, queries
from optimizer.graph.editing import copy_of_node, replace_under_its_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.algorithms.horizontal_fusion.branches import Branches
    from optimizer.algorithms.rewriting.rewriter import Rewriter

_SIZES_AT_RUN_TIME, _SHAPE_OF_ONE_AXIS = 13, 15


@dataclass(frozen=True)
class Batching:
    """Branches that can be batched: all that would be new, made but in no graph yet.

    Attributes:
        branches: What it takes the place of.
        nodes: The new nodes in order.
        cuts: The Splits among them, with the values that their outputs stand for.
        sizes: A stand-in for the constant that says the lengths of the batches, and what it holds.
        grows: By how many bytes the file grows; negative if it shrinks.
    """

    branches: Branches
    nodes: list[ir.Node]
    cuts: list[tuple[ir.Node, tuple[ir.Value, ...]]]
    sizes: tuple[ir.Value, list[int]] | None
    grows: int

    def abandon(self) -> None:
        """Leave everything as it is."""
        for node in self.nodes:
            editing.set_inputs(node, [None] * len(node.inputs))

    def put(self, rewriter: Rewriter) -> None:
        """Put the new nodes in the place of the old ones; the graph may have to be sorted then."""
        anchor = self.branches.steps[0][0]
        for node in self.nodes:
            anchor.prepend(node)
        if self.sizes is not None:
            stand_in, sizes = self.sizes
            editing.replace_values({stand_in: rewriter.constant(self.nodes[0], np.array(sizes, np.int64), "sizes")})
        for node, values in self.cuts:
            for output, value in zip(node.outputs, values, strict=True):
                replace_under_its_name(output, value)
        editing.remove_unused(list(self.branches.nodes()))


def plan(branches: Branches, rewriter: Rewriter) -> Batching | str:
    """What batching ``branches`` would make and cost, or why they cannot be."""
    first = branches.steps[0][0]
    lengths = [_length(value) for value in branches.inputs]
    opset = rewriter.opset(first)
    fixed = _fixed(lengths)
    if fixed is None and opset < _SIZES_AT_RUN_TIME:
        return "has batches of lengths that only a run tells, which takes opset 13"
    joined = ir.node("Concat", branches.inputs, {"axis": 0}, name="")
    joined.outputs[0].name = rewriter.names.fresh("batch")
    nodes, batched = [joined], {branches.inputs[0]: joined.outputs[0]}
    for step in branches.steps:
        inputs = [value if value is None else batched.get(value, value) for value in step[0].inputs]
        nodes.append(copy_of_node(step[0], inputs, [rewriter.names.fresh("batch")]))
        batched[step[0].outputs[0]] = nodes[-1].outputs[0]
    leaving = branches.leaving()
    cuts = [split(batched[values[0]], fixed or range(len(values)), 0, opset) for values in leaving]
    sizes: ir.Value | None = None
    making: list[ir.Node] = []
    grows, constant = 0, None
    if any(needs for _, needs in cuts):
        if fixed is None:
            making = _sizes(branches.inputs, opset, rewriter)
            sizes = making[-1].outputs[0]
        else:
            planned = PlannedConstants(rewriter).constant(first, np.array(fixed, np.int64), "sizes")
            sizes, grows = ir.Value(name=planned.name), planned.bytes
            constant = sizes, fixed
    for (node, _), values in zip(cuts, leaving, strict=True):
        if sizes is not None:
            give_input(node, sizes)
        for output, value in zip(node.outputs, values, strict=True):
            output.name = value.name
    nodes += [*making, *(node for node, _ in cuts)]
    grows += sum(map(file_size.node_bytes, nodes)) - sum(map(file_size.node_bytes, branches.nodes()))
    return Batching(branches, nodes, list(zip((node for node, _ in cuts), leaving, strict=True)), constant, grows)


def _length(value: ir.Value) -> int | str | None:
    size = None if value.shape is None else value.shape[0]
    return size.value if isinstance(size, ir.SymbolicDim) else size


def _fixed(lengths: Sequence[int | str | None]) -> list[int] | None:
    """Numbers that are equal where the lengths are, ``None`` if it takes a run to tell them."""
    if len(set(lengths)) == 1 and lengths[0] is not None:
        return [1] * len(lengths)
    numbers = [length for length in lengths if isinstance(length, int)]
    return numbers if len(numbers) == len(lengths) else None


def _sizes(inputs: Sequence[ir.Value], opset: int, rewriter: Rewriter) -> list[ir.Node]:
    """Nodes of which the last one computes the lengths of the batches from the shapes of ``inputs``."""
    one_axis = {"end": 1} if opset >= _SHAPE_OF_ONE_AXIS else {}
    shapes = [_named(ir.node("Shape", [value], one_axis, name=""), rewriter) for value in inputs]
    shapes.append(_named(ir.node("Concat", [node.outputs[0] for node in shapes], {"axis": 0}, name=""), rewriter))
    if not one_axis:
        rank = queries.rank(inputs[0]) or 0
        firsts = {"value_ints": [rank * number for number in range(len(inputs))]}
        shapes.append(_named(ir.node("Constant", [], firsts, name=""), rewriter))
        shapes.append(_named(ir.node("Gather", [node.outputs[0] for node in shapes[-2:]], name=""), rewriter))
    return shapes


def _named(node: ir.Node, rewriter: Rewriter) -> ir.Node:
    node.outputs[0].name = rewriter.names.fresh("batch_size")
    return node
