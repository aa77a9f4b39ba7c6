"""Broken and hostile models: one line each, nothing written, bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from optimizer.errors import ModelError
from optimizer.io.model import check_structure, load, save

BASE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[2, 4] x) => (float[2, 4] y)
<float[4] w = {1, 2, 3, 4}>
{ h = Add(x, w)  y = Relu(h) }
"""
MEMORY = 64 << 20  # bytes that refusing may take


def base() -> onnx.ModelProto:
    return onnx.parser.parse_model(BASE)


FILES = {}  # name -> (bytes, what the message must say)


def file_kind(content: bytes, expected: str):
    FILES[f"{len(FILES):02} {expected}"] = (content, expected)


whole = base().SerializeToString()
zipped, checkpoint = io.BytesIO(), io.BytesIO()
with zipfile.ZipFile(zipped, "w") as archive:
    archive.writestr("model.onnx", whole)
with zipfile.ZipFile(checkpoint, "w") as archive:
    archive.writestr("archive/data.pkl", b"")

file_kind(b"", "is empty")
file_kind(bytes(range(255, 100, -1)), "no ONNX model")
file_kind(b"\0" * 5000, "no ONNX model")
file_kind(b"This is a list of models.\n" * 9, "is text")
file_kind(b"<!DOCTYPE html><html>not found</html>", "a web page")
file_kind(b'{"irVersion": "8"}', "JSON")
file_kind(b'ir_version: 8\nproducer_name: "x"\n', "text form")
file_kind(BASE.encode(), "text form")
file_kind(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull")
file_kind(gzip.compress(whole), "a gzip archive")
file_kind(zipped.getvalue(), "a zip archive")
file_kind(checkpoint.getvalue(), "a PyTorch checkpoint")
file_kind(pickle.dumps({"weights": [1.0]}), "a Python pickle")
file_kind(b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "an HDF5 file")
file_kind(b"\x1c\0\0\0TFL3" + b"\0" * 90, "a TensorFlow Lite model")
file_kind(b"\x1c\0\0\0ORTM" + b"\0" * 90, "own format")
file_kind(b"GGUF\3\0\0\0" + b"\0" * 90, "a GGUF file")
file_kind(struct.pack("<Q", 40) + b'{"w": {"dtype": "F32", "shape": [1]}    ' + b"\0" * 4, "a safetensors file")
file_kind(onnx.ModelProto(ir_version=8).SerializeToString(), "no ONNX model")


@pytest.mark.parametrize("name", FILES)
def test_no_model(name, tmp_path):
    content, expected = FILES[name]
    refused(write(tmp_path, content), expected)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "given.onnx"
    path.write_bytes(content)
    return path


def refused(path: Path, expected: str) -> str:
    """Loading must fail with one line that names the file, in little memory, and leave nothing behind."""
    before = sorted(path.parent.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "; " in message  # a remedy
    assert sorted(path.parent.rglob("*")) == before
    return message


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.99])
def test_cut_off_file(share, tmp_path):
    proto = base()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(4000, np.float32), "big"))
    content = proto.SerializeToString()
    message = refused(write(tmp_path, content[: int(len(content) * share)]), "is ")
    assert "cut off" in message or "no ONNX model" in message


def test_every_cut_is_refused_or_whole():
    """Cutting between two top-level fields can give a valid model; anywhere else it must be refused."""
    for end in range(len(whole)):
        with contextlib.suppress(ModelError):
            model = load(whole[:end])
            assert len(model.graph) == 2


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_load(data):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelError):
        load(bytes(content))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content):
    with contextlib.suppress(ModelError):
        load(content)


def test_path_that_is_no_file(tmp_path):
    tmp_path.joinpath("given.onnx").mkdir()
    refused(tmp_path / "given.onnx", "is a folder")
    refused(tmp_path / "missing.onnx", "no such file")
    refused(tmp_path / "given.onnx" / "x" / "missing.onnx", "no such file")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "is a device or pipe")
    refused(tmp_path / ("n" * 300), "cannot be read (file name too long)")


