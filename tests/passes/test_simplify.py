"""`simplify` as a whole: outputs stay, the file never grows, a second run changes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.contract.passes import Context, Sites
from optimizer.graph import traversal
from optimizer.io.model import load, to_proto
from passes.simplify import Simplify
from rewriting import assert_close

UNARY = ("Relu", "Neg", "Identity", "Sigmoid", "Transpose", "Dropout", "Flatten")


def simplified(proto: onnx.ModelProto, sites: Sites | None = None) -> onnx.ModelProto:
    model = load(proto)
    return to_proto(Simplify().run(model, Context(reference=model, sites=sites or Sites())).model)


def run(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A chain and tree of square matrices with constants, all of 4 x 4."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    nodes, constants, values = [], [], ["x"]
    for number in range(draw(st.integers(1, 10))):
        source, name = draw(st.sampled_from(values[-3:])), f"v{number}"
        kind = draw(st.sampled_from([*UNARY, "Mul", "Add", "Sub", "MatMul", "Concat", "Constant", "two"]))
        if kind in UNARY:
            nodes.append(onnx.helper.make_node(kind, [source], [name]))
        elif kind == "two":
            nodes.append(onnx.helper.make_node("Add", [source, draw(st.sampled_from(values))], [name]))
        elif kind == "Concat":
            nodes.append(onnx.helper.make_node("Concat", [source], [name], axis=0))
        else:
            shape = (4, 4) if kind == "MatMul" else draw(st.sampled_from([(), (4,), (1, 4), (4, 4)]))
            array = np.asarray(random.integers(-1, 2, shape), np.float32)
            tensor = onnx.numpy_helper.from_array(array, f"c{number}")
            if kind == "Constant":
                nodes.append(onnx.helper.make_node("Constant", [], [f"c{number}"], value=tensor))
            else:
                constants.append(tensor)
            op_type = "Add" if kind == "Constant" else kind
            nodes.append(onnx.helper.make_node(op_type, [source, f"c{number}"], [name]))
        values.append(name)
    kind = onnx.TensorProto.FLOAT
    outputs = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=2, unique=True))
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, (4, 4))],
        [onnx.helper.make_tensor_value_info(name, kind, (4, 4)) for name in outputs],
        constants,
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@settings(max_examples=60, deadline=None)
@given(models(), st.integers(0, 9))
def test_outputs_stay_and_the_file_does_not_grow(proto, seed):
    after = simplified(proto)
    onnx.checker.check_model(after, full_check=True)
    assert after.graph.output == proto.graph.output
    assert after.ByteSize() <= proto.ByteSize()
    assert len(after.graph.node) <= len(proto.graph.node)
    x = np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32)
    for want, got in zip(run(proto, x), run(after, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * (1 + np.abs(want).max()))
    again = simplified(after)
    assert again.graph.node == after.graph.node


def test_equal_nodes_are_one_and_unused_ones_go():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "other" : 1]> g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {'
        "a = Exp(x) b = Exp(x) c = Sin(x) y = Add(a, b) }"
    )
    after = simplified(proto)
    assert [node.op_type for node in after.graph.node] == ["Exp", "Add"]
    assert not after.graph.initializer
    assert [entry.domain for entry in after.opset_import] == [""]
    assert_close(run(proto, np.ones(2, np.float32))[0], run(after, np.ones(2, np.float32))[0])


def test_a_denied_step_does_nothing():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { a = Identity(x) y = Exp(a) }'
    )
    denied = simplified(proto, Sites(denied_steps=frozenset({"drop-identities"})))
    assert [node.op_type for node in denied.graph.node] == ["Identity", "Exp"]


def test_every_step_has_its_own_name():
    names = [step.name for step in Simplify().steps()]
    assert len(names) == len(set(names))


def test_nothing_inferred_gets_into_the_model():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[A,B] y) { a = Exp(x) y = Sin(a) }'
    )
    assert simplified(proto).SerializeToString() == to_proto(load(proto)).SerializeToString()
    assert traversal.count_nodes(ir.from_proto(proto)) == 2


def test_names_from_one_hint_are_numbered_and_do_not_look_at_each_other():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] s_2) => (float[2] s) { s = Exp(s_2) }'
    )
    rewriter = Rewriter(model, Sites())
    assert [rewriter.names.fresh("s") for _ in range(3)] == ["s_1", "s_3", "s_4"]
    assert rewriter.names.fresh("t") == "t"
    many = [rewriter.names.fresh("s") for _ in range(20_000)]  # each costs the same, or this takes minutes
    assert len(set(many)) == len(many)
