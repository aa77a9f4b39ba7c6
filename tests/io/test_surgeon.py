"""The GraphSurgeon edge: nothing lost, edits applied, weights shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from optimizer.contract.passes import Context, Gain
from optimizer.contract.surgeon_pass import SurgeonPass
from optimizer.errors import PreconditionError
from optimizer.io.model import load, to_proto
from optimizer.io.surgeon import from_graph, to_graph


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def round_trip(proto: onnx.ModelProto) -> onnx.ModelProto:
    return to_proto(from_graph(to_graph(load(proto))))


RICH = """<ir_version: 11, opset_import: ["" : 21, "m" : 1], producer_name: "maker", producer_version: "1.2",
  domain: "org.example", model_version: 7, doc_string: "a model", metadata_props: ["k" : "v"]>
main (float[N,4] x, bool c, float[4] free) => (float[N,4] y)
<float[4] w = {1, 2, 3, 4}, float[4] free = {0, 0, 0, 0}, float[2] idle = {5, 6}, int4[3] tiny = {1, 2, -3}>
{
  s = Add(x, w)
  f = Add(s, free)
  t = m.scale:double <factor: float = 2.0> (f)
  u = m.scale(t)
  y = If (c) <
    then_branch = yes () => (float[N,4] p) <float[4] b = {1, 1, 1, 1}> { q = Mul(u, b)  p = Add(q, w) },
    else_branch = no () => (float[N,4] r) { r = Identity(u) }>
}
<domain: "m", opset_import: ["" : 21], doc_string: "plain", overload: "">
scale (a) => (b) { k = Constant <value = float {2}> ()  b = Mul(a, k) }
<domain: "m", opset_import: ["" : 21], overload: "double">
scale <factor> (a) => (b) { k = Constant <value_float: float = @factor> ()  b = Mul(a, k) }
"""


def rich() -> onnx.ModelProto:
    """A model with something at every level that GraphSurgeon's exporter drops."""
    proto = parsed(RICH)
    for index, thing in enumerate((proto.graph, *proto.graph.node, *proto.functions, *proto.functions[0].node)):
        thing.metadata_props.add(key="place", value=str(index))
        thing.doc_string = f"doc {index}"
    for info in (*proto.graph.input, *proto.graph.output):
        info.doc_string = f"about {info.name}"
        info.metadata_props.add(key="of", value=info.name)
    proto.graph.input[0].type.denotation = "IMAGE"
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    proto.graph.initializer[0].doc_string = "a weight"
    branch = next(attribute.g for attribute in proto.graph.node[-1].attribute if attribute.name == "then_branch")
    branch.doc_string = "taken"
    proto.graph.node[-1].attribute[0].doc_string = "an attribute"
    annotation = proto.graph.quantization_annotation.add(tensor_name="s")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    described = proto.graph.value_info.add(name="s")
    described.CopyFrom(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N", 4], doc_string="a sum"))
    return proto


def test_nothing_is_lost_of_a_rich_model():
    proto = rich()
    given_model = load(proto)
    assert round_trip(proto) == to_proto(given_model)
    assert len(to_proto(given_model).functions) == 2


def test_it_stays_whole_when_weights_were_looked_at():
    model = load(rich())
    graph = to_graph(model)
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                assert tensor.values is not None
    assert to_proto(from_graph(graph)) == to_proto(model)


def _with_attribute(**attributes) -> onnx.ModelProto:
    node = helper.make_node("Own", ["x"], ["y"], domain="z")
    for name, value in attributes.items():
        is_made = isinstance(value, onnx.AttributeProto)
        node.attribute.append(value if is_made else helper.make_attribute(name, value))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("z", 1)], ir_version=10
    )


def _typed(name: str, kind: onnx.TypeProto) -> onnx.ModelProto:
    value = helper.make_value_info("v", kind)
    graph = helper.make_graph(
        [helper.make_node("Own", ["v"], ["y"], domain="z")],
        name,
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("z", 1)], ir_version=10
    )


TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3])

