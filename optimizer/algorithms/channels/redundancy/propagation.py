"""Carries facts about channels through a graph, to every value that has channels.

A forward dataflow analysis with one transfer function an operator, over the facts of
``optimizer.algorithms.channels.redundancy.facts``::

    Relu, LeakyRelu, pools, Resize, Transpose …     value numbers change, scales come out as they went in
    Sigmoid, HardSwish, Softmax over others …       scales become part of the value number
    Add, Sub, Mul, Div with constants               shift and scale; 0 times anything is a constant
    a constant channel                              is computed, as long as all operands are; a border of zeros, which
                                                    a padded kernel or pool sees, ends it unless it is 0 itself
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.channels.dependency.elementwise import has_no_channels
from optimizer.algorithms.channels.redundancy.facts import ChannelFacts, ValueNumbers, concatenated
from optimizer.algorithms.channels.redundancy.linear_facts import array_of, kernel_facts
from optimizer.analysis import constant_evaluation
from optimizer.graph import constants
from optimizer.graph.operators import Trait, having

if TYPE_CHECKING:
    from collections.abc import Hashable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.channels.dependency.groups import ChannelAxis, ChannelGroups

# Resize, Upsample and Dropout are means, and a Pad hands on factors, where ``channel_groups`` lets channels through:
# not cropped, not training, filled with zeros.
_STEADY = having(Trait.IDEMPOTENT) | {"Resize", "Upsample", "Dropout"}
_HOMOGENEOUS = having(Trait.HOMOGENEOUS) | _STEADY | {"Pad", "PRelu"}  # PRelu: see where its slope is looked at
_UNARY, _BROADCASTING = having(Trait.UNARY), having(Trait.BROADCASTING)


class ChannelAnalysis:
    """Facts by value, for the graph that ``groups`` were found in."""

    def __init__(self, graph: ir.Graph, groups: ChannelGroups, tolerance: float = 0.0) -> None:
        self.groups = groups
        self.tolerance = tolerance
        self.value_numbers = ValueNumbers()
        self._readers = {consumer.node for consumer in groups.consumers}
        self._facts: dict[ir.Value, ChannelFacts] = {}
        for node in graph:
            for output in node.outputs:
                channel_axis = groups.axis_of(output)
                if channel_axis is not None:
                    self._facts[output] = self._transfer(node, output, channel_axis)

    def facts(self, value: ir.Value | None) -> ChannelFacts | None:
        """What is known of the channels of ``value``; ``None`` if it has none."""
        return None if value is None else self._facts.get(value)

    def _transfer(self, node: ir.Node, output: ir.Value, channel_axis: ChannelAxis) -> ChannelFacts:
        """What is known of ``output`` by what is known of the inputs of ``node``; the first case that fits."""
        first = self.facts(node.inputs[0]) if node.inputs else None
        if node in self.groups.producers or node in self.groups.group_ids:
            # It may read channels on another axis than the one that it sums over: nothing is known of its sums then
            sums_channels = node in self._readers or node in self.groups.group_ids
            facts = kernel_facts(node, first if sums_channels else None, self.value_numbers, self.tolerance)
        elif node.op_type == "Concat":
            facts = self._concat(node, channel_axis)
        elif node.op_type == "BatchNormalization" and first is not None:
            facts = self._normalized(node, first)
        elif node.op_type == "InstanceNormalization" and first is not None:
            facts = self._normalized_by_itself(node, first)
        elif node.op_type == "MatMul":
            # A product of two activations; a constant weight is a producer, see above
            facts = self._matrices(*(self._factor(value, channel_axis) for value in node.inputs))
        elif node.op_type in _BROADCASTING:
            facts = self._elementwise(node, channel_axis)
        elif output in self.groups.selected and first is not None:
            # Split, Slice, Gather, and Flatten, which repeats channels
            facts = self._selected(first, output)
        elif node.op_type == "Reshape" and first is not None and first.size > channel_axis.size:
            # The axis of channels is split in two, and only the outer one carries ids
            facts = self._several_at_a_position(first, first.size // channel_axis.size)
        elif first is None or first.size != channel_axis.size or len(_input_facts(self, node)) > 1:
            # Several inputs with channels, and no rule for how they meet
            facts = self.value_numbers.fresh(channel_axis.size)
        else:
            facts = self._unary(node, node.outputs.index(output), first)
        return facts if facts.size == channel_axis.size else self.value_numbers.fresh(channel_axis.size)

    def _selected(self, facts: ChannelFacts, output: ir.Value) -> ChannelFacts:
        """Some of the channels, or of each channel one element after the other."""
        selected, offsets = facts.take(self.groups.selected[output]), self.groups.element_offsets.get(output)
        if offsets is None:
            return selected
        return self.value_numbers.with_constants(
            replace(selected, value_number=self.value_numbers.numbers("part", [selected.value_number, offsets])),
            selected.constant,
        )

    def _several_at_a_position(self, facts: ChannelFacts, width: int) -> ChannelFacts:
        """``width`` channels in a row at each position."""
        columns = [facts.take(np.arange(offset, facts.size, width)) for offset in range(width)]
        return self._side_by_side("parted", columns)

    def _side_by_side(self, operation: Hashable, operands: list[ChannelFacts]) -> ChannelFacts:
        """Channels that consist of one of each operand; constant if these are all the same constant."""
        derived = self.value_numbers.derived(operation, operands, linear=True)
        are_equal = np.all([operand.constant == operands[0].constant for operand in operands], axis=0)
        return self.value_numbers.with_constants(derived, np.where(are_equal, operands[0].constant, math.nan))

    def _unary(self, node: ir.Node, index: int, facts: ChannelFacts) -> ChannelFacts:
        if node.op_type == "Identity":
            return facts
        derived = self.value_numbers.derived(
            (_operation_key(node), index), [facts], linear=node.op_type in _HOMOGENEOUS
        )
        return self.value_numbers.with_constants(derived, self._constants(node, facts))

    def _constants(self, node: ir.Node, facts: ChannelFacts) -> NDArray[np.float64]:
        """What constant channels become, NaN where they become none."""
        unknown = np.full(facts.size, math.nan)
        # 1. The mean, the maximum, or a copy of a constant is that constant
        if node.op_type in _STEADY or (node.op_type == "AveragePool" and not _sees_border(node)):
            return facts.constant
        if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") != "constant":
            return facts.constant
        # 2. Elementwise functions are computed
        if node.op_type in _UNARY:
            return self._computed(node, [facts.constant])
        # 3. Zeros of a border, or a sum of terms that are not counted here: only 0 stays what it is
        if node.op_type in _HOMOGENEOUS:
            return np.where(facts.constant == 0, 0.0, math.nan)
        return unknown

    def _computed(self, node: ir.Node, operands: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """``node`` of constants, each (size,) or (1,), NaN where one is missing; computed in the type of the model."""
        size = max(operand.size for operand in operands)
        is_known = ~np.isnan(np.sum([np.broadcast_to(operand, (size,)) for operand in operands], axis=0))
        result = np.full(size, math.nan)
        # Numbers are in float64 here; the function is of the type that the model computes in
        dtypes = [None if value is None or value.dtype is None else value.dtype for value in node.inputs]
        parameters = node.inputs[len(operands) :]
        parameter_arrays = [constants.constant_array(value, 1) for value in parameters]
        are_constant = [value is None for value in parameters] == [array is None for array in parameter_arrays]
        if not is_known.any() or not are_constant or any(dtype is None for dtype in dtypes[: len(operands)]):
            return result
        arrays: list[NDArray[np.generic] | None] = [
            np.broadcast_to(operand, (size,))[is_known].astype(dtype.numpy())
            for operand, dtype in zip(operands, dtypes, strict=False)
            if dtype is not None
        ]
        results = constant_evaluation.run(node, self.groups.opset, [*arrays, *parameter_arrays])
        if results is not None and results[0].shape == (np.count_nonzero(is_known),):
            result[is_known] = results[0]
        return result

    def _normalized(self, node: ir.Node, facts: ChannelFacts) -> ChannelFacts:
        scale, bias, mean, variance = (array_of(value) for value in node.inputs[1:5])
        if scale is None or bias is None or mean is None or variance is None:
            return self.value_numbers.fresh(facts.size)
        # y = (x - mean) scale / sqrt(variance + epsilon) + bias
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return self.value_numbers.shifted(self.value_numbers.scaled(facts, factor), bias - mean * factor)

    def _normalized_by_itself(self, node: ir.Node, facts: ChannelFacts) -> ChannelFacts:
        """Instance normalization: of a constant channel its bias is left."""
        scale, bias = (array_of(value) for value in node.inputs[1:3])
        if scale is None or bias is None:
            return self.value_numbers.fresh(facts.size)
        # A factor of the channel does not cancel exactly, because of epsilon
        operands = [facts, self.value_numbers.constants(scale), self.value_numbers.constants(bias)]
        derived = self.value_numbers.derived(_operation_key(node), operands, linear=False)
        return self.value_numbers.with_constants(derived, np.where(facts.is_constant, bias, math.nan))

    def _concat(self, node: ir.Node, channel_axis: ChannelAxis) -> ChannelFacts:
        facts = [self.facts(value) for value in node.inputs]
        sizes = self.groups.concatenated_sizes.get(node)
        # Along the channels: behind one another. Along another axis: one of each beside each other, at every position
        if sizes is not None:
            return concatenated(
                [operand or self.value_numbers.fresh(size) for operand, size in zip(facts, sizes, strict=True)]
            )
        with_facts = [operand for operand in facts if operand is not None]
        if len(with_facts) < len(facts) or not with_facts:
            return self.value_numbers.fresh(channel_axis.size)
        return self._side_by_side(_operation_key(node), with_facts)

    def _elementwise(self, node: ir.Node, channel_axis: ChannelAxis) -> ChannelFacts:
        # Everything elementwise goes by operands that have been broadcast to the channels
        operands = [self._operand(value, channel_axis) for value in node.inputs]
        if len(operands) == 2 and node.op_type in {"Add", "Sub", "Mul", "Div"}:
            return self._arithmetic(node.op_type, operands[0], operands[1])
        if node.op_type == "PRelu":
            operands[1] = replace(operands[1], scale=operands[0].scale)  # a factor does not change the slope
        derived = self.value_numbers.derived(
            (node.op_type, _attributes_key(node)), operands, linear=node.op_type in _HOMOGENEOUS
        )
        return self.value_numbers.with_constants(
            derived, self._computed(node, [operand.constant for operand in operands])
        )

    def _operand(self, value: ir.Value | None, channel_axis: ChannelAxis) -> ChannelFacts:
        """What is known of an operand of an elementwise operator, for each channel of ``channel_axis``."""
        facts = self.facts(value)
        if facts is not None and facts.size == channel_axis.size:
            return facts
        # A constant: one number for all channels, or a row for each
        array = array_of(value)
        if array is not None and array.size == 1:
            return self.value_numbers.constants(np.full(channel_axis.size, array.item()))
        if array is not None and not has_no_channels(value, channel_axis):
            return self._by_channel(
                value, np.moveaxis(array, array.ndim - channel_axis.from_end, 0).reshape(channel_axis.size, -1)
            )
        return self._one_for_all(value, channel_axis)

    def _by_channel(self, value: ir.Value | None, rows: NDArray[np.float64]) -> ChannelFacts:
        """A constant with a row for each channel; one of one number is constant."""
        if rows.shape[1] == 1:
            return self.value_numbers.constants(rows[:, 0])
        _, inverse = np.unique(rows, axis=0, return_inverse=True)
        numbers = self.value_numbers.numbers(("rows", id(value)), [inverse.reshape(-1)])
        return ChannelFacts(numbers, np.ones(numbers.size), np.full(numbers.size, math.nan))

    def _one_for_all(self, value: ir.Value | None, channel_axis: ChannelAxis) -> ChannelFacts:
        """Something that is the same for all channels."""
        number = self.value_numbers.number(("value", id(value)))
        return ChannelFacts(
            np.full(channel_axis.size, number), np.ones(channel_axis.size), np.full(channel_axis.size, math.nan)
        )

    def _factor(self, value: ir.Value | None, channel_axis: ChannelAxis) -> ChannelFacts:
        """What is known of an operand of a MatMul: its channels, or that every channel is multiplied by all of it."""
        facts = self.facts(value)
        return (
            facts if facts is not None and facts.size == channel_axis.size else self._one_for_all(value, channel_axis)
        )

    def _arithmetic(self, operation: str, first: ChannelFacts, second: ChannelFacts) -> ChannelFacts:
        if operation in {"Mul", "Div"}:
            return self._product(operation, first, second)
        # In general a sum of two; where one of them is constant, a shift of the other
        addend = self.value_numbers.scaled(second, np.full(second.size, -1.0)) if operation == "Sub" else second
        total = self.value_numbers.derived("Add", [first, addend], linear=True)
        total = _where(addend.is_constant, self.value_numbers.shifted(first, np.nan_to_num(addend.constant)), total)
        return _where(first.is_constant, self.value_numbers.shifted(addend, np.nan_to_num(first.constant)), total)

    def _product(self, operation: str, first: ChannelFacts, second: ChannelFacts) -> ChannelFacts:
        # In general a product of two; where one of them is constant, a scale of the other (a dividend has none)
        factor = second.constant
        if operation == "Div":
            with np.errstate(divide="ignore"):
                factor = np.where(second.constant == 0, math.nan, 1 / second.constant)
        derived = self._bilinear(operation, first, second)
        derived = _where(~np.isnan(factor), self.value_numbers.scaled(first, np.nan_to_num(factor, nan=1.0)), derived)
        if operation == "Div":
            return derived
        return _where(
            first.is_constant, self.value_numbers.scaled(second, np.nan_to_num(first.constant, nan=1.0)), derived
        )

    def _bilinear(self, operation: str, first: ChannelFacts, second: ChannelFacts) -> ChannelFacts:
        """What is linear in either operand, so that scales multiply; that of a divisor is inverted."""
        unit_scale = np.ones(first.size)
        derived = self.value_numbers.derived(
            operation, [replace(first, scale=unit_scale), replace(second, scale=unit_scale)], linear=False
        )
        return replace(derived, scale=first.scale / second.scale if operation == "Div" else first.scale * second.scale)

    def _matrices(self, first: ChannelFacts, second: ChannelFacts) -> ChannelFacts:
        """A product of matrices for each channel, or one whose rows or columns they are."""
        # Of constants only 0 is known to give a constant: other sums depend on how many terms there are
        zero = (first.constant == 0) | (second.constant == 0)
        return self.value_numbers.with_constants(self._bilinear("MatMul", first, second), np.where(zero, 0.0, math.nan))


def _where(where: NDArray[np.bool_], yes: ChannelFacts, no: ChannelFacts) -> ChannelFacts:
    """``np.where`` for facts."""
    return ChannelFacts(
        np.where(where, yes.value_number, no.value_number),
        np.where(where, yes.scale, no.scale),
        np.where(where, yes.constant, no.constant),
    )


def _input_facts(analysis: ChannelAnalysis, node: ir.Node) -> list[ChannelFacts]:
    facts = [analysis.facts(value) for value in node.inputs]
    return [operand for operand in facts if operand is not None]


def _operation_key(node: ir.Node) -> Hashable:
    """A key of what ``node`` does to its first input; other inputs are told apart by identity."""
    return node.domain, node.op_type, _attributes_key(node), tuple(id(value) for value in node.inputs[1:])


def _attributes_key(node: ir.Node) -> Hashable:
    return tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))


def _sees_border(node: ir.Node) -> bool:
    """Whether an average counts zeros of the padding."""
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    is_padded = any(node.attributes.get_ints("pads", ())) or automatic.startswith("SAME")
    return is_padded and bool(node.attributes.get_int("count_include_pad", 0))
