"""Models in and out: every kind of source, clones, sizes, and the work being linear."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from optimizer.errors import ModelError
from optimizer.io import model as models
from optimizer.io.model import byte_size, check_structure, clone, give_back, ingest, load, save, to_proto
from optimizer.io.protos.proto_diff import difference

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from backend_cases import cases_in_files
from backend_roundtrip import outcome

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[2, 4] x) => (float[2, 4] y)
<float[4] w = {1, 2, 3, 4}>
{ h = Add(x, w)  y = Relu(h) }
"""


def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


@dataclass
class Program:
    model: Any = None
    model_proto: Any = None


def sources(folder: Path):
    path = folder / "m.onnx"
    path.write_bytes(proto().SerializeToString())
    content = path.read_bytes()
    return [
        (path, "path", ir.Model),
        (str(path), "path", ir.Model),
        (content, "bytes", bytes),
        (bytearray(content), "bytes", bytes),
        (memoryview(content), "bytes", bytes),
        (proto(), "proto", onnx.ModelProto),
        (ir.from_proto(proto()), "ir", ir.Model),
        (Program(model=ir.from_proto(proto())), "holder", ir.Model),
        (Program(model_proto=proto()), "holder", ir.Model),
        (Program(model=object(), model_proto=proto()), "holder", ir.Model),
    ]


def test_every_kind_goes_in_and_comes_back(tmp_path):
    for given_source, kind, returned in sources(tmp_path):
        source = ingest(given_source)
        assert source.form == kind
        assert (source.path is not None) == (kind == "path")
        assert difference(proto(), to_proto(source.model)) is None
        back = give_back(source.model, source)
        assert isinstance(back, returned)
        assert difference(proto(), to_proto(load(back))) is None


def test_graphsurgeon_goes_in_and_comes_back():
    from optimizer.io import surgeon  # noqa: PLC0415 - loads GraphSurgeon, which no other test here needs

    source = ingest(surgeon.to_graph(load(proto())))
    assert source.form == "surgeon"
    assert difference(proto(), to_proto(source.model)) is None
    assert type(give_back(source.model, source)).__module__.startswith("onnx_graphsurgeon")


def test_the_callers_model_is_not_the_one_that_is_worked_on():
    given_model = ir.from_proto(proto())
    model = load(given_model)
    model.graph.remove(model.graph.node(1))
    assert len(given_model.graph) == 2


def test_labels_name_what_was_given(tmp_path):
    assert ingest(sources(tmp_path)[0][0]).label == str(tmp_path / "m.onnx")
    assert ingest(proto()).label == "the given ModelProto"
    assert ingest(Program(model_proto=proto())).label == "the model of the given Program"


def test_source_is_frozen():
    source = ingest(proto())
    assert [one.name for one in fields(source)] == ["model", "form", "path", "label"]
    with pytest.raises(AttributeError):
        source.form = "path"


def test_public_names_exist():
    assert all(hasattr(models, name) for name in models.__all__)


def test_clone_keeps_meta_and_shares_tensors():
    model = load(proto())
    model.meta["mine"], model.graph.meta["also mine"] = 1, 2
    copy = clone(model)
    assert (copy.meta["mine"], copy.graph.meta["also mine"]) == (1, 2)
    assert copy.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


def unsorted() -> onnx.ModelProto:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["p"], ["q"]), helper.make_node("Abs", ["h"], ["p"])],
        "b",
        [],
        [helper.make_tensor_value_info("q", 1, None)],
    )
    made = proto()
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    first, second = made.graph.node
    nodes = [helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch), second, first]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def test_unsorted_model_is_kept_as_it_is_and_its_clones_are_sorted():
    given_proto = unsorted()
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(given_proto)
    model = load(given_proto)
    copy = clone(model)
    assert [node.op_type for node in copy.graph] == ["Add", "If", "Relu"]
    assert difference(given_proto, to_proto(model)) is None
    onnx.checker.check_model(to_proto(copy))
    check_structure(model)


def test_clone_of_a_circle_is_refused():
    model = load(proto())
    model.graph.node(0).replace_input_with(1, model.graph.node(1).outputs[0])
    with pytest.raises(ModelError, match="in a circle"):
        clone(model)
    assert [node.op_type for node in model.graph] == ["Add", "Relu"]


def test_size_of_a_new_model_is_that_of_its_file(tmp_path):
    model = ir.from_proto(proto())
    model.graph.register_initializer(ir.Value(name="n", const_value=ir.tensor(np.ones(5000, np.float32), name="n")))
    save(model, tmp_path / "m.onnx")
    assert byte_size(model) == tmp_path.joinpath("m.onnx").stat().st_size
    assert tmp_path.joinpath("m.onnx").read_bytes() == to_proto(model).SerializeToString()


