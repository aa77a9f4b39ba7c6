"""merge-casts: Cast of a Cast, where the first loses nothing."""

from __future__ import annotations

import pytest

from passes.rules import merge_casts
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "float, double, float": (
        model("g (float[N] x) => (float[N] y) { a = Cast<to=11>(x) y = Cast<to=1>(a) }"),
        ["Cast"],
    ),
    "bool, int64, float": (
        model("g (bool[N] x) => (float[N] y) { a = Cast<to=7>(x) y = Cast<to=1>(a) }"),
        ["Cast"],
    ),
    "half, float, double": (
        model("g (float16[N] x) => (double[N] y) { a = Cast<to=1>(x) y = Cast<to=11>(a) }"),
        ["Cast"],
    ),
    "int32, int64, double": (
        model("g (int32[N] x) => (double[N] y) { a = Cast<to=7>(x) y = Cast<to=11>(a) }"),
        ["Cast"],
    ),
}
NO_OPS = {
    "float, int32, float": model("g (float[N] x) => (float[N] y) { a = Cast<to=6>(x) y = Cast<to=1>(a) }"),
    "float, half, float": model("g (float[N] x) => (float[N] y) { a = Cast<to=10>(x) y = Cast<to=1>(a) }"),
    "int64, float, int64": model("g (int64[N] x) => (int64[N] y) { a = Cast<to=1>(x) y = Cast<to=7>(a) }"),
    "float, double, int32": model("g (float[N] x) => (int32[N] y) { a = Cast<to=11>(x) y = Cast<to=6>(a) }"),
    "an operator between": model("g (int32[N] x) => (int32[N] y) { a = Cast<to=7>(x) b = Neg(a) y = Cast<to=6>(b) }"),
    "float, bool, float": model("g (float[N] x) => (float[N] y) { a = Cast<to=9>(x) y = Cast<to=1>(a) }"),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, merge_casts.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, merge_casts.RULES)