def test_unreadable_file(tmp_path, monkeypatch):
    def denied(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, whole)
    monkeypatch.setattr(Path, "open", denied)
    refused(path, "cannot be read (permission denied)")


def test_file_beyond_two_gigabytes(tmp_path):
    path = tmp_path / "given.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    refused(path, "larger than protobuf's 2 GB")


def test_what_is_no_model_at_all():
    for thing in (None, 7, [whole], object()):
        with pytest.raises(ModelError, match="is no model; give a path"):
            load(thing)


def node(*args, **kwargs):
    return helper.make_node(*args, **kwargs)


PROTOS = {}


def proto_kind(expected: str):
    def register(edit):
        PROTOS[edit.__name__] = (edit, expected)
        return edit

    return register


@proto_kind("imports no operator set")
def no_opset(proto):
    del proto.opset_import[:]


@proto_kind("in version 9999, known are 1 to")
def opset_from_the_future(proto):
    proto.opset_import[0].version = 9999


@proto_kind("in version 0, known are 1 to")
def opset_zero(proto):
    proto.opset_import[0].version = 0


@proto_kind("in version -3, known are 1 to")
def opset_negative(proto):
    proto.opset_import[0].version = -3


@proto_kind("in two versions")
def opset_twice(proto):
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 13))


@proto_kind("in version 0, known are")
def custom_opset_zero(proto):
    proto.opset_import.append(helper.make_opsetid("custom", 0))


@proto_kind("has IR version 0, known are")
def no_ir_version(proto):
    proto.ClearField("ir_version")


@proto_kind("has IR version -1, known are")
def ir_version_negative(proto):
    proto.ir_version = -1


@proto_kind("install a newer onnx")
def ir_version_from_the_future(proto):
    proto.ir_version = 99


@proto_kind("the operator set 'elsewhere' is used, but not imported")
def domain_not_imported(proto):
    proto.graph.node[0].domain = "elsewhere"


@proto_kind("operator Addd does not exist in version 20")
def unknown_operator(proto):
    proto.graph.node[0].op_type = "Addd"


@proto_kind("operator Upsample was removed in version 20")
def removed_operator(proto):
    proto.graph.node[1].op_type = "Upsample"


@proto_kind("no operator")
def no_operator(proto):
    proto.graph.node[0].ClearField("op_type")


@proto_kind("in a circle: node")
def circle(proto):
    proto.graph.node[0].input[1] = "y"


@proto_kind("in a circle: node")
def circle_of_one(proto):
    proto.graph.node[0].input[1] = "h"


@proto_kind("in a circle")
def circle_through_a_branch(proto):
    branch = helper.make_graph([node("Neg", ["z"], ["b"])], "b", [], [helper.make_tensor_value_info("b", 1, None)])
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.node.append(node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))


@proto_kind("in a circle")
def long_circle(proto):
    for index in range(3000):
        proto.graph.node.append(node("Add", [f"v{(index + 1) % 3000}", "x"], [f"v{index}"]))


@proto_kind("value 'h' is defined twice")
def output_twice(proto):
    proto.graph.node.append(node("Neg", ["x"], ["h"]))


@proto_kind("is defined twice")
def output_named_like_input(proto):
    proto.graph.node.append(node("Neg", ["x"], ["w"]))


@proto_kind("value 'x' is defined twice")
def input_twice(proto):
    proto.graph.input.append(proto.graph.input[0])


@proto_kind("two initializers 'w'")
def initializer_twice(proto):
    proto.graph.initializer.append(proto.graph.initializer[0])


@proto_kind("an initializer has no name")
def initializer_without_name(proto):
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2), ""))


@proto_kind("reads 'nothing', which nothing defines")
def undefined_value(proto):
    proto.graph.node[0].input[1] = "nothing"


