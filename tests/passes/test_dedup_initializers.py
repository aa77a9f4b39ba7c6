"""dedup-initializers: what becomes one, what stays, and that answers and files hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimized_ops import optimized_ops
from optimizer.contract.passes import Context, Sites
from optimizer.errors import UsageError
from optimizer.evaluation.runtime.session import session
from optimizer.graph import traversal
from optimizer.io.model import byte_size, clone, load, save, to_proto
from passes.dedup_initializers import DedupInitializers

MERGED = "initializers merged"
RESHAPED = "initializers made by a Reshape"
TRANSPOSED = "initializers made by a Transpose"


def model(text: str, **weights: np.ndarray) -> ir.Model:
    """A model from ONNX text; ``weights`` fill initializers of those names, declared as ``float[1] name = {0}``."""
    proto = onnx.parser.parse_model(text)
    for initializer in proto.graph.initializer:
        if initializer.name in weights:
            initializer.CopyFrom(onnx.numpy_helper.from_array(weights[initializer.name], initializer.name))
    return load(proto)


def dedup(given: ir.Model, sites: Sites | None = None, **options):
    """The result of the pass on a clone, after checking that nothing grew and a second run changes nothing."""
    before = to_proto(given)
    result = DedupInitializers(**options).run(clone(given), Context(given, sites or Sites()))
    after = to_proto(result.model)
    assert to_proto(given) == before, "the reference was changed"
    assert after.ByteSize() < before.ByteSize() if result.changes else after == before
    if sites is None:
        again = DedupInitializers(**options).run(result.model, Context(given))
        assert not again.changes
        assert to_proto(again.model) == after
    return result


def initializers(given: ir.Model) -> list[str]:
    return [name for graph in traversal.graphs(given) for name in graph.initializers]


def same_answers(one: ir.Model, other: ir.Model, **feeds: np.ndarray) -> None:
    for optimize in (True, False):
        expected = session(one, optimize=optimize).run(feeds)
        found = session(other, optimize=optimize).run(feeds)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


X = np.arange(2, dtype=np.float32)

MERGES = {
    "initializers": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
        <float[2] long_name = {1, 2}, float[2] b = {1, 2}>
        { s = Add(x, long_name)  y = Mul(s, b) }""",
    "Constant nodes become an initializer": """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2] x) => (float[2] y)
        { a = Constant<value = float[2] {1, 2}>()  s = Add(x, a)
          b = Constant<value_floats = [1.0, 2.0]>()  y = Mul(s, b) }""",
    "initializer and Constant node": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
        <float[2] b = {1, 2}>
        { a = Constant<value = float[2] {1, 2}>()  s = Add(x, a)  y = Mul(s, b) }""",
    "within one branch": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x, bool c) => (float[2] y)
        { y = If(c)
            <then_branch = t () => (float[2] p) <float[2] a = {1, 2}, float[2] b = {1, 2}>
                { s = Add(x, a)  p = Mul(s, b) },
             else_branch = e () => (float[2] q) { q = Identity(x) }> }""",
    "an output stands for its equal": """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2] x) => (float[2] y, float[2] a)
        <float[2] a = {1, 2}, float[2] b = {1, 2}> { y = Add(x, b) }""",
}


@pytest.mark.parametrize("text", MERGES.values(), ids=MERGES)
def test_merges(text):
    given = model(text)
    result = dedup(given)
    assert result.changes == {MERGED: 1}
    assert len(initializers(result.model)) == 1
    assert not [node for node in traversal.nodes(result.model) if node.op_type == "Constant"]
    feeds = {"x": X, "c": np.array(True)}
    same_answers(given, result.model, **{value.name: feeds[value.name] for value in given.graph.inputs})


def test_the_shortest_name_is_kept():
    assert initializers(dedup(model(MERGES["initializers"])).model) == ["b"]


BIG = np.arange(64, dtype=np.float32)  # large enough to leave a branch