ODD = {
    "empty list of integers": _with_attribute(
        axes=helper.make_attribute("axes", [], attr_type=onnx.AttributeProto.INTS)
    ),
    "list of tensors": _with_attribute(many=[helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])] * 2),
    "type": _with_attribute(kind=helper.make_optional_type_proto(TENSOR)),
    "bytes that are no text": _with_attribute(blob=b"\xff\xfe"),
    "minus zero and NaN": _with_attribute(zero=-0.0, nan=float("nan"), many=[-0.0, float("nan")]),
    "optional input": _typed("g", helper.make_optional_type_proto(TENSOR)),
    "sequence input": _typed("g", helper.make_sequence_type_proto(TENSOR)),
    "optional sequence": _typed("g", helper.make_optional_type_proto(helper.make_sequence_type_proto(TENSOR))),
    "sparse input": _typed("g", helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [3])),
    "map input": _typed("g", helper.make_map_type_proto(TensorProto.INT64, TENSOR)),
    "strings that are no text": parsed("""<ir_version: 10, opset_import: ["" : 21]> g (string[1] x) => (string[1] y)
        <string[1] w = {"a"}> { y = StringConcat(x, w) }"""),
    "trailing output without a name": parsed("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[4] x) => (float[2] a) { a, b = Split <axis: int = 0, num_outputs: int = 2> (x) }"""),
    "input left out": parsed("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[4] x, float m) => (float[4] y) { y = Clip(x, , m) }"""),
    "ir version 3": parsed("""<ir_version: 3, opset_import: ["" : 8]> g (float[2] x, float[2] w) => (float[2] y)
        <float[2] w = {1, 2}> { y = Add(x, w) }"""),
}
ODD["strings that are no text"].graph.initializer[0].string_data[0] = b"\xff"
ODD["trailing output without a name"].graph.node[0].output[1] = ""
for _dtype in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "int4", "uint4"):
    _model = parsed("""<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
        <float[2] w = {1, 2}> { c = Cast <to: int = 1> (w)  y = Add(x, c) }""")
    _array = np.array([1, 2], getattr(ml_dtypes, _dtype))
    _model.graph.initializer[0].CopyFrom(ir.to_proto(ir.tensor(_array, name="w")))
    ODD[_dtype] = _model


@pytest.mark.parametrize("proto", ODD.values(), ids=ODD)
def test_odd_models_come_back(proto):
    model = load(proto)
    graph = to_graph(model)
    assert to_proto(from_graph(graph)) == to_proto(model)
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                tensor.values = np.array(tensor.values)
    assert to_proto(from_graph(graph)) == to_proto(model)


def test_a_list_of_graphs_is_refused():
    inner = helper.make_graph([], "i", [], [])
    with pytest.raises(PreconditionError, match="list of graphs"):
        to_graph(load(_with_attribute(bodies=[inner, inner])))


def test_weights_are_not_copied_until_someone_looks():
    model = load(rich())
    graph = to_graph(model)
    constant = next(tensor for node in graph.nodes for tensor in node.inputs if isinstance(tensor, gs.Constant))
    assert constant.shape == [4]
    assert constant.dtype == np.float32
    again = from_graph(graph)
    assert again.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


def test_the_model_is_never_changed():
    model = load(rich())
    before = to_proto(model)
    graph = to_graph(model)
    graph.nodes[0].inputs[1].values[:] = 9
    graph.nodes[0].name = "other"
    graph.outputs[0].name = "z"
    graph.nodes.clear()
    assert to_proto(model) == before


# --- edits

PLAIN = """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
    <float[2] w = {1, 2}> { a = Identity(x)  b = LeakyRelu <alpha: float = 0.5> (a)  y = Add(b, w) }"""


def plain() -> gs.Graph:
    return to_graph(load(parsed(PLAIN)))


def exported(graph: gs.Graph) -> onnx.ModelProto:
    proto = to_proto(from_graph(graph))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_a_node_is_removed():
    graph = plain()
    graph.nodes[1].inputs = [graph.inputs[0]]
    del graph.nodes[0]
    assert [node.op_type for node in exported(graph).graph.node] == ["LeakyRelu", "Add"]


def test_nodes_may_be_appended_in_any_order():
    graph = plain()
    relu = gs.Variable("relu", np.float32, [2])
    graph.nodes.append(gs.Node("Relu", inputs=[graph.nodes[0].outputs[0]], outputs=[relu]))
    graph.nodes[1].inputs[0] = relu
    assert [node.op_type for node in exported(graph).graph.node] == ["Identity", "Relu", "LeakyRelu", "Add"]


def test_a_cycle_is_refused():
    graph = plain()
    graph.nodes[0].inputs[0] = graph.nodes[1].outputs[0]
    graph.nodes.reverse()
    with pytest.raises(PreconditionError, match="cycle"):
        from_graph(graph)


