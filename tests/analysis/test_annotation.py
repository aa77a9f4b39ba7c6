"""Inferred shapes: what they say holds at run time, and the model is left as it was."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optimizer.analysis.annotation import annotated
from optimizer.analysis.symbolic import symbols
from optimizer.analysis.symbolic.operators import dims
from optimizer.graph import traversal
from random_graphs import graphs

KINDS = ("Reshape", "Reshape", "Slice", "Concat", "Transpose", "Relu", "Computed", "MatMul")
TARGETS = ([0, -1], [-1], [0, 0, -1], [-1, 2], [0, -1, 2], [2, -1], [0, 0, -1, 1])


def constant(numbers):
    return onnx.helper.make_tensor("value", onnx.TensorProto.INT64, [len(numbers)], numbers)


@st.composite
def models(draw):
    """Views, slices and joins of one tensor whose dimensions are all open."""
    nodes, ranks = [], {"x": 4}
    for number in range(draw(st.integers(2, 9))):
        source, name = draw(st.sampled_from(list(ranks)[-4:])), f"v{number}"
        rank = ranks[source]
        kind = draw(st.sampled_from(KINDS))
        if kind == "Reshape":
            target = draw(st.sampled_from([one for one in TARGETS if one.count(0) < rank]))
            nodes.append(onnx.helper.make_node("Constant", [], [f"c{number}"], value=constant(target)))
            nodes.append(onnx.helper.make_node("Reshape", [source, f"c{number}"], [name]))
            rank = len(target)
        elif kind == "Computed":
            axis = draw(st.integers(0, rank - 1))
            nodes.append(onnx.helper.make_node("Shape", [source], [f"s{number}"], start=axis, end=axis + 1))
            nodes.append(onnx.helper.make_node("Constant", [], [f"c{number}"], value=constant([-1])))
            nodes.append(onnx.helper.make_node("Concat", [f"s{number}", f"c{number}"], [f"t{number}"], axis=0))
            nodes.append(onnx.helper.make_node("Reshape", [source, f"t{number}"], [name]))
            rank = 2
        elif kind == "Slice":
            parts = {"s": [0], "e": [1 << 40], "a": [draw(st.integers(0, rank - 1))], "p": [2]}
            for key, numbers in parts.items():
                nodes.append(onnx.helper.make_node("Constant", [], [f"{key}{number}"], value=constant(numbers)))
            nodes.append(onnx.helper.make_node("Slice", [source, *(f"{key}{number}" for key in parts)], [name]))
        elif kind == "Concat":
            axis = draw(st.integers(0, rank - 1))
            nodes.append(onnx.helper.make_node("Concat", [source, source], [name], axis=axis))
        elif kind == "MatMul":
            perm = [*range(rank - 2), rank - 1, rank - 2] if rank > 1 else [0]
            nodes.append(onnx.helper.make_node("Transpose", [source], [f"m{number}"], perm=perm))
            nodes.append(onnx.helper.make_node("MatMul", [source, f"m{number}"], [name]))
            rank = rank if rank > 1 else 0
        elif kind == "Transpose":
            nodes.append(onnx.helper.make_node(kind, [source], [name], perm=draw(st.permutations(range(rank)))))
        else:
            nodes.append(onnx.helper.make_node(kind, [source], [name]))
        if rank:
            ranks[name] = rank
    info = onnx.helper.make_tensor_value_info
    names = [name for node in nodes for name in node.output]
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [info("x", onnx.TensorProto.FLOAT, ["N", "S", "A", "B"])],
        [info(names[-1], onnx.TensorProto.FLOAT, None)],
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def shapes_at_run_time(proto, sizes):
    """The shape of every value; ``None`` where the model cannot be run at these sizes."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    del shown.graph.output[:]
    names = [name for node in proto.graph.node for name in node.output]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {"x": np.zeros(sizes, np.float32)})
    except Exception:  # noqa: BLE001 - ONNX Runtime's own exceptions share no base but Exception
        return None
    return dict(zip(names, (array.shape for array in found), strict=True))


def assert_true_at(proto, sizes):
    """Hold that numbers are right, and that a symbol stands for one number, at these sizes of the input."""
    model = ir.from_proto(proto)
    with annotated(model):
        known = {value.name: dims(value.shape) for node in traversal.nodes(model) for value in node.outputs}
    actual = shapes_at_run_time(proto, sizes)
    assume(actual is not None)
    given_dims = proto.graph.input[0].type.tensor_type.shape.dim
    numbers = {dim.dim_param: size for dim, size in zip(given_dims, sizes, strict=True) if dim.dim_param}
    pairs = [pair for name, shape in known.items() if shape for pair in zip(shape, actual[name], strict=True)]
    for said, size in sorted(pairs, key=lambda pair: isinstance(pair[0], str) and "*" in pair[0]):
        if isinstance(said, int):
            assert said == size
            continue
        factor, parts = symbols.factors(said)
        if len(parts) == 1 and factor == 1:
            assert numbers.setdefault(said, size) == size
        elif all(part in numbers for part in parts):
            assert factor * math.prod(numbers[part] for part in parts) == size


