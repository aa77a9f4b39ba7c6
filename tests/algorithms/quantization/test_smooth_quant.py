"""Smoothing: outlier channels move into the weights behind, and no answer changes by a bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.algorithms.quantization.linear import UINT8, WEIGHT_INT8, asymmetric, dequantize, quantize
from optimizer.algorithms.quantization.rescaling import smooth_quant
from optimizer.algorithms.quantization.rescaling.rescale import Rescaler
from optimizer.algorithms.quantization.static.kernel_weights import quantize_weight
from optimizer.analysis.annotation import annotated
from optimizer.contract.skipped import SkippedNodes
from optimizer.io.model import clone
from rewriting import built, outputs

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
SIZE = 16
GAIN = np.ones(SIZE, np.float32)
GAIN[3], GAIN[7] = 60, 25  # outlier channels

PARTS = {
    "LayerNormalization": "n = LayerNormalization<axis=-1>(x, gain, shift)",
    "without shift": "n = LayerNormalization<axis=-1>(x, gain)",
    "taken apart": (
        "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean<axes=[-1]>(q) s = Sqrt(v)"
        " o = Div(d, s) g = Mul(o, gain) n = Add(g, shift)"
    ),
    "RMSNorm": "q = Mul(x, x) v = ReduceMean<axes=[-1]>(q) s = Sqrt(v) o = Div(x, s) n = Mul(gain, o)",
}
INPUTS = "float[2,5,16] x, float[16] gain, float[16] shift, float[16,8] w, float[16,8] u"


def filled(body, results="float[2,5,8] y, float[2,5,8] z", seed=0):
    random = np.random.default_rng(seed)
    constants = {
        "gain": GAIN,
        "shift": random.standard_normal(SIZE) * 0.1,
        "w": random.standard_normal((SIZE, 8)),
        "u": random.standard_normal((SIZE, 8)),
    }
    return built(f"{HEADER} g ({INPUTS}) => ({results}) {{ {body} }}", constants)


def feed(seed=1):
    return {"x": np.random.default_rng(seed).standard_normal((2, 5, SIZE)).astype(np.float32)}


def maxima(model, feeds):
    observed = ir.from_proto(model)
    with annotated(observed):
        axes = smooth_quant.to_observe(observed)
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in axes)
    found = outputs(seen, feeds, optimize=False) if axes else []
    peaks = [np.abs(array).reshape(-1, array.shape[-1]).max(axis=0) for array in found]
    return dict(zip(axes, peaks, strict=True))


def smooth(model, channel_max, alpha=0.5):
    """What was changed, and the reasons why the others were not."""
    skipped = SkippedNodes()
    with annotated(model):
        changes = smooth_quant.smooth(model, channel_max, alpha, Rescaler(lambda _site: True, skipped))
    return changes, [note.reason for note in skipped.notes()]


def unchanged(model, feeds, alpha=0.5):
    """Smooth ``model``, hold that no answer changed by a bit, and return what was done with the new model."""
    changed = clone(ir.from_proto(model))
    changes, _ = smooth(changed, maxima(model, feeds), alpha)
    after = ir.to_proto(changed)
    onnx.checker.check_model(after, full_check=True)
    for want, got in zip(outputs(model, feeds, optimize=False), outputs(after, feeds, optimize=False), strict=True):
        np.testing.assert_array_equal(want, got)
    return changes, after


def ops(model):
    return [node.op_type for node in model.graph.node]


def error(model, feeds):
    """Of the first MatMul: its input in 8 bits, its weight in 8 bits with a scale for each column."""
    node = next(one for one in model.graph.node if one.op_type == "MatMul")
    weight = next(onnx.numpy_helper.to_array(one) for one in model.graph.initializer if one.name == node.input[1])
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.append(onnx.ValueInfoProto(name=node.input[0]))
    x = outputs(seen, feeds, optimize=False)[-1]
    grid = asymmetric(x.min(), x.max(), UINT8)
    got = dequantize(quantize(x, grid), grid) @ quantize_weight(weight, WEIGHT_INT8, 1).floats()
    return np.linalg.norm(got - x @ weight) / np.linalg.norm(x @ weight)


@pytest.mark.parametrize("part", PARTS)
def test_normalizations_take_the_division(part):
    model = filled(f"{PARTS[part]} y = MatMul(n, w) z = MatMul(n, u)")
    changes, after = unchanged(model, feed())
    assert changes.keys() == {"channels smoothed"}
    assert ops(after) == ops(model)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.75, 1.0])
def test_any_alpha_is_exact(alpha):
    model = filled(f"{PARTS['LayerNormalization']} y = MatMul(n, w) z = MatMul(n, u)")
    unchanged(model, feed(), alpha)


def test_outliers_lose_their_weight():
    model = filled(f"{PARTS['LayerNormalization']} y = MatMul(n, w) z = MatMul(n, u)")
    _, after = unchanged(model, feed())
    before, reached = maxima(model, feed())["n"], maxima(after, feed())["n"]
    assert before.max() / np.median(before) > 30
    assert reached.max() / np.median(reached) < np.sqrt(before.max() / np.median(before)) * 2


def test_small_channels_quantize_better():
    body = f"{PARTS['LayerNormalization']} k = Constant<value_float = 1.0>() y = MatMul(n, w) z = MatMul(n, u)"
    model = filled(body)
    weight = next(one for one in model.graph.initializer if one.name == "w")
    array = onnx.numpy_helper.to_array(weight).copy()
    array[[3, 7]] /= 60  # the outliers say no more than the others
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    other = next(one for one in model.graph.initializer if one.name == "u")
    other.CopyFrom(onnx.numpy_helper.from_array(array, "u"))
    _, after = unchanged(model, feed())
    assert error(after, feed()) < error(model, feed()) / 5


def test_through_views_and_several_products():
    body = (
        f"{PARTS['LayerNormalization']} t = Transpose<perm=[1,0,2]>(n) s = Constant<value = int64[2] {{10, 16}}>()"
        " r = Reshape(t, s) y = Gemm(r, w) z = MatMul(n, u)"
    )
    model = filled(body, "float[10,8] y, float[2,5,8] z")
    changes, _ = unchanged(model, feed())
    assert changes["channels smoothed"] > 0


def post_norm():
    """As in BERT: the residual Add reads what the products read."""
    return filled(f"{PARTS['taken apart']} y = MatMul(n, w) a = Add(n, x) e = Sigmoid(a) z = MatMul(e, u)")


def test_other_readers_go_on_reading_the_old():
    model = post_norm()
    changes, after = unchanged(model, feed())
    assert changes == {"Mul inserted": 1}
    readers = {node.op_type: node.input for node in after.graph.node}
    assert "n" in readers["Add"]
    new = next(node for node in after.graph.node if node.op_type == "MatMul").input[0]
    assert next(node.op_type for node in after.graph.node if new in node.output) == "Mul"


def test_no_mul_without_outliers():
    even = post_norm()
    gain = next(one for one in even.graph.initializer if one.name == "gain")
    gain.CopyFrom(onnx.numpy_helper.from_array(np.ones(SIZE, np.float32), "gain"))
    changes, _ = unchanged(even, feed())
    assert not changes


def test_a_graph_output_stays_what_it_is():
    model = filled(f"{PARTS['LayerNormalization']} y = MatMul(n, w)", "float[2,5,16] n, float[2,5,8] y")
    changes, _ = unchanged(model, feed())
    assert changes == {"Mul inserted": 1}


def test_shared_constants_are_left():
    model = filled(f"{PARTS['LayerNormalization']} y = MatMul(n, w) z = MatMul(x, w)")
    changes, _ = unchanged(model, feed())
    assert not changes
    gains = "b = LayerNormalization<axis=-1>(x, gain, shift) n = LayerNormalization<axis=-1>(b, gain)"
    changes, _ = unchanged(filled(f"{gains} y = MatMul(n, w) z = MatMul(n, u)"), feed())
    assert changes == {"Mul inserted": 1}


def test_what_was_not_observed_is_left():
    model = ir.from_proto(filled(f"{PARTS['LayerNormalization']} y = MatMul(n, w) z = MatMul(n, u)"))
    changes, reasons = smooth(model, {})
    assert not changes
    assert reasons == ["its channels were not observed"]


def test_an_input_may_be_multiplied():
    model = filled("y = MatMul(x, w) z = MatMul(x, u)")
    feeds = {"x": feed()["x"] * GAIN}
    changes, after = unchanged(model, feeds)
    assert changes == {"Mul inserted": 1}
    assert ops(after)[0] == "Mul"


@given(
    st.integers(0, 2**16),
    st.sampled_from(sorted(PARTS)),
    st.floats(0, 1),
    st.sampled_from(["z = MatMul(n, u)", "a = Add(n, x) z = MatMul(a, u)", "a = Relu(n) z = MatMul(a, u)"]),
)
def test_random_nets_answer_the_same(seed, part, alpha, rest):
    model = filled(f"{PARTS[part]} y = MatMul(n, w) {rest}", seed=seed)
    unchanged(model, feed(seed), alpha)
