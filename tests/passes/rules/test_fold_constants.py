"""fold-constants, fold-shapes: what is known before any run."""

from __future__ import annotations

import pytest

from passes.rules import fold_constants
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "arithmetic of constants": (
        model(
            "g (float[4] x) => (float[4] y) <int64[1] a = {2}, int64[1] b = {2}> { s = Mul(a, b) y = Reshape(x, s) }"
        ),
        ["Reshape"],
    ),
    "a static shape": (
        model(
            "g (float[2,3] x) => (float[3,2] y) <int64[2] i = {1, 0}> { s = Shape(x) r = Gather(s, i) y = "
            "Reshape(x, r) }"
        ),
        ["Reshape"],
    ),
    "a static dimension of a dynamic shape": (
        model(
            "g (float[N,3] x) => (float[N,3] y) <int64 i = {1}> { s = Shape(x) r = Gather(s, i) c = "
            "Cast<to=1>(r) y = Add(x, c) }"
        ),
        ["Add"],
    ),
    "in Constant nodes": (
        model("g (float[2] x) => (float[2] y) { a = Constant<value_float=2.0>() b = Neg(a) y = Add(x, b) }"),
        ["Add"],
    ),
}
NO_OPS = {
    "a dynamic shape": model("g (float[N,3] x) => (int64[2] y) { y = Shape(x) }"),
    "arithmetic of a dynamic shape": model(
        "g (float[N,3] x) => (float[N,3] y) { s = Shape(x) r = Cast<to=1>(s) t = ReduceSum(r) y = Add(x, t) }"
    ),
    "the file would grow": model(
        "g (float[1] x) => (float[999] y) <float[1] a = {2}, int64[1] n = {999}> { e = Expand(a, n) y = Add(x, e) }"
    ),
    "random": model("g () => (float[2] y) { y = RandomNormal<shape=[2], seed=1.0>() }"),
    "an initializer that may be overridden": model(
        "g (float[1] x, float[1] a = {2}) => (float[1] y) { b = Mul(a, a) y = Add(x, b) }"
    ),
    "an output": model("g (float[1] x) => (float[1] y, float[1] b) <float[1] a = {2}> { b = Mul(a, a) y = Neg(x) }"),
    "an input of the model": model("g (float[1] x, float[1] a) => (float[1] y) { b = Mul(a, a) y = Add(x, b) }"),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, fold_constants.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, fold_constants.RULES)
