"""quantize-dynamic: what becomes int8, what stays and why, and that answers keep to the bound of the formula."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from optimized_ops import optimized_ops
from optimizer.contract.passes import Context, Sites
from optimizer.errors import PreconditionError, UsageError
from optimizer.evaluation.runtime.session import session
from optimizer.graph import traversal
from optimizer.io.model import byte_size, clone, load, to_proto
from optimizer.testing import check_pass
from passes.quantize_dynamic import DynamicChoices, QuantizeDynamic

K, N = 96, 80
RANDOM = np.random.default_rng(0)
W = (RANDOM.standard_normal((K, N)) / 10 * np.exp(RANDOM.standard_normal(N))).astype(np.float32)
X = RANDOM.standard_normal((5, K)).astype(np.float32)
B = RANDOM.standard_normal(N).astype(np.float32)


def model(text: str, opset: int = 13, ir_version: int = 8, **weights: np.ndarray) -> ir.Model:
    """A model from the text of a graph; ``weights`` fill what is declared as ``float[1] name = {0}``."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    proto = onnx.parser.parse_model(text if text.lstrip().startswith("<") else header + text)
    for initializer in proto.graph.initializer:
        if initializer.name in weights:
            initializer.CopyFrom(onnx.numpy_helper.from_array(weights[initializer.name], initializer.name))
    for node in proto.graph.node:
        for output in node.output if node.op_type == "Constant" else ():
            if output in weights:
                node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(weights[output]))
    onnx.checker.check_model(proto, full_check=True)
    return load(proto)


def quantized(given: ir.Model, sites: Sites | None = None, **options):
    """The result of the pass, checked; small weights count too unless the options say otherwise."""
    return check_pass(QuantizeDynamic(**({"min_elements": 0} | options)), given, sites=sites, may_run=False)


def reasons(result) -> dict[str, str]:
    return {note.subject: note.reason for note in result.notes}


def weight_loss(weight: np.ndarray, result: ir.Model) -> tuple[np.ndarray, np.ndarray]:
    """The dequantized weight and what it lost."""
    (node,) = [node for node in traversal.nodes(result) if node.op_type == "MatMulInteger"]
    integers = node.inputs[1].const_value.numpy().astype(np.float64) - (128 if len(node.inputs) > 3 else 0)
    (scale,) = [
        value.const_value.numpy() for value in result.graph.initializers.values() if value.name.endswith("_scale")
    ]
    back = integers * scale
    return back, np.abs(weight - back)


def assert_bounded(given: ir.Model, result: ir.Model, weight: np.ndarray, x: np.ndarray = X) -> None:
    """Hold the bound of the formula with and without ONNX Runtime's optimizations."""
    back, lost = weight_loss(weight, result)
    step = (max(x.max(), 0) - min(x.min(), 0)) / 255
    bound = np.abs(x) @ lost + step / 2 * np.abs(back).sum(axis=0)
    (expected,) = session(given).run({"x": x}).values()
    for optimize in (True, False):
        (found,) = session(result, optimize=optimize).run({"x": x}).values()
        assert np.all(np.abs(expected - found) <= bound * 1.001 + 1e-5)


MATMUL = "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }"
STORED = {
    "initializer": MATMUL,
    "Constant": "g (float[M, 96] x) => (float[M, 80] y) { w = Constant <value = float[1] {0}> () y = MatMul(x, w) }",
    "Identity": "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { i = Identity(w) y = MatMul(x, i) }",
    "Transpose": "g (float[M, 96] x) => (float[M, 80] y) <float[1] wt = {0}> { t = Transpose(wt) y = MatMul(x, t) }",
    "fp16 Cast": "g (float[M, 96] x) => (float[M, 80] y) <float16[1] wh = {0}> { c = Cast<to=1>(wh) y = MatMul(x, c) }",
    "Reshape": """g (float[M, 96] x) => (float[M, 80] y) <float[1] wf = {0}, int64[2] s = {96, -1}>
                  { c = Reshape(wf, s) y = MatMul(x, c) }""",
    "Gemm": "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { y = Gemm(x, w) }",
    "Gemm transB": "g (float[M, 96] x) => (float[M, 80] y) <float[1] wt = {0}> { y = Gemm<transB=1>(x, wt) }",
}