@proto_kind("reads 'nothing', which nothing defines")
def undefined_value_in_branch(proto):
    branch = helper.make_graph(
        [node("Neg", ["nothing"], ["b"])], "b", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.node.append(node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))


@proto_kind("output 'q' is produced by no node")
def output_of_nothing(proto):
    proto.graph.output[0].name = "q"


@proto_kind("input 'x' has no type")
def input_without_type(proto):
    proto.graph.input[0].ClearField("type")


@proto_kind("has type number 99, which is unknown")
def unknown_input_type(proto):
    proto.graph.input[0].type.tensor_type.elem_type = 99


@proto_kind("has type number 98, which is unknown")
def unknown_tensor_type(proto):
    proto.graph.initializer[0].data_type = 98


@proto_kind("has type number 0, which is unknown")
def undefined_tensor_type(proto):
    proto.graph.initializer[0].data_type = 0


def raw(proto, dims, content, kind=TensorProto.FLOAT):
    tensor = TensorProto(name="bad", data_type=kind, dims=dims, raw_data=content)
    proto.graph.initializer.append(tensor)


@proto_kind("has 12 bytes, its type and shape ask for 16")
def raw_too_short(proto):
    raw(proto, [4], b"\0" * 12)


@proto_kind("has 20 bytes, its type and shape ask for 16")
def raw_too_long(proto):
    raw(proto, [4], b"\0" * 20)


@proto_kind("has 0 bytes, its type and shape ask for")
def huge_dim(proto):
    raw(proto, [1 << 50], b"")


@proto_kind("impossible shape")
def overflowing_dims(proto):
    raw(proto, [1 << 62, 1 << 62, 1 << 62], b"\0" * 4)


@proto_kind("impossible shape")
def dims_that_wrap_to_nothing(proto):
    raw(proto, [1 << 32, 1 << 32], b"")


@proto_kind("has 100000 dimensions")
def endless_dims(proto):
    raw(proto, [1 << 62] * 100_000, b"\0" * 4)


@proto_kind("negative dimension")
def negative_dim(proto):
    raw(proto, [-4], b"\0" * 4)


@proto_kind("too small for the declared shape")
def typed_too_short(proto):
    proto.graph.initializer.append(TensorProto(name="bad", data_type=1, dims=[4], float_data=[1.0]))


@proto_kind("has 5 elements, its shape asks for 4")
def typed_too_long(proto):
    proto.graph.initializer.append(TensorProto(name="bad", data_type=1, dims=[4], float_data=[1.0] * 5))


@proto_kind("should be stored in field")
def data_in_the_wrong_field(proto):
    proto.graph.initializer.append(TensorProto(name="bad", data_type=1, dims=[1], int64_data=[1]))


@proto_kind("its type and shape ask for 0")
def raw_strings(proto):
    raw(proto, [1], b"text", TensorProto.STRING)


@proto_kind("one and only one value field")
def no_data(proto):
    proto.graph.initializer.append(TensorProto(name="bad", data_type=1, dims=[4]))


@proto_kind("has 8 bytes, its type and shape ask for 4")
def constant_of_wrong_size(proto):
    tensor = TensorProto(data_type=1, dims=[1], raw_data=b"\0" * 8)
    proto.graph.node.append(node("Constant", [], ["c"], value=tensor))


@proto_kind("Mismatched attribute type")
def attribute_of_wrong_type(proto):
    proto.graph.node.append(node("Softmax", ["x"], ["s"], axis=1.5))


@proto_kind("Unrecognized attribute")
def unknown_attribute(proto):
    proto.graph.node.append(node("Softmax", ["x"], ["s"], axes=[1]))


@proto_kind("appeared multiple times")
def attribute_twice(proto):
    made = node("Softmax", ["x"], ["s"], axis=1)
    made.attribute.append(made.attribute[0])
    proto.graph.node.append(made)


