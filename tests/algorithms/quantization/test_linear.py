"""The formulas are those of QuantizeLinear and DequantizeLinear, number by number."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from optimizer.algorithms.quantization import linear, rows
from optimizer.algorithms.quantization.linear import INT8, INT32, UINT8, WEIGHT_INT7, WEIGHT_INT8, Parameters
from optimizer.algorithms.quantization.static import kernel_weights
from optimizer.evaluation.runtime.session import session

ARRAYS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-100, 100, width=32)
)
GRIDS = st.sampled_from([INT8, UINT8, WEIGHT_INT8, WEIGHT_INT7])


@given(ARRAYS, st.sampled_from([INT8, UINT8]))
def test_integers_are_those_of_onnxruntime(array, grid):
    parameters = linear.asymmetric(float(array.min()), float(array.max()), grid)
    kind = grid.dtype.name
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": 13]> g (float[N] x, float s, {kind} z) => ({kind}[N] q, float[N] y)'
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    )
    feed = {"x": array.reshape(-1), "s": parameters.scale, "z": parameters.zero_point}
    found = session(model, optimize=False).run(feed)
    ours = linear.quantize(array.reshape(-1), parameters)
    near = np.abs(found["q"].astype(int) - ours.astype(int))
    from_tie = np.abs(np.abs(array.reshape(-1) / np.float64(parameters.scale)) % 1 - 0.5)
    assert near.max(initial=0) <= 1, "ONNX Runtime divides in float32, so a tie may fall to the other side"
    assert np.all(from_tie[near > 0] < 1e-4)
    np.testing.assert_allclose(linear.dequantize(found["q"], parameters), found["y"], rtol=1e-6)


@given(ARRAYS, GRIDS)
def test_within_the_range_the_error_is_half_a_step(array, grid):
    if grid in {INT8, UINT8}:
        parameters = linear.asymmetric(float(array.min()), float(array.max()), grid)
    else:
        scale = np.array(max(np.abs(array).max() / grid.qmax, np.finfo(np.float32).tiny), np.float32)
        parameters = Parameters(scale, np.zeros((), grid.dtype), grid)
    back = linear.dequantize(linear.quantize(array, parameters), parameters)
    # asymmetric ends move by up to half a step when the zero point is rounded
    assert np.all(np.abs(back - array) <= float(parameters.scale) * 1.001 + 1e-30)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.sampled_from([INT8, UINT8]))
def test_zero_is_exact(one, other, grid):
    parameters = linear.asymmetric(min(one, other), max(one, other), grid)
    zero = np.zeros(1, np.float32)
    assert linear.dequantize(linear.quantize(zero, parameters), parameters)[0] == 0


def test_a_range_of_what_is_not_negative_has_the_lowest_zero_point():
    assert linear.asymmetric(0.0, 6.0, UINT8).zero_point == 0
    assert linear.asymmetric(0.5, 6.0, INT8).zero_point == -128


@given(ARRAYS.filter(lambda array: array.ndim >= 2), st.sampled_from([WEIGHT_INT8, WEIGHT_INT7]), st.booleans())
def test_a_smaller_scale_is_only_taken_where_it_lowers_the_squared_error(array, grid, per_channel):
    axis = 0 if per_channel else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_FACTORS", (1.0,))
        plain = kernel_weights.quantize_weight(array, grid, axis).floats()
    shrunk = kernel_weights.quantize_weight(array, grid, axis).floats()
    others = tuple(range(1, array.ndim)) if per_channel else None
    before = ((plain - array) ** 2).sum(axis=others, dtype=np.float64)
    assert np.all(((shrunk - array) ** 2).sum(axis=others, dtype=np.float64) <= before * (1 + 1e-6) + 1e-30)


@pytest.mark.parametrize("axis", [0, None])
def test_a_bias_of_a_nearly_dead_channel_does_not_overflow(axis):
    array = np.array([[1e-12, 0.0], [0.5, -1.0]], np.float32)
    bias = np.array([3.0, -1.0], np.float32)
    made = kernel_weights.quantize_weight(array, WEIGHT_INT8, axis)
    fitted = kernel_weights.fit_bias(made, array, bias, 0.01)
    integers, parameters = kernel_weights.quantize_bias(bias, fitted, 0.01)
    assert integers.dtype == np.int32
    back = linear.dequantize(integers, parameters)
    np.testing.assert_allclose(back, bias, rtol=1e-2 if axis is None else 1e-4)
    np.testing.assert_allclose(fitted.floats()[1], array[1], atol=0.01)


def test_the_shift_is_added_to_the_bias():
    weight = kernel_weights.KernelWeight(
        np.ones((2, 2), np.int8),
        Parameters(np.ones(2, np.float32), np.zeros(2, np.int8), WEIGHT_INT8, 0),
        np.full(2, 5.0),
    )
    integers, parameters = kernel_weights.quantize_bias(np.array([1.0, 2.0]), weight, 0.5)
    assert integers.tolist() == [12, 14]
    assert parameters.grid is INT32
