"""Adaptive rounding: never worse than nearest on what was measured, better where inputs move together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_cases import CASES, kernel, moments_of, moving_together
from optimizer.algorithms.quantization import linear
from optimizer.algorithms.quantization.linear import UINT8, WEIGHT_INT7, WEIGHT_INT8, IntegerRange
from optimizer.algorithms.quantization.static.adaptive_rounding import adaptive, mean_shift, round_adaptively
from optimizer.algorithms.reconstruction.gptq import quadratic_error
from optimizer.statistics import im2col
from optimizer.statistics.second_moments import SecondMoments

INT3 = IntegerRange(np.dtype(np.int8), -3, 3)
GRIDS = {"int8": WEIGHT_INT8, "int7": WEIGHT_INT7, "int3": INT3, "uint8": UINT8}


def middle(grid: IntegerRange) -> int:
    return (grid.qmin + grid.qmax + 1) // 2


def nearest(matrix, scale, grid):
    zero = middle(grid)
    return np.clip(np.rint(matrix / scale[..., np.newaxis]), grid.qmin - zero, grid.qmax - zero) + zero


def problem(rng, groups, outputs, width, rows, rank):
    """Weights, and the second moments of inputs that lie near a space of few dimensions."""
    inputs = rng.standard_normal((groups, rows, rank)) @ rng.standard_normal((groups, rank, width))
    inputs += 0.01 * rng.standard_normal(inputs.shape)
    matrix = rng.standard_normal((groups, outputs, width)) * np.exp(rng.standard_normal((groups, outputs, 1)))
    return matrix, inputs.swapaxes(1, 2) @ inputs / rows


@given(
    st.integers(0, 10**6),
    st.tuples(*(st.integers(1, high) for high in (3, 5, 120, 30, 9))),
    st.sampled_from(sorted(GRIDS)),
    st.sampled_from([0.5, 1.0]),
    st.sampled_from([0.0, 1e-9, 0.03, 1.0]),
)
@settings(max_examples=150)
def test_no_row_is_worse_than_with_nearest_rounding(seed, sizes, name, clip, damping):
    grid, rng = GRIDS[name], np.random.default_rng(seed)
    matrix, moments = problem(rng, *sizes)
    scale = clip * np.abs(matrix).max(axis=-1) / (grid.qmax - middle(grid))
    found = round_adaptively(matrix, moments, scale, grid, part=damping)
    assert found.dtype == grid.dtype
    assert found.min() >= grid.qmin
    assert found.max() <= grid.qmax
    error = [
        quadratic_error(matrix - (integers.astype(np.float64) - middle(grid)) * scale[..., np.newaxis], moments)
        for integers in (found, nearest(matrix, scale, grid))
    ]
    assert (error[0] <= error[1] * (1 + 1e-9) + 1e-12 * np.abs(moments).max()).all()


@pytest.mark.parametrize("name", GRIDS)
def test_zeros_stay_zeros(name):
    grid, rng = GRIDS[name], np.random.default_rng(5)
    matrix, moments = problem(rng, 2, 20, 100, 300, 30)
    matrix[rng.random(matrix.shape) < 0.5] = 0
    scale = np.abs(matrix).max(axis=-1) / (grid.qmax - middle(grid))
    found = round_adaptively(matrix, moments, scale, grid)
    assert (found[matrix == 0] == middle(grid)).all()
    assert (found != nearest(matrix, scale, grid)).any()


@pytest.mark.parametrize("width", [9, 95, 96, 97, 200])
def test_blocks_change_nothing(width):
    """The same as the textbook form: one column after the other, by the inverse of what is left."""
    rng = np.random.default_rng(width)
    matrix, moments = problem(rng, 1, 4, width, 60, 30)
    scale = np.abs(matrix).max(axis=-1) / 7
    grid = IntegerRange(np.dtype(np.int8), -7, 7)
    found = round_adaptively(matrix, moments, scale, grid, part=0.05)[0]
    damped = moments[0] + 0.05 * np.diagonal(moments[0]).mean() * np.eye(width)
    left = list(np.argsort(np.diagonal(moments[0]), kind="stable"))
    weight, expected = matrix[0].copy(), np.zeros((4, width))
    while left:
        inverse = np.linalg.inv(damped[np.ix_(left, left)])
        column = left.pop()
        expected[:, column] = np.clip(np.rint(weight[:, column] / scale[0]), -7, 7)
        error = (weight[:, column] - expected[:, column] * scale[0]) / inverse[-1, -1]
        weight[:, left] -= error[:, np.newaxis] * inverse[-1, :-1]
    plain = nearest(matrix, scale, grid)[0]
    errors = [quadratic_error(matrix[0] - one * scale[0][:, np.newaxis], moments[0]) for one in (expected, plain)]
    assert (errors[0] < errors[1]).any()
    np.testing.assert_array_equal(found, np.where((errors[0] < errors[1])[:, np.newaxis], expected, plain))


def test_inputs_that_move_together_make_up_for_each_other():
    rng = np.random.default_rng(0)
    matrix, moments = problem(rng, 1, 16, 64, 4000, 16)
    scale = np.abs(matrix).max(axis=-1) / 127
    found = round_adaptively(matrix, moments, scale, WEIGHT_INT8)
    errors = [
        quadratic_error(matrix - integers * scale[..., np.newaxis], moments).sum()
        for integers in (found, nearest(matrix, scale, WEIGHT_INT8))
    ]
    assert errors[0] < 0.3 * errors[1]


def test_one_scale_for_all_and_no_leading_axes():
    rng = np.random.default_rng(0)
    matrix, moments = problem(rng, 1, 3, 8, 40, 8)
    found = round_adaptively(matrix[0], moments[0], 0.05, WEIGHT_INT8)
    np.testing.assert_array_equal(found, round_adaptively(matrix, moments, np.full((1, 3), 0.05), WEIGHT_INT8)[0])


@pytest.mark.parametrize("moments", [np.zeros((1, 5, 5)), np.diag([1.0, 0, 2, 0, 3])[np.newaxis]])
def test_inputs_that_are_never_seen_are_rounded_to_the_nearest(moments):
    matrix = np.random.default_rng(0).standard_normal((1, 2, 5))
    scale = np.full((1, 2), 0.1)
    found = round_adaptively(matrix, moments, scale, WEIGHT_INT8)
    np.testing.assert_array_equal(found, nearest(matrix, scale, WEIGHT_INT8))


def test_what_has_no_factor_is_rounded_to_the_nearest():
    matrix = np.random.default_rng(0).standard_normal((1, 2, 2))
    moments, scale = np.array([[[1.0, 5.0], [5.0, 1.0]]]), np.full((1, 2), 0.1)
    found = round_adaptively(matrix, moments, scale, WEIGHT_INT8)
    np.testing.assert_array_equal(found, nearest(matrix, scale, WEIGHT_INT8))


def symmetric(weight, axis):
    """The grid around 0 that reaches as far as each channel along ``axis``, or as all of ``weight``."""
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.asarray(np.abs(weight).max(axis=others) / INT3.qmax, np.float32)
    return linear.Parameters(scale, np.zeros(scale.shape, INT3.dtype), INT3, axis)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("corrects_bias", [True, False])
def test_a_kernel_answers_more_exactly(case, per_channel, corrects_bias):
    op_type, shape, attributes, axis, data = CASES[case]
    node, rng = kernel(op_type, shape, **attributes), np.random.default_rng(0)
    weight = rng.standard_normal(shape).astype(np.float32)
    x = moving_together(rng, data, along=1 if "Conv" in op_type else -1)
    rows, moments = moments_of(node, x)
    parameters = symmetric(weight, axis if per_channel else None)
    plain = linear.quantize(weight, parameters)
    found = adaptive(node, weight, parameters, moments, corrects_bias=corrects_bias)
    assert (found.shape, found.dtype) == (plain.shape, plain.dtype)

    def error(integers):
        """The mean square of what the output is off by, with the bias corrected or not; per output channel."""
        back = linear.dequantize(integers, parameters)
        off = rows @ im2col.as_matrix(node, weight - back).swapaxes(1, 2)
        if corrects_bias:
            off -= mean_shift(node, weight, integers, parameters, moments).reshape(off.shape[0], 1, -1)
        return (off.astype(np.float64) ** 2).mean(axis=1)

    assert (error(found) <= error(plain) * (1 + 1e-4) + 1e-6).all()
    assert error(found).sum() < 0.97 * error(plain).sum()


def test_without_rows_it_is_nearest_rounding():
    node, weight = kernel("MatMul", (3, 2)), np.arange(6, dtype=np.float32).reshape(3, 2)
    parameters = symmetric(weight, 1)
    found = adaptive(node, weight, parameters, SecondMoments.of(1, 3))
    np.testing.assert_array_equal(found, linear.quantize(weight, parameters))


def test_other_parameters_are_refused():
    node, weight = kernel("MatMul", (3, 2)), np.arange(6, dtype=np.float32).reshape(3, 2)
    moments = SecondMoments.of(1, 3)
    with pytest.raises(ValueError, match="along axis 0"):
        adaptive(node, weight, symmetric(weight + 1, 0), moments)
    with pytest.raises(ValueError, match="symmetric"):
        adaptive(node, weight, linear.asymmetric(0, 5, UINT8), moments)
