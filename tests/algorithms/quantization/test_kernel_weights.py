"""Integer weights and biases of kernels: what a bias needs of the scale, and which channels it changes."""

from __future__ import annotations

import numpy as np

from optimizer.algorithms.quantization import linear
from optimizer.algorithms.quantization.static.kernel_weights import (
    KernelWeight,
    fit_bias,
    quantize_bias,
    quantize_weight,
)


def test_a_bias_that_overflows_raises_the_scale_of_its_channel_alone():
    array = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    array[2] *= 1e-9
    nearest = quantize_weight(array, linear.WEIGHT_INT8, 0)
    other = KernelWeight(nearest.integers + np.int8(1), nearest.parameters)  # as if rounded in another way
    bias = np.array([1.0, 1.0, 50.0, 1.0], np.float32)
    fitted = fit_bias(other, array, bias, input_scale=0.01)
    kept = [0, 1, 3]
    assert np.array_equal(fitted.integers[kept], other.integers[kept])
    assert np.array_equal(fitted.parameters.scale[kept], other.parameters.scale[kept])
    assert fitted.parameters.scale[2] > other.parameters.scale[2]
    integers, parameters = quantize_bias(bias, fitted, 0.01)
    assert np.allclose(linear.dequantize(integers, parameters), bias, rtol=1e-3)
