"""Nothing of a model is lost on the way in and out, or the model is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.errors import ModelError
from optimizer.io.model import byte_size, clone, load, save, to_proto
from optimizer.io.protos.proto_diff import difference


def base() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        main (float[N, 4] x) => (float[N, 4] y, float[N, 4] h)
        <float[4] w = {1, 2, 3, 4}>
        { h = Add(x, w)  y = local.twice <k: float = 2.0> (h) }
        <domain: "local", opset_import: ["" : 20]>
        twice <k> (a) => (b) { c = Constant <value_float: float = @k> ()  b = Mul(a, c) }
        """
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 4]))
    return proto


def sparse(name: str = "s") -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([5, 7], np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 6], np.int64)), [2, 4])


def edits():  # noqa: C901 - one small edit after another
    def props(proto):
        for owner in (proto, proto.graph, proto.graph.node[0], proto.graph.input[0], proto.functions[0]):
            for key in "zab":
                owner.metadata_props.add(key=key, value=f"{key}!")

    def docs(proto):
        graph = proto.graph
        for owner in (proto, graph, graph.node[1], graph.input[0], graph.output[0], graph.value_info[0]):
            owner.doc_string = "said"
        graph.initializer[0].doc_string = proto.functions[0].doc_string = "said too"

    def tensor_props(proto):
        proto.graph.initializer[0].metadata_props.add(key="k", value="v")

    def constant_props(proto):
        tensor = numpy_helper.from_array(np.ones(3, np.float32), "named")
        tensor.metadata_props.add(key="k", value="v")
        proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))

    def producer(proto):
        proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "p", "1", "d", 7

    def sparse_initializer(proto):
        proto.graph.sparse_initializer.append(sparse())
        proto.graph.node.append(helper.make_node("Neg", ["s"], ["t"]))

    def sparse_by_axes(proto):
        tensor = sparse()
        tensor.indices.CopyFrom(numpy_helper.from_array(np.array([[0, 1], [1, 2]], np.int64)))
        proto.graph.sparse_initializer.append(tensor)

    def sparse_constant(proto):
        proto.graph.node.append(helper.make_node("Constant", [], ["t"], sparse_value=sparse("")))

    def sparse_list(proto):
        node = helper.make_node("Custom", [], ["t"], domain="local")
        node.attribute.append(helper.make_attribute("many", [sparse(), sparse("other")]))
        proto.graph.node.append(node)

    def sparse_in_branch(proto):
        branch = helper.make_graph(
            [helper.make_node("Neg", ["s"], ["t"])], "branch", [], [helper.make_tensor_value_info("t", 1, [2, 4])]
        )
        branch.sparse_initializer.append(sparse())
        proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        proto.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))

    def open_outputs(proto):
        proto.graph.node.append(helper.make_node("Split", ["x"], ["left", ""], axis=1, num_outputs=2))
        proto.graph.node.append(helper.make_node("Dropout", ["x"], ["kept", ""]))

    def training(proto):
        info = proto.training_info.add()
        info.algorithm.name = "step"
        info.algorithm.node.append(helper.make_node("Neg", ["w"], ["less"]))
        info.update_binding.add(key="w", value="less")

    def maps(proto):
        kind = helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        )
        proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
        node = helper.make_node("ZipMap", ["x"], ["zipped"], domain="ai.onnx.ml", classlabels_int64s=[1, 2, 3, 4])
        proto.graph.node.append(node)
        proto.graph.output.append(helper.make_value_info("zipped", kind))

    def inner_map(proto):
        maps(proto)
        info = proto.graph.value_info.add()
        info.CopyFrom(proto.graph.output[-1])
        proto.graph.output.pop()

    def denotations(proto):
        kind = proto.graph.input[0].type
        kind.denotation = "IMAGE"
        kind.tensor_type.shape.dim[0].denotation = "DATA_BATCH"

    def annotations(proto):
        for name in ("h", "x", "y", "w", "nowhere"):
            annotation = proto.graph.quantization_annotation.add(tensor_name=name)
            annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")

    def surplus_infos(proto):
        for name in ("y", "x", "nowhere", "w"):
            proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def function_infos(proto):
        proto.functions[0].value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [3]))
        proto.functions[0].value_info.append(helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, [3]))

    def old_function_infos(proto):
        proto.ir_version = 9
        proto.graph.value_info.append(helper.make_tensor_value_info("local::twice/c", TensorProto.FLOAT, [3]))
        proto.functions[0].value_info.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]))

    def overloads(proto):
        other = proto.functions.add()
        other.CopyFrom(proto.functions[0])
        other.overload = "second"
        proto.graph.node[1].overload = "second"

    def defaults(proto):
        function = proto.functions[0]
        function.attribute_proto.append(helper.make_attribute("d", 3, doc_string="why"))

    def overridable(proto):
        proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))

    def odd_types(proto):
        for number, kind in enumerate((TensorProto.FLOAT8E4M3FNUZ, TensorProto.BFLOAT16, TensorProto.UINT4, 23, 25)):
            width = onnx_ir_width(kind)
            raw = bytes(range((8 * width + 7) // 8))
            tensor = helper.make_tensor(f"odd{number}", kind, [8], raw, raw=True)
            proto.graph.initializer.append(tensor)
        proto.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"\xff\xfe", b"ok"]))
        proto.graph.initializer.append(helper.make_tensor("typed", TensorProto.INT8, [3], [-1, 2, 3]))

    def bytes_in_text(proto):
        proto.graph.node.append(helper.make_node("Custom", [], ["t"], domain="local", blob=b"\xff\x00\xfe"))

    def types_in_attributes(proto):
        kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"]))
        proto.graph.node.append(helper.make_node("Optional", [], ["t"], type=kind))

    def many_graphs(proto):
        graph = helper.make_graph([helper.make_node("Neg", ["x"], ["q"])], "g", [], [])
        graph.node[0].output[0] = "inner"
        node = helper.make_node("Custom", ["x"], ["t"], domain="local")
        node.attribute.append(helper.make_attribute("graphs", [graph]))
        tensors = [numpy_helper.from_array(np.ones(3)), numpy_helper.from_array(np.zeros(2000))]
        node.attribute.append(helper.make_attribute("tensors", tensors))
        proto.graph.node.append(node)

    def devices(proto):
        proto.ir_version = 11
        proto.configuration.add(name="two", num_devices=2, device=["a", "b"])
        configured = proto.graph.node[0].device_configurations.add(configuration_id="two", pipeline_stage=1)
        spec = configured.sharding_spec.add(tensor_name="x", device=[0, 1])
        spec.sharded_dim.add(axis=0).simple_sharding.add(dim_value=2, num_shards=2)

    def unsorted(proto):
        first, second = list(proto.graph.node)
        del proto.graph.node[:]
        proto.graph.node.extend([second, first])

    def twice_an_output(proto):
        proto.graph.output.append(proto.graph.output[0])

    def nameless(proto):
        proto.graph.ClearField("name")
        proto.graph.output[0].ClearField("type")

    def old_initializer(proto):
        proto.ir_version = 3
        del proto.functions[:]
        proto.graph.node[1].CopyFrom(helper.make_node("Neg", ["h"], ["y"]))

    def nan(proto):
        proto.graph.node.append(helper.make_node("Custom", [], ["t"], domain="local", a=float("nan"), b=[float("nan")]))

    def large(proto):
        proto.graph.initializer.append(numpy_helper.from_array(np.arange(5000, dtype=np.float32), "large"))
        proto.graph.initializer[-1].metadata_props.add(key="k", value="v")
        proto.graph.initializer[-1].doc_string = "long"

    return [value for value in locals().values() if callable(value)]


