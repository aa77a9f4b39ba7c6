"""Facts of a model, and its MACs."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from optimizer.analysis.macs import count_macs
from optimizer.analysis.model_facts import count_zeros, facts, weight_facts
from optimizer.io.model import load, save


def model(text: str) -> ir.Model:
    return load(onnx.parser.parse_model(text))


HEAD = '<ir_version: 10, opset_import: ["" : 21, "m" : 1]> g '

MACS = {
    "Conv": ("(float[1,4,8,8] x, float[6,4,1,1] w) => (float[1,6,8,8] y) { y = Conv(x, w) }", 6 * 64 * 4),
    "grouped Conv": (
        "(float[2,4,8,8] x, float[4,1,3,3] w) => (float[2,4,6,6] y) { y = Conv<group = 4>(x, w) }",
        2 * 4 * 36 * 9,
    ),
    "ConvTranspose": (
        "(float[1,4,8,8] x, float[4,6,2,2] w) => (float[1,6,16,16] y) { y = ConvTranspose<strides = [2, 2]>(x, w) }",
        4 * 64 * 6 * 4,
    ),
    "MatMul": ("(float[2,3,4] x, float[4,5] w) => (float[2,3,5] y) { y = MatMul(x, w) }", 2 * 3 * 5 * 4),
    "Gemm": ("(float[3,4] x, float[4,5] w) => (float[3,5] y) { y = Gemm(x, w) }", 3 * 4 * 5),
    "Gemm, transposed": ("(float[4,3] x, float[4,5] w) => (float[3,5] y) { y = Gemm<transA = 1>(x, w) }", 3 * 4 * 5),
    "Einsum": (
        '(float[2,3,4] x, float[2,4,5] w) => (float[2,3,5] y) { y = Einsum<equation = "bij,bjk->bik">(x, w) }',
        2 * 3 * 4 * 5,
    ),
    "Einsum with an ellipsis": (
        '(float[2,3,4] x, float[4,5] w) => (float[2,3,5] y) { y = Einsum<equation = "...j,jk->...k">(x, w) }',
        2 * 3 * 4 * 5,
    ),
    "LSTM": (
        """(float[7,1,3] x, float[1,20,3] w, float[1,20,5] r) => (float[7,1,1,5] y)
        { y = LSTM<hidden_size = 5>(x, w, r) }""",
        7 * (20 * 3 + 20 * 5),
    ),
    "GRU, both directions": (
        """(float[7,2,3] x, float[2,15,3] w, float[2,15,5] r) => (float[7,2,2,5] y)
        { y = GRU<hidden_size = 5, direction = "bidirectional">(x, w, r) }""",
        7 * 2 * 2 * (15 * 3 + 15 * 5),
    ),
    "QLinearMatMul": (
        """(uint8[3,4] x, uint8[4,5] w, float s, uint8 z) => (uint8[3,5] y)
        { y = QLinearMatMul(x, s, z, w, s, z, s, z) }""",
        3 * 4 * 5,
    ),
    "QLinearConv": (
        """(uint8[1,4,8,8] x, uint8[6,4,1,1] w, float s, uint8 z) => (uint8[1,6,8,8] y)
        { y = QLinearConv(x, s, z, w, s, z, s, z) }""",
        6 * 64 * 4,
    ),
    "nothing to count": ("(float[3] x) => (float[3] y) { y = Relu(x) }", 0),
    "the dearer branch": (
        """(float[3,4] x, float[4,5] w, bool c) => (float[3,5] y)
        { y = If(c) <then_branch = t () => (float[3,5] p) { p = MatMul(x, w) },
                     else_branch = e () => (float[3,5] q) { r = MatMul(x, w)  q = MatMul(x, w) }> }""",
        2 * 3 * 4 * 5,
    ),
    "a loop of known length": (
        """(float[3,3] x, bool c) => (float[3,3] y)
        <int64 n = {6}, bool go = {1}>
        { y = Loop(n, go, x) <body = b (int64 i, bool on, float[3,3] h) => (bool o, float[3,3] k)
            { o = Identity(on)  k = MatMul(h, h) }> }""",
        6 * 27,
    ),
    "a function, called twice": (
        """(float[3,3] x) => (float[3,3] y) { h = m.square(x)  y = m.square(h) }
        <domain: "m", opset_import: ["" : 21]> square (a) => (b) { b = MatMul(a, a) }""",
        2 * 27,
    ),
}


@pytest.mark.parametrize(("text", "count"), MACS.values(), ids=MACS)
def test_macs(text, count):
    assert count_macs(model(HEAD + text)) == count


GUESSES = {
    "a batch that is not known": ("(float[N,4] x, float[4,5] w) => (float[N,5] y) { y = MatMul(x, w) }", 20),
    "a length that is not known": ("(float[2,L,4] x, float[4,5] w) => (float[2,L,5] y) { y = MatMul(x, w) }", 40),
    "a loop of unknown length": (
        """(float[3,3] x, int64 n, bool go) => (float[3,3] y)
        { y = Loop(n, go, x) <body = b (int64 i, bool on, float[3,3] h) => (bool o, float[3,3] k)
            { o = Identity(on)  k = MatMul(h, h) }> }""",
        27,
    ),
    "no shape at all": ("(float x, float w) => (float y) { a = m.Some(x)  b = m.Some(w)  y = MatMul(a, b) }", None),
}


@pytest.mark.parametrize(("text", "count"), GUESSES.values(), ids=GUESSES)
def test_macs_of_what_is_not_known_count_as_one(text, count):
    assert count_macs(model(HEAD + text)) == count


def test_macs_see_through_computed_pads():
    text = """(float[N,1,4,4] x) => (float[N,1,6,6] y)
    <float[1,1,1,1] w = {1}, int64[2] two = {1, 1}, int64[1] flat = {-1}, int64[2] pairs = {-1, 2},
     int64[2] zero = {0, 0}>
    { c = Concat<axis = 0>(zero, two, zero, two)  r = Reshape(c, pairs)  t = Reshape(r, flat)  p = Cast<to = 7>(t)
      h = Pad(x, p)  y = Conv(h, w) }"""
    assert count_macs(model(HEAD + text)) == 36


EVERYWHERE = model(
    HEAD
    + """(float[2] x, bool c, float[2] free) => (float[2] y)
    <float[2] a = {1, 0}, float[2] b = {1, 0}, int64[1] axes = {0}, float[2] free = {0, 0}, bool[1] flag = {1}>
    { s = Add(x, a)
      t = m.twice(s)
      q = Constant<value = int8[2] {0, 5}>()
      y = If(c) <then_branch = e () => (float[2] p) { k = Constant<value = float[2] {1, 0}>()  p = Mul(t, k) },
                 else_branch = f () => (float[2] r) { r = Mul(t, b) }> }
    <domain: "m", opset_import: ["" : 21]> twice (u) => (v) { w = Constant<value = float {2}>()  v = Mul(u, w) }"""
)


def test_nodes_and_operators_are_counted_everywhere():
    found = facts(EVERYWHERE)
    assert found.ops == {"Add": 1, "Constant": 3, "If": 1, "Mul": 3, "m.twice": 1}
    assert list(found.ops) == sorted(found.ops)
    assert found.nodes == sum(found.ops.values())


def test_parameters_are_floats_and_quantized_weights():
    assert facts(EVERYWHERE).parameters == 2 + 2 + 2 + 2 + 2 + 1


def test_int32_counts_where_it_is_dequantized():
    text = """(float[2] x) => (float[2] y) <int32[2] b = {1, 2}, float s = {1}, int32[2] other = {1, 2}>
    { d = DequantizeLinear(b, s)  c = Cast<to = 1>(other)  e = Add(x, c)  y = Add(e, d) }"""
    assert facts(model(HEAD + text)).parameters == 3


def test_weight_facts():
    found = weight_facts(EVERYWHERE)
    assert (found.zeros, found.elements) == (1 + 1 + 2 + 1 + 1, 11)
    assert (found.duplicate_tensors, found.duplicate_bytes) == (2, 16)


def test_equal_bytes_of_another_shape_are_no_duplicates():
    text = (
        "(float[2] x) => (float[1,2] y) <float[2] a = {1, 2}, float[1,2] b = {1, 2}> { s = Add(x, a)  y = Add(s, b) }"
    )
    assert weight_facts(model(HEAD + text)).duplicate_tensors == 0


def test_ports_and_versions():
    found = facts(EVERYWHERE)
    assert found.inputs == (("x", "tensor(float)", "[2]"), ("c", "tensor(bool)", "[]"))
    assert found.outputs == (("y", "tensor(float)", "[2]"),)
    assert found.opsets == {"": 21, "m": 1}
    assert found.ir_version == 10


def test_bytes_are_those_that_save_writes(tmp_path):
    written = save(EVERYWHERE, tmp_path / "m.onnx")
    assert facts(EVERYWHERE).bytes == sum(path.stat().st_size for path in written)


def test_facts_are_json():
    assert json.loads(json.dumps(facts(EVERYWHERE).to_dict()))["ops"]["Mul"] == 3


@pytest.mark.parametrize(
    ("array", "zeros"),
    [
        (np.array([0.0, -0.0, 1.0, np.nan], np.float32), 2),
        (np.array([0.0, -0.0, 6e-8], np.float16), 2),
        (np.array([0.0, -0.0, 5e-324]), 2),
        (np.array([0, -128, 127], np.int8), 1),
        (np.array([0, 128], np.uint8), 1),
        (np.array([0, 1, -8, 0, 0], ml_dtypes.int4), 3),
        (np.array([0, 3], ml_dtypes.uint2), 1),
        (np.array([0.0, -0.0, 2.0], ml_dtypes.bfloat16), 2),
        (np.array([0.0, -0.0, 2.0], ml_dtypes.float8_e4m3fn), 2),
        (np.array([0.0, np.nan, 2.0], ml_dtypes.float8_e4m3fnuz), 1),
        (np.array([1.0, 2.0], ml_dtypes.float8_e8m0fnu), 0),
        (np.zeros((0, 3), np.float32), 0),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_zeros(array, zeros):
    assert count_zeros(ir.tensor(array)) == zeros


def test_sparse_tensors_are_not_made_dense():
    proto = onnx.parser.parse_model(HEAD + "(float[4] x) => (float[4] y) { y = Add(x, w) }")
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [5.0])
    places = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [1], [2])
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [4]))
    found = weight_facts(load(proto))
    assert (found.zeros, found.elements) == (3, 4)
