"""slice-shapes: dimensions of one Shape in a row."""

from __future__ import annotations

import pytest

from passes.rules import slice_shapes
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "Gather of one": (
        model(
            "g (float[A,B,C] x) => (int64[1] y) <int64[1] i = {1}> { shape_of_the_input = Shape(x) y = "
            "Gather(shape_of_the_input, i) }"
        ),
        ["Shape"],
    ),
    "Slice": (
        model(
            "g (float[A,B,C] x) => (int64[2] y) <int64[1] i = {0}, int64[1] j = {2}> { shape_of_the_input = "
            "Shape(x) y = Slice(shape_of_the_input, i, j) }"
        ),
        ["Shape"],
    ),
    "joined again": (
        model(
            "g (float[A,B,C] x) => (int64[2] y) <int64 i = {1}, int64 j = {2}, int64[1] z = {0}> { s = "
            "Shape(x) a = Gather(s, i) b = Gather(s, j) c = Unsqueeze(a, z) d = Unsqueeze(b, z) y = "
            "Concat<axis=0>(c, d) }"
        ),
        ["Shape"],
    ),
}
NO_OPS = {
    "before opset 15": model(
        "g (float[A,B,C] x) => (int64[1] y) <int64[1] i = {1}> { s = Shape(x) y = Gather(s, i) }", 14
    ),
    "not in a row": model("g (float[A,B,C] x) => (int64[2] y) <int64[2] i = {0,2}> { s = Shape(x) y = Gather(s, i) }"),
    "another order": model("g (float[A,B,C] x) => (int64[2] y) <int64[2] i = {1,0}> { s = Shape(x) y = Gather(s, i) }"),
    "a single number": model("g (float[A,B,C] x) => (int64 y) <int64 i = {1}> { s = Shape(x) y = Gather(s, i) }"),
    "the Shape is read by others": model(
        "g (float[A,B,C] x) => (int64[1] y, int64[3] s) <int64[1] i = {1}> { s = Shape(x) y = Gather(s, i) }"
    ),
    "an index that is an input of the model": model(
        "g (float[A,B,C] x, int64[1] i) => (int64[1] y) { s = Shape(x) y = Gather(s, i) }"
    ),
    "with a constant": model(
        "g (float[A,B,C] x) => (int64[2] y) <int64[1] four = {4}> { s = Shape(x) a = "
        "ReduceMax<keepdims=1>(s) y = Concat<axis=0>(a, four) }"
    ),
    "another type": model(
        "g (float[A,B,C] x) => (int32[1] y) <int64[1] i = {1}> { s = Shape(x) c = Cast<to=6>(s) y = Gather(c, i) }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, slice_shapes.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, slice_shapes.RULES)
