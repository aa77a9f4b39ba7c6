"""cluster-weights: what is stored in codebooks and in which form, what stays and why, and how large errors may be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import optimizer
import weight_nets
from optimized_ops import optimized_ops
from optimizer.algorithms.clustering import codes
from optimizer.contract.memo import Memo
from optimizer.contract.passes import Context, Sites
from optimizer.errors import PreconditionError, UsageError
from optimizer.evaluation.runtime.session import session
from optimizer.graph import traversal
from optimizer.io.model import byte_size, clone, to_proto
from optimizer.statistics.second_moments import SecondMoments
from optimizer.statistics.tensor_statistics import Observation
from optimizer.testing import check_pass
from passes.cluster_weights import ClusterWeights
from weight_nets import assert_close, feeds, filled_model

RANDOM = np.random.default_rng(0)
VALUES = "weights in {} values"
GROUPS = "weights in {} values a group of channels"
DISTINCT = "distinct values in all"


def weight(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) * np.exp(RANDOM.standard_normal(shape[-1]))).astype(np.float32)


W, WT = weight(96, 80), weight(80, 96)
FILLED = {
    "w": W,
    "wt": WT,
    "tiny": weight(9, 10),
    "wh": W.astype(np.float16),
    "wd": W.astype(np.float64),
    "odd": weight(97, 81),
    "k": weight(24, 16, 3, 3),
    "d": weight(64, 1, 5, 5),
    "c": weight(16, 24, 3, 3),
    "t": weight(50, 64),
    "l": weight(2, 96, 32) / 10,
    "r": weight(2, 96, 24) / 10,
    "p": weight(1, 40, 64),
    "b3": weight(3, 20, 30),
    "v": weight(1, 5000)[0],
}


def model(text: str, opset: int = 21, ir_version: int = 10) -> ir.Model:
    return filled_model(text, FILLED, opset, ir_version)


def clustered(before: ir.Model, sites: Sites | None = None, **options):
    """The result of the pass, checked; small weights count too unless the options say otherwise."""
    return check_pass(ClusterWeights(**({"min_elements": 64} | options)), before, sites=sites, may_run=False)


KINDS = {
    **weight_nets.KINDS,
    "odd MatMul": "g (float[M, 97] x) => (float[M, 81] y) <float[1] odd = {0}> { y = MatMul(x, odd) }",
    "fp16 behind a Cast": """g (float[M, 96] x) => (float[M, 80] y) <float16[1] wh = {0}>
                             { c = Cast<to=1>(wh) y = MatMul(x, c) }""",
    "fp64": "g (double[M, 96] x) => (double[M, 80] y) <double[1] wd = {0}> { y = MatMul(x, wd) }",
}
CODINGS = {
    "256": ({"entries": 256}, 0.03),
    "64": ({"entries": 64}, 0.12),
    "16": ({"entries": 16}, 0.4),
    "16 a channel": ({"entries": 16, "group": 1}, 0.3),
    "20 in 5 channels": ({"entries": 20, "group": 5}, 0.25),
    "linear": ({"entries": 200, "init": "linear", "keep_zeros": True}, 0.08),
    "2": ({"entries": 2}, 1.2),
}


@pytest.mark.parametrize("opset", [11, 21])
@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("options", "limit"), CODINGS.values(), ids=CODINGS)
def test_every_kind_of_weight(text, options, limit, opset):
    before = model(text, opset, 7 if opset == 11 else 10)
    result = clustered(before, **options)
    kind = (GROUPS if options.get("group") else VALUES).format(options["entries"])
    assert result.changes[kind] == (2 if "LSTM" in text else 1)
    assert_close(before, result.model, limit)
    assert optimized_ops(result.model) == optimized_ops(before)  # folded when the model is loaded


def test_vectors_of_elements():
    before = model(KINDS["Conv"])
    result = clustered(before, entries=64, dims=4)
    assert result.changes == {"weights in 64 vectors of 4": 1, DISTINCT: 64}
    assert_close(before, result.model, 0.8)
    assert optimized_ops(result.model) == optimized_ops(before)
    finer = clustered(before, entries=256, dims=2)
    assert_close(before, finer.model, 0.3)


def test_a_tied_embedding_stays_tied():
    before = model(
        """g (float[M, 64] x, int64[L] i) => (float[M, 50] y, float[L, 64] e) <float[1] t = {0}>
           { e = Gather(t, i) f = Transpose(t) y = MatMul(x, f) }"""
    )
    result = clustered(before)
    assert result.changes[VALUES.format(256)] == 1
    assert "t" not in result.model.graph.initializers
    assert_close(before, result.model, 0.02)


def test_a_shared_weight_is_clustered_once_and_stays_shared():
    before = model(
        """g (float[1, 96] x) => (float[1, 80] y) <float[1] w = {0}>
           { a = MatMul(x, w) n = Relu(x) b = Gemm(n, w) y = Add(a, b) }"""
    )
    result = clustered(before)
    assert result.changes[VALUES.format(256)] == 1
    a, b = (node for node in result.model.graph if node.op_type in {"MatMul", "Gemm"})
    assert a.inputs[1] is b.inputs[1]


def test_weights_in_subgraphs_and_functions():
    before = model(
        """<ir_version: 10, opset_import: ["" : 21, "d" : 1]>
           g (float[5, 96] x, bool q) => (float[5, 80] y) {
             z = d.f(x)
             r = If(q) <then_branch = a () => (float[5, 80] u) { n = Relu(x) u = d.f(n) },
                        else_branch = e () => (float[5, 80] h) <float[1] wt = {0}> { h = Gemm<transB=1>(x, wt) }>
             y = Add(z, r) }
           <domain: "d", opset_import: ["" : 21]> f (i) => (o)
           { w = Constant <value = float[1] {0}> () o = MatMul(i, w) }"""
    )
    for options in ({}, {"entries": 16, "group": 2}, {"entries": 64}):
        result = clustered(before, **options)
        assert sum(result.changes.values()) - result.changes[DISTINCT] == 2
        for q in (True, False):
            assert_close(before, result.model, 0.3, q=np.array(q))


def test_names_are_not_needed():
    before = model("g (float[M, 96] x) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }")
    for node in before.graph:
        node.name = None
    assert clustered(before).changes[VALUES.format(256)] == 1


LEFT = {
    "small": (
        "g (float[M, 2] x) => (float[M, 1] y) <float[2, 1] u = {1, 2}> { y = MatMul(x, u) }",
        "has less than 64 elements",
    ),
    "output": (
        "g (float[M, 96] x) => (float[M, 80] y, float[96, 80] w) <float[1] w = {0}> { y = MatMul(x, w) }",
        "is a graph output",
    ),
    "overridable": (
        "g (float[M, 96] x, float[96, 80] w) => (float[M, 80] y) <float[1] w = {0}> { y = MatMul(x, w) }",
        "is a graph input, whose value a caller may override",
    ),
    "read by others": (
        "g (float[96, 96] x) => (float[96, 80] y) <float[1] w = {0}> { m = MatMul(x, w) y = Add(m, w) }",
        "is read by a Add too",
    ),
    "vector": ("g (float[M, 5000] x) => (float[M] y) <float[1] v = {0}> { y = MatMul(x, v) }", "is a vector"),
    "quantized": (
        "g (float[M, 2] x) => (float[M, 1] y) <int8[2, 1] q = {1, 2}> { w = Cast<to=1>(q) y = MatMul(x, w) }",
        "has no float weights that a kernel reads",
    ),
    "nothing": ("g (float[M, 2] x) => (float[M, 2] y) { y = Relu(x) }", "has no float weights that a kernel reads"),
}


@pytest.mark.parametrize(("text", "reason"), LEFT.values(), ids=LEFT)
def test_what_stays_has_a_reason(text, reason):
    result = clustered(model(text))
    assert not result.changes
    assert reason in [note.reason for note in result.notes]


def test_what_does_not_pay_stays():
    before = model("g (float[M, 9] x) => (float[M, 10] y) <float[1] tiny = {0}> { y = MatMul(x, tiny) }")
    assert [note.reason for note in clustered(before).notes] == ["would not get smaller"]


def test_what_is_not_finite_stays():
    before = model(KINDS["MatMul"])
    bad = W.copy()
    bad[3, 4] = np.inf
    before.graph.initializers["w"].const_value = ir.tensor(bad, name="w")
    assert [note.reason for note in clustered(before).notes] == ["is not finite"]


def test_what_no_vectors_fit_in_stays():
    result = clustered(model(KINDS["odd MatMul"]), entries=16, dims=2)
    assert [note.reason for note in result.notes] == ["7857 elements are no multiple of dims=2"]


def test_include_and_exclude():
    before = model(
        """g (float[M, 96] x) => (float[M, 80] a, float[M, 80] b) <float[1] w = {0}, float[1] wt = {0}>
           { [first] a = MatMul(x, w) [second] b = Gemm<transB=1>(x, wt) }"""
    )
    for options, kept in (({"exclude": ("op:Gemm",)}, "wt"), ({"include": ("wt",)}, "w")):
        result = clustered(before, **options)
        assert result.changes[VALUES.format(256)] == 1
        assert kept in result.model.graph.initializers
    assert any(note.reason == "matches no node" for note in clustered(before, exclude=("third",)).notes)


def test_the_manager_may_deny_a_weight():
    before = model(KINDS["LSTM"])
    sites = Sites(denied=frozenset({("cluster-weights", "LSTM -> y")}))
    assert not clustered(before, sites).changes


def test_zeros_stay_zero_where_they_are_many():
    before = model(KINDS["MatMul"])
    sparse = np.where(RANDOM.random(W.shape) < 0.5, 0, W).astype(np.float32)
    before.graph.initializers["w"].const_value = ir.tensor(sparse, name="w")
    for options in ({"entries": 16}, {"entries": 16, "group": 1}, {"entries": 256}):
        found = weights_of(clustered(before, **options).model)
        assert np.all(found[sparse == 0] == 0)
    dense = clustered(model(KINDS["MatMul"]), entries=16, keep_zeros=True)
    assert np.any(weights_of(dense.model) == 0)


def weights_of(given: ir.Model) -> np.ndarray:
    """What the one MatMul multiplies with."""
    (node,) = (node for node in given.graph if node.op_type == "MatMul")
    inner = clone(given)
    (twin,) = (node for node in inner.graph if node.op_type == "MatMul")
    inner.graph.outputs[:] = [twin.inputs[1]]
    return session(inner, optimize=False).run(feeds(given))[node.inputs[1].name]


def test_few_different_values_are_kept_exactly():
    before = model(KINDS["MatMul"])
    few = RANDOM.choice(np.array([-1.5, 0.25, 0.5, 3.0, 8.0], np.float32), W.shape)
    before.graph.initializers["w"].const_value = ir.tensor(few, name="w")
    for options in ({}, {"entries": 16, "group": 3}):
        assert np.array_equal(weights_of(clustered(before, **options).model), few)
    assert byte_size(clustered(before).model) < 0.25 * byte_size(before)  # 3 bits


class Lab:
    """A laboratory for which every model uses twice the budget that ``holds`` does not like."""

    is_timed = False
    has_data = False

    def __init__(self, holds=lambda _given: True) -> None:
        self.holds = holds
        self.memo = Memo()

    def budget_used(self, given: ir.Model) -> float:
        return 0.5 if self.holds(given) else 2.0

    def time_left(self) -> float:
        return 100.0


TWO = """g (float[M, 96] x) => (float[M, 80] a, float[M, 80] b) <float[1] w = {0}, float[1] wt = {0}>
         { a = MatMul(x, w) b = Gemm<transB=1>(x, wt) }"""


def entries_of(given: ir.Model, name: str) -> int:
    held = given.graph.initializers.get(f"{name}_entries")
    return 10**6 if held is None else held.shape[-1]


@pytest.mark.parametrize(
    ("entries", "least", "changes"),
    [
        (16, 16, {VALUES.format(16): 2, DISTINCT: 32}),
        (16, 64, {VALUES.format(32): 1, VALUES.format(64): 1, DISTINCT: 96}),
        (16, 256, {VALUES.format(64): 1, VALUES.format(256): 1, DISTINCT: 320}),
        (256, 1000, {VALUES.format(256): 1, DISTINCT: 256}),
    ],
)
def test_a_weight_that_costs_too_much_gets_more_values(entries, least, changes):
    before = model(TWO)
    evaluator = Lab(lambda given: entries_of(given, "wt") >= least)
    result = ClusterWeights(entries=entries).run(clone(before), Context(before, evaluator=evaluator))
    assert result.changes == changes
    assert_close(before, result.model, 0.4)
    replayed = ClusterWeights(entries=entries).run(clone(before), Context(before, choices=result.choices))
    assert to_proto(replayed.model) == to_proto(result.model)


def test_nothing_is_clustered_that_no_budget_has_room_for():
    before = model(TWO)
    result = ClusterWeights().run(clone(before), Context(before, evaluator=Lab(lambda _given: False)))
    assert not result.changes
    assert [note.reason for note in result.notes] == ["stays as it is: the budget has no room for its error"]


class Fed(Lab):
    """A laboratory whose inputs all have the channel powers ``moments``."""

    has_data = True

    def __init__(self, moments: np.ndarray) -> None:
        super().__init__()
        self.sweeps = 0
        self.moments = {}
        self.rows = np.sqrt(moments)[np.newaxis].astype(np.float32)

    def observe(self, given, values, channel_axes):
        found = {}
        self.sweeps += 1
        for name in values:
            found[name] = Observation.of(channel_axes[name])
            shape = [1] * 3
            shape[channel_axes[name]] = -1
            found[name].add(self.rows.reshape(shape))
        return found

    def second_moments(self, given, kernels):
        self.sweeps += 1
        return ((name, self.moments[name]) for name in kernels if name in self.moments)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm transB", "Conv", "ConvTranspose"])
def test_inputs_that_are_strong_get_the_values(kind):
    """Those that little comes in through have large weights, for which there are few values then."""
    before = model(KINDS[kind])
    channels = 96 if kind[0] in "MG" else 16
    moments = np.where(np.arange(channels) < channels // 4, 1e4, 1e-2)
    strong = feeds(before)
    scale = np.sqrt(moments).reshape([-1 if at == 1 else 1 for at in range(strong["x"].ndim)])
    strong["x"] = (strong["x"] * scale).astype(np.float32)
    ((name, held),) = before.graph.initializers.items()
    array = held.const_value.numpy()
    axis = 0 if kind in {"MatMul", "ConvTranspose"} else 1
    factor = np.where(moments > 1, 0.1, 1).reshape([-1 if at == axis else 1 for at in range(array.ndim)])
    held.const_value = ir.tensor((array * factor).astype(np.float32), name=name)
    expected = session(before).run(strong)["y"]
    errors = []
    for evaluator in (Lab(), Fed(moments)):
        result = ClusterWeights(entries=16, min_elements=64).run(clone(before), Context(before, evaluator=evaluator))
        errors.append(np.linalg.norm(session(result.model).run(strong)["y"] - expected))
    assert errors[1] < 0.8 * errors[0]


def test_inputs_that_move_together_are_known():
    """A weight that one kernel reads gets entries whose errors cancel; one that two read does not."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 4)) @ rng.standard_normal((4, 96))).astype(np.float32)
    before, errors = model(KINDS["MatMul"]), []
    for is_known in (False, True):
        evaluator = Fed(np.mean(x.astype(np.float64) ** 2, axis=0))
        if is_known:
            evaluator.moments["y"] = SecondMoments.of(1, 96)
            evaluator.moments["y"].add(x[np.newaxis])
        result = ClusterWeights(entries=16).run(clone(before), Context(before, evaluator=evaluator))
        expected, found = (session(one).run({"x": x})["y"] for one in (before, result.model))
        errors.append(np.linalg.norm(found - expected))
    assert errors[1] < 0.5 * errors[0]


