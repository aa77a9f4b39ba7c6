"""Rows of kernels: times the matrix they are what ONNX Runtime answers, for every attribute and rank."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from optimizer.evaluation.runtime import session
from optimizer.statistics import im2col

FLOAT = onnx.TensorProto.FLOAT


def single(op_type: str, weight: np.ndarray, rank: int, **attributes) -> ir.Model:
    """A model of one kernel."""
    node = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [f"d{axis}" for axis in range(rank)])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def holds(model: ir.Model, weight: np.ndarray, x: np.ndarray, most: int = 10**9) -> None:
    """The rows times the matrix are what the kernel answers at the same positions."""
    node = model.graph[0]
    assert im2col.refusal(node) is None
    answer = session.session(model).run({"x": x})["y"]
    groups, width = im2col.width(node)
    rng = np.random.default_rng(7)
    positions = im2col.sample(node, x.shape, most, np.random.default_rng(7))
    rows = im2col.rows(node, x, most, rng)
    matrix = im2col.as_matrix(node, weight)
    assert rows.shape == (groups, len(positions), width)
    assert rows.dtype == x.dtype
    assert matrix.shape == (groups, weight.size // width // groups, width)
    got = rows @ matrix.swapaxes(1, 2)
    np.testing.assert_allclose(got, im2col.outputs_at(node, answer, positions), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(im2col.from_matrix(node, matrix), weight)


@st.composite
def convolutions(draw):
    """Operator, attributes, shapes of weight and input; any group, also one for each channel."""
    rank = draw(st.integers(1, 3))
    several = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731 - used twice on the next lines
    groups, inner, outer = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    window, dilations, strides = several(1, 3), several(1, 2), several(1, 3)
    attributes = {"group": groups, "dilations": dilations, "strides": strides, "kernel_shape": window}
    op_type = draw(st.sampled_from(["Conv", "ConvTranspose"]))
    reaches = [step * (taps - 1) + 1 for step, taps in zip(dilations, window, strict=True)]
    if op_type == "Conv":
        auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
        if auto_pad.startswith("SAME"):
            attributes["dilations"] = [1] * rank  # ONNX Runtime refuses dilated ones
        weight = (groups * outer, inner, *window)
    else:
        auto_pad = draw(st.sampled_from(["NOTSET", "VALID"]))
        attributes["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in strides]
        weight = (groups * inner, outer, *window)
    if auto_pad == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, reach - 1)) for reach in (*reaches, *reaches)]
    else:
        attributes["auto_pad"] = auto_pad
    least = max(reaches)
    shape = (draw(st.integers(1, 2)), groups * inner, *several(least, least + 4))
    return op_type, attributes, weight, shape


@given(convolutions(), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=120)
def test_convolutions(drawn, most, seed):
    op_type, attributes, weight_shape, shape = drawn
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(weight_shape).astype(np.float32)
    model = single(op_type, weight, len(shape), **attributes)
    x = rng.standard_normal(shape).astype(np.float32)
    holds(model, weight, x)
    holds(model, weight, x, most)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (2, 1, 3, 5), (0, 5)])
def test_matmul_of_any_rank(shape):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3)).astype(np.float32)
    holds(single("MatMul", weight, len(shape)), weight, rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5}, {"alpha": -2.0, "transB": 1, "beta": 3.0}])
def test_gemm(attributes):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 5) if attributes.get("transB") else (5, 3)).astype(np.float32)
    x = rng.standard_normal((9, 5)).astype(np.float32)
    holds(single("Gemm", weight, 2, **attributes), weight, x)
    holds(single("Gemm", weight, 2, **attributes), weight, x, 4)


@pytest.mark.parametrize(
    ("op_type", "shape", "attributes", "reason"),
    [
        ("Gemm", (5, 3), {"transA": 1}, "transA"),
        ("MatMul", (2, 5, 3), {}, "rank"),
        ("ConvTranspose", (2, 2, 3), {"auto_pad": "SAME_UPPER"}, "size of its output"),
        ("ConvTranspose", (2, 2, 3), {"output_shape": [9]}, "size of its output"),
        ("Relu", (2, 2), {}, "not a Conv"),
    ],
)
def test_what_is_left_alone_has_a_reason(op_type, shape, attributes, reason):
    node = single(op_type, np.ones(shape, np.float32), 3, **attributes).graph[0]
    assert reason in im2col.refusal(node)
    if im2col.refusal(node).startswith("it is no"):
        with pytest.raises(ValueError, match=reason):
            im2col.width(node)


def test_a_large_map_is_never_unfolded():
    """Sixteen rows of a map whose unfolded form would take 1.8 GB."""
    import tracemalloc  # noqa: PLC0415 - only here

    node = single("Conv", np.ones((1, 8, 7, 7), np.float32), 4, pads=[3, 3, 3, 3]).graph[0]
    x = np.ones((1, 8, 1024, 1024), np.float32)
    tracemalloc.start()
    im2col.rows(node, x, 16, np.random.default_rng(0))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_positions_are_those_of_the_seed_without_repetition():
    node = single("MatMul", np.ones((5, 3), np.float32), 2).graph[0]
    drawn = [im2col.sample(node, (1000, 5), 50, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert drawn[0].tolist() != drawn[2].tolist()
    assert len(set(drawn[0].tolist())) == 50


def test_kernels_with_the_same_rows_have_the_same_key():
    def key(op_type, *shape, **attributes):
        return im2col.key(single(op_type, np.ones(shape, np.float32), 2, **attributes).graph[0])

    assert key("MatMul", 5, 3) == key("MatMul", 5, 7) == key("Gemm", 7, 5, transB=1)
    assert key("MatMul", 5, 3) != key("Gemm", 5, 3, alpha=0.5)
    assert key("Conv", 4, 2, 3, 3) == key("Conv", 9, 2, 3, 3)
    assert key("Conv", 4, 2, 3, 3) != key("Conv", 4, 2, 3, 3, pads=[1, 1, 1, 1])
    assert key("Conv", 4, 2, 3, 3) != key("Conv", 4, 2, 1, 1)
