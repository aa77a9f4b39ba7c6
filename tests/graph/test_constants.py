"""Constants that a rewrite makes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from optimizer.graph.constants import add_initializer, constant_array


@pytest.mark.parametrize(
    "content",
    [np.ones((2, 3), np.float16), np.float32(3.5), np.array(7), ir.tensor(np.zeros(4), name="other")],
    ids=["array", "number", "array of no axes", "tensor"],
)
def test_an_initializer_says_its_type_and_shape(content):
    graph = ir.Graph([], [], nodes=[])
    value = add_initializer(graph, "w", content)
    array = content.numpy() if isinstance(content, ir.Tensor) else np.asarray(content)
    assert graph.initializers["w"] is value
    assert (value.name, value.dtype, value.shape) == ("w", ir.DataType.from_numpy(array.dtype), array.shape)
    np.testing.assert_array_equal(constant_array(value), array)