ACROSS = """<ir_version: 10, opset_import: ["" : 21]> g (float[64] x, bool c) => (float[64] y)
    <float[1] w = {0}>
    { m = Mul(x, w)
      y = If(c) <
        then_branch = t () => (float[64] p) { a = Constant<value = float[1] {0}>()  p = Add(m, a) },
        else_branch = e () => (float[64] q)
            { q = If(c) <
                then_branch = tt () => (float[64] r) { b = Constant<value = float[1] {0}>()  r = Sub(m, b) },
                else_branch = ee () => (float[64] s) { d = Constant<value = float[1] {0}>()  s = Add(m, d) }> }> }"""


def across(weights: dict[str, np.ndarray], **main: np.ndarray) -> ir.Model:
    """``ACROSS`` with the Constant nodes a, b and d filled by ``weights``."""
    given = model(ACROSS, **main)
    for node in traversal.nodes(given):
        if node.op_type == "Constant" and node.outputs[0].name in weights:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(weights[node.outputs[0].name]))
    return given


@pytest.mark.parametrize("condition", [True, False])
def test_branches_read_the_main_graph(condition):
    given = across({"a": BIG, "b": BIG, "d": BIG}, w=BIG)
    result = dedup(given)
    assert result.changes == {MERGED: 3}
    assert initializers(result.model) == ["w"]
    same_answers(given, result.model, x=BIG, c=np.array(condition))


def test_what_only_one_branch_reads_stays_in_it():
    given = across({"b": BIG, "d": BIG}, w=2 * BIG)
    result = dedup(given)
    assert result.changes == {MERGED: 1}
    holder = next(graph for graph in traversal.graphs(result.model) if "b" in graph.initializers)
    assert holder.name == "e", "the innermost graph that both readers see"
    same_answers(given, result.model, x=BIG, c=np.array(False))


def test_small_tensors_do_not_leave_their_branch():
    small = np.arange(1, dtype=np.float32)
    assert not dedup(across({"a": small, "b": small, "d": small}, w=small)).changes


def test_names_repeated_in_sibling_branches_do_not_mix():
    given = model("""<ir_version: 10, opset_import: ["" : 21]> g (float[64] x, bool c) => (float[64] y)
        { y = If(c) <
            then_branch = t () => (float[64] p)
                { k = Constant<value = float[1] {0}>()  z = Constant<value = float[1] {9}>()
                  u = Add(x, k)  p = Mul(u, z) },
            else_branch = e () => (float[64] q)
                { k = Constant<value = float[1] {9}>()  z = Constant<value = float[1] {0}>()
                  v = Add(x, k)  q = Mul(v, z) }> }""")
    fill = {0.0: BIG, 9.0: 3 * BIG}
    for node in traversal.nodes(given):
        if node.op_type == "Constant":
            key = float(node.attributes["value"].as_tensor().numpy()[0])
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(fill[key]))
    result = dedup(given)
    assert result.changes == {MERGED: 2}
    assert len(set(initializers(result.model))) == 2
    for condition in (True, False):
        same_answers(given, result.model, x=BIG, c=np.array(condition))


def test_a_name_hidden_in_a_branch_is_not_kept():
    given = across({"a": BIG, "b": BIG, "d": 5 * BIG}, w=BIG)
    inner = next(node for node in traversal.nodes(given) if node.outputs[0].name == "s")
    inner.outputs[0].name = "w"  # ee's output now hides the main graph's w
    result = dedup(given)
    (name,) = [name for name in initializers(result.model) if name != "d"]
    assert name != "w"
    assert result.changes == {MERGED: 2}


FUNCTION = """<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[2] x) => (float[2] y)
    <float[2] w = {1, 2}>
    { s = Mul(x, w)  y = f.twice(s) }
    <domain: "f", opset_import: ["" : 21]> twice (a) => (b)
    { k = Constant<value = float[2] {1, 2}>()  l = Constant<value = float[2] {1, 2}>()
      t = Add(a, k)  b = Add(t, l) }"""


def test_a_function_keeps_one_constant_of_its_own():
    given = model(FUNCTION)
    result = dedup(given)
    assert result.changes == {MERGED: 1}
    (body,) = (function.graph for function in result.model.functions.values())
    assert [node.op_type for node in body] == ["Constant", "Add", "Add"]
    assert initializers(result.model) == ["w"]
    same_answers(given, result.model, x=X)


