"""reshape-views: a Reshape by a computed target that only adds or drops ones."""

from __future__ import annotations

import pytest

from passes.rules import reshape_views
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "adds one": (
        model(
            "g (float[A,B] x) => (float[A,1,B] y) <int64[1] one = {1}, int64 i = {0}, int64 j = {1}, "
            "int64[1] z = {0}> { s = Shape(x) a = Gather(s, i) b = Gather(s, j) c = Unsqueeze(a, z) d = "
            "Unsqueeze(b, z) t = Concat<axis=0>(c, one, d) y = Reshape(x, t) }"
        ),
        ["Unsqueeze"],
    ),
    "drops one": (
        model(
            "g (float[A,1,B] x) => (float[A,B] y) <int64 i = {0}, int64 j = {2}, int64[1] z = {0}> { s = "
            "Shape(x) a = Gather(s, i) b = Gather(s, j) c = Unsqueeze(a, z) d = Unsqueeze(b, z) t = "
            "Concat<axis=0>(c, d) y = Reshape(x, t) }"
        ),
        ["Squeeze"],
    ),
    "attributes, opset 11": (
        model(
            "g (float[A,B] x) => (float[A,1,B] y) <int64[1] one = {1}, int64 i = {0}, int64 j = {1}> { s = "
            "Shape(x) a = Gather(s, i) b = Gather(s, j) c = Unsqueeze<axes=[0]>(a) d = "
            "Unsqueeze<axes=[0]>(b) t = Concat<axis=0>(c, one, d) y = Reshape(x, t) }",
            11,
        ),
        ["Unsqueeze"],
    ),
}
NO_OPS = {
    "a constant target": model("g (float[2,3] x) => (float[2,1,3] y) <int64[3] t = {2,1,3}> { y = Reshape(x, t) }"),
    "the order changes": model(
        "g (float[A,B] x) => (float[B,1,A] y) <int64[1] one = {1}, int64 i = {0}, int64 j = {1}, "
        "int64[1] z = {0}> { s = Shape(x) a = Gather(s, i) b = Gather(s, j) c = Unsqueeze(a, z) d = "
        "Unsqueeze(b, z) t = Concat<axis=0>(d, one, c) y = Reshape(x, t) }"
    ),
    "dimensions are joined": model(
        "g (float[A,B,4] x) => (float[C,4] y) <int64[1] m = {-1}, int64[1] f = {4}, int64 i = {2}, "
        "int64[1] z = {0}> { s = Shape(x) a = Gather(s, i) d = Unsqueeze(a, z) t = Concat<axis=0>(m, d) "
        "y = Reshape(x, t) }"
    ),
    "the target is an input of the model": model(
        "g (float[A,B] x, int64[3] t) => (float[A,C,B] y) { y = Reshape(x, t) }"
    ),
    "the target is read by two": model(
        "g (float[A,B] x) => (float[A,1,B] y, int64[3] t) <int64[1] one = {1}, int64 i = {0}, int64 j = "
        "{1}, int64[1] z = {0}> { s = Shape(x) a = Gather(s, i) b = Gather(s, j) c = Unsqueeze(a, z) d = "
        "Unsqueeze(b, z) t = Concat<axis=0>(c, one, d) y = Reshape(x, t) }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, reshape_views.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, reshape_views.RULES)
