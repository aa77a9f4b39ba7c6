"""Every name stands for one thing afterwards, and nothing else changes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from optimizer.contract.passes import Context
from optimizer.graph import traversal
from optimizer.io.model import clone, load, to_proto
from passes.unique_names import UniqueNames
from rewriting import outputs

FINE = """
<ir_version: 8, opset_import: ["" : 17]>
main (float[4] x, bool c) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
  [first] h = Add (x, w)
  [second] y = If (c) <
    then_branch = then () => (float[4] t) { [third] t = Neg (h) },
    else_branch = other () => (float[4] e) { [fourth] e = Mul (h, w) }
  >
}
"""
CLASHES = """
<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
main (float[4] x, bool c) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
  [same] h = Add (x, w)
  [same] i = local.twice (h)
  y = If (c) <
    then_branch = then () => (float[4] t) { [same] k = Neg (i) [inner] t = Mul (k, w) },
    else_branch = other () => (float[4] t) { k = Abs (i) t = Sub (k, w) }
  >
}
<domain: "local", opset_import: ["" : 17]>
twice (x) => (y) { [same] h = Add (x, x) y = Identity (h) }
"""


def run(model):
    return UniqueNames().run(model, Context(model))


def node_names(model):
    return [node.name for node in traversal.nodes(model)]


def value_names(root):
    values = {
        value for graph in traversal.with_subgraphs(root) for value in (*graph.inputs, *graph.initializers.values())
    }
    values |= {
        value for graph in traversal.with_subgraphs(root) for node in graph for value in node.outputs if value.name
    }
    return [value.name for value in values]


def assert_unique(model):
    names = node_names(model)
    assert all(names)
    assert len(set(names)) == len(names)
    for root in traversal.roots(model):
        names = value_names(root)
        assert len(set(names)) == len(names)


def test_what_is_fine_is_left_alone():
    model = load(onnx.parser.parse_model(FINE))
    before = to_proto(model).SerializeToString(deterministic=True)
    result = run(model)
    assert result.changes == {}
    assert to_proto(result.model).SerializeToString(deterministic=True) == before


def test_nodes_and_values_get_names_of_their_own():
    proto = onnx.parser.parse_model(CLASHES)
    model = run(load(proto)).model
    assert_unique(model)
    after = to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert node_names(model) == ["same", "same_1", "If_y", "same_2", "inner", "Abs_k_1", "Sub_t_1", "same_3",
                                 "Identity_y"]  # fmt: skip
    assert [list(function.input) + list(function.output) for function in after.functions] == [["x", "y"]]
    for c in (True, False):
        feeds = {"x": np.array([1, -2, 3, 4], np.float32), "c": np.array(c)}
        expected = ReferenceEvaluator(proto).run(None, feeds)[0]  # ONNX Runtime refuses two nodes of one name
        assert np.array_equal(expected, outputs(after, feeds, optimize=False)[0])


def test_changes_are_counted_and_made_once():
    result = run(load(onnx.parser.parse_model(CLASHES)))
    assert result.changes == {"nodes named": 4, "nodes renamed": 3, "values renamed": 2}
    assert run(result.model).changes == {}


def shadowing():
    """A loop whose body has an initializer and an input named like outer ones, and an optional output."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["acc", "w"], ["k"], "n"),
            helper.make_node("Dropout", ["k"], ["out", ""], "n"),
            helper.make_node("Identity", ["cond"], ["go"], "n"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("acc", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, [2]),
        ],
        [numpy_helper.from_array(np.array([10, 20], np.float32), "w")],
    )
    main = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["h"], "n"),
            helper.make_node("Loop", ["trips", "", "h"], ["acc"], "n", body=body),
            helper.make_node("Add", ["acc", "h"], ["y"], "n"),
        ],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [
            numpy_helper.from_array(np.array([2, 3], np.float32), "w"),
            numpy_helper.from_array(np.array(3, np.int64), "trips"),
        ],
    )
    return helper.make_model(main, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def hiding(proto):
    """The model of ``proto``, in which a pass has given outer values the names of inner ones."""
    model = load(proto)
    model.graph[0].outputs[0].name = "k"
    model.graph[1].outputs[0].name = "out"
    return model


def test_inner_values_that_hide_outer_ones_are_renamed_and_tensors_stay_shared():
    reference = hiding(shadowing())
    before = to_proto(reference).SerializeToString(deterministic=True)
    model = run(clone(reference)).model
    assert_unique(model)
    assert to_proto(reference).SerializeToString(deterministic=True) == before, "the reference was changed"
    after = to_proto(model)
    body = after.graph.node[1].attribute[0].g
    assert [tensor.name for tensor in body.initializer] == ["w_1"]
    assert body.node[1].output[1:] == [""]
    assert [value.name for value in (*after.graph.input, *after.graph.output)] == ["x", "y"]
    answers = outputs(after, {"x": np.array([1, 2], np.float32)}, optimize=False)
    assert answers[0].tolist() == [2 + 30 + 2, 6 + 60 + 6]  # the loop adds its own w three times
    assert {tensor.name for tensor in ir.to_proto(model).graph.node[1].attribute[0].g.initializer} == {"w_1"}


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT4, TensorProto.BFLOAT16])
@pytest.mark.parametrize("size", [4, 4096])
def test_renamed_tensors_keep_their_data(kind, size):
    proto = shadowing()
    body = proto.graph.node[1].attribute[0].g
    data = [b"text"] * size if kind == TensorProto.STRING else list(range(size))
    text_or_numbers = helper.make_tensor("w", kind, [size], [0] * size if kind != TensorProto.STRING else data)
    text_or_numbers.doc_string = "said"
    body.initializer[0].CopyFrom(text_or_numbers)
    body.node[0].input[1] = "acc"
    after = to_proto(run(load(proto)).model).graph.node[1].attribute[0].g.initializer[0]
    assert after.name == "w_1"
    assert after.doc_string == "said"
    assert np.array_equal(numpy_helper.to_array(after), numpy_helper.to_array(text_or_numbers))