def test_ir_version_3_gets_a_constant_node():
    given = model("""<ir_version: 3, opset_import: ["" : 13]> g (float[2] x) => (float[2] y)
        { a = Constant<value = float[2] {1, 2}>()  s = Add(x, a)
          b = Constant<value = float[2] {1, 2}>()  y = Mul(s, b) }""")
    result = dedup(given)
    assert [node.op_type for node in result.model.graph] == ["Constant", "Add", "Mul"]
    onnx.checker.check_model(ir.to_proto(result.model))
    same_answers(given, result.model, x=X)


NO_OPS = {
    "different": MERGES["initializers"].replace("b = {1, 2}", "b = {1, 3}"),
    "different dtype": """<ir_version: 10, opset_import: ["" : 21]> g (int64[1] x) => (int64[1] y, uint64[1] z)
        <int64[1] a = {1}, uint64[1] b = {1}> { y = Add(x, a)  u = Cast<to = 13>(x)  z = Add(u, b) }""",
    "small and another shape": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[1,2] y)
        <float[2] a = {1, 2}, float[1,2] b = {1, 2}> { s = Add(x, a)  y = Add(s, b) }""",
    "overridable inputs": """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2] x, float[2] a, float[2] b) => (float[2] y)
        <float[2] a = {1, 2}, float[2] b = {1, 2}> { s = Add(x, a)  y = Mul(s, b) }""",
    "one is an input": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x, float[2] a) => (float[2] y)
        <float[2] a = {1, 2}, float[2] b = {1, 2}> { s = Add(x, a)  y = Mul(s, b) }""",
    "outputs": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y, float[2] a, float[2] b)
        <float[2] a = {1, 2}, float[2] b = {1, 2}> { y = Add(x, a) }""",
    "the output of a branch": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x, bool c) => (float[2] y)
        <float[2] w = {1, 2}>
        { v = If(c) <then_branch = t () => (float[2] p) { p = Constant<value = float[2] {1, 2}>() },
                     else_branch = e () => (float[2] q) { q = Constant<value = float[2] {1, 2}>() }>
          y = Add(v, w) }""",
    "functions do not see the main graph": """<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { s = Mul(x, w)  y = f.once(s) }
        <domain: "f", opset_import: ["" : 21]> once (a) => (b)
        { k = Constant<value = float[2] {1, 2}>()  b = Add(a, k) }""",
    "graphs of unknown operators see nothing": """<ir_version: 10, opset_import: ["" : 21, "z" : 1]>
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}>
        { s = Mul(x, w)
          y = z.Run<body = t () => (float[2] p) <float[2] k = {1, 2}> { p = Identity(k) }>(s) }""",
    "a longer name would cost more": """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1] x) => (float[1] y, float[1] a_very_long_name_indeed)
        <float[1] a_very_long_name_indeed = {1}, float[1] b = {1}>
        { c = Add(x, b)  d = Add(c, b)  e = Add(d, b)  f = Add(e, b)  y = Add(f, b) }""",
    "nothing to hold": """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
        { y = Identity(x) }""",
}


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_leaves_alone(text):
    dedup_result = dedup(model(text))
    assert not dedup_result.changes


@pytest.mark.parametrize(
    ("case", "subject", "reason"),
    [
        ("one is an input", "a", "is a graph input, whose value a caller may override"),
        ("outputs", "a, b", "is a graph output"),
        ("a longer name would cost more", "b", "saves less than the longer name of its equal costs"),
    ],
)
def test_says_what_it_leaves_alone(case, subject, reason):
    notes = dedup(model(NO_OPS[case])).notes
    assert (subject, reason) in [(note.subject, note.reason) for note in notes]


def test_quantization_annotations_hold_their_tensors():
    proto = onnx.parser.parse_model(MERGES["initializers"])
    annotation = proto.graph.quantization_annotation.add(tensor_name="s")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")
    proto.graph.initializer[0].name = "a"
    proto.graph.node[0].input[1] = "a"
    result = dedup(load(proto))
    assert initializers(result.model) == ["b"], "the named one stands for the other"


def test_the_training_part_holds_its_tensors():
    proto = onnx.parser.parse_model(MERGES["initializers"])
    training = proto.training_info.add()
    training.update_binding.add(key="long_name", value="s")
    training.algorithm.CopyFrom(onnx.helper.make_graph([], "step", [], []))
    result = dedup(load(proto))
    assert initializers(result.model) == ["long_name"], "the named one stands for the other"
    assert to_proto(result.model).training_info == proto.training_info


