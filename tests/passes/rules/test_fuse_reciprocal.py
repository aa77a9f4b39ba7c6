"""fuse-reciprocal: a product with a reciprocal is a quotient, unless it is quantized as the model runs."""

from __future__ import annotations

import pytest

from passes.rules import fuse_reciprocal
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "Reciprocal": (
        model(
            "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
            "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Reciprocal(d) y = "
            "Mul(x, a) }"
        ),
        ["Div"],
    ),
    "the reciprocal first": (
        model(
            "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
            "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Reciprocal(d) y = "
            "Mul(a, x) }"
        ),
        ["Div"],
    ),
    "one over": (
        model(
            "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
            "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Div(one, d) y = Mul(x, "
            "a) }"
        ),
        ["Div"],
    ),
    "one over, in a vector": (
        model(
            "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
            "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Div(ones, d) b = Mul(x, "
            "a) y = Mul(b, w) }"
        ),
        ["Div", "Mul"],
    ),
}
NO_OPS = {
    "two over": model(
        "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
        "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Div(two, d) y = Mul(x, "
        "a) }"
    ),
    "a one of a higher rank": model(
        "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
        "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Div(wide, d) b = Mul(x, "
        "a) y = Squeeze(b) }"
    ),
    "it has other users": model(
        "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
        "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Div(one, d) b = Mul(x, "
        "a) y = Add(b, a) }"
    ),
    "over one": model(
        "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
        "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Div(d, one) y = Mul(x, "
        "a) }"
    ),
    "an output": model(
        "g (float[3,4] x, float[3,1] d) => (float[3,4] y, float[3,1] a) <float one = {1}, float[1] ones "
        "= {1}, float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Reciprocal(d) y "
        "= Mul(x, a) }"
    ),
    "what is quantized keeps its rounding": model(
        "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
        "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Reciprocal(d) b = "
        "Mul(x, a) q, s, z = DynamicQuantizeLinear(b) y = DequantizeLinear(q, s, z) }"
    ),
    "at a distance too": model(
        "g (float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, "
        "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}> { a = Reciprocal(d) b = "
        "Mul(x, a) c = Mul(b, w) e = Add(c, w) q, s, z = DynamicQuantizeLinear(e) y = "
        "DequantizeLinear(q, s, z) }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, fuse_reciprocal.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, fuse_reciprocal.RULES)
