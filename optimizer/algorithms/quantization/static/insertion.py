"""Writes QDQ pairs into a graph, as a ``Placement`` says: activations, weights, biases, constants of glue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from optimizer.algorithms.quantization import linear
from optimizer.algorithms.quantization.static import fusion_table
from optimizer.algorithms.quantization.static.fusion_table import Role
from optimizer.algorithms.quantization.static.kernel_weights import KernelWeight, fit_bias, quantize_bias
from optimizer.graph import editing, queries
from optimizer.graph.constants import add_initializer, constant_array
from optimizer.graph.linear_nodes import BiasInput, bias_input
from optimizer.graph.names import NameGenerator, names_in_use

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.linear import IntegerRange, Parameters
    from optimizer.algorithms.quantization.static.placement import Placement
    from optimizer.statistics.tensor_statistics import Range

_LEAST_WIDTH = 1e-6


@dataclass
class Insertion:
    """One insertion into one model.

    Attributes:
        model: Changed in place.
        placement: What goes where, in this very model.
        ranges: The range of each activation by the value's name.
        weights: The integer weight of each kernel by the name of the kernel's first output.
        grid: The integers of activations.
        constants: The integers of constants that meet them.
    """

    model: ir.Model
    placement: Placement
    ranges: Mapping[str, Range]
    weights: Callable[[ir.Node], KernelWeight]
    grid: IntegerRange
    constants: IntegerRange
    _dequantized: dict[tuple[ir.Value, bytes], ir.Value] = field(default_factory=dict)
    _small: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = NameGenerator(names_in_use(self.model), separator=".", first=2)

    def insert(self) -> None:
        """Write all pairs; float constants that nobody reads any more go."""
        before = dict(self.model.graph.initializers)
        parameters = self._activation_parameters()
        for node in self.placement.nodes:
            if fusion_table.role(node) is Role.KERNEL:
                self._kernel(node, parameters)
            else:
                self._constants(node)
        int8 = set(self.placement.nodes)
        for value, for_all in self.placement.pairs.items():
            self._pair(value, parameters[value], None if for_all else int8)
        # Float constants that only quantized nodes read have no uses now; inputs of the graph stay declared
        for name, value in before.items():
            if not queries.has_uses(value) and not value.is_graph_input():
                del self.model.graph.initializers[name]

    def _activation_parameters(self) -> dict[ir.Value, Parameters]:
        groups: dict[ir.Value, list[ir.Value]] = {}
        for value, leader in self.placement.groups.items():
            groups.setdefault(leader, []).append(value)
        parameters = {}
        for leader, members in groups.items():
            ends = [self.ranges[member.name or ""] for member in members]
            # Values that share a scale (what only moves elements between them) take the union of their ranges
            low, high = min(end.rmin for end in ends), max(end.rmax for end in ends)
            parameters[leader] = _parameters(low, high, self.grid, members)
        return {value: parameters[leader] for value, leader in self.placement.groups.items()}

    def _kernel(self, node: ir.Node, parameters: Mapping[ir.Value, Parameters]) -> None:
        data, weight = node.inputs[0], node.inputs[1]
        array = constant_array(weight)
        if data is None or weight is None or array is None:
            return
        input_scale = float(parameters[data].scale)
        integers = self.weights(node)
        bias = self._bias(node, integers)
        if bias is not None:
            # First the scale that the bias needs, then the bias on that scale
            integers = fit_bias(integers, array, bias, input_scale)
            self._write_bias(node, *quantize_bias(bias, integers, input_scale))
        node.replace_input_with(1, self._constant(weight, integers.integers, integers.parameters, node))

    def _bias(self, node: ir.Node, weight: KernelWeight) -> NDArray[Any] | None:
        """The bias of ``node``, zeros where it has none and needs one; ``None`` where it neither has nor needs one."""
        bias = self._bias_input(node)
        array = None if bias is None else constant_array(bias.value)
        if array is not None:
            return array.reshape(-1)
        return None if weight.shift is None or node.op_type == "MatMul" else np.zeros(weight.shift.shape)

    def _bias_input(self, node: ir.Node) -> BiasInput | None:
        is_placed = node.op_type != "MatMul" or node in self.placement.biases
        return bias_input(node) if is_placed else None

    def _write_bias(self, node: ir.Node, integers: NDArray[np.int32], parameters: Parameters) -> None:
        bias = self._bias_input(node)
        if bias is None:
            return
        name = f"{node.outputs[0].name}.bias" if bias.value is None else bias.value.name or "bias"
        new = self._dequantize_constant(name, integers, parameters, node)
        bias.node.resize_inputs(max(len(bias.node.inputs), bias.position + 1))
        bias.node.replace_input_with(bias.position, new)

    def _constants(self, node: ir.Node) -> None:
        """The constants of an elementwise operator, which has integers all round or none."""
        for index in fusion_table.quantized_inputs(node):
            value = node.inputs[index]
            array = constant_array(value)
            if value is None or array is None:
                continue
            low, high = float(array.min(initial=0)), float(array.max(initial=0))
            parameters = linear.asymmetric(low, high, self.constants)
            node.replace_input_with(index, self._constant(value, linear.quantize(array, parameters), parameters, node))

    def _constant(self, value: ir.Value, integers: NDArray[Any], parameters: Parameters, before: ir.Node) -> ir.Value:
        """The dequantized constant ``value``; the same for all its readers of one scale."""
        key = (value, parameters.scale.tobytes())
        if key not in self._dequantized:
            name = value.name or "constant"
            self._dequantized[key] = self._dequantize_constant(name, integers, parameters, before)
        return self._dequantized[key]

    def _dequantize_constant(
        self, name: str, integers: NDArray[Any], parameters: Parameters, before: ir.Node
    ) -> ir.Value:
        stored = self._initializer(f"{name}.quantized", integers)
        node = self._node("DequantizeLinear", stored, parameters, name)
        self.model.graph.insert_before(before, node)
        return node.outputs[0]

    def _pair(self, value: ir.Value, parameters: Parameters, readers: set[ir.Node] | None) -> None:
        """A pair on ``value``; all its readers see the dequantized form, or only ``readers``."""
        uses = [
            use
            for use in value.uses()
            if readers is None or (use.node in readers and use.idx in fusion_table.quantized_inputs(use.node))
        ]
        is_output = readers is None and value.is_graph_output()
        name = value.name or "value"
        quantize = self._node("QuantizeLinear", value, parameters, name)
        dequantize = self._node("DequantizeLinear", quantize.outputs[0], parameters, name)
        producer = value.producer()
        if producer is None:
            self.model.graph.insert_before(self.model.graph[0], [quantize, dequantize])
        else:
            self.model.graph.insert_after(producer, [quantize, dequantize])
        result = dequantize.outputs[0]
        if is_output:
            editing.replace_under_its_name(result, value, uses)
            return
        result.type, result.shape = value.type, value.shape
        for use in uses:
            use.node.replace_input_with(use.idx, result)

    def _node(self, op_type: str, value: ir.Value, parameters: Parameters, name: str) -> ir.Node:
        scale = self._shared(f"{name}.scale", parameters.scale)
        inputs = [value, scale]
        if parameters.grid is not linear.INT32:
            inputs.append(self._shared(f"{name}.zero_point", parameters.zero_point))
        attributes = {} if parameters.axis is None else {"axis": parameters.axis}
        node = ir.node(op_type, inputs, attributes=attributes)
        node.name = self._names.fresh(f"{name}.{op_type}")
        node.outputs[0].name = self._names.fresh(f"{name}.{'quantized' if op_type[0] == 'Q' else 'dequantized'}")
        return node

    def _shared(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A scale or zero points: one initializer for all that are equal."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._small:
            self._small[key] = self._initializer(name, array)
        return self._small[key]

    def _initializer(self, name: str, array: NDArray[Any]) -> ir.Value:
        return add_initializer(self.model.graph, self._names.fresh(name), array)


def _parameters(low: float, high: float, grid: IntegerRange, members: list[ir.Value]) -> Parameters:
    if high - low < _LEAST_WIDTH:
        high = low + _LEAST_WIDTH
    parameters = linear.asymmetric(low, high, grid)
    return _inside_clips(parameters, members)


def _inside_clips(parameters: Parameters, members: list[ir.Value]) -> Parameters:
    """Parameters that cannot express more than a Clip in front lets through, or ONNX Runtime would keep the Clip."""
    for value in members:
        node = value.producer()
        if node is None or not queries.is_standard(node, "Clip"):
            continue
        highest = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        steps = parameters.grid.qmax - int(parameters.zero_point)
        if highest is None or steps <= 0:
            continue
        scale = np.float32(parameters.scale)
        while np.float32(scale * np.float32(steps)) > highest.reshape(()):
            scale = np.nextafter(scale, np.float32(0))
        parameters = replace(parameters, scale=np.array(scale))
    return parameters