@proto_kind("type field and data field mismatch")
def attribute_with_another_value(proto):
    made = node("Softmax", ["x"], ["s"], axis=1)
    made.attribute[0].type = AttributeProto.FLOAT
    proto.graph.node.append(made)


@proto_kind("required but missing")
def attribute_without_type(proto):
    made = node("Softmax", ["x"], ["s"], axis=1)
    made.attribute[0].ClearField("type")
    proto.graph.node.append(made)


@proto_kind("that is not UTF-8")
def attribute_text_in_another_encoding(proto):
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    proto.graph.node.append(node("Custom", ["x"], ["c"], domain="custom", words=[b"ok", b"\xff\xfe"]))


@proto_kind("(Add)")
def too_few_inputs(proto):
    proto.graph.node.append(node("Add", ["x"], ["s"]))


@proto_kind("zero input and zero output")
def node_of_nothing(proto):
    proto.graph.node.append(node("Relu", [], []))


@proto_kind("metadata_props has a key twice")
def metadata_twice(proto):
    for value in "ab":
        proto.metadata_props.add(key="k", value=value)


def function(name, nodes, domain="local"):
    return helper.make_function(
        domain, name, ["a"], ["b"], nodes, [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    )


def with_functions(proto, *functions):
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.extend(functions)
    proto.graph.node.append(node(functions[0].name, ["x"], ["f"], domain="local"))


@proto_kind("call each other in a circle")
def function_that_calls_itself(proto):
    with_functions(proto, function("f", [node("f", ["a"], ["b"], domain="local")]))


@proto_kind("call each other in a circle")
def functions_that_call_each_other(proto):
    calls = {"f": "g", "g": "f"}
    with_functions(
        proto, *(function(name, [node(other, ["a"], ["b"], domain="local")]) for name, other in calls.items())
    )


@proto_kind("there are two functions")
def function_twice(proto):
    with_functions(proto, function("f", [node("Neg", ["a"], ["b"])]), function("f", [node("Abs", ["a"], ["b"])]))


@proto_kind("stand for more than 10,000,000 nodes")
def functions_that_explode(proto):
    made = [function("f0", [node("Neg", ["a"], ["b"])])]
    for index in range(1, 40):
        twice = [node(f"f{index - 1}", [source], [target], domain="local") for source, target in ("ac", "cb")]
        made.insert(0, function(f"f{index}", twice))
    with_functions(proto, *made)


@proto_kind("an output of function 'f' is produced by no node")
def function_without_its_output(proto):
    with_functions(proto, function("f", [node("Neg", ["a"], ["c"])]))


def with_sparse(proto, values, indices, dims):
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array(values, np.float32), "s"),
        numpy_helper.from_array(np.array(indices, np.int64)),
        dims,
    )
    proto.graph.sparse_initializer.append(sparse)


@proto_kind("out of range")
def sparse_index_beyond_the_end(proto):
    with_sparse(proto, [1, 2], [1, 9], [2, 4])


@proto_kind("out of range")
def sparse_index_negative(proto):
    with_sparse(proto, [1, 2], [-1, 2], [2, 4])


@proto_kind("not in sorted order")
def sparse_indices_out_of_order(proto):
    with_sparse(proto, [1, 2], [3, 1], [2, 4])


@proto_kind("has 1 values, but NNZ is 2")
def sparse_with_too_few_indices(proto):
    with_sparse(proto, [1, 2], [1], [2, 4])


@proto_kind("more than a model can hold")
def sparse_that_is_huge_when_dense(proto):
    with_sparse(proto, [1], [1], [1 << 20, 1 << 20])


@proto_kind("impossible shape")
def sparse_that_overflows(proto):
    with_sparse(proto, [1], [1], [1 << 62, 1 << 62])


@proto_kind("negative dimension")
def sparse_with_negative_dim(proto):
    with_sparse(proto, [1], [1], [-2, 4])