def test_sparse_weights_are_left_alone():
    proto = onnx.parser.parse_model(MERGES["initializers"])
    values = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    places = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [2], [0, 1])
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [2]))
    proto.graph.node[1].input[1] = "v"
    result = dedup(load(proto))
    assert result.changes == {MERGED: 1}
    assert [(note.subject, note.reason) for note in result.notes] == [("v", "is sparse")]


def test_mapped_weights_stay_mapped(tmp_path):
    given = model(MERGES["initializers"])
    for value in given.graph.initializers.values():
        value.const_value = ir.tensor(np.arange(2, dtype=np.float32), name=value.name)
    ir.save(given, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    loaded = load(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    result = dedup(loaded)
    assert result.changes == {MERGED: 1}
    assert byte_size(result.model) < byte_size(loaded)
    save(result.model, tmp_path / "m.onnx")
    (value,) = load(tmp_path / "m.onnx").graph.initializers.values()
    assert value.const_value.numpy().tolist() == [0, 1]


@pytest.mark.parametrize("exclude", [("long_*",), ("op:Add",), ("op:Mul", "nothing")])
def test_exclude(exclude):
    result = dedup(model(MERGES["initializers"]), exclude=exclude)
    assert not result.changes
    assert [note.reason for note in result.notes] == ["is excluded by the options"]


def test_exclude_takes_the_name_of_a_constant_node():
    given = model(MERGES["Constant nodes become an initializer"])
    given.graph[0].name = "frozen/part"
    assert not dedup(given, exclude=("frozen/*",)).changes


def test_min_bytes():
    result = dedup(model(MERGES["initializers"]), min_bytes=9)
    assert not result.changes
    assert [(note.subject, note.reason) for note in result.notes] == [("2 tensors", "smaller than min-bytes=9")]
    assert dedup(model(MERGES["initializers"]), min_bytes=8).changes


@pytest.mark.parametrize("options", [{"min_bytes": -1}, {"exclude": ("",)}, {"exclude": ("op:",)}])
def test_wrong_options(options):
    with pytest.raises(UsageError):
        DedupInitializers(**options)


WEIGHT = np.random.default_rng(0).standard_normal((40, 128)).astype(np.float32)

TIED = """<ir_version: 8, opset_import: ["" : 17]> g (int64[3] ids) => (float[3,40] y)
    <float[1] embedding = {0}, float[1] projection = {0}>
    { e = Gather(embedding, ids)  y = MatMul(e, projection) }"""


def test_tied_embedding_and_projection():
    given = model(TIED, embedding=WEIGHT, projection=np.ascontiguousarray(WEIGHT.T))
    result = dedup(given)
    assert result.changes == {TRANSPOSED: 1}
    assert initializers(result.model) == ["embedding"]
    assert [node.op_type for node in result.model.graph] == ["Transpose", "Gather", "MatMul"]
    assert result.model.graph[2].inputs[1].name == "projection"
    same_answers(given, result.model, ids=np.array([1, 5, 39]))


def test_onnx_runtime_folds_the_transpose_when_it_loads():
    given = model(TIED, embedding=WEIGHT, projection=np.ascontiguousarray(WEIGHT.T))
    assert optimized_ops(dedup(given).model) == optimized_ops(given) == {"Gather": 1, "MatMul": 1}


def test_kernels_with_permuted_axes():
    kernel = np.random.default_rng(1).standard_normal((16, 32, 3, 5)).astype(np.float32)
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,32,9,9] x, float[1,5,99,99] z) => (float[?] u, float[?] v)
        <float[1] k = {0}, float[1] l = {0}> { u = Conv(x, k)  v = Conv(z, l) }"""
    permuted = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)).reshape(3, 5, 32, 16)
    given = model(text, k=kernel, l=permuted)
    result = dedup(given)
    assert result.changes == {TRANSPOSED: 1}
    assert list(result.model.graph[0].attributes["perm"].as_ints()) == [2, 3, 1, 0]


def test_reshaped():
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[5120] x) => (float[40,128] y)
        <float[1] flat = {0}, float[1] square = {0}> { s = Mul(x, flat)  r = Mul(square, square)
          d = Constant<value = int64[2] {40, 128}>()  t = Reshape(s, d)  y = Add(r, t) }"""
    given = model(text, flat=WEIGHT.reshape(-1), square=WEIGHT)
    result = dedup(given)
    assert result.changes == {RESHAPED: 1, MERGED: 1}, "the shape that is added equals one that was there"
    assert "square" not in initializers(result.model)
    same_answers(given, result.model, x=np.ones(5120, np.float32))


