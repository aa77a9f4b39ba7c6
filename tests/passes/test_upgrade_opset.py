"""A newer operator set computes the same, and nothing else of the model changes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from operator_cases import CASES, Case, X, numbers
from optimizer.contract.passes import Context
from optimizer.errors import PreconditionError, UsageError
from optimizer.evaluation.feeds.generated import generate
from optimizer.evaluation.validation.validator import Validator
from optimizer.graph import queries
from optimizer.io.model import clone, load, to_proto
from passes.upgrade_opset import NEWEST, UpgradeOpset
from rewriting import assert_close, outputs
from small_corpus import SMALL


def upgraded(proto, version=21):
    model = load(proto)
    return UpgradeOpset(version).run(model, Context(model))


def assert_same_answers(before, after, feeds):
    for optimize in (False, True):
        expected = outputs(before, feeds, optimize=optimize)
        for want, got in zip(expected, outputs(after, feeds, optimize=optimize), strict=True):
            assert_close(want, got)


@pytest.mark.parametrize("op_type", sorted({case.op_type for case in CASES}))
def test_each_operator_computes_the_same_in_newer_versions(op_type):
    for case in [case for case in CASES if case.op_type == op_type]:
        before = case.model()
        try:
            expected = outputs(before, case.feeds(), optimize=False)
        except Exception as error:  # says which case is wrong, not only how
            raise AssertionError(f"{case} does not run") from error
        for version in [version for version in (13, 21) if version > case.opset]:
            after = to_proto(upgraded(before, version).model)
            assert after.opset_import[0].version == version
            assert after.graph.output == before.graph.output
            for want, got in zip(expected, outputs(after, case.feeds(), optimize=False), strict=True):
                try:
                    assert_close(want, got)
                except AssertionError as error:
                    raise AssertionError(f"{case} in opset {version}") from error


def test_group_normalization_is_scaled_by_channel():
    case = Case("GroupNormalization", 18, (X, numbers(2), numbers(2)), frozenset({1, 2}), 1, {"num_groups": 2})
    model = ir.from_proto(case.model())  # the checker of newer versions of onnx refuses the operator before 21
    after = to_proto(UpgradeOpset(21).run(model, Context(model)).model)
    assert_same_answers(case.model(), after, case.feeds())


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            Case("BatchNormalization", 8, (X, *[np.abs(numbers(4, 6, 6))] * 4), frozenset({1, 2, 3, 4}), 1,
                 {"spatial": 0}),
            "BatchNormalization cannot be converted from opset 8 to 21: Attribute spatial must have value 1",
        ),
        (Case("Dropout", 10, (X,), frozenset(), 2), "Dropout cannot be converted from opset 10 to 21: its mask"),
        (
            Case("Resize", 10, (X, np.array([1, 1, 0.5, 2], np.float32)), frozenset({1})),
            "Resize cannot be converted from opset 10 to 21: it rounds by scales",
        ),
        (Case("Resize", 10, (X, np.array([1, 1, 2, 2], np.float32))), "by scales, which are not known"),
    ],
    ids=lambda value: str(value) if isinstance(value, Case) else "",
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_with_the_operator_and_the_reason(case, reason):
    model = load(case.model())
    before = to_proto(model)
    with pytest.raises(PreconditionError, match=reason):
        UpgradeOpset(21).run(model, Context(model))
    assert to_proto(model) == before


def test_a_clip_of_a_type_that_is_not_known_is_refused():
    proto = onnx.parser.parse_model(
        """
        <ir_version: 7, opset_import: ["" : 10, "custom" : 1]>
        main (float[4] x) => (float[4] y) { h = custom.Op (x) y = Clip <min: float = 0.0> (h) }
        """
    )
    with pytest.raises(PreconditionError, match=r"Clip cannot be converted .*: the type of its input is not known"):
        upgraded(proto)


def rich():
    """A model in which everything says something, and every second thing is converted."""
    branch = helper.make_graph(
        [helper.make_node("Squeeze", ["h"], ["t"], "inner", axes=[0], doc_string="inner said")],
        "branch",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 3])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "w"], ["h"], "add"),
            helper.make_node("Softmax", ["h"], ["s"], "soft", axis=1, doc_string="soft said"),
            helper.make_node("ReduceSum", ["s"], ["r"], "sum", axes=[1], keepdims=0),
            helper.make_node("If", ["c"], ["z"], "if", then_branch=branch, else_branch=branch),
            helper.make_node("Unsqueeze", ["r"], ["y"], "un", axes=[1]),
        ],
        "main",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "N", 3]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 3]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [1, "N", 3]),
        ],
        [numpy_helper.from_array(np.ones(3, np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 11), helper.make_opsetid("ai.onnx.ml", 2), helper.make_opsetid("custom", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=6, producer_name="producer")
    for name, shape in (("h", [1, "N", 3]), ("r", [1, 3])):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    model.graph.input[0].type.denotation = "IMAGE"
    for name in ("h", "s", "w"):
        annotation = model.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    for owner in (model, model.graph, *model.graph.node, *model.graph.value_info, model.graph.initializer[0],
                  model.graph.output[2], *(one.g.node[0] for one in model.graph.node[3].attribute)):  # fmt: skip
        owner.metadata_props.add(key="key", value="said")
    model.graph.output[2].doc_string = model.graph.node[2].attribute[1].doc_string = "said"
    return model


def test_nothing_that_the_model_says_is_lost():
    before = rich()
    after = to_proto(upgraded(before).model)
    onnx.checker.check_model(after, full_check=True)
    assert (after.producer_name, after.metadata_props, after.ir_version) == ("producer", before.metadata_props, 10)
    assert [(one.domain, one.version) for one in after.opset_import] == [("", 21), ("ai.onnx.ml", 2), ("custom", 1)]
    for field in ("input", "output", "value_info", "metadata_props"):
        assert getattr(after.graph, field) == getattr(before.graph, field), field
    named = {node.name: node for node in after.graph.node}
    for node in before.graph.node:
        assert (named[node.name].doc_string, named[node.name].metadata_props) == (node.doc_string, node.metadata_props)
    keep = next(one for one in named["sum"].attribute if one.name == "keepdims")
    assert keep.doc_string == next(one for one in before.graph.node[2].attribute if one.name == "keepdims").doc_string
    for one in named["if"].attribute:
        inner = one.g.node[0]
        assert (inner.name, inner.doc_string, len(inner.metadata_props)) == ("inner", "inner said", 1)
        assert len(inner.input) == 2
    assert {one.tensor_name for one in after.graph.quantization_annotation} == {"h", "s", "w"}
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(1, 4, 3) / 5, "c": np.array(True)}
    assert_same_answers(before, after, feeds)


def test_equal_constants_are_held_once_and_named_after_the_input():
    proto = onnx.parser.parse_model(
        """
        <ir_version: 7, opset_import: ["" : 11]>
        main (float[3] x) => (float[1, 1, 1, 3] y) {
          a = Unsqueeze <axes: ints = [0]> (x)  b = Unsqueeze <axes: ints = [0]> (a)
          axes = Neg (b)  y = Unsqueeze <axes: ints = [0]> (axes)
        }
        """
    )
    result = upgraded(proto)
    assert list(result.model.graph.initializers) == ["axes_1"]
    assert result.changes == {"opset versions raised": 10, "operators converted": 3}


def test_functions_are_inlined_and_their_optional_outputs_stay_unwanted():
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 12, "local" : 1]>
        main (float[2, 3] x, bool c) => (float[2, 1] y, float[2, 3] z) {
          h = local.scaled <k: float = 3.0> (x)
          y = ReduceSum <axes: ints = [1]> (h)
          z = If (c) <
            then_branch = then () => (float[2, 3] t) { d = Neg (h) t = Abs (d) },
            else_branch = other () => (float[2, 3] e) { e = local.scaled <k: float = 2.0> (h) }
          >
        }
        <domain: "local", opset_import: ["" : 12]>
        scaled <k> (a) => (b) {
          c = Constant <value_float: float = @k> ()
          d = Mul (a, c)
          b = Softmax <axis: int = 0> (d)
        }
        <domain: "local", opset_import: ["" : 12]>
        unused (a) => (b) { b = Neg (a) }
        """
    )
    drop = helper.make_node("Dropout", ["d"], ["dropped", ""])
    proto.functions[0].node.insert(2, drop)
    proto.functions[0].node[3].input[0] = "dropped"
    result = upgraded(proto)
    assert result.changes == {"opset versions raised": 9, "functions inlined": 2, "operators converted": 3}
    after = to_proto(result.model)
    assert not after.functions
    assert next(list(node.output)[1:] for node in after.graph.node if node.op_type == "Dropout") in ([], [""])
    for c in (True, False):
        assert_same_answers(proto, after, {"x": numbers(2, 3), "c": np.array(c)})


