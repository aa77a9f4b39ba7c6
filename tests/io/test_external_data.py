"""External data: mapped, streamed, shared, and written beside the model."""

from __future__ import annotations

import gc
import hashlib
import resource
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.errors import ModelError
from optimizer.io import external_data, file_layout
from optimizer.io.external_data import MappedTensor
from optimizer.io.model import byte_size, clone, load, save, skeleton, to_proto
from optimizer.io.protos.proto_diff import difference


def proto_with(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
    )
    proto.graph.initializer.extend(tensors)
    return proto


def weight(name: str, count: int = 1000, seed: int = 0) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(count).astype(np.float32), name)


def stored(folder, *tensors, location="weights.bin", align=1, threshold=0) -> str:
    """A model whose tensors are in a file."""
    path = folder / "model.onnx"
    onnx.save(proto_with(*tensors), path, save_as_external_data=True, location=location, size_threshold=threshold)
    return path


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def arrays(path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_weights_stay_in_the_file_and_are_read_from_it(tmp_path):
    path = stored(tmp_path, weight("a"), weight("b", seed=1))
    model = load(path)
    tensor = model.graph.initializers["b"].const_value
    assert isinstance(tensor, MappedTensor)
    assert isinstance(tensor, ir.ExternalTensor)
    expected = numpy_helper.to_array(weight("b", seed=1))
    np.testing.assert_array_equal(tensor.numpy(), expected)
    np.testing.assert_array_equal(np.asarray(tensor), expected)
    assert tensor.tobytes() == expected.tobytes()
    assert not tensor.numpy().flags.writeable
    tensor.release()
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize(
    "kind", [kind for kind in ir.DataType if kind not in {ir.DataType.UNDEFINED, ir.DataType.STRING}]
)
def test_every_type_reads_as_inline(kind, tmp_path):
    raw = np.random.default_rng(int(kind)).integers(0, 2 if kind == ir.DataType.BOOL else 256, 24 * 16, dtype=np.uint8)
    raw = raw.tobytes()[: 24 * kind.bitwidth // 8]
    inline = TensorProto(name="t", data_type=int(kind), dims=[4, 6], raw_data=raw)
    tmp_path.joinpath("w.bin").write_bytes(b"...." + raw)
    outside = TensorProto(name="t", data_type=int(kind), dims=[4, 6], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.bin", "offset": "4"}.items():
        outside.external_data.add(key=key, value=value)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto_with(outside).SerializeToString())
    tensor = load(path).graph.initializers["t"].const_value
    expected = ir.from_proto(inline)
    assert tensor.tobytes() == raw == expected.tobytes()
    assert tensor.dtype == expected.dtype
    assert tensor.numpy().dtype.newbyteorder("=") == expected.numpy().dtype
    assert tensor.numpy().tobytes() == expected.numpy().tobytes()


def test_empty_tensor_and_scalar(tmp_path):
    path = stored(
        tmp_path,
        numpy_helper.from_array(np.zeros((0, 3), np.float32), "e"),
        numpy_helper.from_array(np.float32(2), "s"),
    )
    model = load(path)
    assert model.graph.initializers["e"].const_value.numpy().shape == (0, 3)
    assert model.graph.initializers["s"].const_value.numpy() == 2
    model.graph.initializers["e"].const_value.release()
    save(model, tmp_path / "out.onnx")
    assert arrays(tmp_path / "out.onnx")["e"].shape == (0, 3)


def test_saved_beside_under_a_name_from_the_content(tmp_path):
    source = tmp_path / "in"
    target = tmp_path / "out"
    source.mkdir()
    target.mkdir()
    model = load(stored(source, weight("a"), weight("b", seed=1)))
    written = save(model, target / "x.onnx")
    data = written[1].read_bytes()
    assert files(target) == ["x.onnx", f"x.onnx.{hashlib.sha256(data).hexdigest()[:12]}.data"]
    assert len(data) == 8000
    assert sum(path.stat().st_size for path in written) == byte_size(model, target / "x.onnx")
    assert difference(to_proto(model), to_proto(load(target / "x.onnx"))) is None
    onnx.checker.check_model(target / "x.onnx")
    again = save(load(target / "x.onnx"), target / "x.onnx")
    assert again == written
    assert files(target) == [path.name for path in written]


def test_equal_models_give_equal_files(tmp_path):
    for name in "ab":
        tmp_path.joinpath(name).mkdir()
        save(load(stored(tmp_path / name, weight("w"))), tmp_path / name / "out.onnx")
        tmp_path.joinpath(name, "weights.bin").unlink()
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert tmp_path.joinpath("a", name).read_bytes() == tmp_path.joinpath("b", name).read_bytes()


def test_source_may_be_overwritten_and_stays_usable(tmp_path):
    first = weight("a")
    path = stored(tmp_path, first, weight("b", seed=1), location="model.onnx.data")
    model = load(path)
    changed = clone(model)
    changed.graph.initializers["b"].const_value = ir.tensor(np.ones(1000, np.float32), name="b")
    save(changed, path)
    np.testing.assert_array_equal(arrays(path)["a"], numpy_helper.to_array(first))
    assert arrays(path)["b"].sum() == 1000
    tmp_path.joinpath("model.onnx.data").unlink()
    save(model, path)  # its files are gone, its weights are not
    np.testing.assert_array_equal(arrays(path)["b"], numpy_helper.to_array(weight("b", seed=1)))
    assert len(files(tmp_path)) == 2


def test_old_data_of_ours_goes_unless_another_model_needs_it(tmp_path):
    model = load(stored(tmp_path, weight("a")))
    tmp_path.joinpath("weights.bin").unlink()
    written = save(model, tmp_path / "model.onnx")
    tmp_path.joinpath("copy.onnx").write_bytes(written[0].read_bytes())
    model.graph.initializers["a"].const_value = ir.tensor(np.ones(1000, np.float32), name="a")
    second = save(model, tmp_path / "model.onnx")
    assert set(files(tmp_path)) == {"copy.onnx", *(path.name for path in (*written, *second))}
    tmp_path.joinpath("copy.onnx").unlink()
    model.graph.initializers["a"].const_value = ir.tensor(np.full(1000, 2, np.float32), name="a")
    third = save(model, tmp_path / "model.onnx")
    assert files(tmp_path) == sorted(path.name for path in third)


def test_foreign_data_files_stay(tmp_path):
    model = load(stored(tmp_path, weight("a")))
    save(model, tmp_path / "model.onnx")
    assert "weights.bin" in files(tmp_path)


def test_small_tensors_move_inline_and_nothing_grows(tmp_path):
    path = stored(tmp_path, weight("small", 200), weight("large", 2000))
    before = path.stat().st_size + tmp_path.joinpath("weights.bin").stat().st_size
    out = tmp_path / "out.onnx"
    written = save(load(path), out)
    assert [bool(tensor.external_data) for tensor in onnx.load(out, load_external_data=False).graph.initializer] == [
        False,
        True,
    ]
    assert sum(one.stat().st_size for one in written) <= before


def test_inline_stays_inline(tmp_path):
    out = tmp_path / "out.onnx"
    assert save(load(proto_with(weight("a", 100_000))), out) == [out]


def test_mixed_storage_stays_mixed_and_new_tensors_go_where_most_are(tmp_path):
    path = stored(tmp_path, weight("far", 9000))
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer.append(weight("near", 500))
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    new = ir.Value(name="new", const_value=ir.tensor(np.zeros(700, np.float32), name="new"))
    model.graph.register_initializer(new)
    model.graph.initializers["far"].const_value = ir.tensor(np.zeros(9000, np.float16), name="far")
    save(model, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    assert {tensor.name: bool(tensor.external_data) for tensor in written} == {"far": True, "near": False, "new": True}


def test_tensors_at_one_place_stay_at_one_place(tmp_path):
    path = stored(tmp_path, weight("a"))
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
    proto.graph.initializer[1].name = "b"
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    shared = ir.tensor(np.ones(500, np.float32))
    for name in "cd":
        model.graph.register_initializer(ir.Value(name=name, const_value=shared))
    written = save(model, tmp_path / "out.onnx")
    assert written[1].stat().st_size == 4000 + 2000
    np.testing.assert_array_equal(arrays(written[0])["b"], numpy_helper.to_array(weight("a")))
    assert arrays(written[0])["d"].sum() == 500


def test_elements_are_aligned(tmp_path):
    odd = numpy_helper.from_array(np.zeros(1027, np.uint8), "odd")
    written = save(load(stored(tmp_path, odd, weight("a"))), tmp_path / "out.onnx")
    assert written[1].stat().st_size == 1028 + 4000
    np.testing.assert_array_equal(arrays(written[0])["a"], numpy_helper.to_array(weight("a")))


def test_weights_in_branches_functions_and_constants(tmp_path):
    path = stored(tmp_path, weight("a"))
    proto = onnx.load(path, load_external_data=False)
    far = proto.graph.initializer[0]
    inner = TensorProto()
    inner.CopyFrom(far)
    inner.name = "inner"
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("inner", 1, [1000])], [inner])
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))
    proto.graph.node.append(helper.make_node("Constant", [], ["k"], value=far))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    body = [helper.make_node("Constant", [], ["b"], value=far)]
    proto.functions.append(helper.make_function("local", "f", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    written = save(model, tmp_path / "out.onnx")
    assert written[1].stat().st_size == 4000  # all five are one
    again = load(written[0])
    assert difference(to_proto(model), to_proto(again)) is None
    onnx.checker.check_model(to_proto(again))


def test_many_data_files(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    tensors = []
    for index in range(80):
        tmp_path.joinpath(f"w{index}").write_bytes(bytes([index]) * 8)
        tensor = TensorProto(name=f"t{index}", data_type=TensorProto.UINT8, dims=[8], data_location=1)
        tensor.external_data.add(key="location", value=f"w{index}")
        tensors.append(tensor)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto_with(*tensors).SerializeToString())
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, hard))
    try:
        model = load(path)
        assert [int(value.const_value.numpy()[0]) for value in model.graph.initializers.values()] == list(range(80))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    del model
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= used + 1


