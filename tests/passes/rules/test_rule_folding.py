"""Folding of constants and of shape arithmetic, and constant targets of Reshape and Expand."""

from __future__ import annotations

import numpy as np
import pytest

from passes.rules import constant_targets, fold_constants, lift_constants
from rewriting import ops, rewritten

FOLD = (*lift_constants.RULES, *fold_constants.RULES)
TARGETS = (*FOLD, *constant_targets.RULES)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("g (float[2] x) => (float[2] y) { c = Constant<value = float[2] {1, 2}>() y = Add(x, c) }", ["Add"]),
        (
            "g (float[4] x) => (float[4] y) <int64[1] a = {2}, int64[1] b = {2}> { s = Mul(a, b) y = Reshape(x, s) }",
            ["Reshape"],
        ),
        (
            (
                "g (float[2,3] x) => (float[3,2] y) { s = Shape(x) i = Constant<value = int64[2] {1, 0}>() "
                "r = Gather(s, i) y = Reshape(x, r) }"
            ),
            ["Reshape"],
        ),
    ],
)
def test_what_is_known_before_any_run_is_a_constant(text, left):
    assert ops(rewritten(HEAD + text, FOLD)) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("g (float[N,3] x) => (int64[2] y) { y = Shape(x) }", ["Shape"]),  # the batch is not frozen
        (
            "g (float[N,3] x) => (float[N,3] y) { s = Shape(x) r = Cast<to=1>(s) t = ReduceSum(r) y = Add(x, t) }",
            ["Shape", "Cast", "ReduceSum", "Add"],
        ),
        (
            "g (float[1] x) => (float[999] y) <float[1] a = {2}, int64[1] n = {999}> {e = Expand(a, n) y = Add(x, e)}",
            ["Expand", "Add"],
        ),  # the file would grow
        ("g () => (float[2] y) { y = RandomNormal<shape=[2], seed=1.0>() }", ["RandomNormal"]),
    ],
)
def test_what_is_open_or_would_grow_stays(text, left):
    assert ops(rewritten(HEAD + text, FOLD)) == left


def test_an_initializer_that_may_be_overridden_is_no_constant():
    text = HEAD + "g (float[1] x, float[1] a = {2}) => (float[1] y) { b = Mul(a, a) y = Add(x, b) }"
    assert ops(rewritten(text, FOLD, feeds={"x": np.ones(1, np.float32)})) == ["Mul", "Add"]


@pytest.mark.parametrize(
    "body",
    [
        "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t)",
        "s = Shape(x) i = Gather(s, z) j = Unsqueeze(i, z1) t = Concat<axis=0>(j, m) y = Reshape(x, t)",
    ],
)
def test_a_reshape_that_keeps_the_batch_needs_no_shape_arithmetic(body):
    text = (
        HEAD + "g (float[N,4,3] x) => (float[N,12] y) <int64[1] m = {12}, int64 z = {0}, int64[1] z1 = {0}> {"
        f"{body} }}"
    )
    model = rewritten(text, TARGETS, dims={"N": 5})
    assert ops(model) == ["Reshape"]
    assert model.graph[-1].inputs[1].const_value.numpy().tolist() in ([0, 12], [-1, 12])


def test_two_open_dimensions_stay_computed():
    text = HEAD + (
        "g (float[N,M] x, float[K,L] r) => (float[A,B,C] y) <int64[1] m = {1}> {"
        "s = Shape(r) t = Concat<axis=0>(s, m) y = Reshape(x, t) }"
    )
    assert "Concat" in ops(rewritten(text, TARGETS, dims={"N": 4, "M": 3, "K": 2, "L": 6}))


def test_an_expand_keeps_a_dimension_by_one():
    text = HEAD + (
        "g (float[N,1] x) => (float[N,3] y) <int64[1] m = {3}> {"
        "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Expand(x, t) }"
    )
    assert ops(rewritten(text, TARGETS, dims={"N": 5})) == ["Expand"]
