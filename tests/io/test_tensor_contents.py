"""Reading tensors as bytes and grouping them by content."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from optimizer.errors import ModelError
from optimizer.io.external_data import MappedTensor
from optimizer.io.model import load
from optimizer.io.tensor_contents import chunks, equal_groups, same_content

if TYPE_CHECKING:
    from pathlib import Path


def _typed(**fields) -> ir.TensorProtocol:
    return ir.from_proto(onnx.TensorProto(name="t", **fields))


def _external(folder: Path, data: bytes, dtype: ir.DataType, dims: list[int], **place) -> ir.ExternalTensor:
    folder.joinpath("w.bin").write_bytes(data)
    return ir.ExternalTensor(
        place.get("location", "w.bin"),
        place.get("offset", 0),
        place.get("length"),
        dtype,
        shape=ir.Shape(dims),
        name="w",
        base_dir=folder,
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            _typed(data_type=1, dims=[2], float_data=[1, 2]),
            _typed(data_type=1, dims=[2], raw_data=struct.pack("<2f", 1, 2)),
            id="typed and raw",
        ),
        pytest.param(
            _typed(data_type=10, dims=[2], int32_data=[0x3C00, 0x7E01]),
            _typed(data_type=10, dims=[2], raw_data=struct.pack("<2H", 0x3C00, 0x7E01)),
            id="fp16 in int32_data, with a NaN payload",
        ),
        pytest.param(
            _typed(data_type=onnx.TensorProto.INT4, dims=[3], int32_data=[0x21, 0x03]),
            _typed(data_type=onnx.TensorProto.INT4, dims=[3], raw_data=b"\x21\x03"),
            id="int4",
        ),
        pytest.param(
            ir.tensor(np.array([1, -2, 3], ml_dtypes.int4)),
            _typed(data_type=onnx.TensorProto.INT4, dims=[3], raw_data=b"\xe1\x03"),
            id="int4 from an array",
        ),
        pytest.param(ir.tensor(["a", "bc"]), _typed(data_type=8, dims=[2], string_data=[b"a", b"bc"]), id="strings"),
        pytest.param(ir.tensor([[1, 2], [3, 4]]), ir.tensor([1, 2, 3, 4]), id="another shape"),
        pytest.param(
            ir.tensor(np.arange(6, dtype=np.float32).reshape(2, 3).T),
            ir.tensor(np.ascontiguousarray(np.arange(6, dtype=np.float32).reshape(2, 3).T)),
            id="another memory layout",
        ),
        pytest.param(ir.tensor(np.zeros(0, np.float32)), _typed(data_type=1, dims=[0]), id="empty"),
    ],
)
def test_equal(one, other):
    assert same_content(one, other)
    assert equal_groups([one, ir.tensor([9.0]), other]) == [[0, 2]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(ir.tensor([0.0]), ir.tensor([-0.0]), id="sign of zero"),
        pytest.param(
            _typed(data_type=1, dims=[1], raw_data=struct.pack("<I", 0x7FC00000)),
            _typed(data_type=1, dims=[1], raw_data=struct.pack("<I", 0x7FC00001)),
            id="NaN payload",
        ),
        pytest.param(ir.tensor([1], dtype=ir.DataType.INT32), ir.tensor([1], dtype=ir.DataType.UINT32), id="dtype"),
        pytest.param(ir.tensor(["ab", "c"]), ir.tensor(["a", "bc"]), id="strings that join to the same"),
        pytest.param(ir.tensor(["a", ""]), ir.tensor(["a"]), id="an empty string more"),
    ],
)
def test_different(one, other):
    assert not same_content(one, other)
    assert equal_groups([one, other]) == []


def test_a_difference_between_equal_edges_is_seen():
    first = np.zeros(10_000, np.uint8)
    second, third = first.copy(), first.copy()
    second[5_000], third[5_001] = 1, 1
    tensors = [ir.tensor(array) for array in (first, second, third, first.copy(), second.copy())]
    assert equal_groups(tensors) == [[0, 3], [1, 4]]


def test_external_equals_memory_and_is_read_in_chunks(tmp_path):
    array = np.arange(5_000, dtype=np.float32)
    tensor = _external(tmp_path, b"\0" * 8 + array.tobytes(), ir.DataType.FLOAT, [5_000], offset=8)
    assert [len(chunk) for chunk in chunks(tensor, 16_384)] == [16_384, 20_000 - 16_384]
    assert equal_groups([tensor, ir.tensor(array)]) == [[0, 1]]
    assert tensor.raw is None, "the file was mapped"


def test_mapped_tensors(tmp_path):
    weight = np.arange(5_000, dtype=np.float32)
    nodes = [onnx.helper.make_node("Mul", ["a", "b"], ["y"])]
    output = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [5_000])]
    tensors = [onnx.numpy_helper.from_array(weight, name) for name in "ab"]
    proto = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], output, tensors), ir_version=10)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    mapped = [value.const_value for value in load(tmp_path / "m.onnx").graph.initializers.values()]
    assert all(isinstance(tensor, MappedTensor) for tensor in mapped)
    assert [len(chunk) for chunk in chunks(mapped[0], 16_384)] == [16_384, 20_000 - 16_384]
    assert equal_groups([ir.tensor(weight), *mapped]) == [[0, 1, 2]]


def test_two_tensors_in_one_place_are_not_read(tmp_path):
    one = _external(tmp_path, b"", ir.DataType.FLOAT, [5_000])
    other = _external(tmp_path, b"", ir.DataType.FLOAT, [5_000])
    assert equal_groups([one, other]) == [[0, 1]]


@pytest.mark.parametrize(
    ("place", "message"),
    [({"location": "no.bin"}, "cannot be read"), ({"location": "../w.bin"}, "cannot be read"), ({}, "ends 16 bytes")],
)
def test_external_data_that_cannot_be_read_is_one_line(tmp_path, place, message):
    folder = tmp_path / "model"
    folder.mkdir()
    tmp_path.joinpath("w.bin").write_bytes(b"\0" * 16)
    tensor = _external(folder, b"", ir.DataType.FLOAT, [4], **place)
    with pytest.raises(ModelError, match=message) as caught:
        list(chunks(tensor))
    assert "\n" not in str(caught.value)
