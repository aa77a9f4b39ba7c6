"""Cross-layer equalization: no answer changes by a bit, badly scaled nets quantize better, what may not scale stays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.algorithms.quantization.linear import WEIGHT_INT8
from optimizer.algorithms.quantization.rescaling import cross_layer
from optimizer.algorithms.quantization.rescaling.regions import find_regions
from optimizer.algorithms.quantization.rescaling.rescale import Rescaler
from optimizer.algorithms.quantization.rescaling.sources import kernel_source
from optimizer.algorithms.quantization.static.kernel_weights import quantize_weight
from optimizer.analysis.annotation import annotated
from optimizer.contract.skipped import SkippedNodes
from optimizer.graph import linear_nodes
from optimizer.graph.constants import set_array
from optimizer.io.model import clone
from rewriting import built, outputs
from small_nets import Net

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
CHANNELS = 6
SPATIAL = (1, CHANNELS, 8, 8)


def badly_scaled(random, *shape, axis=0):
    """Weights whose channels along ``axis`` differ by up to three decades."""
    spread = np.exp(random.uniform(-3.5, 3.5, shape[axis])).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return (random.standard_normal(shape) * spread).astype(np.float32)


def filled(text, **shapes):
    """The model of ``text``, its inputs named in ``shapes`` being badly scaled constants."""
    random = np.random.default_rng(0)
    constants = {name: badly_scaled(random, *shape) for name, shape in shapes.items()}
    return built(f"{HEADER} {text}", constants)


def maxima(model, feeds):
    """What ``channel_max`` wants, seen in one inference."""
    observed = ir.from_proto(model)
    with annotated(observed):
        axes = cross_layer.to_observe(observed)
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in axes)
    found = outputs(seen, feeds, optimize=False) if axes else []
    return {
        name: np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis % array.ndim))
        for (name, axis), array in zip(axes.items(), found, strict=True)
    }


def equalize(model, channel_max=None):
    """How many channels were rescaled, and the reasons why others were not."""
    skipped = SkippedNodes()
    with annotated(model):
        changes = cross_layer.equalize(model, channel_max, Rescaler(lambda _site: True, skipped))
    return changes.get("channels equalized", 0), [note.reason for note in skipped.notes()]


def unchanged(model, feeds, by="weights"):
    """Equalize ``model``, hold that no answer changed by a bit, and return what was done with the new model."""
    given_model = ir.from_proto(model)
    changed = clone(given_model)
    count, reasons = equalize(changed, None if by == "weights" else maxima(model, feeds))
    after = ir.to_proto(changed)
    onnx.checker.check_model(after, full_check=True)
    assert ir.to_proto(given_model).SerializeToString() == ir.to_proto(ir.from_proto(model)).SerializeToString()
    for want, got in zip(outputs(model, feeds, optimize=False), outputs(after, feeds, optimize=False), strict=True):
        np.testing.assert_array_equal(want, got)
    return count, reasons, after


def feed(model, seed=0):
    random = np.random.default_rng(seed)
    return {
        value.name: random.standard_normal([d.dim_value or 2 for d in value.type.tensor_type.shape.dim]).astype("f")
        for value in model.graph.input
    }


W, B, D, V = (CHANNELS, CHANNELS, 3, 3), (CHANNELS,), (CHANNELS, 1, 3, 3), (CHANNELS, CHANNELS)
CONVS = "g (float[1,6,8,8] x, float[6,6,3,3] w, float[6] b, float[6,6,3,3] v) => (float[1,6,?,?] y)"


def between(op):
    """A Conv, ``op`` from ``a`` to ``c``, a Conv."""
    return filled(f"{CONVS} {{ a = Conv<pads=[1,1,1,1]>(x, w, b) {op} y = Conv(c, v) }}", w=W, b=B, v=W)


@pytest.mark.parametrize(
    "op",
    [
        "c = Relu(a)",
        "c = LeakyRelu<alpha=0.1>(a)",
        "s = Constant<value = float[6,1,1] {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}>() c = PRelu(a, s)",
        "c = Identity(a)",
        "c = Neg(a)",
        "d = Abs(a) c = Dropout(d)",
        "c = MaxPool<kernel_shape=[2,2]>(a)",
        "c = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(a)",
        "p = Constant<value = int64[8] {0, 0, 1, 1, 0, 0, 1, 1}>() c = Pad(a, p)",
        'p = Constant<value = int64[8] {0, 0, 1, 1, 0, 0, 1, 1}>() c = Pad<mode="reflect">(a, p)',
        's = Constant<value = float[4] {1.0, 1.0, 2.0, 2.0}>() c = Resize<mode="linear">(a, , s)',
        "r = Constant<value = float {0.0}>() c = Clip(a, r)",
        "r = Constant<value = float {0.0}>() c = Clip(a, , r)",
        "k = Constant<value = float[6,1,1] {1.0, -2.0, 3.0, 4.0, 5.0, 6.0}>() c = Mul(a, k)",
        "k = Constant<value = float[6,1,1] {1.0, -2.0, 3.0, 4.0, 5.0, 6.0}>() c = Add(k, a)",
        "k = Constant<value = float {0.5}>() c = Sub(k, a)",
        "k = GlobalMaxPool(x) c = Mul(k, a)",
        "d = Relu(a) c = Add(a, d)",
        "d = Transpose<perm=[0,2,3,1]>(a) e = Relu(d) c = Transpose<perm=[0,3,1,2]>(e)",
        "m = ReduceMean<axes=[2], keepdims=0>(a) i = Constant<value_ints = [2]>() n = Unsqueeze(m, i) c = Add(a, n)",
    ],
)
def test_passes(op):
    model = between(op)
    count, _, after = unchanged(model, feed(model))
    assert count
    assert list(model.graph.initializer) != list(after.graph.initializer)


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("c = Sigmoid(a)", "read by Sigmoid"),
        ("c = HardSwish(a)", "read by HardSwish"),
        ("r = Constant<value = float {0.0}>() s = Constant<value = float {6.0}>() c = Clip(a, r, s)", "read by Clip"),
        ("r = Constant<value = float {0.5}>() c = Max(a, r)", "read by Max"),
        ("r = Constant<value = float {1.0}>() c = Clip(a, r)", "read by Clip"),
        ("c = Mul(a, a)", "read by Mul"),
        ("d = Exp(a) c = Add(a, d)", "Exp"),
        ("c = Softmax<axis=1>(a)", "read by Softmax"),
        ("c = Add(a, x)", "x is an input"),
        ("p = Constant<value = int64[8] {0, 1, 0, 0, 0, -1, 0, 0}>() c = Pad(a, p)", "read by Pad"),
        ("p = Constant<value_ints=[0, 0, 1, 1, 0, 0, 1, 1]>() k = Constant<value_float=1.0>() c = Pad(a, p, k)", "Pad"),
        ("d = Relu(a) e = Softmax(d) c = Transpose<perm=[0,1,3,2]>(e)", "read by Softmax"),
        ("k = GlobalMaxPool(a) d = Relu(x) c = Mul(k, d)", "read by Mul"),
    ],
)  # fmt: skip
def test_stays(op, reason):
    model = between(op)
    count, reasons, after = unchanged(model, feed(model))
    assert not count
    assert any(reason in one for one in reasons), reasons
    assert list(after.graph.initializer) == list(ir.to_proto(ir.from_proto(model)).graph.initializer)


GRAPHS = {
    "a graph output": (
        (
            "g (float[1,6,8,8] x, float[6,6,3,3] w, float[6,6,3,3] v) => (float[1,6,6,6] a, float[1,6,4,4] y)"
            "{ a = Conv(x, w) y = Conv(a, v) }"
        ),
        {"w": W, "v": W},
        "an output of the graph",
    ),
    "a second reader that is no kernel": (
        (
            "g (float[1,6,8,8] x, float[6,6,3,3] w, float[6,6,3,3] v) => (float[1,6,4,4] y, float[1,6,6,6] z)"
            "{ a = Conv(x, w) y = Conv(a, v) z = Tanh(a) }"
        ),
        {"w": W, "v": W},
        "read by Tanh",
    ),
    "a shared weight": (
        "g (float[1,6,8,8] x, float[6,6,3,3] w) => (float[1,6,4,4] y) { a = Conv(x, w) y = Conv(a, w) }",
        {"w": W},
        "shares its weight",
    ),
    "a shared bias": (
        (
            "g (float[1,6,8,8] x, float[6,6,3,3] w, float[6] b, float[6,6,3,3] v) => (float[1,6,4,4] y)"
            "{ a = Conv(x, w, b) y = Conv(a, v, b) }"
        ),
        {"w": W, "b": B, "v": W},
        "shares its bias",
    ),
    "a weight that a caller may override": (
        (
            "g (float[1,6,8,8] x, float[6,6,3,3] w, float[6,6,3,3] v) => (float[1,6,4,4] y)"
            "{ a = Conv(x, w) b = Relu(a) y = Conv(b, v) }"
        ),
        {"v": W},
        "computed weight",
    ),
    "double precision": (
        (
            "g (double[1,6,8,8] x, double[6,6,3,3] w, double[6,6,3,3] v) => (double[1,6,4,4] y)"
            "{ a = Conv(x, w) y = Conv(a, v) }"
        ),
        {"w": W, "v": W},
        "of type double",
    ),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_refuses(case):
    text, shapes, reason = GRAPHS[case]
    model = ir.from_proto(filled(text, **shapes))
    before = list(ir.to_proto(model).graph.initializer)
    count, reasons = equalize(model)
    assert not count
    assert list(ir.to_proto(model).graph.initializer) == before
    assert any(reason in one for one in reasons), reasons


STRUCTURES = {
    "depthwise": (
        (
            "g (float[1,6,8,8] x, float[6,6,3,3] w, float[6] b, float[6,1,3,3] d, float[6,6,3,3] v)"
            "=> (float[1,6,2,2] y)"
            "{ a = Conv(x, w, b) c = Relu(a) e = Conv<group=6>(c, d) f = Relu(e) y = Conv(f, v) }"
        ),
        {"w": W, "b": B, "d": D, "v": W},
        2,
    ),
    "grouped": (
        (
            "g (float[1,6,8,8] x, float[6,3,3,3] w, float[8,2,3,3] v) => (float[1,8,4,4] y)"
            "{ a = Conv<group=2>(x, w) c = Relu(a) y = Conv<group=3>(c, v) }"
        ),
        {"w": (6, 3, 3, 3), "v": (9, 2, 3, 3)},
        1,
    ),
    "transposed": (
        (
            "g (float[1,6,8,8] x, float[6,2,3,3] w, float[4] b, float[4,6,3,3] v) => (float[1,6,12,12] y)"
            "{ a = ConvTranspose<group=2>(x, w, b) c = Relu(a) y = ConvTranspose(c, v) }"
        ),
        {"w": (6, 2, 3, 3), "b": (4,), "v": (4, 6, 3, 3)},
        1,
    ),
    "residual": (
        (
            "g (float[1,6,8,8] x, float[6,6,1,1] w, float[6,6,1,1] u, float[6,6,1,1] v, float[6,6,1,1] z)"
            "=> (float[1,6,8,8] y)"
            "{ a = Conv(x, w) b = Conv(a, u) r = Relu(b) c = Conv(r, v) d = Add(a, c) e = Relu(d) y = Conv(e, z) }"
        ),
        dict.fromkeys("wuvz", (6, 6, 1, 1)),
        2,
    ),
    "squeeze and excite": (
        (
            "g (float[1,6,8,8] x, float[6,6,1,1] w, float[3,6,1,1] u, float[6,3,1,1] v, float[6,6,1,1] z)"
            "=> (float[1,6,8,8] y)"
            "{ a = Conv(x, w) b = Relu(a) p = GlobalAveragePool(b) q = Conv(p, u) r = Relu(q) s = Conv(r, v)"
            "  t = Sigmoid(s) c = Mul(b, t) y = Conv(c, z) }"
        ),
        {"w": (6, 6, 1, 1), "u": (3, 6, 1, 1), "v": (6, 3, 1, 1), "z": (6, 6, 1, 1)},
        2,
    ),
    "flattened": (
        (
            "g (float[2,6,8,8] x, float[6,6,3,3] w, float[6] b, float[5,54] v, float[5] c) => (float[2,5] y)"
            "{ a = Conv<strides=[2,2]>(x, w, b) r = Relu(a) f = Flatten(r) y = Gemm<transB=1>(f, v, c) }"
        ),
        {"w": W, "b": B, "v": (5, 54), "c": (5,)},
        1,
    ),
    "reshaped flat": (
        (
            "g (float[2,6,8,8] x, float[6,6,3,3] w, float[54,5] v) => (float[2,5] y)"
            "{ a = Conv<strides=[2,2]>(x, w) r = Relu(a) s = Constant<value = int64[2] {-1, 54}>() f = Reshape(r, s)"
            "  y = MatMul(f, v) }"
        ),
        {"w": W, "v": (54, 5)},
        1,
    ),
    "products": (
        (
            "g (float[2,3,6] x, float[6,8] w, float[8] b, float[8,6] v, float[6] c) => (float[2,3,6] y)"
            "{ a = MatMul(x, w) d = Add(b, a) r = Relu(d) e = MatMul(r, v) y = Add(e, c) }"
        ),
        {"w": (6, 8), "b": (8,), "v": (8, 6), "c": (6,)},
        1,
    ),
    "Gemm, a bias of one number": (
        (
            "g (float[2,6] x, float[6,8] w, float[1] b, float[8,6] v) => (float[2,6] y)"
            "{ a = Gemm<beta=0.5, alpha=2.0>(x, w, b) r = Relu(a) y = Gemm(r, v) }"
        ),
        {"w": (6, 8), "b": (1,), "v": (8, 6)},
        1,
    ),
    "rows of more axes": (
        (
            "g (float[2,3,6] x, float[6,8] w, float[8,6] v) => (float[6,6] y)"
            "{ a = MatMul(x, w) s = Constant<value = int64[2] {6, 8}>() d = Reshape(a, s) r = Relu(d) y = Gemm(r, v) }"
        ),
        {"w": (6, 8), "v": (8, 6)},
        1,
    ),
}


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("case", STRUCTURES)
def test_structures(case, by):
    text, shapes, regions = STRUCTURES[case]
    model = filled(text.replace("float[8,2,3,3] v", "float[9,2,3,3] v").replace("[1,8,4,4] y", "[1,9,4,4] y"), **shapes)
    inferred = ir.from_proto(model)
    with annotated(inferred):
        usable = [region for region in find_regions(inferred, kernel_source) if not region.obstacle]
    assert len(usable) == regions
    count, *_ = unchanged(model, feed(model), by)
    assert count


def test_zero_biases_may_be_shared():
    text, shapes, _ = GRAPHS["a shared bias"]
    model = filled(text, **shapes)
    bias = next(one for one in model.graph.initializer if one.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros(CHANNELS, np.float32), "b"))
    count, _, after = unchanged(model, feed(model))
    assert count
    assert not np.any(onnx.numpy_helper.to_array(next(one for one in after.graph.initializer if one.name == "b")))


def test_dead_channels_are_left():
    model = between("c = Relu(a)")
    dead = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    dead[2] = 0
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(dead, "w"))
    *_, after = unchanged(model, feed(model))
    before = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    found = {one.name: onnx.numpy_helper.to_array(one) for one in after.graph.initializer}
    assert before["b"][2] == found["b"][2]
    np.testing.assert_array_equal(before["v"][:, 2], found["v"][:, 2])


@pytest.mark.parametrize("size", [3e38, 2e-38])
def test_what_would_leave_the_range_of_float32_stays(size):
    model = between("c = Relu(a)")
    v = np.ones(W, np.float32) * np.float32(1e-3)
    v[:, 1] = 1
    v[0, 0, 0, 0] = size  # is multiplied by more than 1, or by less
    w = np.ones(W, np.float32)
    w[0] = 1e3 if size > 1 else 1e-3
    for index, array in ((0, w), (2, v)):
        model.graph.initializer[index].CopyFrom(
            onnx.numpy_helper.from_array(array, model.graph.initializer[index].name)
        )
    changed = ir.from_proto(model)
    count, _ = equalize(changed)
    arrays = [onnx.numpy_helper.to_array(one) for one in ir.to_proto(changed).graph.initializer]
    assert all(np.isfinite(array).all() for array in arrays)
    assert not count or np.all((arrays[2] == 0) | (np.abs(arrays[2]) >= np.finfo(np.float32).tiny))


def fake_quantized(model):
    """The answers' model with weights of int8 and one scale each."""
    rounded = ir.from_proto(model)
    for node in rounded.graph:
        kernel = linear_nodes.as_linear(node)
        array = None if kernel is None else kernel.weight_array()
        if kernel is not None and array is not None:
            set_array(kernel.weight, quantize_weight(array, WEIGHT_INT8, None).floats())
    return ir.to_proto(rounded)