def onnx_ir_width(kind: int) -> int:
    return ir.DataType(kind).bitwidth


@pytest.fixture(params=edits(), ids=lambda edit: edit.__name__)
def proto(request) -> onnx.ModelProto:
    made = base()
    request.param(made)
    return made


def same(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    return difference(before, after) or difference(after, before)


def test_every_field_survives(proto):
    assert same(proto, to_proto(load(proto))) is None


def test_file_is_not_larger_and_of_the_promised_size(proto, tmp_path):
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    source.write_bytes(proto.SerializeToString())
    model = load(source)
    save(model, target)
    assert same(proto, onnx.load(target)) is None
    assert target.stat().st_size == byte_size(model) <= source.stat().st_size
    assert target.read_bytes() == to_proto(model).SerializeToString()
    save(load(target), source)
    assert source.read_bytes() == target.read_bytes()


def test_clones_keep_everything(proto):
    model = load(proto)
    copy = clone(clone(model))
    expected = to_proto(model)
    if expected.graph.node[0].op_type == "twice":  # clones are sorted
        expected.graph.node.reverse()
    assert same(expected, to_proto(copy)) is None


def test_the_callers_proto_is_not_changed(proto):
    before = proto.SerializeToString()
    model = load(proto)
    copy = clone(model)
    for value in list(copy.graph.initializers.values()):
        value.name = f"renamed_{value.name}"
    assert proto.SerializeToString() == before
    assert same(proto, to_proto(model)) is None


def test_sparse_initializer_is_a_constant_to_passes():
    made = base()
    made.graph.sparse_initializer.append(sparse())
    tensor = load(made).graph.initializers["s"].const_value
    assert tensor.numpy().tolist() == [[0, 5, 0, 0], [0, 0, 7, 0]]


def test_sparse_constant_is_a_constant_to_passes():
    made = base()
    made.graph.node.append(helper.make_node("Constant", [], ["t"], sparse_value=sparse("")))
    node = next(node for node in load(made).graph if node.op_type == "Constant")
    assert node.attributes.get_tensor("value").numpy().sum() == 12


def test_sparse_becomes_dense_when_a_pass_replaces_it():
    made = base()
    made.graph.sparse_initializer.append(sparse())
    model = load(made)
    model.graph.initializers["s"].const_value = ir.tensor(np.ones((2, 4), np.float32), name="s")
    out = to_proto(model).graph
    assert not out.sparse_initializer
    assert [tensor.name for tensor in out.initializer] == ["w", "s"]


def test_training_part_refuses_to_lose_its_weight():
    made = base()
    info = made.training_info.add()
    info.update_binding.add(key="w", value="h")
    model = load(made)
    model.graph.initializers["w"].name = "renamed"
    with pytest.raises(ModelError, match="training part needs 'w', which is gone"):
        to_proto(model)


def test_extra_info_is_dropped_when_its_name_means_something_else():
    made = base()
    made.graph.value_info.append(helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, [9]))
    model = load(made)
    new = ir.node("Neg", [model.graph.inputs[0]])
    new.outputs[0].name = "nowhere"
    model.graph.append(new)
    assert [info.name for info in to_proto(model).graph.value_info] == ["h"]