@pytest.mark.parametrize("name", PROTOS)
def test_broken_proto(name, tmp_path):
    edit, expected = PROTOS[name]
    proto = base()
    edit(proto)
    refused(write(tmp_path, proto.SerializeToString()), expected)


@pytest.mark.parametrize("name", PROTOS)
def test_broken_proto_in_memory(name):
    edit, expected = PROTOS[name]
    proto = base()
    edit(proto)
    with pytest.raises(ModelError) as caught:
        load(proto)
    assert expected in str(caught.value)


def external(location="w.bin", offset=None, length=None, dims=(4,), **more):
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": length, **more}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


EXTERNAL = {
    "no such file": (external("missing.bin"), "no such file"),
    "too short": (external(offset=8), "which has only 20"),
    "offset beyond the end": (external(offset=4000), "which has only 20"),
    "huge offset": (external(offset=1 << 62), "has a bad offset"),
    "negative offset": (external(offset=-4), "has a bad offset"),
    "offset no number": (external(offset="0x10"), "has a bad offset"),
    "negative length": (external(length=-16), "has a bad length"),
    "length too small": (external(length=12), "its type and shape 16"),
    "length too large": (external(length=20), "its type and shape 16"),
    "huge shape": (external(dims=(1 << 40,)), "which has only 20"),
    "impossible shape": (external(dims=(1 << 62, 1 << 62)), "impossible shape"),
    "absolute": (external("/etc/passwd"), "is an absolute path"),
    "drive": (external("C:\\w.bin"), "is an absolute path"),
    "up": (external("../w.bin"), "leaves the model's folder"),
    "up and down": (external("inside/../../w.bin"), "leaves the model's folder"),
    "up, other slash": (external("..\\w.bin"), "leaves the model's folder"),
    "empty": (external(""), "has no usable name"),
    "no location": (external(None), "has no usable name"),
    "zero byte": (external("w.bin\0.txt"), "has no usable name"),
    "link out": (external("link.bin"), "is a link out of the model's folder"),
    "folder link out": (external("out/secret.bin"), "is a link out of the model's folder"),
    "folder": (external("inside"), "no regular file"),
    "pipe": (external("pipe"), "no regular file"),
    "circular link": (external("circular"), "cannot be opened"),
    "looks like a stand-in": (external("#0"), "no such file"),
}


@pytest.mark.parametrize("place", ["initializer", "attribute", "branch", "function"])
@pytest.mark.parametrize("name", EXTERNAL)
def test_bad_external_data(name, place, tmp_path):
    outside = tmp_path / "outside"
    folder = tmp_path / "folder"
    for made in (outside, folder, folder / "inside"):
        made.mkdir()
    outside.joinpath("secret.bin").write_bytes(b"\0" * 64)
    outside.joinpath("w.bin").write_bytes(b"\0" * 64)
    folder.joinpath("w.bin").write_bytes(b"\0" * 20)
    folder.joinpath("link.bin").symlink_to(outside / "secret.bin")
    folder.joinpath("out").symlink_to(outside)
    folder.joinpath("circular").symlink_to(folder / "circular")
    os.mkfifo(folder / "pipe")
    tensor, expected = EXTERNAL[name]
    proto = base()
    constant = node("Constant", [], ["b"], value=tensor)
    if place == "initializer":
        proto.graph.initializer.append(tensor)
    elif place == "attribute":
        proto.graph.node.append(constant)
    elif place == "branch":
        branch = helper.make_graph([], "g", [], [helper.make_tensor_value_info("far", 1, None)], [tensor])
        proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        proto.graph.node.append(node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))
    else:
        with_functions(proto, function("f", [constant]))
    refused(write(folder, proto.SerializeToString()), expected)


def test_external_strings(tmp_path):
    tensor = external()
    tensor.data_type = TensorProto.STRING
    proto = base()
    proto.graph.initializer.append(tensor)
    refused(write(tmp_path, proto.SerializeToString()), "keeps strings in a file")


