"""The integer weights of kernels, rounded by what the calibration feeds give them to multiply with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optimizer import graph
from optimizer.algorithms.quantization.static import fusion_table
from optimizer.algorithms.quantization.static.adaptive_rounding import adaptive, mean_shift
from optimizer.algorithms.quantization.static.kernel_weights import KernelWeight, quantize_weight

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.linear import Grid
    from optimizer.contract.passes import Lab
    from optimizer.statistics.second_moments import SecondMoments


def adaptive_weights(  # noqa: PLR0913 - what to round, and how; by keyword from the fifth on
    model: ir.Model,
    kernels: Iterable[str],
    lab: Lab,
    grid: Grid,
    *,
    per_channel: bool,
    correct_bias: bool,
    until: float = -math.inf,
) -> dict[str, KernelWeight]:
    """Weights of the kernels whose first outputs are ``kernels``.

    Left out are kernels whose inputs' second moments are not known, those that share a weight (each would round it in
    its own way, and it would be stored twice), and those for which there was no time.

    Args:
        model: The float model.
        kernels: First outputs.
        lab: Runs the calibration feeds.
        grid: The integers of weights.
        per_channel: Whether each output channel has its own scale.
        correct_bias: Whether the bias makes up for the mean error.
        until: No more are rounded when the lab has fewer seconds left.
    """
    nodes = {node.outputs[0].name or "": node for node in model.graph if node.outputs}
    names = [name for name in kernels if _is_own(nodes[name])]
    found: dict[str, KernelWeight] = {}
    for name, moments in lab.second_moments(model, names):
        if lab.time_left() < until:
            break
        array = graph.constant_array(nodes[name].inputs[1])
        if array is not None and moments.rows:
            axis = fusion_table.channel_axis(nodes[name]) if per_channel else None
            made = quantize_weight(array, grid, axis)
            found[name] = _rounded(nodes[name], array, made, moments, correct_bias=correct_bias)
    return found


def _is_own(node: ir.Node) -> bool:
    value = node.inputs[1]
    return value is not None and graph.use_count(value) == 1


def _rounded(
    node: ir.Node, array: NDArray[np.generic], nearest: KernelWeight, moments: SecondMoments, *, correct_bias: bool
) -> KernelWeight:
    parameters = nearest.parameters
    integers = adaptive(node, array, parameters, moments, corrects_bias=correct_bias)
    shift = mean_shift(node, array, integers, parameters, moments) if correct_bias else None
    return KernelWeight(integers, parameters, shift)