def error(model, feeds):
    want, got = (outputs(one, feeds, optimize=False)[0] for one in (model, fake_quantized(model)))
    return np.linalg.norm(want - got) / np.linalg.norm(want)


def planted(scale_from):
    """Conv, depthwise, Conv; channels in between scaled by up to 2**±5, each undone by the next kernel."""
    random = np.random.default_rng(4)
    net = Net(1, 8, 12, 12)
    first, second = (np.exp2(random.integers(-scale_from, scale_from + 1, 16)).astype(np.float32) for _ in range(2))
    w = random.standard_normal((16, 8, 3, 3)).astype(np.float32) * first[:, None, None, None]
    d = random.standard_normal((16, 1, 3, 3)).astype(np.float32) * (second / first)[:, None, None, None]
    v = random.standard_normal((8, 16, 1, 1)).astype(np.float32) / second[:, None, None]
    value = net.node("Relu", net.node("Conv", "x", net.constant(w)))
    value = net.node("Relu", net.node("Conv", value, net.constant(d), group=16))
    return net.model(net.node("Conv", value, net.constant(v)))


def test_weights_of_one_scale_lose_what_was_planted():
    model, even = planted(5), planted(0)
    feeds = feed(model)
    *_, after = unchanged(model, feeds)
    before, reached = error(model, feeds), error(after, feeds)
    assert before > 10 * error(even, feeds)
    assert reached < 2 * error(even, feeds)
    assert reached < before / 8