@pytest.mark.parametrize("text", STORED.values(), ids=STORED)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_weights_are_found_wherever_they_are_stored(text, granularity):
    half = W.astype(np.float16)
    given = model(text, w=W, wt=np.ascontiguousarray(W.T), wh=half, wf=W.reshape(-1))
    result = quantized(given, granularity=granularity)
    assert sum(result.changes.values()) == 1
    assert optimized_ops(result.model) == {"DynamicQuantizeMatMul": 1}
    assert byte_size(result.model) < byte_size(given) * (0.35 if "wh" not in text else 0.65)
    assert_bounded(given, result.model, half.astype(np.float32) if "wh" in text else W)


def test_unsigned_weights_do_not_saturate():
    given = model(MATMUL, w=W)
    result = quantized(given, weight_type="uint8", reduced_range=False)
    assert optimized_ops(result.model) == {"DynamicQuantizeMatMul": 1}
    assert_bounded(given, result.model, W)


def test_a_bias_is_fused():
    given = model(
        """g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}, float[1] b = {0}>
           { r = MatMul(x, w) y = Add(r, b) }""",
        w=W,
        b=B,
    )
    result = quantized(given)
    assert optimized_ops(result.model) == {"DynamicQuantizeMatMul": 1}
    assert_bounded(given, result.model, W)


@pytest.mark.parametrize("bias", [B, B[None, :], np.array(0.5, np.float32), X[:, :1].copy()], ids=np.shape)
def test_alpha_and_beta_of_a_gemm(bias):
    given = model(
        """g (float[5, 96] x) => (float[5, 80] y) <float[1] w = {0}, float[1] b = {0}>
           { y = Gemm<alpha=0.5, beta=-2.0>(x, w, b) }""",
        w=W,
        b=bias,
    )
    result = quantized(given)
    expected, found = (session(one).run({"x": X})["y"] for one in (given, result.model))
    assert np.linalg.norm(expected - found) <= 0.03 * np.linalg.norm(expected)
    if bias.shape in {(80,), (1, 80)}:
        assert optimized_ops(result.model) == {"DynamicQuantizeMatMul": 1}


def test_a_computed_bias_of_a_gemm_is_added():
    given = model(
        "g (float[5, 96] x, float[80] c) => (float[5, 80] y) <float[1] w = {0}> { y = Gemm<beta=3.0>(x, w, c) }", w=W
    )
    result = quantized(given)
    expected, found = (session(one).run({"x": X, "c": B})["y"] for one in (given, result.model))
    assert np.linalg.norm(expected - found) <= 0.03 * np.linalg.norm(expected)


def test_one_quantization_for_all_readers_of_an_activation():
    given = model(
        """g (float[M, 96] x, float[M, 96] z) => (float[M, 80] a, float[M, 80] b, float[M, 80] c)
           <float[1] w = {0}, float[1] v = {0}> { a = MatMul(x, w) b = Gemm(x, v) c = MatMul(z, w) }""",
        w=W,
        v=W[:, ::-1].copy(),
    )
    result = quantized(given)
    assert result.changes == {"MatMul in int8": 2, "Gemm in int8": 1}
    assert [node.op_type for node in result.model.graph].count("DynamicQuantizeLinear") == 2
    assert sum(value.dtype == ir.DataType.INT8 for value in result.model.graph.initializers.values()) == 2
    fused = {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2, "DynamicQuantizeMatMul": 1}
    assert optimized_ops(result.model) == fused


def test_activations_of_more_axes():
    given = model("g (float[2, 3, 5, 96] x) => (float[2, 3, 5, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }", w=W)
    x = RANDOM.standard_normal((2, 3, 5, K)).astype(np.float32)
    assert_bounded(given, quantized(given).model, W, x)


