"""prune-magnitude: where weights are found, how many go and in which pattern, what is repaired, stored and told."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import optimizer
from optimizer.algorithms.sparsity.patterns import Pattern
from optimizer.contract.passes import Context
from optimizer.errors import UsageError
from optimizer.evaluation.runtime.session import session
from optimizer.graph import constants
from optimizer.io.model import byte_size, clone, load, to_proto
from optimizer.testing import check_pass
from passes.prune_magnitude import PruneMagnitude
from pruning_nets import FILLED, NET, evaluator_for, model, planted_feeds, weight

KINDS = {
    "MatMul": "g (float[M, 24] x) => (float[M, 16] y) <float[1] w = {0}> { y = MatMul(x, w) }",
    "Gemm": "g (float[M, 24] x) => (float[M, 16] y) <float[1] wt = {0}> { y = Gemm<transB=1>(x, wt) }",
    "Conv": "g (float[1, 6, 9, 9] x) => (float[1, 8, 7, 7] y) <float[1] k = {0}> { y = Conv(x, k) }",
    "depthwise": "g (float[1, 6, 9, 9] x) => (float[1, 6, 7, 7] y) <float[1] d = {0}> { y = Conv<group=6>(x, d) }",
    "ConvTranspose": """g (float[1, 6, 9, 9] x) => (float[1, 8, 11, 11] y) <float[1] c = {0}>
                        { y = ConvTranspose(x, c) }""",
    "Constant": "g (float[M, 24] x) => (float[M, 16] y) { w = Constant <value = float[1] {0}> () y = MatMul(x, w) }",
    "Identity": "g (float[M, 24] x) => (float[M, 16] y) <float[1] w = {0}> { i = Identity(w) y = MatMul(x, i) }",
    "Transpose": "g (float[M, 24] x) => (float[M, 16] y) <float[1] wt = {0}> { t = Transpose(wt) y = MatMul(x, t) }",
    "fp16 behind a Cast": """g (float[M, 24] x) => (float[M, 16] y) <float16[1] wh = {0}>
                             { q = Cast<to=1>(wh) y = MatMul(x, q) }""",
    "shared": """g (float[M, 24] x, float[M, 24] z) => (float[M, 16] y, float[M, 16] v) <float[1] w = {0}>
                 { y = MatMul(x, w) v = MatMul(z, w) }""",
    "a branch": """g (float[M, 24] x, bool b) => (float[M, 16] y) <float[1] w = {0}>
                   { y = If (b) <then_branch = t () => (float[M, 16] p) { p = MatMul(x, w) },
                                 else_branch = e () => (float[M, 16] q) { r = MatMul(x, w) q = Neg(r) }> }""",
}
ALL = {"guard": False}


def kernel_array(given: ir.Model) -> np.ndarray:
    value = next(value for value in values(given) if value.name in FILLED)
    tensor = value.const_value if value.is_initializer() else value.producer().attributes["value"].as_tensor()
    return tensor.numpy()


def values(given: ir.Model):
    yield from given.graph.initializers.values()
    for node in given.graph:
        yield from node.outputs


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_every_kind_reaches_its_sparsity_exactly(text):
    result = check_pass(PruneMagnitude(sparsity=0.25, **ALL), model(text), may_run=False)
    array = kernel_array(result.model)
    assert np.sum(array == 0) == round(array.size * 0.25) == result.changes["weights set to 0"]
    assert result.changes["kernels pruned"] == 1


@pytest.mark.parametrize("text", [KINDS[name] for name in ("MatMul", "Gemm", "Conv", "Transpose")])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8"])
def test_of_each_group_along_the_input_channels_some_stay(text, pattern):
    if "Conv" in text and pattern.endswith("8"):
        return
    result = check_pass(PruneMagnitude(pattern=pattern, **ALL), model(text), may_run=False)
    keep, of = map(int, pattern.split(":"))
    array = kernel_array(result.model)
    if array.ndim == 2:
        inputs_first = array if array.shape[0] == 24 else array.T
        groups = inputs_first.T.reshape(16, -1, of)
    else:
        groups = np.moveaxis(array, 1, -1)[..., : array.shape[1] // of * of].reshape(-1, of)
    assert np.all(np.sum(groups != 0, axis=-1) == keep)


NOTHING = {
    "guarded": (KINDS["MatMul"], {}, "guard=true"),
    "excluded": (KINDS["MatMul"], {"exclude": ("op:MatMul",), **ALL}, "include= or exclude="),
    "few channels": (KINDS["depthwise"], {"pattern": "2:4", **ALL}, "1 input channels"),
    "weight is an output": (
        "g (float[M, 24] x) => (float[M, 16] y, float[24, 16] w) <float[1] w = {0}> { y = MatMul(x, w) }",
        ALL,
        "is a graph output",
    ),
    "read otherwise too": (
        "g (float[M, 24] x) => (float[M, 16] y, float[24, 16] z) <float[1] w = {0}> { y = MatMul(x, w) z = Neg(w) }",
        ALL,
        "is read by a Neg too",
    ),
    "quantized": (
        """g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) <int8[1, 1, 1, 1] q = {3}, float s = {0.5}>
           { v = DequantizeLinear(q, s) y = Conv(x, v) }""",
        ALL,
        "it is quantized already",
    ),
    "no kernels": ("g (float[M, 24] x) => (float[M, 24] y) { y = Relu(x) }", ALL, "has no kernels"),
}


@pytest.mark.parametrize(("text", "options", "reason"), NOTHING.values(), ids=NOTHING)
def test_what_is_left_alone_and_why(text, options, reason):
    result = check_pass(PruneMagnitude(**options), model(text), may_run=False)
    assert not result.changes
    assert reason in " ".join(note.reason for note in result.notes)


def test_zeros_that_were_there_are_no_gain():
    before = model(KINDS["MatMul"])
    array = FILLED["w"].copy()
    array[:12] = 0
    before.graph.initializers["w"].const_value = ir.tensor(array, name="w")
    assert not check_pass(PruneMagnitude(sparsity=0.5, **ALL), before, may_run=False).changes
    result = check_pass(PruneMagnitude(sparsity=0.75, **ALL), before, may_run=False)
    assert result.changes["weights set to 0"] == 96
    assert "75.0% of 384 weights of kernels, 50.0% before" in [note.reason for note in result.notes]


def test_threshold():
    result = check_pass(PruneMagnitude(threshold=0.3, **ALL), model(KINDS["Conv"]), may_run=False)
    array = kernel_array(result.model)
    np.testing.assert_array_equal(array == 0, np.abs(FILLED["k"]) < 0.3)


TWO = """g (float[M, 24] x) => (float[M, 24] y) <float[1] w = {0}, float[1] wt = {0}>
         { h = MatMul(x, w) r = Relu(h) y = MatMul(r, wt) }"""


def test_global_takes_the_smallest_of_all():
    before = model(TWO)
    before.graph.initializers["wt"].const_value = ir.tensor(FILLED["wt"] * 100, name="wt")
    result = check_pass(PruneMagnitude(sparsity=0.5, scope="global", **ALL), before, may_run=False)
    counts = {name: int(np.sum(result.model.graph.initializers[name].const_value.numpy() == 0)) for name in ("w", "wt")}
    assert sum(counts.values()) == 384
    assert counts["w"] > 370


@given(
    st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**16),
    st.sampled_from(["unstructured", "block4x1", "block2x3", "block1x8"]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_patterns_hold_for_any_shape(groups, outputs, inputs, window, seed, text):
    pattern = Pattern.parse(text)
    scores = np.random.default_rng(seed).random((groups, outputs, inputs, window))
    goal = scores.size // 2
    stays = pattern.stays(scores, goal)
    assert goal - pattern.rows * pattern.columns < np.sum(~stays) <= goal
    for row in range(0, outputs, pattern.rows):
        for column in range(0, inputs, pattern.columns):
            block = stays[:, row : row + pattern.rows, column : column + pattern.columns]
            assert np.all(block == block[:, :1, :1])


@pytest.mark.parametrize("text", ["4:4", "5:4", "0:4", "block0x1", "blocks", "2:", "block4"])
def test_what_is_no_pattern(text):
    with pytest.raises(UsageError, match="neither unstructured"):
        Pattern.parse(text)


@pytest.mark.parametrize(
    "options",
    [{"sparsity": 1.0}, {"threshold": -1.0}, {"sparsity": 0.5, "threshold": 0.1}, {"pattern": "2:4", "sparsity": 0.5},
     {"pattern": "2:4", "scope": "global"}, {"threshold": 0.1, "importance": "error"}],
)  # fmt: skip
def test_options_that_exclude_each_other(options):
    with pytest.raises(UsageError):
        PruneMagnitude(**options)


def test_sparse_where_that_is_smaller():
    before = model(KINDS["MatMul"])
    dense = check_pass(PruneMagnitude(sparsity=0.9, **ALL), before, may_run=False).model
    result = PruneMagnitude(sparsity=0.9, store="sparse", **ALL).run(clone(before), Context(before))
    assert result.changes["weights stored sparse"] == 1
    assert byte_size(result.model) < byte_size(dense) / 2
    read = load(to_proto(result.model))
    feed = {"x": weight(3, 24)}
    np.testing.assert_array_equal(session(read).run(feed)["y"], session(dense).run(feed)["y"])
    zeros = result.model.graph.initializers["w"].const_value.numpy() == 0
    constants.set_array(result.model.graph.initializers["w"], np.where(zeros, 0, FILLED["w"] * 2))
    assert byte_size(result.model) == byte_size(read), "what is rewritten stays sparse"
    constants.set_array(result.model.graph.initializers["w"], FILLED["w"])
    assert byte_size(result.model) == byte_size(before), "where that is smaller"
    half = PruneMagnitude(store="sparse", **ALL).run(clone(before), Context(before))
    assert "weights stored sparse" not in half.changes


def errors(before: ir.Model, **options) -> float:
    result = PruneMagnitude(**options, **ALL).run(
        clone(before), Context(before, evaluator=evaluator_for(before, "rel_l2=1000"))
    )
    feeds = planted_feeds(120)[90:]
    one, other = session(before), session(result.model)
    pairs = [(one.run(feed)["y"], other.run(feed)["y"]) for feed in feeds]
    return float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(a**2) for a, _ in pairs)))


def test_repair_is_exact_where_inputs_are_redundant():
    before = model(KINDS["Gemm"].replace("transB=1", "transB=1").replace("float[M, 24]", "float[N, 24]"))
    plain, repaired = errors(before, repair=False), errors(before, importance="l1")
    assert plain > 0.1
    assert repaired < 0.01


def test_repair_halves_the_error():
    before = model(NET)
    assert errors(before) < errors(before, repair=False) / 2


def test_the_budget_lowers_the_sparsity():
    before = model(NET)
    evaluator = evaluator_for(before, "rel_l2=0.02")
    member = PruneMagnitude(sparsity=0.9, **ALL)
    result = member.run(clone(before), Context(before, evaluator=evaluator))
    assert evaluator.budget_used(result.model) <= 1
    assert 0 < result.changes.get("weights set to 0", 1) < 0.9 * 768


def test_choices_repeat_it():
    before = model(NET)
    first = PruneMagnitude(**ALL).run(clone(before), Context(before, evaluator=evaluator_for(before, "rel_l2=0.5")))
    again = Context(before, evaluator=evaluator_for(before, "rel_l2=0.5"), choices=first.choices)
    assert to_proto(PruneMagnitude(**ALL).run(clone(before), again).model) == to_proto(first.model)


def test_the_report_says_what_gzip_makes_of_it():
    report = optimizer.optimize(
        model(NET), passes=["prune-magnitude:guard=false"], data=planted_feeds(), budget="none", timing=False
    ).report
    sizes = report.to_dict()["compressed_bytes"]
    assert sizes["after"] < sizes["before"]
    assert "will not run this model faster" in report.to_text()
    assert report.stages[-1].reason == "checked"