def test_annotations_and_infos_follow_the_new_names():
    proto = shadowing()
    body = proto.graph.node[1].attribute[0].g
    for name, scale in (("k", "w"), ("out", "w"), ("nowhere", "w")):
        annotation = body.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)
    body.value_info.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [2], doc_string="said"))
    body.value_info.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, [2], doc_string="said too"))
    after = to_proto(run(hiding(proto)).model).graph.node[1].attribute[0].g
    spoken = {one.tensor_name: one.quant_parameter_tensor_names[0].value for one in after.quantization_annotation}
    assert spoken == {"k_1": "w_1", "out_1": "w_1", "nowhere": "w_1"}
    assert {info.name: info.doc_string for info in after.value_info} == {"k_1": "said", "out_1": "said too"}


NAMES = st.sampled_from(["", "a", "a_1", "b", "Neg_a"])


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=6), st.data())
def test_any_names_become_unique_and_the_same_each_time(nodes, data):
    """A chain of nodes, each with a branch that holds two nodes; names at random."""
    model = load(onnx.parser.parse_model(FINE))
    graph = model.graph
    source = graph.inputs[0]
    for name, inner, value in nodes:
        inside = ir.node("Neg", [source], name=inner)
        last = ir.node("Abs", inside.outputs, name=name)
        inside.outputs[0].name, last.outputs[0].name = value, name
        branch = ir.Graph([], last.outputs, nodes=[inside, last], name="branch")
        branches = {"then_branch": branch, "else_branch": branch.clone(allow_outer_scope_values=True)}
        outer = ir.node("If", [graph.inputs[1]], branches, name=name)
        outer.outputs[0].name = data.draw(NAMES) or None
        graph.insert_before(graph.outputs[0].producer(), outer)
        source = outer.outputs[0]
    graph.outputs[0].producer().attributes["then_branch"].as_graph()[0].replace_input_with(0, source)
    borders = [value.name for value in (*graph.inputs, *graph.outputs)]
    twin = clone(model)
    run(model)
    run(twin)
    assert_unique(model)
    assert borders == [value.name for value in (*graph.inputs, *graph.outputs)]
    assert to_proto(model) == to_proto(twin)
    assert run(model).changes == {}
