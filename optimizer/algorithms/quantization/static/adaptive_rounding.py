"""Rounding of a kernel's weight to integers so that its output changes least, from the second moments of its input.

Row by row, the better of nearest rounding and ``optimizer.algorithms.reconstruction.gptq``, which passes each column's
error on to others, on a uniform grid. Where the bias makes up for the mean error (W - W') E[x], the moments are to be
the covariance of the input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.algorithms.quantization import linear
from optimizer.algorithms.quantization.static import fusion_table
from optimizer.algorithms.quantization.static.kernel_weights import KernelWeight, quantize_weight
from optimizer.algorithms.reconstruction.gptq import DAMPING, better, damping, gptq
from optimizer.graph import constants, queries
from optimizer.statistics import im2col

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization.linear import IntegerRange, Parameters
    from optimizer.contract.evaluator import Evaluator
    from optimizer.statistics.second_moments import SecondMoments


def adaptive(
    node: ir.Node,
    array: NDArray[Any],
    parameters: Parameters,
    moments: SecondMoments,
    *,
    corrects_bias: bool = True,
) -> NDArray[Any]:
    """The integers of the weight of ``node``.

    Args:
        node: A kernel that ``second_moments.refusal`` does not refuse.
        array: Its float weight.
        parameters: Symmetric scales, one for all or one for each output channel.
        moments: Of its input.
        corrects_bias: Whether the mean error is made up for by the bias, see ``mean_shift``.

    Returns:
        In the shape of ``array``, of the grid's type. Nearest rounding where no row was seen.

    Raises:
        ValueError: If the parameters are not symmetric, or have several scales for one output channel.
    """
    # (groups, out, K), as the moments are: all taps of an output must share its scale, or columns would differ in step
    scale = im2col.as_matrix(node, _steps(parameters, array.shape))
    if np.any(scale != scale[..., :1]):
        raise ValueError(
            f"{node.op_type} {node.name!r} has weight scales along axis {parameters.axis}: not its outputs"
        )
    if not moments.rows:
        return linear.quantize(array, parameters)
    matrix = im2col.as_matrix(node, array.astype(np.float64))
    # E[((W - W') x)^2] = (W - W') M (W - W')^T; a bias that takes up the mean error leaves the covariance
    square = moments.covariance if corrects_bias else moments.second_moment
    damping_share = damping(matrix.shape[-1], moments.rows)
    integers = round_adaptively(matrix, square, scale[..., 0], parameters.grid, part=damping_share)
    return im2col.from_matrix(node, integers)


def mean_shift(
    node: ir.Node, array: NDArray[Any], integers: NDArray[Any], parameters: Parameters, moments: SecondMoments
) -> NDArray[np.float64]:
    """What to add to the bias of each output channel so that its mean stays: (W - W') E[x].

    Unlike a mean taken of the input's channels, that of the rows knows what lies in the padding.
    """
    error = array.astype(np.float64) - linear.dequantize(integers, parameters)
    return np.asarray(im2col.as_matrix(node, error) @ moments.mean[..., np.newaxis]).reshape(-1)


def round_adaptively(
    matrix: NDArray[np.float64],
    moments: NDArray[np.float64],
    scale: NDArray[Any] | float,
    grid: IntegerRange,
    *,
    part: float = DAMPING,
) -> NDArray[Any]:
    """Integers q of the grid of which (q - middle) * scale changes ``matrix @ inputs`` little.

    Args:
        matrix: (…, out, K); the leading axes are groups, each with moments of its own.
        moments: (…, K, K), symmetric and positive semidefinite.
        scale: One for all, or (…, out).
        grid: The integers; their middle stands for 0.
        part: What is added to the diagonal of ``moments``, in parts of its mean.

    Returns:
        (…, out, K), of the grid's type. No row's ``quadratic_error`` (``optimizer.algorithms.reconstruction.gptq``) is
        larger than with nearest rounding.
    """
    middle = _middle(grid)
    steps = np.broadcast_to(np.asarray(scale, np.float64)[..., np.newaxis], (*matrix.shape[:-1], 1))
    # In units of one step the grid is the integers, and every row has the same one
    wanted = matrix / steps
    low, high = grid.qmin - middle, grid.qmax - middle

    def rounded(numbers: NDArray[np.float64], _column: object = None) -> NDArray[np.float64]:
        return np.clip(np.rint(numbers), low, high)

    compensated = better(wanted, rounded(wanted), gptq(wanted, moments, rounded, part), moments)
    return (compensated + middle).astype(grid.dtype)


def _middle(grid: IntegerRange) -> int:
    """The integer that stands for 0."""
    return (grid.qmin + grid.qmax + 1) // 2


def _steps(parameters: Parameters, shape: Sequence[int]) -> NDArray[np.float64]:
    """The scale of each element of a weight of ``shape``."""
    middle = _middle(parameters.grid)
    if np.any(parameters.zero_point != middle):
        raise ValueError(f"adaptive rounding needs symmetric weights: a zero point of {middle} for {parameters.grid}")
    return linear.dequantize(np.full(shape, middle + 1), parameters).astype(np.float64)


def adaptive_weights(  # noqa: PLR0913 - what to round, and how; by keyword from the fifth on
    model: ir.Model,
    kernels: Iterable[str],
    evaluator: Evaluator,
    grid: IntegerRange,
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
        evaluator: Runs the calibration feeds.
        grid: The integers of weights.
        per_channel: Whether each output channel has its own scale.
        correct_bias: Whether the bias makes up for the mean error.
        until: No more are rounded when the evaluator has fewer seconds left.
    """
    nodes = {node.outputs[0].name or "": node for node in model.graph if node.outputs}
    names = [name for name in kernels if _is_own(nodes[name])]
    rounded_weights: dict[str, KernelWeight] = {}
    for name, moments in evaluator.second_moments(model, names):
        if evaluator.time_left() < until:
            break
        array = constants.constant_array(nodes[name].inputs[1])
        if array is not None and moments.rows:
            axis = fusion_table.channel_axis(nodes[name]) if per_channel else None
            nearest = quantize_weight(array, grid, axis)
            rounded_weights[name] = _rounded(nodes[name], array, nearest, moments, correct_bias=correct_bias)
    return rounded_weights


def _is_own(node: ir.Node) -> bool:
    value = node.inputs[1]
    return value is not None and queries.use_count(value) == 1


def _rounded(
    node: ir.Node, array: NDArray[np.generic], nearest: KernelWeight, moments: SecondMoments, *, correct_bias: bool
) -> KernelWeight:
    parameters = nearest.parameters
    integers = adaptive(node, array, parameters, moments, corrects_bias=correct_bias)
    shift = mean_shift(node, array, integers, parameters, moments) if correct_bias else None
    return KernelWeight(integers, parameters, shift)
