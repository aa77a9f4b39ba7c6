"""Calibration sees the values that it names, whatever groups they are observed in, and leaves the model alone."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from optimizer.errors import DataError, ReferenceRunError, UsageError
from optimizer.evaluation.calibration.sweep import observable, observe, visit, with_outputs
from optimizer.evaluation.runtime import session
from optimizer.statistics.tensor_statistics import Range

HEAD = '<ir_version: 10, opset_import: ["": 21]>'
CHAIN = f"""{HEAD} g (float[N,4] x) => (float[N,4] y) {{
    k = Constant<value_floats=[1.0, 2.0, 3.0, -4.0]>()
    a = Mul(x, k)
    b = Relu(a)
    c = Add(b, k)
    y = Neg(c)
}}"""
K = np.array([1, 2, 3, -4], np.float32)


def feeds(count=3, rows=2, name="x", kind=np.float32):
    random = np.random.default_rng(0)
    return [{name: random.standard_normal((rows, 4)).astype(kind)} for _ in range(count)]


def chain(items):
    a = [item["x"] * K for item in items]
    b = [np.maximum(item, 0) for item in a]
    c = [item + K for item in b]
    return {"x": [item["x"] for item in items], "a": a, "b": b, "c": c, "y": [-item for item in c], "k": [K]}


@pytest.mark.parametrize("group_bytes", [1, 40, 1 << 20])
def test_each_value_is_what_its_name_says(group_bytes):
    items = feeds()
    found = observe(ir.from_onnx_text(CHAIN), list("yxabck"), items, channel_axes={"a": 1}, group_bytes=group_bytes)
    assert sorted(found) == list("abckxy")
    for name, arrays in chain(items).items():
        whole = np.concatenate([array.reshape(-1) for array in arrays])
        assert found[name].range() == Range(pytest.approx(whole.min()), pytest.approx(whole.max()))
        assert found[name].count == whole.size
        assert found[name].mean == pytest.approx(whole.mean(), rel=1e-5)
    np.testing.assert_allclose(found["a"].channels.mean, np.concatenate(chain(items)["a"]).mean(axis=0), rtol=1e-5)
    assert found["b"].channels is None


def test_the_model_is_left_alone():
    model = ir.from_onnx_text(CHAIN)
    before = ir.to_proto(model).SerializeToString()
    observe(model, ["a", "k"], feeds(), group_bytes=1)
    assert ir.to_proto(model).SerializeToString() == before


def test_a_group_runs_only_what_it_needs():
    part = with_outputs(ir.from_onnx_text(CHAIN), ["a"])
    assert [node.op_type for node in part.graph] == ["Constant", "Mul"]
    assert [value.name for value in part.graph.outputs] == ["a"]


def test_unused_weights_go_and_inputs_stay():
    text = f"""{HEAD} g (float[N,4] x, float[4] z, float[4] d) => (float[N,4] y)
        <float[4] w = {{1, 1, 1, 1}}, float[4] d = {{2, 2, 2, 2}}>
        {{ a = Neg(x) b = Add(a, w) c = Mul(b, d) y = Mul(c, z) }}"""
    model = ir.from_onnx_text(text)
    part = with_outputs(model, ["a"])
    assert "w" not in part.graph.initializers
    assert [slot.name for slot in session.session(part).inputs] == ["x", "z"]
    ones = {"x": np.ones((1, 4), np.float32), "z": np.ones(4, np.float32)}
    found = observe(model, ["a", "w", "d"], [ones, {**ones, "d": np.full(4, 5, np.float32)}])
    assert found["a"].range() == Range(-1, -1)
    assert (found["w"].count, found["w"].maximum) == (4, 1)
    assert (found["d"].count, found["d"].range()) == (8, Range(2, 5))


def test_constants_come_once_and_need_no_run():
    found = observe(ir.from_onnx_text(CHAIN.replace("Neg(c)", "Nonsense(c)")), ["k", "x"], feeds(5))
    assert (found["k"].feeds, found["x"].feeds) == (1, 5)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_float_type(kind):
    name = ir.DataType.from_numpy(np.dtype(kind)).name.lower()
    text = f"{HEAD} g ({name}[N,4] x) => (float[N,4] y) {{ a = Identity(x) b = Cast<to=1>(a) y = Neg(b) }}"
    items = feeds(kind=kind)
    found = observe(ir.from_onnx_text(text), ["x", "a", "b"], items)
    largest = max(float(item["x"].astype(np.float64).max()) for item in items)
    assert [found[name].maximum for name in "xab"] == [pytest.approx(largest, rel=1e-6)] * 3


def test_values_of_bodies_and_what_is_no_tensor_are_not_in_the_result():
    text = f"""{HEAD} g (bool c, float[N,4] x) => (float[N,4] y) {{
        s = SequenceConstruct(x, x)
        e = SequenceAt(s, zero)
        t = Cast<to=8>(x)
        y = If (c) <
            then_branch = yes () => (float[N,4] p) {{ q = Neg(e) p = Neg(q) }},
            else_branch = no () => (float[N,4] r) {{ r = Identity(x) }}
        >
        zero = Constant<value_int=0>()
    }}"""
    items = [{"c": np.array(True), **item} for item in feeds(2)]
    model = ir.from_onnx_text(text)
    assert observable(model, list("qpseytxc")) == ["c", "x", "e", "y"]
    found = observe(model, list("qpseytxc"), items)
    assert {name: item.count for name, item in found.items()} == {"c": 2, "x": 16, "e": 16, "y": 16}


def test_feeds_of_several_sizes():
    items = [{"x": np.full((rows, 4), rows, np.float32)} for rows in (1, 7, 3)]
    found = observe(ir.from_onnx_text(CHAIN), ["b", "y"], items)
    assert found["b"].count == 44
    assert found["b"].feed_change == np.inf


def test_feeds_are_loaded_one_at_a_time_and_progress_ends_at_one():
    class Lazy(list):
        loaded = 0

        def __getitem__(self, index):
            Lazy.loaded += 1
            return super().__getitem__(index)

    shares = []
    observe(ir.from_onnx_text(CHAIN), ["a", "b"], Lazy(feeds(4)), progress=shares.append, group_bytes=1)
    assert shares == [pytest.approx((number + 1) / 8) for number in range(8)]
    assert Lazy.loaded == 9  # two groups, and the sizes


def test_statistics_of_another_kind():
    gram = np.zeros((4, 4))

    def look(name, array):
        gram[:] += array.T.astype(float) @ array

    items = feeds()
    visit(ir.from_onnx_text(CHAIN), ["a"], items, look)
    whole = np.concatenate(chain(items)["a"]).astype(float)
    np.testing.assert_allclose(gram, whole.T @ whole, rtol=1e-5)


def test_errors_are_told():
    model = ir.from_onnx_text(CHAIN)
    with pytest.raises(UsageError, match="no value 'nothing'"):
        observe(model, ["nothing"], feeds())
    with pytest.raises(DataError, match="no calibration feeds"):
        observe(model, ["a"], [])
    with pytest.raises(DataError, match="value 'a': there are no channels along axis 2"):
        observe(model, ["a"], feeds(), channel_axes={"a": 2})
    with pytest.raises(ReferenceRunError):
        observe(model, ["a"], [{}])


def test_an_observed_value_is_not_fused_away():
    text = f"""{HEAD} g (float[1,2,5,5] x) => (float[1,2,5,5] y)
        <float[2,2,1,1] w = {{1, -2, 3, -4}}> {{ a = Conv(x, w) y = Relu(a) }}"""
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)
    found = observe(ir.from_onnx_text(text), ["a", "y"], [{"x": x}])
    expected = np.einsum("oi,nihw->nohw", np.array([[1, -2], [3, -4]]), x)
    assert found["a"].minimum == pytest.approx(expected.min(), rel=1e-5)
    assert found["y"].minimum == 0