def test_model_of_onnx_ir_is_mapped_and_left_alone(tmp_path):
    path = stored(tmp_path, weight("a"))
    given = ir.load(path)
    model = load(given)
    assert isinstance(model.graph.initializers["a"].const_value, MappedTensor)
    assert not isinstance(given.graph.initializers["a"].const_value, MappedTensor)
    given.graph.initializers["a"].const_value.base_dir = tmp_path / "elsewhere"
    with pytest.raises(ModelError, match=r"data file 'weights\.bin' of tensor 'a' cannot be opened"):
        load(given)


def test_skeleton_leaves_out_large_weights(tmp_path):
    model = load(stored(tmp_path, weight("small", 10), weight("large")))
    proto, left_out = skeleton(model)
    assert list(left_out) == ["large"]
    assert left_out["large"] is model.graph.initializers["large"].const_value
    assert [tensor.HasField("raw_data") for tensor in proto.graph.initializer] == [True, False]
    onnx.checker.check_model(proto)
    assert list(skeleton(model, limit=5000)[1]) == []


def test_weights_leave_a_model_that_would_be_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(file_layout, "PROTO_LIMIT", 6000)
    model = load(proto_with(weight("a"), weight("b", seed=1), weight("small", 20)))
    with pytest.raises(ModelError, match="a ModelProto ends at 2 GB; save it to a path"):
        to_proto(model)
    written = save(model, tmp_path / "out.onnx")
    assert written[1].stat().st_size == 8000
    assert sum(path.stat().st_size for path in written) == byte_size(model, written[0])
    assert set(arrays(written[0])) == {"a", "b", "small"}