def test_functions_that_cannot_be_inlined_are_the_reason_to_refuse():
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 12, "local" : 1]>
        main (float[2] x) => (float[2] y) { y = local.f (x) }
        <domain: "local", opset_import: ["" : 13]>
        f (a) => (b) { b = Softplus (a) }
        """
    )
    with pytest.raises(PreconditionError, match=r"functions cannot be inlined.*Opset mismatch"):
        upgraded(proto)


NO_OPS = [
    ("as new as asked", 21, 21), ("newer", 21, 13), ("other domains only", 0, 13),
]  # fmt: skip


@pytest.mark.parametrize(("current", "version"), [entry[1:] for entry in NO_OPS], ids=[entry[0] for entry in NO_OPS])
def test_the_version_is_never_lowered(current, version):
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> main (float[3] x) => (float[3] y) { y = Neg (x) }'
    )
    if not current:
        proto.opset_import[0].domain, proto.opset_import[0].version = "custom", 1
        proto.graph.node[0].domain = "custom"
    result = upgraded(proto, version)
    assert result.changes == {}
    assert to_proto(result.model) == to_proto(load(proto))


def test_the_other_spelling_of_the_standard_domain_is_raised_too():
    proto = onnx.parser.parse_model(
        '<ir_version: 6, opset_import: ["" : 11]> main (float[1] x) => (float[1, 1] y)'
        " { y = Unsqueeze <axes: ints = [0]> (x) }"
    )
    proto.opset_import[0].domain = "ai.onnx"
    after = to_proto(upgraded(proto).model)
    assert queries.opset_version(load(after)) == 21
    assert_same_answers(proto, after, {"x": numbers(1)})


def test_weights_of_old_models_do_not_become_inputs_that_may_be_overridden():
    proto = onnx.parser.parse_model(
        """
        <ir_version: 3, opset_import: ["" : 8]>
        main (float[2, 3] x, float[3] w) => (float[1, 2, 3] y) <float[3] w = {1, 2, 3}>
        { h = Add (x, w) y = Unsqueeze <axes: ints = [0]> (h) }
        """
    )
    result = upgraded(proto, 13)
    after = to_proto(result.model)
    assert after.ir_version == 3
    assert [note.subject for note in result.notes] == ["IR version 3"]
    assert [node.op_type for node in after.graph.node] == ["Add", "Constant", "Unsqueeze"]
    onnx.checker.check_model(after, full_check=True)
    assert_same_answers(proto, after, {"x": numbers(2, 3)})


def test_operators_of_no_version_are_left_and_named():
    proto = onnx.parser.parse_model(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        main (float[2, 3] x) => (float[2, 3] y) <float[3] w = {1, 2, 3}> { y = Add (x, w) }
        """
    )
    model = load(proto)
    model.graph[0].op_type = "SimplifiedLayerNormalization"  # ONNX Runtime's own, in the standard domain
    result = UpgradeOpset(17).run(model, Context(model))
    assert [(note.subject, note.reason) for note in result.notes] == [
        ("SimplifiedLayerNormalization", "is no operator of opset 13; left as it is for opset 17")
    ]