def test_shared_weights_are_quantized_once_and_in_subgraphs_too():
    given = model(
        """g (float[5, 96] x, bool p) => (float[5, 80] y) <float[1] w = {0}> {
             i = Identity(w)
             z = MatMul(x, i)
             r = If(p) <then_branch = t () => (float[5, 80] u) { n = Relu(x) u = MatMul(n, w) },
                        else_branch = e () => (float[5, 80] v) { v = MatMul(x, w) }>
             y = Add(z, r) }""",
        w=W,
    )
    result = quantized(given)
    assert result.changes == {"MatMul in int8": 3}
    assert [name for name in result.model.graph.initializers if "int8" in name] == ["w_int8"]
    assert "w" not in result.model.graph.initializers
    for p in (True, False):
        feeds = {"x": X, "p": np.array(p)}
        expected, found = (session(one).run(feeds)["y"] for one in (given, result.model))
        assert np.linalg.norm(expected - found) <= 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_functions_and_old_models_hold_their_weights_in_constant_nodes(ir_version):
    function = "<ir_version: 8, opset_import: ['' : 13, 'd' : 1]>".replace("'", '"') + (
        "g (float[M, 96] x) => (float[M, 80] y) { y = d.f(x) }"
        '<domain: "d", opset_import: ["" : 13]> f (a) => (r) '
        "{ w = Constant <value = float[1] {0}> () s = MatMul(a, w) t = MatMul(a, w) r = Add(s, t) }"
    )
    plain = """g (float[M, 96] x) => (float[M, 80] y) { w = Constant <value = float[1] {0}> ()
               s = MatMul(x, w) t = MatMul(x, w) y = Add(s, t) }"""
    if ir_version == 3:
        given = model(plain, ir_version=3, w=W)
    else:
        proto = onnx.parser.parse_model(function)
        proto.functions[0].node[0].attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(W))
        given = load(proto)
    result = quantized(given)
    assert result.changes == {"MatMul in int8": 2}
    constants = [node for node in traversal.nodes(result.model) if node.op_type == "Constant"]
    assert sum(node.attributes["value"].as_tensor().dtype == ir.DataType.INT8 for node in constants) == 1
    assert not result.model.graph.initializers
    expected, found = (session(one).run({"x": X})["y"] for one in (given, result.model))
    assert np.linalg.norm(expected - found) <= 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("options", [{}, {"granularity": "tensor"}, {"weight_type": "uint8"}], ids=str)
def test_lstm(direction, options):
    count = 2 if direction == "bidirectional" else 1
    size, inner = 32, 24
    weights = {
        "w": RANDOM.standard_normal((count, 4 * inner, size)) / 5,
        "r": RANDOM.standard_normal((count, 4 * inner, inner)) / 5,
        "b": RANDOM.standard_normal((count, 8 * inner)) / 5,
    }
    given = model(
        f"""g (float[7, 2, 32] x) => (float[7, {count}, 2, 24] y, float[{count}, 2, 24] c)
            <float[1] w = {{0}}, float[1] r = {{0}}, float[1] b = {{0}}>
            {{ y, "", c = LSTM<hidden_size=24, direction="{direction}">(x, w, r, b) }}""".replace('""', ""),
        **{name: array.astype(np.float32) for name, array in weights.items()},
    )
    result = quantized(given, **options)
    assert result.changes == {"LSTM in int8": 1}
    assert "DynamicQuantizeLSTM" in optimized_ops(result.model)
    assert result.model.opset_imports["com.microsoft"] == 1
    feeds = {"x": RANDOM.standard_normal((7, 2, size)).astype(np.float32)}
    expected, found = (session(one).run(feeds) for one in (given, result.model))
    for name, array in expected.items():
        assert np.linalg.norm(array - found[name]) <= 0.05 * np.linalg.norm(array)


