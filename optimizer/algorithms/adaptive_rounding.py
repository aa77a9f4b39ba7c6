"""Rounding of a kernel's weight to integers so that its output changes least, from the second moments of its input.

A row w of the weight becomes q = s * integers, and an output changes by d = w - q times the input: by d^T M d in the
mean square, M the input's second moment. Nearest rounding minimizes d^T d. Here columns are rounded one after the
other, and each column's error is passed on to those that are not rounded yet, which make up for it: GPTQ (Frantar et
al. 2022, arXiv:2210.17323), which is Optimal Brain Quantization (Frantar, Alistarh 2022, arXiv:2208.11580) in a fixed
order. It is Babai's nearest plane (Chen et al. 2025, arXiv:2507.18553), in which form no inverse is needed. With the
Cholesky factor M = L L^T,

    d^T M d = sum_j L_jj^2 (d_j + sum_{i > j} d_i L_ij / L_jj)^2

so from the last column to the first, integer j is the one nearest to (w_j + sum_{i > j} d_i L_ij / L_jj) / s, or the
end of the grid. Columns are sorted so that those of largest M_jj come first in this; later ones make up for them. They
are done in blocks, so that most of the work is products of matrices.

M is damped: a part of its mean diagonal is added, so that the factor exists and inputs that were never seen, or moved
together by chance, are not trusted. With n rows seen the part is 0.03 + K / n, chosen by the error on other feeds: with
0.01 some kernels of EfficientNet-Lite0 with fewer rows than 4 K got worse there than with nearest rounding.

What is gained on the damped M need not be there on M: rows where it is not keep nearest rounding, so no output is
worse on M. Where the bias makes up for the mean error (W - W') E[x], M is to be the covariance of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.algorithms import patches, quantization
from optimizer.algorithms.damping import damped, factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.algorithms.quantization import Grid, Parameters
    from optimizer.algorithms.second_moments import SecondMoments

DAMPING = 0.03
_BLOCK = 96


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
    scale = patches.as_matrix(node, _steps(parameters, array.shape))
    if np.any(scale != scale[..., :1]):
        raise ValueError(
            f"{node.op_type} {node.name!r} has weight scales along axis {parameters.axis}: not its outputs"
        )
    if not moments.rows:
        return quantization.quantize(array, parameters)
    matrix = patches.as_matrix(node, array.astype(np.float64))
    square = moments.covariance if corrects_bias else moments.second_moment
    damping = DAMPING + matrix.shape[-1] / moments.rows
    integers = round_adaptively(matrix, square, scale[..., 0], parameters.grid, damping=damping)
    return patches.from_matrix(node, integers)


def mean_shift(
    node: ir.Node, array: NDArray[Any], integers: NDArray[Any], parameters: Parameters, moments: SecondMoments
) -> NDArray[np.float64]:
    """What to add to the bias of each output channel so that its mean stays: (W - W') E[x].

    Unlike a mean taken of the input's channels, that of the rows knows what lies in the padding.
    """
    error = array.astype(np.float64) - quantization.dequantize(integers, parameters)
    return np.asarray(patches.as_matrix(node, error) @ moments.mean[..., np.newaxis]).reshape(-1)


def round_adaptively(
    matrix: NDArray[np.float64],
    moments: NDArray[np.float64],
    scale: NDArray[Any] | float,
    grid: Grid,
    *,
    damping: float = DAMPING,
) -> NDArray[Any]:
    """Integers q of the grid of which (q - middle) * scale changes ``matrix @ inputs`` little.

    Args:
        matrix: (…, out, K); the leading axes are groups, each with moments of its own.
        moments: (…, K, K), symmetric and positive semidefinite.
        scale: One for all, or (…, out).
        grid: The integers; their middle stands for 0.
        damping: What is added to the diagonal of ``moments``, in parts of its mean.

    Returns:
        (…, out, K), of the grid's type. No row's ``quadratic_error`` is larger than with nearest rounding.
    """
    middle = _middle(grid)
    steps = np.broadcast_to(np.asarray(scale, np.float64)[..., np.newaxis], (*matrix.shape[:-1], 1))
    wanted = matrix / steps
    low, high = grid.qmin - middle, grid.qmax - middle
    found = np.clip(np.rint(wanted), low, high)
    passed_on = _nearest_plane(wanted, moments, low, high, damping)
    if passed_on is not None:
        worse = quadratic_error(wanted - passed_on, moments) >= quadratic_error(wanted - found, moments)
        found = np.where(worse[..., np.newaxis], found, passed_on)
    return (found + middle).astype(grid.dtype)


def quadratic_error(difference: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """d^T M d for each row d of ``difference``: the mean square of the change of that output."""
    return np.asarray(np.sum((difference @ moments) * difference, axis=-1))


def _middle(grid: Grid) -> int:
    """The integer that stands for 0."""
    return (grid.qmin + grid.qmax + 1) // 2


def _steps(parameters: Parameters, shape: Sequence[int]) -> NDArray[np.float64]:
    """The scale of each element of a weight of ``shape``."""
    middle = _middle(parameters.grid)
    if np.any(parameters.zero_point != middle):
        raise ValueError(f"adaptive rounding needs symmetric weights: a zero point of {middle} for {parameters.grid}")
    return quantization.dequantize(np.full(shape, middle + 1), parameters).astype(np.float64)


def _nearest_plane(
    wanted: NDArray[np.float64], moments: NDArray[np.float64], low: int, high: int, damping: float
) -> NDArray[np.float64] | None:
    """Integers of ``wanted`` (in steps), each error passed on; ``None`` if there is no factor to pass it on by."""
    diagonal = np.einsum("...kk->...k", moments)
    order = np.argsort(diagonal, axis=-1, kind="stable")
    passing = _passing(moments, order, damping)
    if passing is None:
        return None
    columns = np.take_along_axis(wanted, order[..., np.newaxis, :], axis=-1).swapaxes(-1, -2)
    integers, errors = np.empty_like(columns, order="C"), np.zeros(columns.shape)
    for end in range(columns.shape[-2], 0, -_BLOCK):
        begin = max(end - _BLOCK, 0)
        later = passing[..., end:, begin:end].swapaxes(-1, -2) @ errors[..., end:, :]
        target = columns[..., begin:end, :] + later
        inner = passing[..., begin:end, begin:end]
        for at in range(end - begin - 1, -1, -1):
            passed = inner[..., at + 1 :, at, np.newaxis].swapaxes(-1, -2) @ errors[..., begin + at + 1 : end, :]
            nearest = np.clip(np.rint(target[..., at, :] + passed[..., 0, :]), low, high)
            integers[..., begin + at, :] = nearest
            errors[..., begin + at, :] = columns[..., begin + at, :] - nearest
    back = np.argsort(order, axis=-1, kind="stable")
    return np.take_along_axis(integers.swapaxes(-1, -2), back[..., np.newaxis, :], axis=-1)


def _passing(moments: NDArray[np.float64], order: NDArray[np.intp], damping: float) -> NDArray[np.float64] | None:
    """L_ij / L_jj of the damped moments, rows and columns in ``order``."""
    sorted_rows = np.take_along_axis(damped(moments, damping), order[..., np.newaxis], axis=-2)
    lower = factor(np.take_along_axis(sorted_rows, order[..., np.newaxis, :], axis=-1))
    return None if lower is None else np.asarray(lower / np.einsum("...kk->...k", lower)[..., np.newaxis, :])
