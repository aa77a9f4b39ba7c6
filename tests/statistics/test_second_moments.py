"""Second moments: the sums themselves, what they may take, and the sweep that collects them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.errors import DataError, UsageError
from optimizer.evaluation.calibration.moments import second_moments
from optimizer.evaluation.feeds.sets import split
from optimizer.evaluation.validation.budget import Budget
from optimizer.statistics import second_moments as subject
from optimizer.statistics.second_moments import SecondMoments, batches, refusal, row_groups

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
NET = f"""{HEAD} g (float[N,2,6,6] x) => (float[N,3,4,4] y, float[N,2,6,6] d, float[N,4] s, float[N,4] t) {{
    r = Relu(x)
    y = Conv(r, dense)
    d = Conv<group=2, pads=[1,1,1,1]>(r, depthwise)
    p = GlobalAveragePool(d)
    f = Flatten(p)
    s = MatMul(f, first)
    t = Gemm<transB=1>(f, second)
}}"""
SHAPES = {"dense": (3, 2, 3, 3), "depthwise": (2, 1, 3, 3), "first": (2, 4), "second": (4, 2)}
KERNELS = ["y", "d", "s", "t"]


def net() -> ir.Model:
    model = ir.from_onnx_text(NET)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        tensor = ir.tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        value = next(node.inputs[1] for node in model.graph if len(node.inputs) > 1 and node.inputs[1].name == name)
        value.const_value, value.type, value.shape = tensor, ir.TensorType(tensor.dtype), tensor.shape
        model.graph.register_initializer(value)
    return model


def feeds(count=5):
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((2, 2, 6, 6)).astype(np.float32)} for _ in range(count)]


@given(st.lists(arrays(np.float32, (2, 3, 4), elements=st.floats(-8, 8, width=32)), min_size=1, max_size=4))
def test_sums_over_chunks_are_those_of_the_whole(chunks):
    moments = SecondMoments.of(2, 4)
    for chunk in chunks:
        moments.add(chunk)
    whole = np.concatenate(chunks, axis=1).astype(np.float64)
    assert moments.rows == whole.shape[1]
    np.testing.assert_allclose(moments.mean, whole.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(moments.second_moment, whole.swapaxes(1, 2) @ whole / whole.shape[1], atol=1e-12)
    for group in range(2):
        expected = np.cov(whole[group], rowvar=False, bias=True)
        np.testing.assert_allclose(moments.covariance[group], expected, atol=1e-10)


def test_rows_that_are_not_finite_are_left_out():
    moments = SecondMoments.of(1, 2)
    moments.add(np.array([[[1, 2], [np.nan, 0], [3, np.inf]]], np.float32))
    assert moments.rows == 1
    np.testing.assert_array_equal(moments.sums, [[[1, 2], [2, 4]]])


def test_nothing_seen_has_no_moments():
    moments = SecondMoments.of(1, 2)
    assert not moments.rows
    assert not moments.mean.any()
    assert not moments.covariance.any()


def test_a_constant_input_has_no_variance_below_zero():
    moments = SecondMoments.of(1, 3)
    for _ in range(7):
        moments.add(np.full((1, 11, 3), 0.1, np.float32))
    assert (np.diagonal(moments.covariance[0]) >= 0).all()


def test_kernels_that_read_the_same_rows_share_one_source():
    assert [item.kernels for item in row_groups(net(), KERNELS)] == [("y",), ("d",), ("s", "t")]
    assert [item.nbytes for item in row_groups(net(), KERNELS)] == [8 * 18 * 19, 8 * 2 * 9 * 10, 8 * 2 * 3]


def test_too_large_is_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(subject, "MOST_PRODUCTS", 9)
    model = net()
    by_name = {node.outputs[0].name: node for node in model.graph}
    assert refusal(by_name["y"]) == "each output sums 18 products; second moments are kept of at most 9"
    assert refusal(by_name["d"]) is None
    assert "not a Conv" in refusal(by_name["r"])
    assert [name for name, _ in second_moments(model, [*KERNELS, "r"], feeds())] == ["d", "s", "t"]


def test_an_unknown_kernel_is_an_error():
    with pytest.raises(UsageError, match="gives 'nothing'"):
        row_groups(net(), ["y", "nothing"])


def test_batches_keep_the_order_and_the_limit():
    items = row_groups(net(), KERNELS)
    assert batches(items, 10**9) == [items]
    assert batches(items, 1) == [[item] for item in items]
    assert batches(items, items[1].nbytes + items[2].nbytes) == [items[:1], items[1:]]
    assert batches([], 1) == []


def test_the_sweep_sums_what_the_kernels_read():
    found = dict(second_moments(net(), KERNELS, feeds()))
    assert list(found) == KERNELS
    assert found["s"] is found["t"]
    assert {name: one.rows for name, one in found.items()} == {"y": 160, "d": 360, "s": 10, "t": 10}
    relu = np.concatenate([np.maximum(feed["x"], 0) for feed in feeds()])
    windows = np.lib.stride_tricks.sliding_window_view(relu, (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    rows = windows.reshape(160, 18).astype(np.float64)
    np.testing.assert_allclose(found["y"].sums[0], rows.T @ rows, rtol=1e-6)
    np.testing.assert_allclose(found["y"].totals[0], rows.sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("kernels", [KERNELS, ["d"], ["s", "d"]])
@pytest.mark.parametrize("group_bytes", [1, 10**9])
def test_rows_drawn_do_not_depend_on_what_is_beside(kernels, group_bytes):
    expected = dict(second_moments(net(), KERNELS, feeds(), most_rows=60, seed=3))
    found = dict(second_moments(net(), kernels, feeds(), most_rows=60, seed=3, group_bytes=group_bytes))
    assert set(found) == set(kernels)
    for name, one in found.items():
        assert one.rows == min(60, {"s": 10, "t": 10}.get(name, 60))
        np.testing.assert_allclose(one.sums, expected[name].sums, rtol=1e-6)
    other = dict(second_moments(net(), ["d"], feeds(), most_rows=60, seed=4))
    assert not np.allclose(other["d"].sums, expected["d"].sums)


def test_progress_goes_over_all_sweeps_to_one():
    shares = []
    list(second_moments(net(), KERNELS, feeds(2), progress=shares.append, group_bytes=1))
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_sums_of_one_sweep_at_a_time_are_held(monkeypatch):
    made = []
    monkeypatch.setattr(SecondMoments, "of", classmethod(lambda cls, *size: made.append(size) or cls(*zeros(*size))))
    found = second_moments(net(), KERNELS, feeds(), group_bytes=1)
    assert next(found)[0] == "y"
    assert made == [(1, 18)]
    found.close()


def zeros(groups, width):
    return np.zeros((groups, width, width)), np.zeros((groups, width))


def test_the_lab_takes_the_feeds_to_fit_to():
    parts = split(lambda number: feeds(9)[number], 9, "files")
    evaluator = RuntimeEvaluator(net(), parts, Budget.parse("default"))
    expected = dict(second_moments(net(), KERNELS, parts.fitting))
    found = dict(evaluator.second_moments(net(), KERNELS))
    assert list(found) == KERNELS
    assert {one.rows for one in found.values()} == {one.rows for one in expected.values()}
    np.testing.assert_array_equal(found["d"].sums, expected["d"].sums)


def test_no_feeds_are_an_error():
    with pytest.raises(DataError, match="no calibration feeds"):
        next(second_moments(net(), KERNELS, []))
