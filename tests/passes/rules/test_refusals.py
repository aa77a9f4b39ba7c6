"""Rules say why not: what matches and is refused has a reason, what does not match has none."""

from __future__ import annotations

import ast
from pathlib import Path

import onnx_ir as ir
import pytest

from optimizer.algorithms.rewriting.common_subexpressions import merge_equal
from optimizer.algorithms.rewriting.rewriter import Rewriter
from optimizer.algorithms.rewriting.rules import sweep
from optimizer.analysis.annotation import annotated
from optimizer.contract.passes import Sites
from optimizer.contract.refusal import RefusalLog
from passes import rules as folder
from passes.simplify import MERGE_EQUAL, RULES

FOLDER = Path(folder.__file__).parent


def refusals(text):
    """Step and reason of each refusal of the first sweep of all rules."""
    model, log = ir.from_onnx_text(text), RefusalLog()
    sites = Sites(refusals=log)
    with annotated(model) as values:
        rewriter = Rewriter(model, sites, values)
        sweep(model, RULES, sites, rewriter)
        merge_equal(rewriter, MERGE_EQUAL)
    return {(refusal.step, refusal.reason) for refusal in log.counts()}


def graph(body, inputs="float[2,3] x", outputs="float[2,3] y", weights="", opset=20):
    return f'<ir_version: 10, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {weights} {{ {body} }}'


CONV = "float[2,1,1,1] w = {1,2}, float s = {3}, float t = {4}"
REFUSED = [
    (
        graph("a = Dropout(x, , m)  y = Relu(a)", inputs="float[2,3] x, bool m"),
        ("drop-identities", "the Dropout may train: its training mode is not a constant false"),
    ),
    (
        graph("y = Identity(x)"),
        ("drop-identities", "its output is a graph output, whose name its input cannot take"),
    ),
    (
        graph("a = Relu(x)  y = Add(a, z)", inputs="float[N,M] x", outputs="float y", weights="<float[1,1,1] z = {0}>"),
        ("drop-neutral", "the neutral constant may enlarge the other operand"),
    ),
    (
        graph(
            "a = Conv(x, w)  y = Mul(a, s)  z = Relu(a)",
            inputs="float[1,1,4,4] x",
            outputs="float[1,2,4,4] y, float[1,2,4,4] z",
            weights=f"<{CONV}>",
        ),
        ("fuse-scale", "what the Conv, Gemm or MatMul computes has other users"),
    ),
    (
        graph(
            "a = Conv(x, w)  y = Mul(a, s)  z = Conv(x, w)",
            inputs="float[1,1,4,4] x",
            outputs="float[1,2,4,4] y, float[1,2,4,4] z",
            weights=f"<{CONV}>",
        ),
        ("fuse-scale", "the weight has other users, which are not scaled alike"),
    ),
    (
        graph(
            "a = Add(x, t)  y = Conv <pads = [1,1,1,1]> (a, w)",
            inputs="float[1,1,4,4] x",
            outputs="float[1,2,6,6] y",
            weights=f"<{CONV}>",
        ),
        ("fuse-affine-before", "the Conv pads, and its padding is not shifted"),
    ),
    (
        graph("a = Add(x, s)  y = Add(a, t)", weights="<float s = {1.0}, float t = {-1.01}>"),
        ("fuse-constants", "the sum of the constants nearly cancels"),
    ),
    (
        graph("a = Cast <to = 6> (x)  y = Cast <to = 1> (a)"),
        ("merge-casts", "the first Cast may lose something"),
    ),
    (
        graph(
            "a = Concat <axis = 0> (x, x)  b = Concat <axis = 0> (a, x)  y = Relu(b)  z = Neg(a)",
            outputs="float y, float z",
        ),
        ("merge-concats", "the inner Concat has other users"),
    ),
    (
        graph(
            "y = Expand(o, s)", outputs="float[200,100] y", weights="<float[1,1] o = {7.0}, int64[2] s = {200, 100}>"
        ),
        ("fold-constants", "a graph output is computed by a node, and is no constant"),
    ),
    (
        graph(
            "a = Mul(o, p)  b = Add(x, a)  y = Add(b, o)",
            inputs="float[60,60] x",
            outputs="float[60,60] y",
            weights=f"<float[60,1] o = {{{','.join(['1.5'] * 60)}}}, float[1,60] p = {{{','.join(['2.5'] * 60)}}}>",
        ),
        ("fold-constants", "the file would grow"),
    ),
    (
        graph("a = Relu(x)  y = Reshape(a, s)", inputs="float[2,3] x, int64[2] s", outputs="float[A,B] y"),
        ("constant-targets", "more than one dimension of the target is open, or a dimension that is not may be 0"),
    ),
    (
        graph(
            'a = Pad <mode = "reflect"> (x, p)  y = Conv(a, w)',
            inputs="float[1,1,4,4] x",
            outputs="float[1,2,6,6] y",
            weights=f"<int64[8] p = {{0,0,1,1,0,0,1,1}}, {CONV}>",
        ),
        ("fuse-pad", "the operator pads with something else than the Pad"),
    ),
    (
        graph("a = Relu(x)  b = Relu(x)  y = Identity(a)  z = Identity(b)", outputs="float[2,3] y, float[2,3] z"),
        ("merge-equal-nodes", "its output is a graph output, whose name its input cannot take"),
    ),
    (
        graph("a = Transpose <perm = [1,0]> (x)  b = Relu(a)  y = Neg(b)", outputs="float[3,2] y"),
        ("move-transposes", "no fewer Transposes would do"),
    ),
]
NOTHING = [
    graph("y = Relu(x)"),
    graph("a = Sin(x)  b = Cos(a)  y = Add(a, b)"),
    graph(
        "y = Conv(x, w)", inputs="float[1,1,4,4] x", outputs="float[1,2,4,4] y", weights="<float[2,1,1,1] w = {1,2}>"
    ),
    graph("a = Relu(x)  y = Softmax(a)"),
]


@pytest.mark.parametrize(("text", "refusal"), REFUSED, ids=[refusal[0] for _, refusal in REFUSED])
def test_what_matches_and_is_refused_has_a_reason(text, refusal):
    assert refusal in refusals(text)


@pytest.mark.parametrize("text", NOTHING)
def test_what_does_not_match_has_none(text):
    assert refusals(text) == set()


def test_nothing_is_collected_where_nothing_asks():
    model, sites = ir.from_onnx_text(REFUSED[0][0]), Sites()
    sweep(model, RULES, sites)
    assert sites.refusals is None


def calls(name):
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield path.name, node


def test_reasons_are_constants_in_one_line():
    reasons = [(file, call.args[0]) for file, call in calls("Refusal")]
    assert len(reasons) > 50
    for file, reason in reasons:
        texts = [
            each.value for each in ast.walk(reason) if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        is_plain = not any(isinstance(each, ast.JoinedStr | ast.Call) for each in ast.walk(reason))
        assert is_plain, f"{file}: a reason that names something cannot be counted"
        assert all("\n" not in text and not text.endswith(".") and len(text) < 100 for text in texts)