LEFT = {
    "embedding": (
        """g (float[M, 80] x, int64[L] i) => (float[M, 96] y, float[L, 80] e) <float[1] w = {0}>
           { e = Gather(w, i) t = Transpose(w) y = MatMul(x, t) }""",
        "shares its weight with a Gather, to which it stays tied",
    ),
    "both computed": (
        "g (float[M, 96] x, float[96, 80] v) => (float[M, 80] y) { y = MatMul(x, v) }",
        "has no MatMul, Gemm",
    ),
    "quantized": (
        """g (float[M, 2] x) => (float[M, 70] y) <int8[2, 1] q = {1, 2}, int64[1] n = {140}, float s = {0.1}>
           { e = Cast<to=1>(q) w = Mul(e, s) y = MatMul(x, w) }""",
        "has no MatMul, Gemm",
    ),
    "integers": (
        "g (float[M, 2] x) => (float[M, 1] y) <int8[2, 1] q = {1, 2}> { w = Cast<to=1>(q) y = MatMul(x, w) }",
        "is quantized already",
    ),
    "fp16": (
        "g (float16[M, 96] x) => (float16[M, 80] y) <float16[1] h = {0}> { y = MatMul(x, h) }",
        "computes in float16, its integer form in float32 only",
    ),
    "vector": (
        "g (float[M, 2] x) => (float[M] y) <float[2] u = {1, 2}> { y = MatMul(x, u) }",
        "has a weight that is no matrix",
    ),
    "narrow": (
        "g (float[M, 2] x) => (float[M, 1] y) <float[2, 1] u = {1, 2}> { y = MatMul(x, u) }",
        "has less than 64 output",
    ),
    "transA": (
        "g (float[96, M] x) => (float[M, 80] y) <float[1] w = {0}> { y = Gemm<transA=1>(x, w) }",
        "reads its activation transposed",
    ),
    "not finite": ("g (float[M, 96] x) => (float[M, 80] y) <float[1] bad = {0}> { y = MatMul(x, bad) }", "not finite"),
    "Conv": (
        "g (float[1, 1, 4] x) => (float[1, 1, 2] y) <float[1, 1, 3] k = {1, 2, 3}> { y = Conv(x, k) }",
        "has no MatMul",
    ),
    "GRU": (
        """g (float[1, 1, 1] x) => (float[1, 1, 1, 1] y) <float[1, 3, 1] k = {1, 2, 3}, float[1, 3, 1] r = {1, 2, 3}>
           { y = GRU<hidden_size=1>(x, k, r) }""",
        "is a GRU, for which ONNX Runtime has no integer kernel",
    ),
    "overridable": (
        "g (float[M, 96] x, float[1] w) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }",
        "has no MatMul",
    ),
}


@pytest.mark.parametrize(("text", "reason"), LEFT.values(), ids=LEFT)
def test_what_stays_has_a_reason(text, reason):
    if "float[1] w)" in text:
        text = text.replace("float[1] w)", "float[96, 80] w)")
    if "n = {140}" in text:
        text = text.replace("float[M, 70]", "float[M, 1]")
    bad = W.copy()
    bad[3, 4] = np.nan
    given = model(text, w=W, h=W.astype(np.float16), bad=bad)
    result = quantized(given)
    assert not result.changes
    assert any(reason in note.reason for note in result.notes), result.notes


