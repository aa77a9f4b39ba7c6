"""Sessions: every type in and out, weights of every kind, and errors on one line."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from optimized_ops import optimized_ops
from optimizer.errors import ReferenceRunError
from optimizer.evaluation.runtime import session as runtime
from optimizer.evaluation.runtime.session import Slot, prepare, session

HEAD = '<ir_version: 10, opset_import: ["": 21]>'


def built(body, signature="(float[N,4] x) => (float[N,4] y)"):
    return ir.from_onnx_text(f"{HEAD} g {signature} {{ {body} }}")


def with_weight(array):
    model = built("y = MatMul(x, w)", "(float[N,4] x) => (float[N,3] y)")
    tensor = ir.tensor(array, name="w")
    weight = ir.Value(name="w", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    model.graph.register_initializer(weight)
    model.graph.node(0).replace_input_with(1, weight)
    return model


def test_slots_and_a_run():
    ready = session(built("y = Relu(x)"))
    assert ready.inputs == (Slot("x", "tensor(float)", ("N", 4)),)
    assert ready.outputs == (Slot("y", "tensor(float)", ("N", 4)),)
    np.testing.assert_array_equal(ready.run({"x": np.full((1, 4), -1, np.float32)})["y"], np.zeros((1, 4)))


def test_an_unknown_rank_is_told_from_a_scalar():
    ready = session(built("y = Relu(x) z = Relu(s)", "(float x, float[] s) => (float y, float[] z)"))
    ranked = {slot.name: slot.ranked for slot in ready.inputs}
    assert ranked == {"x": True, "s": False}


@pytest.mark.parametrize("optimize", [True, False])
def test_both_ways_answer_the_same(optimize):
    answer = session(built("a = Neg(x) y = Neg(a)"), optimize=optimize).run({"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(answer["y"], np.ones((1, 4)))


@pytest.mark.parametrize(
    ("name", "kind"), [("bfloat16", ml_dtypes.bfloat16), ("float8e4m3fn", ml_dtypes.float8_e4m3fn)]
)
def test_types_that_numpy_lacks(name, kind):
    model = built(
        f"y = Cast<to={int(ir.DataType[name.upper()])}>(x) z = Cast<to=1>(b)",
        f"(float[N] x, {name}[N] b) => ({name}[N] y, float[N] z)",
    )
    answer = session(model).run({"x": np.array([1, 2], np.float32), "b": np.array([2, 4], kind)})
    assert answer["y"].dtype == kind
    np.testing.assert_array_equal(answer["y"].astype(np.float32), [1, 2])
    np.testing.assert_array_equal(answer["z"], [2, 4])


def test_four_bit_types_are_one_element_a_number():
    body = "k = Constant<value_float=1.0>() f = DequantizeLinear(x, k) y = QuantizeLinear<output_dtype=22>(f, k)"
    values = np.array([1, -8, 7, 0, 3], ml_dtypes.int4)
    answer = session(built(body, "(int4[5] x) => (int4[5] y)")).run({"x": values})
    np.testing.assert_array_equal(answer["y"].astype(int), [1, -8, 7, 0, 3])


@pytest.mark.parametrize("kind", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize("rows", [64, 65])
def test_four_bit_weights_may_be_left_out_of_the_message(kind, rows, monkeypatch):
    monkeypatch.setattr(runtime, "INLINE_LIMIT", 0)
    low = 0 if kind is ml_dtypes.uint4 else -8
    integers = np.random.default_rng(0).integers(low, low + 16, (rows, 65))
    model = built("c = Cast<to=1>(w) y = MatMul(x, c)", f"(float[N,{rows}] x) => (float[N,65] y)")
    tensor = ir.tensor(integers.astype(kind), name="w")
    weight = ir.Value(name="w", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    model.graph.register_initializer(weight)
    model.graph.node(0).replace_input_with(0, weight)
    loadable = prepare(model)
    assert list(loadable.weights) == ["w"]
    answer = session(loadable).run({"x": np.eye(rows, dtype=np.float32)})
    np.testing.assert_array_equal(answer["y"], integers)


def test_sequences():
    model = built("y = SplitToSequence<axis=1>(x)", "(float[N,4] x) => (seq(float[A,B]) y)")
    answer = session(model).run({"x": np.ones((2, 4), np.float32)})
    assert [item.shape for item in answer["y"]] == [(2, 1)] * 4


def test_weights_in_files_stay_there(tmp_path):
    array = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    (tmp_path / "data").write_bytes(b"\0" * 64 + array.tobytes())
    model = with_weight(array)
    model.graph.initializers["w"].const_value = ir.ExternalTensor(
        "data", 64, array.nbytes, ir.DataType.FLOAT, shape=ir.Shape(array.shape), name="w", base_dir=tmp_path
    )
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(session(model).run({"x": x})["y"], x @ array, rtol=1e-6)


def test_what_is_too_big_for_a_message_goes_beside_it(monkeypatch):
    monkeypatch.setattr(runtime, "INLINE_LIMIT", 1000)
    monkeypatch.setattr(runtime, "_SKELETON_LIMIT", 16)
    array = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    model = with_weight(array)
    model.graph.outputs[0].shape = ir.Shape(["N", 300])
    ready = prepare(model)
    assert list(ready.weights) == ["w"]
    x = np.ones((1, 4), np.float32)
    for optimize in (True, False):
        np.testing.assert_allclose(session(ready, optimize=optimize).run({"x": x})["y"], x @ array, rtol=1e-5)


def test_the_model_is_not_changed():
    model = with_weight(np.ones((4, 3), np.float32))
    before = ir.to_proto(model).SerializeToString()
    session(model).run({"x": np.ones((1, 4), np.float32)})
    assert ir.to_proto(model).SerializeToString() == before


def test_errors_are_one_line():
    with pytest.raises(ReferenceRunError, match="cannot load") as loading:
        session(built("y = Nonsense(x)"))
    with pytest.raises(ReferenceRunError, match="cannot run") as running:
        session(built("y = Relu(x)")).run({"x": np.ones((1, 5), np.float32)})
    for caught in (loading, running):
        assert "\n" not in str(caught.value)


def test_optimized_ops_are_what_really_runs():
    model = with_weight(np.ones((4, 3), np.float32))
    assert optimized_ops(model) == {"MatMul": 1}
    assert optimized_ops(built("a = Identity(x) b = Identity(a) y = Relu(b)")) == {"Relu": 1}


def test_a_runner_takes_feeds_by_turns():
    model = built("y = Cast<to=16>(x)", "(float[N] x) => (bfloat16[N] y)")
    run = session(model).runner([{"x": np.ones(1, np.float32)}, {"x": np.ones(2, np.float32)}])
    for _ in range(3):
        run()