names = st.sampled_from("abcdefgh")


@st.composite
def protos(draw) -> onnx.ModelProto:
    """A chain of nodes with texts, metadata and tensors of many sizes here and there."""
    made = onnx.ModelProto(ir_version=draw(st.integers(4, 10)), opset_import=[helper.make_opsetid("", 20)])
    graph = made.graph
    graph.name = draw(st.sampled_from(["", "g"]))
    graph.input.append(
        helper.make_tensor_value_info("v0", TensorProto.FLOAT, draw(st.sampled_from([None, ["N"], [3]])))
    )
    count = draw(st.integers(1, 6))
    for index in range(count):
        size = draw(st.sampled_from([0, 1, 100, 127, 128, 300, 5000]))
        kind = draw(st.sampled_from([np.float32, np.int8, np.float16, np.int64]))
        tensor = numpy_helper.from_array(np.arange(size).astype(kind), f"w{index}")
        for key in draw(st.sets(names, max_size=2)):
            tensor.metadata_props.add(key=key, value=key * 3)
        tensor.doc_string = draw(st.sampled_from(["", "doc" * 60]))
        graph.initializer.append(tensor)
        graph.node.append(helper.make_node("Add", [f"v{index}", f"w{index}"], [f"v{index + 1}"]))
        graph.node[-1].doc_string = draw(st.sampled_from(["", "said"]))
        for key in draw(st.sets(names, max_size=3)):
            graph.node[-1].metadata_props.add(key=key, value=key)
        if draw(st.booleans()):
            graph.value_info.append(helper.make_tensor_value_info(f"v{index + 1}", TensorProto.FLOAT, ["N"]))
    graph.output.append(
        helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, draw(st.sampled_from([None, [3]])))
    )
    return made


@settings(max_examples=60, deadline=None)
@given(protos())
def test_round_trip_keeps_every_field_and_the_size_is_exact(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    model = load(made)
    save(model, path)
    written = onnx.load(path)
    assert difference(made, written) is None
    assert difference(written, made) is None
    assert path.stat().st_size == byte_size(model) <= made.ByteSize()
    assert difference(made, to_proto(clone(model))) is None


def test_onnx_backend_models(tmp_path):
    """Every third of the models in files; benchmarks/backend_roundtrip.py runs over all that onnx has."""
    chosen = [case for index, case in enumerate(cases_in_files()) if index % 3 == 0]
    found = {case.name: outcome(case.model, tmp_path) for case in chosen}
    assert len(found) > 40
    assert {name: kind for name, kind in found.items() if kind != ("unchanged", "")} == {}


def chain(count: int) -> onnx.ModelProto:
    made = proto()
    made.graph.node[1].input[0] = f"v{count}"
    made.graph.node[0].output[0] = "v0"
    middle = [helper.make_node("Neg", [f"v{index}"], [f"v{index + 1}"], name=f"n{index}") for index in range(count)]
    last = made.graph.node.pop()
    made.graph.node.extend([*middle, last])
    return made


def fan(count: int) -> onnx.ModelProto:
    made = proto()
    weights = [numpy_helper.from_array(np.float32([index] * 4), f"w{index}") for index in range(count)]
    made.graph.initializer.extend(weights)
    made.graph.node.extend(helper.make_node("Add", ["x", f"w{index}"], [f"f{index}"]) for index in range(count))
    return made


def lines_run(act) -> int:
    """How many lines of Python ``act`` runs: the same on any machine, however busy."""
    count = 0

    def trace(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("shape", [chain, fan])
def test_work_grows_with_the_size(shape, tmp_path):
    def work(count: int) -> int:
        made = shape(count)
        return lines_run(lambda: save(clone(load(made)), tmp_path / "m.onnx"))

    work(10)
    assert work(800) < 8 * 1.5 * work(100)  # quadratic work would be 64 times


@pytest.mark.corpus
def test_real_models(tmp_path):
    folder = Path(os.environ.get("ONNXHONE_CORPUS") or Path(__file__).parents[2] / "models/corpus")
    paths = sorted(folder.rglob("*.onnx"))
    assert paths, "fetch them first: python models/fetch.py --small"
    for path in paths:
        out = tmp_path / "out.onnx"
        model = load(path)
        written = save(model, out)
        assert sum(one.stat().st_size for one in written) == byte_size(model, out)
        assert difference(onnx.load(path), onnx.load(out)) is None, path
