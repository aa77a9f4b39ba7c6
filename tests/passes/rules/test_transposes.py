"""move-transposes: Transposes that meet, and those that cannot go."""

from __future__ import annotations

import pytest

from passes.rules import transposes
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "there and back": (
        model(
            "g (float[1,2,3,4] x) => (float[1,2,3,4] y) { t = Transpose<perm=[0,2,3,1]>(x) r = Relu(t) y = "
            "Transpose<perm=[0,3,1,2]>(r) }"
        ),
        ["Relu"],
    ),
    "around an Add": (
        model(
            "g (float[1,2,3,4] x, float[1,2,3,4] z) => (float[1,2,3,4] y) { t = Transpose<perm=[0,2,3,1]>(x) "
            "u = Transpose<perm=[0,2,3,1]>(z) a = Add(t, u) y = Transpose<perm=[0,3,1,2]>(a) }"
        ),
        ["Add"],
    ),
    "a constant is transposed": (
        model(
            "g (float[1,2,3,4] x) => (float[1,2,3,4] y) <float[1,3,4,2] c = "
            "{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23}> { t = "
            "Transpose<perm=[0,2,3,1]>(x) a = Mul(t, c) y = Transpose<perm=[0,3,1,2]>(a) }"
        ),
        ["Mul"],
    ),
    "Concat": (
        model(
            "g (float[1,2,3,4] x, float[1,2,3,4] z) => (float[1,4,3,4] y) { t = Transpose<perm=[0,2,3,1]>(x) "
            "u = Transpose<perm=[0,2,3,1]>(z) a = Concat<axis=3>(t, u) y = Transpose<perm=[0,3,1,2]>(a) }"
        ),
        ["Concat"],
    ),
    "two ways as one": (
        model(
            "g (float[1,2,3,4] x) => (float[3,4,1,2] y) { t = Transpose<perm=[0,2,3,1]>(x) r = Relu(t) y = "
            "Transpose<perm=[1,2,0,3]>(r) }"
        ),
        ["Relu", "Transpose"],
    ),
    "what is between is an output": (
        model(
            "g (float[1,2,3,4] x) => (float[1,2,3,4] y, float[1,3,4,2] r) { t = Transpose<perm=[0,2,3,1]>(x) "
            "r = Relu(t) y = Transpose<perm=[0,3,1,2]>(r) }"
        ),
        ["Relu", "Transpose"],
    ),
    "a mean over the pixels": (
        model(
            "g (float[1,2,3,4] x) => (float[1,2] y) { t = Transpose<perm=[0,2,3,1]>(x) y = "
            "ReduceMean<axes=[1,2], keepdims=0>(t) }"
        ),
        ["ReduceMean"],
    ),
}
NO_OPS = {
    "one is needed": model(
        "g (float[1,2,3,4] x) => (float[1,3,4,2] y) { t = Transpose<perm=[0,2,3,1]>(x) y = Relu(t) }"
    ),
    "an operator that looks at the axes": model(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) { t = Transpose<perm=[0,2,3,1]>(x) r = Flatten(t) s "
        "= Shape(t) v = Reshape(r, s) y = Transpose<perm=[0,3,1,2]>(v) }"
    ),
    "another operand that is not transposed": model(
        "g (float[1,2,3,4] x, float[1,3,4,2] z) => (float[1,3,4,2] y) { t = Transpose<perm=[0,2,3,1]>(x) "
        "y = Add(t, z) }"
    ),
    "of unknown order": model(
        "g (float[A,B] x, float[C,D] z) => (float[E,F] y) { t = Transpose<perm=[1,0]>(x) y = MatMul(t, z) }"
    ),
    "nothing is transposed": model("g (float[1,2,3,4] x) => (float[1,2,3,4] y) { r = Relu(x) y = Neg(r) }"),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, transposes.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, transposes.RULES)
