"""Carries facts about channels through a graph, to every value that has some.

Facts are those of ``optimizer.algorithms.channels.redundancy.facts``::

    Relu, LeakyRelu, pools, Resize, Transpose …     contents change, scales come out as they went in
    Sigmoid, HardSwish, Softmax over others …       scales become part of the content
    Add, Sub, Mul, Div with constants               shift and scale; 0 times anything is a constant
    a constant channel                              is computed, as long as all operands are; a border of zeros, which
                                                    a padded kernel or pool sees, ends it unless it is 0 itself
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency import operators
from optimizer.algorithms.channels.dependency.elementwise import has_no_channels
from optimizer.algorithms.channels.redundancy.facts import ChannelFacts, ValueNumbers, joined
from optimizer.algorithms.channels.redundancy.linear_facts import array_of, kernel_facts
from optimizer.analysis import constant_evaluation
from optimizer.graph import constants

if TYPE_CHECKING:
    from collections.abc import Hashable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelAxis, ChannelGroups

_POOLS = frozenset({"MaxPool", "GlobalMaxPool", "GlobalAveragePool", "Resize", "Upsample", "Dropout"})
_MOVES = frozenset({"Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Slice", "Gather", "Split", "Concat"})
_STEADY = _POOLS | _MOVES | {"ReduceMean", "ReduceMax", "ReduceMin"}
_LINEAR_TOO = {"Relu", "LeakyRelu", "Abs", "Neg", "AveragePool", "Pad", "ReduceSum", "ReduceL1", "ReduceL2"}
_LINEAR = _STEADY | _LINEAR_TOO
_ZERO = frozenset({"AveragePool", "GlobalLpPool", "LpPool", "Pad", "ReduceSum", "ReduceL1", "ReduceL2"})
_SAME = frozenset({"Identity"})


class ChannelAnalysis:
    """Facts by value, for the graph that ``groups`` were found in."""

    def __init__(self, graph: ir.Graph, groups: ChannelGroups, tolerance: float = 0.0) -> None:
        self.groups = groups
        self.tolerance = tolerance
        self.contents = ValueNumbers()
        self._readers = {sink.node for sink in groups.consumers}
        self._facts: dict[ir.Value, ChannelFacts] = {}
        for node in graph:
            for output in node.outputs:
                lane = groups.axis_of(output)
                if lane is not None:
                    self._facts[output] = self._of(node, output, lane)

    def facts(self, value: ir.Value | None) -> ChannelFacts | None:
        """What is known of the channels of ``value``; ``None`` if it has none."""
        return None if value is None else self._facts.get(value)

    def _of(self, node: ir.Node, output: ir.Value, lane: ChannelAxis) -> ChannelFacts:
        first = self.facts(node.inputs[0]) if node.inputs else None
        if node in self.groups.producers or node in self.groups.grouped:
            sums = node in self._readers or node in self.groups.grouped  # and does not read its channels elsewhere
            found = kernel_facts(node, first if sums else None, self.contents, self.tolerance)
        elif node.op_type == "Concat":
            found = self._concat(node, lane)
        elif node.op_type == "BatchNormalization" and first is not None:
            found = self._normalized(node, first)
        elif node.op_type == "InstanceNormalization" and first is not None:
            found = self._normalized_by_itself(node, first)
        elif node.op_type == "MatMul":
            found = self._matrices(*(self._factor(value, lane) for value in node.inputs))
        elif node.op_type in operators.NARY:
            found = self._elementwise(node, lane)
        elif output in self.groups.selected and first is not None:
            found = self._taken(first, output)
        elif node.op_type == "Reshape" and first is not None and first.size > lane.size:
            found = self._parted(first, first.size // lane.size)
        elif first is None or first.size != lane.size or len(_known(self, node)) > 1:
            found = self.contents.fresh(lane.size)
        else:
            found = self._unary(node, node.outputs.index(output), first)
        return found if found.size == lane.size else self.contents.fresh(lane.size)

    def _taken(self, facts: ChannelFacts, output: ir.Value) -> ChannelFacts:
        """Some of the channels, or of each channel one part after the other."""
        found, part = facts.take(self.groups.selected[output]), self.groups.parts.get(output)
        if part is None:
            return found
        return self.contents.settled(
            replace(found, value_number=self.contents.numbers("part", [found.value_number, part])), found.constant
        )

    def _parted(self, facts: ChannelFacts, width: int) -> ChannelFacts:
        """``width`` channels in a row at each position."""
        columns = [facts.take(np.arange(at, facts.size, width)) for at in range(width)]
        return self._side_by_side("parted", columns)

    def _side_by_side(self, what: Hashable, parts: list[ChannelFacts]) -> ChannelFacts:
        """Channels that consist of one of each part; constant if all parts are the same constant."""
        made = self.contents.derived(what, parts, linear=True)
        same = np.all([part.constant == parts[0].constant for part in parts], axis=0)
        return self.contents.settled(made, np.where(same, parts[0].constant, math.nan))

    def _unary(self, node: ir.Node, index: int, facts: ChannelFacts) -> ChannelFacts:
        if node.op_type in _SAME:
            return facts
        made = self.contents.derived((_what(node), index), [facts], linear=node.op_type in _LINEAR)
        return self.contents.settled(made, self._constants(node, facts))

    def _constants(self, node: ir.Node, facts: ChannelFacts) -> NDArray[np.float64]:
        """What constant channels become, NaN where they become none."""
        nothing = np.full(facts.size, math.nan)
        if node.op_type in _STEADY or (node.op_type == "AveragePool" and not _sees_border(node)):
            return facts.constant
        if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") != "constant":
            return facts.constant
        if node.op_type in _ZERO:
            return np.where(facts.constant == 0, 0.0, math.nan)
        if node.op_type in operators.UNARY:
            return self._computed(node, [facts.constant])
        return nothing

    def _computed(self, node: ir.Node, operands: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """``node`` of constants, NaN where one is missing; in the type of the model."""
        size = max(operand.size for operand in operands)
        known = ~np.isnan(np.sum([np.broadcast_to(operand, (size,)) for operand in operands], axis=0))
        result = np.full(size, math.nan)
        kinds = [None if value is None or value.dtype is None else value.dtype for value in node.inputs]
        if not known.any() or any(kind is None for kind in kinds[: len(operands)]):
            return result
        arrays: list[NDArray[np.generic] | None] = [
            np.broadcast_to(operand, (size,))[known].astype(kind.numpy())
            for operand, kind in zip(operands, kinds, strict=False)
            if kind is not None
        ]
        arrays += [constants.constant_array(value, 1) for value in node.inputs[len(operands) :]]
        made = constant_evaluation.run(node, self.groups.opset, arrays)
        if made is not None and made[0].shape == (np.count_nonzero(known),):
            result[known] = made[0]
        return result

    def _normalized(self, node: ir.Node, facts: ChannelFacts) -> ChannelFacts:
        scale, bias, mean, variance = (array_of(value) for value in node.inputs[1:5])
        if scale is None or bias is None or mean is None or variance is None:
            return self.contents.fresh(facts.size)
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return self.contents.shifted(self.contents.scaled(facts, factor), bias - mean * factor)

    def _normalized_by_itself(self, node: ir.Node, facts: ChannelFacts) -> ChannelFacts:
        """Instance normalization: of a constant channel its bias is left."""
        scale, bias = (array_of(value) for value in node.inputs[1:3])
        if scale is None or bias is None:
            return self.contents.fresh(facts.size)
        operands = [facts, self.contents.constants(scale), self.contents.constants(bias)]
        made = self.contents.derived(_what(node), operands, linear=False)
        return self.contents.settled(made, np.where(facts.is_constant, bias, math.nan))

    def _concat(self, node: ir.Node, lane: ChannelAxis) -> ChannelFacts:
        parts = [self.facts(value) for value in node.inputs]
        along = self.groups.joined.get(node)
        if along is not None:
            return joined([part or self.contents.fresh(size) for part, size in zip(parts, along, strict=True)])
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or not known:
            return self.contents.fresh(lane.size)
        return self._side_by_side(_what(node), known)

    def _elementwise(self, node: ir.Node, lane: ChannelAxis) -> ChannelFacts:
        operands = [self._operand(value, lane) for value in node.inputs]
        if len(operands) == 2 and node.op_type in {"Add", "Sub", "Mul", "Div"}:
            return self._arithmetic(node.op_type, operands[0], operands[1])
        if node.op_type == "PRelu":
            operands[1] = replace(operands[1], scale=operands[0].scale)  # a factor does not change the slope
        made = self.contents.derived(node.op_type, operands, linear=node.op_type in {"Max", "Min", "PRelu", "Sum"})
        return self.contents.settled(made, self._computed(node, [operand.constant for operand in operands]))

    def _operand(self, value: ir.Value | None, lane: ChannelAxis) -> ChannelFacts:
        """What is known of an operand of an elementwise operator, for each channel of ``lane``."""
        known = self.facts(value)
        if known is not None and known.size == lane.size:
            return known
        array = array_of(value)
        if array is not None and array.size == 1:
            return self.contents.constants(np.full(lane.size, array.item()))
        if array is not None and not has_no_channels(value, lane):
            return self._by_channel(value, np.moveaxis(array, array.ndim - lane.from_end, 0).reshape(lane.size, -1))
        return self._one_for_all(value, lane)

    def _by_channel(self, value: ir.Value | None, rows: NDArray[np.float64]) -> ChannelFacts:
        """A constant with a row for each channel; one of one number is constant."""
        if rows.shape[1] == 1:
            return self.contents.constants(rows[:, 0])
        _, inverse = np.unique(rows, axis=0, return_inverse=True)
        numbers = self.contents.numbers(("rows", id(value)), [inverse.reshape(-1)])
        return ChannelFacts(numbers, np.ones(numbers.size), np.full(numbers.size, math.nan))

    def _one_for_all(self, value: ir.Value | None, lane: ChannelAxis) -> ChannelFacts:
        """Something that is the same for all channels."""
        number = self.contents.number(("value", id(value)))
        return ChannelFacts(np.full(lane.size, number), np.ones(lane.size), np.full(lane.size, math.nan))

    def _factor(self, value: ir.Value | None, lane: ChannelAxis) -> ChannelFacts:
        """What is known of an operand of a MatMul: its own channels, or that all of it meets each channel."""
        known = self.facts(value)
        return known if known is not None and known.size == lane.size else self._one_for_all(value, lane)

    def _arithmetic(self, operation: str, left: ChannelFacts, right: ChannelFacts) -> ChannelFacts:
        if operation in {"Mul", "Div"}:
            return self._product(operation, left, right)
        minus = self.contents.scaled(right, np.full(right.size, -1.0)) if operation == "Sub" else right
        both = self.contents.derived("Add", [left, minus], linear=True)
        both = _chosen(minus.is_constant, self.contents.shifted(left, np.nan_to_num(minus.constant)), both)
        return _chosen(left.is_constant, self.contents.shifted(minus, np.nan_to_num(left.constant)), both)

    def _product(self, operation: str, left: ChannelFacts, right: ChannelFacts) -> ChannelFacts:
        factor = right.constant
        if operation == "Div":
            with np.errstate(divide="ignore"):
                factor = np.where(right.constant == 0, math.nan, 1 / right.constant)
        made = self._bilinear(operation, left, right)
        made = _chosen(~np.isnan(factor), self.contents.scaled(left, np.nan_to_num(factor, nan=1.0)), made)
        if operation == "Div":
            return made
        return _chosen(left.is_constant, self.contents.scaled(right, np.nan_to_num(left.constant, nan=1.0)), made)

    def _bilinear(self, operation: str, left: ChannelFacts, right: ChannelFacts) -> ChannelFacts:
        """What takes a factor of either operand on, or that of the second inverted."""
        one = np.ones(left.size)
        made = self.contents.derived(operation, [replace(left, scale=one), replace(right, scale=one)], linear=False)
        return replace(made, scale=left.scale / right.scale if operation == "Div" else left.scale * right.scale)

    def _matrices(self, left: ChannelFacts, right: ChannelFacts) -> ChannelFacts:
        """A product of matrices for each channel, or one whose rows or columns they are."""
        zero = (left.constant == 0) | (right.constant == 0)
        return self.contents.settled(self._bilinear("MatMul", left, right), np.where(zero, 0.0, math.nan))


def _chosen(where: NDArray[np.bool_], yes: ChannelFacts, no: ChannelFacts) -> ChannelFacts:
    return ChannelFacts(
        np.where(where, yes.value_number, no.value_number),
        np.where(where, yes.scale, no.scale),
        np.where(where, yes.constant, no.constant),
    )


def _known(analysis: ChannelAnalysis, node: ir.Node) -> list[ChannelFacts]:
    found = [analysis.facts(value) for value in node.inputs]
    return [facts for facts in found if facts is not None]


def _what(node: ir.Node) -> Hashable:
    """What ``node`` does to its first input; other inputs are told apart by identity."""
    attributes = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
    return node.domain, node.op_type, attributes, tuple(id(value) for value in node.inputs[1:])


def _sees_border(node: ir.Node) -> bool:
    """Whether an average counts zeros of the padding."""
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    is_padded = any(node.attributes.get_ints("pads", ())) or automatic.startswith("SAME")
    return is_padded and bool(node.attributes.get_int("count_include_pad", 0))