def test_small_weights_and_single_rows_stay():
    given = model(MATMUL, w=W)
    assert "less than 8000 weights" in quantized(given, min_elements=8000).notes[0].reason
    assert quantized(given, min_elements=K * N).changes
    single = model(MATMUL.replace("[M", "[1"), w=W)
    assert not quantized(single, min_elements=K * N).changes
    assert quantized(single, min_elements=K * N // 4).changes


def test_include_and_exclude():
    text = """g (float[M, 96] x) => (float[M, 80] a, float[M, 80] b) <float[1] w = {0}, float[1] v = {0}>
              { [first] a = MatMul(x, w) [second] b = Gemm(x, v) }"""
    given = model(text, w=W, v=W + 1)
    assert quantized(given, exclude=("op:Gemm",)).changes == {"MatMul in int8": 1}
    assert quantized(given, exclude=("fir*",)).changes == {"Gemm in int8": 1}
    assert quantized(given, exclude=("w",)).changes == {"Gemm in int8": 1}
    assert quantized(given, include=("second",)).changes == {"Gemm in int8": 1}
    result = quantized(given, include=("op:MatMul", "third"), exclude=("op:Conv",))
    assert result.changes == {"MatMul in int8": 1}
    assert reasons(result)["third, op:Conv"] == "matches no node"


def test_the_manager_may_deny_a_node():
    text = """g (float[M, 96] x) => (float[M, 80] a, float[M, 80] b) <float[1] w = {0}>
              { a = MatMul(x, w) b = Gemm(x, w) }"""
    given = model(text, w=W)
    sites = Sites(denied=frozenset({("quantize-dynamic", "MatMul -> a")}))
    result = quantized(given, sites)
    assert result.changes == {"Gemm in int8": 1}
    assert list(sites.permitted) == [("quantize-dynamic", "Gemm -> b")]
    assert "w" in result.model.graph.initializers


class Strict:
    """A laboratory for which a model uses twice the budget if it has more than one integer product."""

    is_timed = False

    def budget_used(self, given: ir.Model) -> float:
        return 0.5 if sum(node.op_type == "MatMulInteger" for node in given.graph) < 2 else 2.0

    def time_left(self) -> float:
        return 100.0


def test_what_costs_too_much_of_the_budget_stays_in_float():
    text = """g (float[M, 96] x) => (float[M, 80] a, float[M, 80] b) <float[1] w = {0}, float[1] v = {0}>
              { a = MatMul(x, w) b = MatMul(x, v) }"""
    given = model(text, w=W, v=W + 1)
    options = QuantizeDynamic(min_elements=0)
    result = options.run(clone(given), Context(given, evaluator=Strict()))
    assert result.changes == {"MatMul in int8": 1}
    assert result.choices == DynamicChoices(("MatMul -> b",))
    assert reasons(result) == {"b": "stays in float: its error would cost too much of the budget"}
    again = options.run(clone(given), Context(given, choices=result.choices))
    assert to_proto(again.model) == to_proto(result.model)


def test_reduced_range_holds_weights_to_7_bits():
    given = model(MATMUL, w=W)
    result = quantized(given, reduced_range=True)
    (integers,) = [v.const_value.numpy() for v in result.model.graph.initializers.values() if "int8" in v.name]
    assert np.abs(integers.astype(int)).max() == 63
    assert_bounded(given, result.model, W)
    for target, most in (("x86-avx2", 63), ("x86-vnni", 127)):
        auto = QuantizeDynamic(min_elements=0).run(clone(given), Context(given, target=target)).model
        (integers,) = [v.const_value.numpy() for v in auto.graph.initializers.values() if "int8" in v.name]
        assert np.abs(integers.astype(int)).max() == most


def test_names_metadata_and_types_stay():
    given = model(MATMUL, w=W)
    node = given.graph.node(0)
    node.name = "product"
    node.metadata_props["from"] = "here"
    result = quantized(given).model
    (kept,) = [node for node in result.graph if node.name == "product"]
    assert kept.op_type == "MatMulInteger"
    assert kept.metadata_props == {"from": "here"}
    assert len({node.name for node in result.graph}) == len(result.graph)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { h = MatMul(x, w) y = Relu(h) }",
        "g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}, float[1] b = {0}> { h = Gemm(x, w, b) y = Abs(h) }",
        """g (float[5, 2, 96] x) => (float[S, D, B, H] y) <float[1] l = {0}, float[1] m = {0}>
           { h = LSTM<hidden_size=20>(x, l, m) y = Relu(h) }""",
    ],
    ids=["MatMul", "Gemm", "LSTM"],
)
def test_what_is_said_of_a_value_is_said_of_what_takes_its_place(text):
    given = model(text, w=W, b=W[0], l=W.reshape(1, 80, 96), m=W.reshape(-1)[:1600].reshape(1, 80, 20))
    value = next(node for node in given.graph if node.outputs[0].name == "h").outputs[0]
    value.doc_string = "said"
    value.metadata_props["from"] = "here"
    result = quantized(given)
    assert result.changes
    (kept,) = [node.outputs[0] for node in result.model.graph if node.outputs[0].name == "h"]
    assert kept.producer().op_type not in {"MatMul", "Gemm", "LSTM"}
    assert (kept.doc_string, kept.metadata_props) == ("said", {"from": "here"})
    assert (kept.type, kept.shape) == (value.type, value.shape)


def test_an_old_opset_is_refused():
    given = model(MATMUL, opset=10, w=W)
    with pytest.raises(PreconditionError, match="needs opset 11, the model has 10: run upgrade-opset:version=11 first"):
        QuantizeDynamic().requires(given, Context(given))
    QuantizeDynamic().requires(model(MATMUL, opset=11, w=W), Context(given))
    assert quantized(model(MATMUL, opset=11, w=W)).changes


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "row"},
        {"weight_type": "int4"},
        {"reduced_range": "yes"},
        {"min_elements": -1},
        {"include": ("",)},
        {"exclude": ("op:",)},
    ],
)
def test_wrong_options_are_named(options):
    with pytest.raises(UsageError):
        QuantizeDynamic(**options)
