"""merge-reshapes: what only changes the shape, in a row."""

from __future__ import annotations

import pytest

from passes.rules import merge_reshapes
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "two Reshapes": (
        model(
            "g (float[2,3,4] x) => (float[4,6] y) <int64[2] s = {6,4}, int64[2] t = {4,6}> { a = Reshape(x, "
            "s) y = Reshape(a, t) }"
        ),
        ["Reshape"],
    ),
    "Flatten and Reshape": (
        model("g (float[2,3,4] x) => (float[4,6] y) <int64[2] t = {4,6}> { a = Flatten(x) y = Reshape(a, t) }"),
        ["Reshape"],
    ),
    "Unsqueeze and Squeeze": (
        model(
            "g (float[2,1,4] x) => (float[1,2,4] y) <int64[1] s = {0}, int64[1] t = {2}> { a = Unsqueeze(x, "
            "s) y = Squeeze(a, t) }"
        ),
        ["Reshape"],
    ),
    "a -1 that stays true": (
        model(
            "g (float[N,3,4] x) => (float[N,12] y) <int64[3] s = {-1,4,3}, int64[2] t = {-1,12}> { a = "
            "Reshape(x, s) y = Reshape(a, t) }"
        ),
        ["Reshape"],
    ),
    "the first is read by others too": (
        model(
            "g (float[2,3,4] x) => (float[4,6] y, float[6,4] z) <int64[2] s = {6,4}, int64[2] t = {4,6}> { a "
            "= Reshape(x, s) y = Reshape(a, t) z = Neg(a) }"
        ),
        ["Reshape", "Reshape", "Neg"],
    ),
}
NO_OPS = {
    "a Transpose between": model(
        "g (float[2,3,4] x) => (float[4,6] y) <int64[2] s = {6,4}, int64[2] t = {4,6}> { a = Reshape(x, "
        "s) b = Transpose<perm=[1,0]>(a) y = Reshape(b, t) }"
    ),
    "an operator between": model(
        "g (float[2,3,4] x) => (float[6,2,2] y) <int64[2] s = {6,4}, int64[3] t = {0,2,2}> { a = "
        "Reshape(x, s) b = Neg(a) y = Reshape(b, t) }"
    ),
    "before opset 5": model(
        "g (float[2,3,4] x) => (float[4,6] y) { a = Reshape<shape=[6,4]>(x) y = Reshape<shape=[4,6]>(a) }", 4
    ),
    "nothing before": model("g (float[2,3,4] x) => (float[4,6] y) <int64[2] t = {4,6}> { y = Reshape(x, t) }"),
    "a 0 that keeps what the first made": model(
        "g (float[2,12] x, int64[2] s) => (float[A,2,B] y) <int64[3] t = {0,2,-1}> { a = Reshape(x, s) y "
        "= Reshape(a, t) }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, merge_reshapes.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, merge_reshapes.RULES)