def test_changed_weights_are_written():
    graph = plain()
    graph.nodes[2].inputs[1].values[0] = 8
    (tensor,) = exported(graph).graph.initializer
    assert onnx.numpy_helper.to_array(tensor).tolist() == [8, 2]


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2], ml_dtypes.bfloat16),
        np.array([1, 2], ml_dtypes.float8_e4m3fnuz),
        np.array([1, -2], ml_dtypes.int4),
        np.array(["a", "b"], object),
        np.array([True, False]),
        np.float64(3),
    ],
    ids=lambda values: str(values.dtype),
)
def test_new_weights_keep_their_dtype(values):
    graph = plain()
    graph.nodes.append(gs.Node("Identity", inputs=[gs.Constant("n", np.asarray(values))], outputs=[gs.Variable("i")]))
    proto = to_proto(from_graph(graph))
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == "n")
    found = ir.serde.deserialize_tensor(tensor)
    if values.dtype == object:
        assert list(found.string_data()) == [b"a", b"b"]
    else:
        assert found.dtype == ir.DataType.from_numpy(values.dtype)
        assert found.numpy().tobytes() == np.asarray(values).tobytes()


def test_a_number_that_is_set_keeps_the_type_of_the_attribute():
    graph = plain()
    graph.nodes[1].attrs["alpha"] = 1
    assert exported(graph).graph.node[1].attribute[0].type == onnx.AttributeProto.FLOAT


def test_a_new_attribute_gets_the_type_of_the_schema():
    graph = plain()
    graph.nodes[1].op, graph.nodes[1].attrs = "Elu", {"alpha": 1}
    graph.nodes.append(
        gs.Node("Cast", attrs={"to": np.float16}, inputs=[graph.inputs[0]], outputs=[gs.Variable("h", np.float16, [2])])
    )
    proto = exported(graph)
    assert proto.graph.node[1].attribute[0].type == onnx.AttributeProto.FLOAT
    assert proto.graph.node[3].attribute[0].i == TensorProto.FLOAT16


def test_an_attribute_that_onnx_has_not_is_refused():
    graph = plain()
    graph.nodes[1].attrs["alpha"] = "much"
    with pytest.raises(PreconditionError, match="'alpha' of LeakyRelu cannot hold 'much'"):
        from_graph(graph)


def test_another_operator_loses_overload_and_hidden_attributes():
    graph = to_graph(load(rich()))
    call = next(node for node in graph.nodes if node.op == "scale")
    call.op, call.domain, call.attrs = "Identity", None, {}
    node = next(node for node in to_proto(from_graph(graph)).graph.node if node.output[0] == "t")
    assert (node.op_type, node.domain, node.overload) == ("Identity", "", "")
    assert node.doc_string == "doc 3"


def test_types_and_shapes_follow_the_user():
    graph = plain()
    graph.inputs[0].shape = [-1]
    graph.nodes[0].outputs[0].dtype = np.float32
    graph.outputs[0].shape = ["N"]
    proto = to_proto(from_graph(graph))
    assert not proto.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [info.name for info in proto.graph.value_info] == ["a"]


def test_a_renamed_tensor_is_renamed_everywhere():
    graph = plain()
    graph.nodes[0].outputs[0].name = "renamed"
    proto = exported(graph)
    assert proto.graph.node[0].output[0] == proto.graph.node[1].input[0] == "renamed"


