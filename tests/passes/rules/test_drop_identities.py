"""drop-identities, drop-neutral, drop-inverse: operators without effect, and those that have one."""

from __future__ import annotations

import pytest

from passes.rules import drop_identities
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "Identity": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Identity(x) y = Relu(a) }"),
        ["Relu"],
    ),
    "behind": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Identity(a) }"),
        ["Relu"],
    ),
    "Dropout": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Dropout(x) y = Relu(a) }"),
        ["Relu"],
    ),
    "Cast": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Cast<to=1>(x) y = Relu(a) }"),
        ["Relu"],
    ),
    "Transpose": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Transpose<perm=[0,1]>(x) y = Relu(a) }"),
        ["Relu"],
    ),
    "Concat": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Concat<axis=1>(x) y = Relu(a) }"),
        ["Relu"],
    ),
    "Sum": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Sum(x) y = Relu(a) }"),
        ["Relu"],
    ),
    "Flatten": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Flatten(x) y = Relu(a) }"),
        ["Relu"],
    ),
    "Neg of Neg": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Neg(x) b = Neg(a) y = Relu(b) }"),
        ["Relu"],
    ),
    "Add": (
        model("g (float[N,4] x) => (float[N,4] y) <float c = {0}> { a = Add(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
    "0 + x": (
        model("g (float[N,4] x) => (float[N,4] y) <float c = {0}> { a = Add(c, x) y = Relu(a) }"),
        ["Relu"],
    ),
    "Sub": (
        model("g (float[N,4] x) => (float[N,4] y) <float c = {0}> { a = Sub(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
    "Mul": (
        model("g (float[N,4] x) => (float[N,4] y) <float[1] c = {1}> { a = Mul(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
    "Div by a row of ones": (
        model("g (float[N,4] x) => (float[N,4] y) <float[4] c = {1, 1, 1, 1}> { a = Div(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
    "Pow": (
        model("g (float[N,4] x) => (float[N,4] y) <float c = {1}> { a = Pow(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
    "Tile": (
        model("g (float[N,4] x) => (float[N,4] y) <int64[2] c = {1, 1}> { a = Tile(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
    "Pad": (
        model("g (float[N,4] x) => (float[N,4] y) <int64[4] c = {0, 0, 0, 0}> { a = Pad(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
    "Slice to the end": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <int64[1] s = {0}, int64[1] e = {9223372036854775807}> { a = "
            "Slice(x, s, e) y = Relu(a) }"
        ),
        ["Relu"],
    ),
    "Reshape to the shape that it has": (
        model("g (float[3,4] x) => (float[3,4] y) <int64[2] c = {-1, 4}> { a = Reshape(x, c) y = Relu(a) }"),
        ["Relu"],
    ),
}
NO_OPS = {
    "input and output would be one": model("g (float[N,4] x) => (float[N,4] y) { y = Identity(x) }"),
    "0 - x": model("g (float[N,4] x) => (float[N,4] y) <float c = {0}> { y = Sub(c, x) }"),
    "1 / x": model("g (float[N,4] x) => (float[N,4] y) <float c = {1}> { y = Div(c, x) }"),
    "x + 1": model("g (float[N,4] x) => (float[N,4] y) <float c = {1}> { a = Add(x, c) y = Neg(a) }"),
    "x * 0": model("g (float[N,4] x) => (float[N,4] y) <float c = {0}> { a = Mul(x, c) y = Neg(a) }"),
    "one of a row is not neutral": model(
        "g (float[N,4] x) => (float[N,4] y) <float[4] c = {1, 1, 2, 1}> { a = Mul(x, c) y = Neg(a) }"
    ),
    "a constant of a higher rank": model(
        "g (float[N,4] x) => (float[1,N,4] y) <float[1,1,1] c = {0}> { a = Add(x, c) y = Neg(a) }"
    ),
    "a constant that enlarges": model(
        "g (float[1,4] x) => (float[3,4] y) <float[3,4] c = {1,1,1,1,1,1,1,1,1,1,1,1}> { a = Mul(x, c) y = Neg(a) }"
    ),
    "the constant is an input of the model": model(
        "g (float[N,4] x, float c) => (float[N,4] y) { a = Add(x, c) y = Neg(a) }"
    ),
    "a Cast that truncates": model("g (float[N,4] x) => (float[N,4] y) { a = Cast<to=6>(x) y = Cast<to=1>(a) }"),
    "a Transpose": model("g (float[M,4] x) => (float[4,M] y) { a = Transpose<perm=[1,0]>(x) y = Softmax<axis=0>(a) }"),
    "a Transpose of unknown order": model("g (float[4,4] x) => (float[4,4] y) { a = Transpose(x) y = Neg(a) }"),
    "a Dropout that may train": model(
        "g (float[N,4] x, bool t) => (float[N,4] y) <float r = {0.5}> { a = Dropout(x, r, t) y = Neg(a) }"
    ),
    "a Dropout whose mask is read": model(
        "g (float[N,4] x) => (float[N,4] y, bool[N,4] m) { a, m = Dropout(x) y = Neg(a) }"
    ),
    "a Slice": model(
        "g (float[6,4] x) => (float[1,4] y) <int64[1] s = {0}, int64[1] e = {1}> { a = Slice(x, s, e) y = Neg(a) }"
    ),
    "a Slice backwards": model(
        "g (float[4] x) => (float[4] y) <int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, "
        "int64[1] z = {0}, int64[1] m = {-1}> { a = Slice(x, s, e, z, m) y = Neg(a) }"
    ),
    "a Pad": model("g (float[N,4] x) => (float[N,5] y) <int64[4] c = {0, 0, 0, 1}> { a = Pad(x, c) y = Neg(a) }"),
    "a Tile": model("g (float[N,4] x) => (float[N,8] y) <int64[2] c = {1, 2}> { a = Tile(x, c) y = Neg(a) }"),
    "a Reshape of the same elements": model(
        "g (float[2,4] x) => (float[4,2] y) <int64[2] c = {4, 2}> { a = Reshape(x, c) y = Neg(a) }"
    ),
    "a Flatten of more than a matrix": model("g (float[2,3,4] x) => (float[2,12] y) { a = Flatten(x) y = Neg(a) }"),
    "a Concat of two": model("g (float[N,4] x) => (float[N,8] y) { a = Concat<axis=1>(x, x) y = Neg(a) }"),
    "Neg of Abs": model("g (float[N,4] x) => (float[N,4] y) { a = Abs(x) y = Neg(a) }"),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, drop_identities.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, drop_identities.RULES)
