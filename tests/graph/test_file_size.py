"""Bytes of nodes and tensors are those that onnx-ir writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.graph import file_size, traversal
from optimizer.graph.sparse import SparseTensor
from optimizer.graph.tensors import compact
from optimizer.io.model import load

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
NAMES = st.text(max_size=300).filter(lambda name: name.isprintable())
WHOLE = st.integers(-(2**63), 2**63 - 1)


def written(message):
    """Bytes of a message in the message around it."""
    return file_size.field_bytes(message.ByteSize())


ATTRIBUTES = [
    ir.AttrInt64("axis", 0),
    ir.AttrInt64("axis", -1),
    ir.AttrInt64("axis", 300),
    ir.AttrInt64s("perm", []),
    ir.AttrInt64s("perm", [0, 127, 128, -5]),
    ir.AttrFloat32("alpha", 0.0),
    ir.AttrFloat32s("scales", [1.0, 2.5]),
    ir.AttrString("mode", "größer"),
    ir.AttrStrings("modes", ["", "a", "bc"]),
    ir.AttrTensor("value", ir.Tensor(np.ones((2, 3), np.float32), name="t")),
    ir.AttrTensor("value", ir.Tensor(np.ones(3, np.int8))),
    ir.AttrTensors("values", [ir.Tensor(np.zeros((), np.float16)), ir.Tensor(np.zeros(200, np.int64), name="u")]),
    ir.Attr("axis", ir.AttributeType.INT, 1, doc_string="why"),
]


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: f"{attribute.name}-{attribute.type.name}")
def test_attributes(attribute):
    assert file_size.attribute_bytes(attribute) == ir.serde.serialize_attribute(attribute).ByteSize()


def test_an_attribute_that_only_the_call_knows():
    reference = ir.RefAttr("axis", "axis_of_the_function", ir.AttributeType.INT)
    written_bytes = ir.serde.serialize_reference_attribute_into
    proto = onnx.AttributeProto()
    written_bytes(proto, reference)
    assert file_size.attribute_bytes(reference) == proto.ByteSize()


@given(st.lists(st.one_of(st.none(), NAMES.filter(bool)), max_size=4), NAMES.filter(bool), NAMES, NAMES)
def test_nodes(inputs, output, name, doc):
    values = [None if each is None else ir.Value(name=each) for each in inputs]
    node = ir.Node(
        "ai.somebody",
        "Op",
        values,
        ATTRIBUTES[:2],
        overload="wide",
        name=name,
        doc_string=doc,
        metadata_props={"source": "café"},
    )
    node.outputs[0].name = output
    assert file_size.node_bytes(node) == written(ir.serde.serialize_node(node))


def test_the_nodes_of_a_model():
    for node in traversal.nodes(load(DIGITS)):
        assert file_size.node_bytes(node) == written(ir.serde.serialize_node(node))


@given(st.lists(WHOLE, max_size=40), NAMES)
def test_integers_in_the_shorter_form(numbers, name):
    tensor = compact(np.array(numbers, np.int64), name)
    assert file_size.tensor_bytes(tensor, name) == written(ir.serde.serialize_tensor(tensor))


@pytest.mark.parametrize(
    "tensor",
    [
        ir.Tensor(np.zeros((3, 0, 200), np.float32), name="w"),
        ir.Tensor(np.zeros((), np.float64), name="w", doc_string="why"),
        ir.StringTensor([b"", b"ab"], shape=ir.Shape([2]), name="w"),
        ir.serde.TensorProtoTensor(onnx.numpy_helper.from_array(np.arange(70, dtype=np.int32), "w")),
    ],
    ids=["empty", "scalar", "strings", "of a proto"],
)
def test_tensors(tensor):
    assert file_size.tensor_bytes(tensor, "w") == written(ir.serde.serialize_tensor(tensor))


def test_a_tensor_under_another_name():
    tensor = ir.serde.TensorProtoTensor(onnx.numpy_helper.from_array(np.arange(70, dtype=np.int32), "w"))
    longer = "w" * 200
    renamed = onnx.numpy_helper.from_array(np.arange(70, dtype=np.int32), longer)
    assert file_size.tensor_bytes(tensor, longer) == written(renamed)


@pytest.mark.parametrize("name", ["w", "a name that is longer than what it was before " * 4])
def test_a_sparse_tensor(name):
    proto = onnx.SparseTensorProto(dims=[100, 100])
    proto.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(7, np.float32), "w"))
    proto.indices.CopyFrom(onnx.numpy_helper.from_array(np.arange(7)))
    tensor = SparseTensor(proto)
    expected = onnx.SparseTensorProto()
    expected.CopyFrom(proto)
    expected.values.name = name
    assert file_size.tensor_bytes(tensor, name) == written(expected)


def test_a_constant_node():
    tensor = compact(np.array([1, 2], np.int64), "c")
    node = ir.node("Constant", [], {"value": tensor}, name="")
    node.outputs[0].name = "c"
    assert file_size.constant_node_bytes(tensor, "c") == file_size.node_bytes(node)