def test_a_constant_has_one_home():
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { p = Abs(x) },
                    else_branch = e () => (float[2] q) { q = Neg(x) }> }"""
    graph = to_graph(load(parsed(text)))
    shared = gs.Constant("shared", np.ones(2, np.float32))
    for branch in graph.nodes[0].attrs.values():
        branch.nodes[0].op = "Add"
        branch.nodes[0].inputs.append(shared)
    proto = exported(graph)
    assert [tensor.name for tensor in proto.graph.initializer] == ["shared"]
    assert not any(attribute.g.initializer for attribute in proto.graph.node[0].attribute)


def test_a_constant_in_a_function_becomes_a_node():
    graph = to_graph(load(rich()))
    body = graph.functions[0]
    body.nodes[-1].inputs[1] = gs.Constant("three", np.array(3, np.float32))
    function = to_proto(from_graph(graph)).functions[0]
    assert [node.output[0] for node in function.node] == ["three", "k", "b"]


def test_two_tensors_of_one_name_are_refused():
    graph = plain()
    graph.nodes.append(gs.Node("Abs", inputs=[graph.inputs[0]], outputs=[gs.Variable("a")]))
    with pytest.raises(PreconditionError, match="two tensors are called 'a'"):
        from_graph(graph)


def test_a_graph_in_two_places_is_refused():
    graph = to_graph(load(rich()))
    branches = graph.nodes[-1].attrs
    branches["else_branch"] = branches["then_branch"]
    with pytest.raises(PreconditionError, match="in two places"):
        from_graph(graph)


def test_an_initializer_that_is_an_input_stays_one_when_inputs_change():
    graph = to_graph(load(rich()))
    assert [tensor.name for tensor in graph.inputs] == ["x", "c"]
    graph.inputs.append(gs.Variable("more", np.float32, [1]))
    assert [info.name for info in to_proto(from_graph(graph)).graph.input] == ["x", "c", "more", "free"]


def test_a_new_domain_is_imported():
    graph = plain()
    graph.nodes[1].domain = "vendor"
    imports = {one.domain: one.version for one in to_proto(from_graph(graph)).opset_import}
    assert imports == {"": 21, "vendor": 1}


def test_cleanup_of_graphsurgeon_works_on_it():
    graph = plain()
    graph.nodes[2].inputs[0] = graph.nodes[0].outputs[0]
    graph.cleanup()
    assert [node.op_type for node in exported(graph).graph.node] == ["Identity", "Add"]


# --- graphs that are not ours


def test_a_graph_of_graphsurgeons_own_importer():
    graph = gs.import_onnx(parsed(PLAIN))
    assert exported(graph) == to_proto(load(parsed(PLAIN).SerializeToString()))


def test_a_graph_made_by_hand():
    x, y = gs.Variable("x", np.float32, ["N", 2]), gs.Variable("y", np.float32, ["N", 2])
    node = gs.Node("Mul", inputs=[x, gs.Constant("two", np.full(2, 2, np.float32))], outputs=[y])
    proto = exported(gs.Graph([node], [x], [y], opset=17))
    assert proto.opset_import[0].version == 17
    assert proto.graph.name == "onnx_graphsurgeon_graph"


def test_external_weights_of_such_a_graph_are_refused():
    proto = parsed(PLAIN)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    with pytest.raises(PreconditionError, match="'w' are in an external file"):
        from_graph(gs.import_onnx(proto))


def test_sparse_weights_of_such_a_graph():
    proto = parsed("""<ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y) { y = Add(x, w) }""")
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [5.0])
    places = helper.make_tensor("", TensorProto.INT64, [1], [2])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    model = from_graph(gs.import_onnx(proto))
    assert model.graph.initializers["w"].const_value.numpy().tolist() == [0, 0, 5, 0]


# --- passes


@dataclass(frozen=True)
class Rename(SurgeonPass):
    name: ClassVar[str] = "rename"
    summary: ClassVar[str] = "give nodes a name"
    gain: ClassVar[Gain] = Gain.ENABLING

    def edit(self, graph, context):
        print("scripts print")  # noqa: T201 - what the test is about
        nameless = [node for node in graph.nodes if not node.name]
        for number, node in enumerate(nameless):
            node.name = f"n{number}"
        return {"nodes named": len(nameless)}


def test_a_pass_over_graphs(capsys):
    model = load(parsed(PLAIN))
    result = Rename().run(model, Context(model))
    assert result.changes == {"nodes named": 3}
    assert [node.name for node in result.model.graph] == ["n0", "n1", "n2"]
    again = Rename().run(result.model, Context(model))
    assert again.changes == {}
    assert again.model is result.model
    assert capsys.readouterr().out == ""


@given(st.lists(st.sampled_from(["Identity", "Relu", "Neg", "Add"]), min_size=1, max_size=8), st.randoms())
@settings(max_examples=30, deadline=None)
def test_any_order_of_nodes_comes_back_sorted(ops, random):
    x = gs.Variable("x", np.float32, [2])
    tensors, nodes = [x], []
    for index, op in enumerate(ops):
        out = gs.Variable(f"t{index}", np.float32, [2])
        inputs = [random.choice(tensors) for _ in range(2 if op == "Add" else 1)]
        nodes.append(gs.Node(op, inputs=inputs, outputs=[out]))
        tensors.append(out)
    random.shuffle(nodes)
    proto = to_proto(from_graph(gs.Graph(nodes, [x], [tensors[-1]], opset=17)))
    onnx.checker.check_model(proto, full_check=True)
