"""reuse-shapes: shape arithmetic that comes to what is known already."""

from __future__ import annotations

import pytest

from passes.rules import reuse_shapes
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "Shape behind Relu": (
        model(
            "g (float[A,B] x) => (float[A,B] u, float[A,B] v) { s = Shape(x) r = Relu(x) t = Shape(r) u = "
            "ConstantOfShape(s) v = Expand(r, t) }"
        ),
        ["Shape", "Relu", "ConstantOfShape", "Expand"],
    ),
    "a part of a shape": (
        model(
            "g (float[A,B] x) => (int64 u, int64 v) <int64 i = {0}> { s = Shape(x) r = Relu(x) t = Shape(r) "
            "a = Gather(s, i) b = Gather(t, i) u = Neg(a) v = Mul(b, b) }"
        ),
        ["Shape", "Gather", "Neg", "Mul"],
    ),
    "joined with a constant": (
        model(
            "g (float[A,B] x) => (float[C,D] u, float[E,F] v) <int64[1] i = {0}, int64[1] four = {4}> { s = "
            "Shape(x) r = Relu(x) t = Shape(r) a = Gather(s, i) b = Gather(t, i) c = Concat<axis=0>(a, four) "
            "d = Concat<axis=0>(b, four) u = ConstantOfShape(c) v = ConstantOfShape(d) }"
        ),
        ["Shape", "Gather", "Concat", "ConstantOfShape", "ConstantOfShape"],
    ),
}
NO_OPS = {
    "of another value": model(
        "g (float[A,B] x, float[C,D] z) => (float[A,B] u, float[C,D] v) { s = Shape(x) t = Shape(z) u = "
        "ConstantOfShape(s) v = ConstantOfShape(t) }"
    ),
    "another element": model(
        "g (float[A,B] x) => (int64 u, int64 v) <int64 i = {0}, int64 j = {1}> { s = Shape(x) a = "
        "Gather(s, i) b = Gather(s, j) u = Neg(a) v = Mul(b, b) }"
    ),
    "of another rank": model(
        "g (float[A,B] x) => (int64 u, int64[1] v) <int64 i = {0}, int64[1] j = {0}> { s = Shape(x) a = "
        "Gather(s, i) b = Gather(s, j) u = Neg(a) v = Mul(b, b) }"
    ),
    "of another type": model(
        "g (float[A,B] x) => (int64[2] u, int32[2] v) { s = Shape(x) t = Cast<to=6>(s) u = Neg(s) v = Mul(t, t) }"
    ),
    "both are outputs": model("g (float[A,B] x) => (int64[2] s, int64[2] t) { s = Shape(x) r = Relu(x) t = Shape(r) }"),
    "floats are no shapes": model(
        "g (float[A,B] x) => (float[A,B] u, float[A,B] v) { a = Neg(x) b = Neg(x) u = Abs(a) v = Exp(b) }"
    ),
    "in two branches": model(
        "g (float[A,B] x, bool c) => (int64[2] y) { y = If(c)<then_branch = t () => (int64[2] a) { p = "
        "Shape(x) a = Neg(p) }, else_branch = e () => (int64[2] b) { q = Shape(x) b = Mul(q, q) }> }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, reuse_shapes.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, reuse_shapes.RULES)
