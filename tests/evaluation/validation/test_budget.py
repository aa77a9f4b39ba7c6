"""Budgets: what is parsed, what is measured, and what one number over an output would hide."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from optimizer.errors import UsageError
from optimizer.evaluation.validation.budget import Budget, Part, parts
from optimizer.evaluation.validation.output_error import difference


def test_default_and_none():
    assert Budget.parse("default") == Budget()
    assert str(Budget()) == "default"
    assert str(Budget.parse("none")) == "none"
    assert Budget.parse("none").failure(difference(np.ones(2), np.zeros(2))) == ""


@pytest.mark.parametrize("text", ["sqnr=30", "rel_l2=0.05", "rel_l2=0.05,agreement=0.98", "cosine=0.999"])
def test_limits_round_trip(text):
    assert str(Budget.parse(text)) == text


@pytest.mark.parametrize("text", ["", "speed=3", "sqnr", "sqnr=much", "sqnr=nan", "parts=1"])
def test_what_is_wrong_is_named(text):
    with pytest.raises(UsageError, match="--budget"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("text", "candidate", "reason"),
    [
        ("sqnr=30", [3, 4.5], "has SQNR 20, the limit is 30"),
        ("rel_l2=0.05", [3, 4.5], "has relative L2 0.1, the limit is 0.05"),
        ("max_abs=0.1", [3, 4.5], "has largest difference 0.5, the limit is 0.1"),
        ("cosine=0.999", [4.5, 3], "has cosine 0.943, the limit is 0.999"),
        ("sqnr=10", [3, np.nan], "has NaN or infinity at 1 other places than the reference"),
    ],
)
def test_limits(text, candidate, reason):
    found = difference(np.array([3.0, 4.0]), np.array(candidate, float))
    assert Budget.parse(text).failure(found) == reason


def test_within_limits():
    found = difference(np.array([3.0, 4.0]), np.array([3.0, 4.1]))
    assert Budget.parse("sqnr=30").failure(found) == ""
    assert Budget().failure(found, 1.0) == ""


def test_a_constant_answer_does_not_pass():
    found = difference(np.array([100.0, 101.0]), np.array([100.5, 100.5]))
    assert Budget().failure(found) == ""
    assert "around its mean" in Budget().failure(found, 0.005)


def test_integers_and_arg_max():
    equal = np.zeros(100, np.int64)
    one, two = equal.copy(), equal.copy()
    one[0], two[:2] = 1, 1
    assert Budget().failure(difference(equal, one)) == ""
    assert "98.00%" in Budget().failure(difference(equal, two))
    flipped = difference(np.array([[1.0, 1.01]]), np.array([[1.01, 1.0]]))
    assert Budget().failure(flipped) == ""
    assert "arg-max" in Budget().failure(flipped, arg_max=True)


def test_parts_of_a_concat_hide_nothing():
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["": 17]>
        g (float[1,4,N] box, float[1,2,N] logit) => (float[1,6,N] y) {
            score = Sigmoid(logit)
            y = Concat<axis=1>(box, score)
        }""")
    model.graph.node(0).outputs[0].shape = ir.Shape([1, 2, "N"])
    box, score = parts(model)["y"]
    assert (box.start, box.stop, box.link) == (0, 4, "")
    assert (score.start, score.stop, score.link) == (4, 6, "Sigmoid")
    reference = np.concatenate([np.full((1, 4, 3), 300.0), np.full((1, 2, 3), 0.9)], axis=1)
    candidate = np.concatenate([np.full((1, 4, 3), 300.0), np.full((1, 2, 3), 0.1)], axis=1)
    assert Budget().failure(difference(reference, candidate)) == ""
    assert "relative L2" in Budget().failure(difference(score.of(reference), score.of(candidate)))


def test_a_concat_of_unknown_sizes_has_no_parts():
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["": 17]>
        g (float[N] a, float[M] b) => (float[K] y) { y = Concat<axis=0>(a, b) }""")
    assert parts(model)["y"] == ()


def test_softmax_is_undone_along_its_axis():
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["": 17]>
        g (float[1,3,2] x) => (float[1,3,2] y) {
            z = Softmax<axis=1>(x)
            y = Identity(z)
        }""")
    (part,) = parts(model)["y"]
    logits = np.random.default_rng(0).standard_normal((1, 3, 2))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.moveaxis(logits - logits.mean(axis=1, keepdims=True), 1, -1)
    np.testing.assert_allclose(part.of(shares), expected)


def test_sigmoid_is_undone():
    logits = np.linspace(-5, 5, 7)
    np.testing.assert_allclose(Part("x", link="Sigmoid").of(1 / (1 + np.exp(-logits))), logits, rtol=1e-9, atol=1e-9)
    assert np.isfinite(Part("x", link="Sigmoid").of(np.array([0.0, 1.0]))).all()