def test_tensors_are_shared_with_the_reference_and_it_does_not_change():
    reference = load(rich())
    before = to_proto(reference).SerializeToString(deterministic=True)
    copy = clone(reference)
    after = UpgradeOpset(21).run(copy, Context(reference)).model
    assert after.graph.initializers["w"].const_value is reference.graph.initializers["w"].const_value
    assert to_proto(reference).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("version", [0, -1, NEWEST + 1])
def test_versions_that_do_not_exist_are_wrong_usage(version):
    with pytest.raises(UsageError, match=f"upgrade-opset:version: {version} is no int from 1 to {NEWEST}"):
        UpgradeOpset(version)


STEPS = st.one_of(
    st.tuples(st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]), st.integers(-2, 1)),
    st.tuples(st.sampled_from(["Unsqueeze", "Squeeze"]), st.just(0)),
    st.tuples(st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax"]), st.integers(-2, 1)),
    st.tuples(st.sampled_from(["Clip", "Pad", "Slice", "Split", "Relu"]), st.integers(0, 1)),
)


@settings(max_examples=40)
@given(st.lists(STEPS, min_size=1, max_size=8), st.sampled_from([7, 9, 10, 11, 12]), st.sampled_from([13, 18, 21]))
def test_chains_of_operators_compute_the_same_whatever_the_versions(steps, opset, version):
    """Ranks change along the chain, names repeat, and axes are negative where the opset knows that."""
    nodes, rank, name = [], 2, "x"
    for number, (op_type, wanted) in enumerate(steps):
        if op_type == "Squeeze" and nodes[-1:] and nodes[-1].op_type == "Unsqueeze":
            rank -= 2
        elif op_type == "Squeeze":
            continue
        axis = wanted if wanted >= 0 or opset >= 11 else 0
        attributes = {
            "Unsqueeze": {"axes": [0]}, "Squeeze": {"axes": [0]}, "Clip": {"min": -1.0, "max": 0.5},
            "Pad": {"pads": [1] * (2 * rank), "value": 0.5}, "Slice": {"starts": [0], "ends": [2], "axes": [axis]},
            "Split": {"axis": axis, "split": [1, 1]}, "Relu": {},
        }.get(op_type, {"axes": [axis]} if op_type.startswith("Reduce") else {"axis": axis})  # fmt: skip
        nodes.append(helper.make_node(op_type, [name], [f"v{number}"], "same", **attributes))
        name = f"v{number}"
        rank += {"Unsqueeze": 1, "Squeeze": 1}.get(op_type, 0)
    if not nodes:
        return
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["A", "B"])]
    main = helper.make_graph(nodes, "main", infos, [onnx.ValueInfoProto(name=name)])
    proto = helper.make_model(main, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for node in proto.graph.node:
        node.ClearField("name")
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    feeds = {"x": numbers(3, 4)}
    try:
        expected = outputs(proto, feeds, optimize=False)
    except Exception:  # noqa: BLE001 - a chain that asks for more than there is, such as a Split of one element
        return
    result = upgraded(proto, version)
    assert_close(expected[0], outputs(to_proto(result.model), feeds, optimize=False)[0])
    assert to_proto(result.model) == to_proto(upgraded(proto, version).model)


@pytest.mark.corpus
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("version", [13, 21])
def test_real_models_compute_the_same(name, version):
    if not SMALL[name].exists():
        pytest.fail(f"{SMALL[name]} is missing; fetch it first: python models/fetch.py --small", pytrace=False)
    reference = load(SMALL[name])
    result = UpgradeOpset(version).run(clone(reference), Context(reference))
    if result.changes:
        feeds = list(generate(reference, count=6).validation)
        verdict = Validator(reference, feeds).check_exact(result.model)
        assert verdict.ok, verdict.reason