def test_checksum_and_unknown_keys_do_not_matter(tmp_path):
    path = stored(tmp_path, weight("a"))
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="checksum", value="0" * 40)
    proto.graph.initializer[0].external_data.add(key="prepacked_0", value="x|0|16")
    path.write_bytes(proto.SerializeToString())
    load(path)


def test_a_tensor_that_lies_about_its_size_is_not_written(tmp_path):
    model = load(stored(tmp_path, weight("a")))
    wrong = ir.LazyTensor(lambda: ir.tensor(np.ones(3, np.float32)), ir.DataType.FLOAT, ir.Shape([900]), name="a")
    model.graph.initializers["a"].const_value = wrong
    before = files(tmp_path)
    with pytest.raises(ModelError, match="does not have the 3600 bytes of its shape"):
        save(model, tmp_path / "out.onnx")
    assert files(tmp_path) == before


def test_streaming_reads_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(external_data, "CHUNK", 1 << 12)

    class Sink:
        sizes: list[int] = []  # noqa: RUF012 - one test, one list

        def write(self, data):
            self.sizes.append(len(data))

    tensor = load(stored(tmp_path, weight("a", 3000))).graph.initializers["a"].const_value
    tensor.tofile(Sink())
    assert Sink.sizes == [4096, 4096, 3808]
