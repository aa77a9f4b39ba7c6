"""Builds int8 candidates of one float model, any number of them, from one set of statistics.

What does not depend on which units are chosen is computed once: ranges, integer weights, bias corrections.

Bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2): an integer weight W' = W + e shifts the mean of
channel o by the sum of e[o, i] E[x_i] over input channels and taps; E[x_i] is taken from the calibration feeds, and
the shift is subtracted from the bias. The border of a padded convolution is not looked at apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from optimizer.algorithms.quantization.static import fusion_table
from optimizer.algorithms.quantization.static.fusion_table import Role
from optimizer.algorithms.quantization.static.insertion import Insertion
from optimizer.algorithms.quantization.static.kernel_weights import KernelWeight, quantize_weight
from optimizer.algorithms.quantization.static.placement import activations, place, tail
from optimizer.graph.constants import constant_array, constant_tensor
from optimizer.graph.linear_nodes import as_linear, response
from optimizer.io.model import clone

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.linear import IntegerRange
    from optimizer.algorithms.quantization.static.units import Unit
    from optimizer.statistics.tensor_statistics import Observation, Range


@dataclass
class Int8Candidates:
    """Candidates of ``model``.

    Attributes:
        model: The float model; never changed.
        observations: Of all values in ``to_observe``.
        ranges: The range of each of them.
        grid: The integers of activations.
        constants: The integers of constants that meet activations.
        weight_grid: The integers of weights.
        per_channel: Whether each output channel of a weight has its own scale.
        correct_bias: Whether biases make up for the mean error of weights.
        weights: Of kernels by their first outputs; what is missing is rounded to nearest when it is asked for.
    """

    model: ir.Model
    observations: Mapping[str, Observation]
    ranges: Mapping[str, Range]
    grid: IntegerRange
    constants: IntegerRange
    weight_grid: IntegerRange
    per_channel: bool = True
    correct_bias: bool = True
    weights: dict[str, KernelWeight] = field(default_factory=dict)

    def build(self, chosen: Collection[str]) -> ir.Model:
        """A candidate in which the nodes whose first outputs are ``chosen`` run in int8, and the glue between them."""
        candidate = clone(self.model)
        Insertion(candidate, place(candidate, chosen), self.ranges, self._weight, self.grid, self.constants).insert()
        return candidate

    def _weight(self, node: ir.Node) -> KernelWeight:
        name = node.outputs[0].name or ""
        if name not in self.weights:
            self.weights[name] = self._quantized(node)
        return self.weights[name]

    def _quantized(self, node: ir.Node) -> KernelWeight:
        array = constant_array(node.inputs[1])
        if array is None:
            raise ValueError(f"{node.inputs[1]} is no constant")
        axis = fusion_table.channel_axis(node)
        quantized = quantize_weight(array, self.weight_grid, axis if self.per_channel else None)
        if not self.correct_bias or axis is None:
            return quantized
        shift = self._shift(node, array, quantized.floats())
        return KernelWeight(quantized.integers, quantized.parameters, shift)

    def _shift(
        self, node: ir.Node, array: NDArray[np.generic], integer: NDArray[np.float32]
    ) -> NDArray[np.float64] | None:
        value = node.inputs[0]
        seen = None if value is None else self.observations.get(value.name or "")
        if seen is None or seen.channels is None:
            return None
        # The shift of output o: sum over inputs and taps of (W' - W)[o, i, tap] E[x_i], taken off the bias
        means = np.asarray(seen.channels.mean, np.float64)
        linear_node = as_linear(node)
        error = array.astype(np.float64) - integer.astype(np.float64)
        return None if linear_node is None else response(linear_node, error, means)


def _has_weight(node: ir.Node) -> bool:
    """Whether ``node`` multiplies a constant: its input has as many channels in every feed."""
    return fusion_table.role(node) is Role.KERNEL and constant_tensor(node.inputs[1]) is not None


def to_observe(model: ir.Model, units: Sequence[Unit]) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """What any choice of ``units`` may need to know.

    Returns:
        For each unit the values whose ranges it needs (those of what only moves elements between units under the name
        ""), and the channel axis of the values that kernels read.
    """
    chosen = {output: unit.name for unit in units for output in unit.outputs}
    placement = place(model, chosen)
    needed: dict[str, dict[str, None]] = {unit.name: {} for unit in units}
    axes: dict[str, int] = {}
    for node in model.graph:
        unit = chosen.get(node.outputs[0].name or "")
        if unit is None:
            continue
        values = [*activations(node), tail(node, placement.biases)]
        needed[unit].update((value.name, None) for value in values if value.name)
        data = node.inputs[0]
        if _has_weight(node) and data is not None and data.name in needed[unit]:
            axes[data.name or ""] = 1 if node.op_type == "Conv" else -1
    moved = {value.name: None for value in placement.pairs if value.name}
    return {**{name: tuple(values) for name, values in needed.items()}, "": tuple(moved)}, axes