@settings(max_examples=60, deadline=None)
@given(models(), st.tuples(*[st.integers(1, 4)] * 4))
def test_what_is_said_of_views_and_joins_is_true(proto, sizes):
    assert_true_at(proto, sizes)


@settings(max_examples=30, deadline=None)
@given(graphs("all", symbols=True))
def test_what_is_said_of_operators_at_any_operator_set_is_true(found):
    assert_true_at(*found)


@settings(max_examples=30, deadline=None)
@given(graphs("views", symbols=True))
def test_what_is_said_of_views_at_any_operator_set_is_true(found):
    assert_true_at(*found)


def said(text):
    model = ir.from_onnx_text(text)
    with annotated(model):
        return {value.name: dims(value.shape) for node in model.graph for value in node.outputs}


def test_a_dimension_that_an_old_slice_cuts_is_another_one():
    """onnx's inference says that they are the same."""
    found = said(
        '<ir_version: 8, opset_import: ["" : 10]> g (float[N,4] x) => (float[A,B] y)'
        " <int64[1] b = {0}, int64[1] e = {1}> { a = Slice(x, b, e) y = Relu(a) }"
    )
    assert found["a"] == found["y"]
    assert len(found["a"]) == 2
    assert "N" not in found["a"]


def test_attention_over_dynamic_dimensions_has_no_dimension_of_0():
    """onnx's inference computes with 0 for what is not known."""
    found = said(
        '<ir_version: 10, opset_import: ["" : 23]>'
        "g (float[N,S,E] q, float[N,S,E] k, float[N,S,E] v) => (float[A,B,C] y) {"
        " a = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v) y = Relu(a) }"
    )
    assert 0 not in found["a"] + found["y"]
    static = said(
        '<ir_version: 10, opset_import: ["" : 23]>'
        "g (float[1,3,8] q, float[1,3,8] k, float[1,3,8] v) => (float[A,B,C] y) {"
        " y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v) }"
    )
    assert static["y"] == [1, 3, 8]


def test_a_product_of_symbols_keeps_its_factors_over_several_inferences():
    """Each inference makes up symbols anew: those in a product must not come to be those of another dimension."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (float[N,C,H,W] x, float[N,C,K,L] r) => (float[A,B] y, float[D,E] z)"
        " <int64[1] b = {0}, int64[1] e = {99}, int64[1] h = {2}, int64[1] w = {3}, int64[1] p = {2},"
        " int64[2] t = {0, -1}, int64[3] u = {0, 0, -1}> {"
        "a1 = Slice(x, b, e, h, p) a2 = Slice(a1, b, e, w, p) c = Reshape(a2, u)"
        "d1 = Slice(r, b, e, h, p) d2 = Slice(d1, b, e, w, p) f = Reshape(d2, u) y = Reshape(c, t) z = Reshape(f, t) }"
    )
    model = ir.from_proto(proto)
    with annotated(model):
        found = {value.name: dims(value.shape) for node in model.graph for value in node.outputs}
    for source, joined in (("a2", "c"), ("d2", "f")):
        assert sorted(found[joined][2].split("*")) == sorted(found[source][2:])
    assert found["c"][2] != found["f"][2]


def test_shapes_that_were_declared_come_back():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[P,Q] y) <int64[2] t = {-1, 2}> {'
        "a = Relu(x) y = Reshape(a, t) }"
    )
    model = ir.from_proto(proto)
    with annotated(model):
        assert dims(model.graph[1].outputs[0].shape) == ["2*N", 2]
    assert ir.to_proto(model) == ir.to_proto(ir.from_proto(proto))


@pytest.mark.parametrize(
    ("dim", "names", "expected"),
    [
        ("2*a", {"a": 3}, 6),
        ("a*a", {"a": "b"}, "b*b"),
        ("a*b", {"a": "b", "b": "a"}, "a*b"),  # a circle is cut
        ("a", {"a": "2*b", "b": "c"}, "2*c"),
        (5, {"a": 3}, 5),
    ],
)
def test_renaming(dim, names, expected):
    assert dims(symbols.renamed(ir.Shape([dim]), names)) == [expected]