def test_constant_nodes_can_be_the_source():
    given = model(
        """<ir_version: 8, opset_import: ["" : 17]> g (int64[3] ids) => (float[3,40] y)
        <float[1] projection = {0}>
        { embedding = Constant<value = float[1] {0}>()  e = Gather(embedding, ids)  y = MatMul(e, projection) }""",
        projection=np.ascontiguousarray(WEIGHT.T),
    )
    given.graph[0].attributes["value"] = ir.AttrTensor("value", ir.tensor(WEIGHT))
    result = dedup(given)
    assert result.changes == {TRANSPOSED: 1}
    assert len(initializers(result.model)) == 1
    same_answers(given, result.model, ids=np.array([0, 7, 21]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            TIED.replace("Gather(embedding, ids)", "Gather(embedding, ids)  o = z.Own(embedding)")
            .replace("MatMul(e, projection)", "MatMul(e, projection)  i = z.Own(projection)")
            .replace('"" : 17', '"" : 17, "z" : 1'),
            "is read by Own, which may want an initializer",
        ),
        (TIED.replace("float[1] emb", "float16[1] emb").replace("float[1] proj", "float16[1] proj"), None),
    ],
)
def test_some_transposed_weights_stay(text, reason):
    dtype = np.float16 if "float16" in text else np.float32
    weight = np.tile(WEIGHT, (2, 1)).astype(dtype)[:70]  # 70 x 128
    if reason is None:
        weight = weight[:60]  # 15 KiB in fp16: below what a node is worth
    given = model(text, embedding=weight, projection=np.ascontiguousarray(weight.T))
    result = dedup(given)
    assert not result.changes
    assert [note.reason for note in result.notes] == ([reason] if reason else [])


def test_the_weight_that_no_node_may_make_is_the_source():
    text = TIED.replace('"" : 17', '"" : 17, "z" : 1').replace("{ e =", "{ o = z.Own(projection)  e =")
    result = dedup(model(text, embedding=WEIGHT, projection=np.ascontiguousarray(WEIGHT.T)))
    assert result.changes == {TRANSPOSED: 1}
    assert initializers(result.model) == ["projection"]


@pytest.mark.parametrize("option", ["transposed", "reshaped"])
def test_kinds_can_be_switched_off(option):
    given = model(TIED, embedding=WEIGHT, projection=np.ascontiguousarray(WEIGHT.T))
    assert bool(dedup(given, **{option: False}).changes) == (option == "reshaped")
    assert option not in [step.name for step in DedupInitializers(**{option: False}).steps()]


@pytest.mark.parametrize("step", ["equal", "transposed"])
def test_denied_sites_are_left_alone(step):
    text = MERGES["initializers"] if step == "equal" else TIED
    given = model(text, embedding=WEIGHT, projection=np.ascontiguousarray(WEIGHT.T))
    sites = Sites()
    dedup(given, sites)
    ((name, site),) = sites.permitted
    assert name == step
    denied = Sites(denied=frozenset({(name, site)}))
    assert not dedup(given, denied).changes
    assert not dedup(given, Sites(denied_steps=frozenset({step}))).changes