def test_new_initializers_get_no_value_info():
    model = load(base())
    value = ir.Value(
        name="new", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]), const_value=ir.tensor([1.0, 2.0])
    )
    model.graph.register_initializer(value)
    assert [info.name for info in to_proto(model).graph.value_info] == ["h"]


def test_an_initializer_that_is_an_output_keeps_the_text_of_the_output():
    proto = base()
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4], doc_string="given out"))
    assert difference(proto, to_proto(load(proto))) is None


def test_a_later_field_is_refused_by_name():
    data = base().SerializeToString() + b"\x9a\x3f\x03abc"  # field 1011
    with pytest.raises(ModelError, match=r"a field that onnx .* does not know cannot be kept"):
        load(data)


def test_unknown_field_of_a_node_is_refused():
    made = base()
    made.graph.node[0].MergeFromString(b"\x9a\x3f\x03abc")
    with pytest.raises(ModelError, match=r"graph\.node\[0\].*does not know"):
        load(made)


def test_differing_infos_of_one_value_are_refused():
    made = base()
    made.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [5, 4]))
    with pytest.raises(ModelError, match=r"value_info\['h'\], which is there twice"):
        load(made)


def test_map_type_in_attribute_is_refused():
    made = base()
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made.graph.node.append(helper.make_node("Optional", [], ["t"], type=kind))
    with pytest.raises(ModelError, match="map or opaque type"):
        load(made)


def test_text_that_is_no_utf8_is_kept_without_a_word(caplog, tmp_path):
    proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17, "local" : 1]> g () => (float[2] t) {}')
    proto.graph.node.append(helper.make_node("Custom", [], ["t"], domain="local", blob=b"\xff\x00\xfe"))
    save(load(proto), tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx").graph.node[0].attribute[0].s == b"\xff\x00\xfe"
    assert not caplog.records