def test_external_data_with_data_inside(tmp_path):
    tensor = external()
    tensor.float_data.extend([1.0] * 4)
    proto = base()
    proto.graph.initializer.append(tensor)
    tmp_path.joinpath("w.bin").write_bytes(b"\0" * 16)
    refused(write(tmp_path, proto.SerializeToString()), "should not have data field")


def test_external_data_of_a_proto_has_no_folder():
    proto = base()
    proto.graph.initializer.append(external())
    for source in (proto, proto.SerializeToString()):
        with pytest.raises(ModelError, match="of which folder is not known; give the path"):
            load(source)


def nested(levels: int) -> bytes:
    """Branches in branches, written by hand: protobuf's own objects refuse to be that deep."""
    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu")) + field(2, b"g")
    for _ in range(levels):
        attribute = field(1, b"then_branch") + b"\xa0\x01\x05" + field(6, graph)
        graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"If") + field(5, attribute)) + field(2, b"g")
    return b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x14")


def field(number: int, content: bytes) -> bytes:
    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    return varint(number << 3 | 2) + varint(len(content)) + content


def test_a_thousand_branches_in_each_other(tmp_path):
    refused(write(tmp_path, nested(1000)), "nested deeper than protobuf's 100 levels")


def test_a_thousand_branches_in_memory():
    proto = base()
    graph = proto.graph
    for _ in range(1000):
        made = graph.node.add(op_type="If", input=["x"], output=["o"])
        graph = made.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
    with pytest.raises(ModelError, match="nested deeper than"):
        load(proto)


@pytest.mark.parametrize("where", ["node", "op_type", "output", "dim", "doc", "metadata"])
def test_names_in_another_encoding(where, tmp_path):
    text = b"caf\xe9"
    wanted = {"node": 3, "op_type": 4, "output": 2}
    inner = field(1, b"x") + (b"" if where == "output" else field(2, b"y"))
    inner += b"" if where == "op_type" else field(4, b"Relu")
    if where in wanted:
        inner += field(wanted[where], text)
    shape = field(2, field(1, field(2, text if where == "dim" else b"N")))
    kind = field(2, field(1, b"\x08\x01" + shape))
    graph = field(1, inner) + field(2, b"g") + field(11, field(1, b"x") + kind)
    graph += field(12, field(1, text if where == "output" else b"y") + kind)
    graph += field(10, text) if where == "doc" else b""
    content = b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x14")
    content += field(14, field(1, b"k") + field(2, text)) if where == "metadata" else b""
    refused(write(tmp_path, content), "")


def test_millions_of_empty_nodes_are_refused_at_the_first(tmp_path):
    content = b"\x08\x0a" + field(7, b"\x0a\x00" * 1_000_000) + field(8, b"\x10\x14")
    refused(write(tmp_path, content), "no operator")


def test_strings_in_another_encoding_are_data(tmp_path):
    proto = base()
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"caf\xe9"]))
    assert load(proto).graph.initializers["s"].const_value.string_data()[0] == b"caf\xe9"


def test_model_that_a_pass_broke():
    model = load(base())
    model.graph.node(0).replace_input_with(1, ir.Value(name="lost"))
    with pytest.raises(ModelError, match=r"^stage 1: .* reads 'lost', which nothing defines"):
        check_structure(model, "stage 1")


def test_nothing_is_written_for_a_model_that_cannot_be(tmp_path):
    model = load(base())
    model.graph.initializers["w"].const_value = None
    with pytest.raises(ModelError, match="initializer 'w' has no data"):
        save(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "edit",
    [
        lambda graph: graph.ClearField("name"),
        lambda graph: graph.output[0].ClearField("type"),
        lambda graph: graph.output[0].type.tensor_type.ClearField("shape"),
        lambda graph: graph.input[0].type.tensor_type.ClearField("shape"),
    ],
)
def test_what_only_the_checker_dislikes_is_accepted(edit):
    proto = base()
    edit(proto.graph)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    load(proto)