def test_external_weights_stay_external(tmp_path):
    given = model(MERGES["initializers"])
    for value in given.graph.initializers.values():
        value.const_value = ir.tensor(np.arange(2, dtype=np.float32), name=value.name)
    ir.save(given, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    result = dedup(ir.load(tmp_path / "m.onnx"))
    assert result.changes == {MERGED: 1}
    (value,) = result.model.graph.initializers.values()
    assert isinstance(value.const_value, ir.ExternalTensor)


def test_it_is_a_frozen_dataclass_of_plain_options():
    assert [field.name for field in dataclasses.fields(DedupInitializers)] == [
        "exclude",
        "min_bytes",
        "reshaped",
        "transposed",
        "tolerance",
    ]
    assert DedupInitializers() == DedupInitializers()


# --- random sets of tensors with planted duplicates


@st.composite
def planted(draw):
    """Tensors of few contents and shapes, and for each whether it is an initializer or a Constant node and where."""
    contents = draw(st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, 7.0]), min_size=20, max_size=20), max_size=4))
    picks = draw(st.lists(st.integers(0, max(len(contents) - 1, 0)), max_size=12)) if contents else []
    shapes = draw(st.lists(st.sampled_from([(20,), (4, 5), (5, 4)]), min_size=len(picks), max_size=len(picks)))
    places = draw(st.lists(st.sampled_from(["main", "node", "then", "else"]), min_size=len(picks), max_size=len(picks)))
    return [
        (np.array(contents[pick], np.float32).reshape(shape), place)
        for pick, shape, place in zip(picks, shapes, places, strict=True)
    ]


def _build(tensors) -> ir.Model:
    """A model whose outputs are the sums of all tensors of the main graph and of the branch that is taken."""
    scopes: dict[str, list[ir.Node]] = {"main": [], "then": [], "else": []}
    held: dict[str, list[ir.Value]] = {"main": [], "then": [], "else": []}
    parts: dict[str, list[ir.Value]] = {"main": [], "then": [], "else": []}
    for index, (array, place) in enumerate(tensors):
        where = "main" if place == "node" else place
        if place in {"node", "else"}:
            source = ir.node("Constant", [], {"value": ir.tensor(array)})
            scopes[where].append(source)
            value = source.outputs[0]
            value.name = f"c{index}"
        else:
            value = ir.Value(
                name=f"i{index}",
                type=ir.TensorType(ir.DataType.FLOAT),
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array, name=f"i{index}"),
            )
            held[where].append(value)
        reduced = ir.node("ReduceL1", [value], {"keepdims": 0}, name=f"n{index}")
        reduced.outputs[0].name = f"r{index}"
        scopes[where].append(reduced)
        parts[where].append(reduced.outputs[0])
    condition = ir.Value(name="cond", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    branches = {}
    for key in ("then", "else"):
        total = ir.node("Sum", [_zero(key, held), *parts[key]], name=f"sum_{key}")
        total.outputs[0].name = f"out_{key}"
        branches[f"{key}_branch"] = ir.Graph(
            [], list(total.outputs), nodes=[*scopes[key], total], initializers=held[key], name=key
        )
    chosen = ir.node("If", [condition], branches)
    chosen.outputs[0].name = "branch"
    total = ir.node("Sum", [_zero("main", held), *parts["main"]], name="sum_main")
    total.outputs[0].name = "main"
    for value in (chosen.outputs[0], total.outputs[0]):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    main = ir.Graph(
        [condition],
        [total.outputs[0], chosen.outputs[0]],
        nodes=[*scopes["main"], chosen, total],
        initializers=held["main"],
        opset_imports={"": 17},
        name="g",
    )
    return ir.Model(main, ir_version=8)


def _zero(where: str, held: dict[str, list[ir.Value]]) -> ir.Value:
    value = ir.Value(
        name=f"zero_{where}",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape([]),
        const_value=ir.tensor(np.float32(0), name=f"zero_{where}"),
    )
    held[where].append(value)
    return value


@given(planted())
@settings(max_examples=60, deadline=None)
def test_no_equal_pair_is_left_and_answers_hold(tensors):
    built = _build(tensors)
    result = dedup(built)
    found = [value.const_value for graph in traversal.graphs(result.model) for value in graph.initializers.values()]
    found += [
        node.attributes["value"].as_tensor() for node in traversal.nodes(result.model) if node.op_type == "Constant"
    ]
    keys = [(tuple(tensor.shape), tensor.tobytes()) for tensor in found if tensor.nbytes >= 64]
    assert len(keys) == len(set(keys))
    assert len(keys) == len({(array.shape, array.tobytes()) for array, _ in tensors})
    onnx.checker.check_model(ir.to_proto(result.model))
    for condition in (True, False):
        same_answers(built, result.model, cond=np.array(condition))