def test_a_second_try_asks_for_nothing_again(monkeypatch):
    before, evaluator = model(KINDS["MatMul"]), Fed(np.ones(96))
    results = []
    for allowance in (1.0, 0.9):
        results.append(
            ClusterWeights().run(clone(before), Context(before, evaluator=evaluator, budget_limit=allowance))
        )
        monkeypatch.setattr(codes, "cluster", None)  # would fail if it was called again
    assert evaluator.sweeps == 2  # channels, and second moments
    assert to_proto(results[0].model) == to_proto(results[1].model)


def test_an_opset_without_gather_elements_is_refused():
    for version in (10, 11):
        given = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": version}), ir_version=8)
        if version < 11:
            with pytest.raises(PreconditionError, match=r"needs opset 11, .* run upgrade-opset:version=11 first"):
                ClusterWeights().requires(given, Context(given))
        else:
            ClusterWeights().requires(given, Context(given))


@pytest.mark.parametrize(
    "options",
    [
        {"entries": 1},
        {"entries": 257},
        {"dims": 0},
        {"dims": 2, "group": 1},
        {"group": -1},
        {"group": "all"},
        {"init": "random"},
        {"keep_zeros": "no"},
        {"min_elements": -1},
        {"include": ("",)},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(UsageError):
        ClusterWeights(**options)


def test_equal_runs_give_equal_bytes():
    before = model(TWO)
    for options in ({}, {"entries": 16, "group": "auto"}, {"entries": 32, "dims": 2}):
        first, second = (clustered(before, **options).model for _ in range(2))
        assert to_proto(first).SerializeToString() == to_proto(second).SerializeToString()


def test_an_old_ir_version_holds_the_books_in_constant_nodes():
    before = model(KINDS["Constant"], 11, 3)
    for entries in (256, 16):
        result = clustered(before, entries=entries)
        assert not result.model.graph.initializers
        assert_close(before, result.model, 0.4)
        assert traversal.count_nodes(result.model) > 3


DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
DATA = Path(__file__).parents[2] / "models" / "digits_data"


@pytest.mark.parametrize(("preset", "ratio"), [("small", 0.30), ("smallest", 0.20)])
def test_the_presets(preset, ratio, tmp_path):
    """A net of 22,000 parameters: biases and names are a good part of the rest."""
    paths = [tmp_path / f"{number}.onnx" for number in range(2)]
    report = optimizer.optimize(DIGITS, paths[0], preset=preset, data=DATA, timing=False).report
    assert report.after.bytes < ratio * report.before.bytes
    assert max(output.rel_l2 for output in report.outputs) < 0.1
    before, after = report.to_dict()["compressed_bytes"].values()
    assert before == pytest.approx(len(gzip.compress(DIGITS.read_bytes(), 6)), abs=40)
    assert after == pytest.approx(len(gzip.compress(paths[0].read_bytes(), 6)), abs=40)
    assert "file size, gzip" in report.to_text()
    (tmp_path / "report.json").write_text(json.dumps(report.to_dict()))
    optimizer.optimize(DIGITS, paths[1], data=DATA, replay=tmp_path / "report.json", preset=preset)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = optimizer.optimize(paths[0], preset=preset, data=DATA, timing=False).report
    assert not any(stage.kept for stage in again.stages)
    exact = optimizer.optimize(DIGITS, data=DATA, timing=False).report
    assert exact.to_dict()["compressed_bytes"] is None