def test_activations_become_even_where_rows_have_scales():
    model = planted(5)
    feeds = feed(model)
    *_, after = unchanged(model, feeds, "activations")
    before, reached = maxima(model, feeds), maxima(after, feeds)
    depthwise = next(node.input[0] for node in model.graph.node if node.attribute and node.op_type == "Conv")
    assert np.ptp(np.log2(before[depthwise])) > 8
    assert np.ptp(np.log2(reached[depthwise])) <= 1.01  # a depthwise kernel has a scale for each channel: free


def test_balanced_is_at_rest():
    model = planted(3)
    *_, after = unchanged(model, feed(model))
    count, _, again = unchanged(after, feed(model))
    assert count <= 4  # halves of a binary exponent may round either way
    assert len(again.SerializeToString()) == len(after.SerializeToString())


@dataclass
class Chain:
    """A random net of what scales and what does not."""

    net: Net
    channels: int
    values: list = field(default_factory=list)

    def add(self, choice, value):
        net, random, n = self.net, self.net.random, self.channels
        match choice:
            case "conv" | "depthwise":
                groups = n if choice == "depthwise" else 1
                weight = net.constant(badly_scaled(random, n, n // groups, 3, 3))
                return net.node(
                    "Conv", value, weight, net.constant(badly_scaled(random, n)), group=groups, pads=[1] * 4
                )
            case "clip":
                return net.node("Clip", value, net.constant(np.float32(0)), net.constant(np.float32(6)))
            case "pool":
                return net.node("MaxPool", value, kernel_shape=[3, 3], pads=[1] * 4)
            case "residual":
                return net.node("Add", value, self.values[int(random.integers(len(self.values)))])
            case "gate":
                return net.node("Mul", net.node("Sigmoid", net.node("GlobalAveragePool", value)), value)
            case "bias":
                return net.node("Add", value, net.constant(badly_scaled(random, n, 1, 1)))
        return net.node(choice, value)


CHOICES = ["conv", "conv", "conv", "depthwise", "depthwise", "Relu", "LeakyRelu", "pool", "residual", "gate", "bias",
           "clip", "Sigmoid", "Abs"]  # fmt: skip


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(CHOICES), min_size=3, max_size=10),
    st.integers(0, 2**16),
    st.sampled_from(["weights", "activations"]),
)
def test_random_nets_answer_the_same(choices, seed, by):
    chain = Chain(Net(1, 4, 6, 6, seed=seed), 4, ["x"])
    for choice in ["conv", *choices, "conv"]:
        chain.values.append(chain.add(choice, chain.values[-1]))
    model = chain.net.model(chain.values[-1])
    unchanged(model, feed(model, seed), by)
