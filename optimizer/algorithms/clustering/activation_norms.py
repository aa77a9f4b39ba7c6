"""What each element of a weight is multiplied with: the mean and the mean square of its input.

    E[(sum_k d_k x_k)^2] = (sum_k d_k E[x_k])^2 + sum_k d_k^2 Var[x_k] + what varies together

so an error d_k alone counts E[x_k^2], the diagonal of the Hessian, and errors of one output channel should cancel in
the mean. Inputs that calibration never saw still count a thousandth of the mean, for others may come. A weight that
several kernels share counts the mean over them; of one that something else reads too, or through a view, nothing is
known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.graph.linear_nodes import as_linear

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.weight_only.weights import StoredWeight
    from optimizer.contract.evaluator import Evaluator
    from optimizer.graph.linear_nodes import LinearNode
    from optimizer.statistics.tensor_statistics import Observation

_LEAST = 1e-3


@dataclass(frozen=True)
class ActivationNorms:
    """Of the inputs of one weight, in shapes that broadcast to its shape, and in units in which the mean power is 1.

    Attributes:
        power: Mean squares.
        mean: Means; ``None`` if the weight's rows are not the output channels of all its readers.
    """

    power: NDArray[np.float32]
    mean: NDArray[np.float32] | None


def input_power(model: ir.Model, weights: Iterable[StoredWeight], evaluator: Evaluator) -> dict[str, ActivationNorms]:
    """What is known of the inputs of weights, by their names.

    Args:
        model: The model.
        weights: Some of its weights.
        evaluator: Runs the calibration feeds.
    """
    consumers = {
        weight.holder.name: linear_nodes for weight in weights if (linear_nodes := _kernels(model, weight)) is not None
    }
    axes: dict[str, int] = {}
    for linear_node in (linear_node for linear_nodes in consumers.values() for linear_node in linear_nodes):
        axes.setdefault(_input(linear_node), linear_node.axis)
    if not axes:
        return {}
    seen = evaluator.observe(model, list(axes), axes)
    powers = {name: _power(linear_nodes, seen, axes) for name, linear_nodes in consumers.items()}
    return {name: power for name, power in powers.items() if power is not None}


def _kernels(model: ir.Model, weight: StoredWeight) -> list[LinearNode] | None:
    """The kernels that read ``weight`` as it is; ``None`` if there are other readers."""
    consumers = []
    for node in weight.nodes:
        consumer = as_linear(node) if node.graph is model.graph else None
        if (
            consumer is None
            or consumer.weight is not weight.holder.value
            or node.inputs[0] is None
            or not node.inputs[0].name
        ):
            return None
        consumers.append(consumer)
    return consumers


def _input(linear_node: LinearNode) -> str:
    value = linear_node.node.inputs[0]
    return (value.name if value is not None else None) or ""


def _power(
    consumers: list[LinearNode], seen: Mapping[str, Observation], axes: Mapping[str, int]
) -> ActivationNorms | None:
    power: Any = 0
    mean: Any = 0
    for consumer in consumers:
        channels = (
            seen[_input(consumer)].channels
            if _input(consumer) in seen and axes[_input(consumer)] == consumer.axis
            else None
        )
        if channels is None or channels.second_moment.size != consumer.inputs:
            return None
        power = power + _along_inputs(consumer, channels.second_moment) / len(consumers)
        mean = mean + _along_inputs(consumer, channels.mean) / len(consumers)
    # In units of the mean power, so that _LEAST is a share of it; the mean of the inputs scales with the root
    unit = float(np.mean(power))
    if not np.isfinite(unit) or unit <= 0:
        return None
    # The rows of a ConvTranspose's weight are its inputs, so errors of a row do not meet in one output
    has_rows = all(consumer.node.op_type != "ConvTranspose" for consumer in consumers)
    shifted = np.asarray(mean / np.sqrt(unit), np.float32) if has_rows else None
    return ActivationNorms(np.asarray(power / unit + _LEAST, np.float32), shifted)


def _along_inputs(linear_node: LinearNode, moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """One number for each input channel, in a shape that broadcasts to the kernel's weight."""
    ones = [1] * (len(linear_node.shape) - 2)
    match linear_node.node.op_type:
        case "Conv":
            each = moments.reshape(linear_node.groups, 1, linear_node.shape[1])
            repeated = np.repeat(
                each, 1 if linear_node.groups == 1 else linear_node.outputs // linear_node.groups, axis=1
            )
            return repeated.reshape(-1, linear_node.shape[1], *ones)
        case "ConvTranspose":
            return moments.reshape(-1, 1, *ones)
    return moments.reshape((1, -1) if linear_node.transposed else (-1, 1))
