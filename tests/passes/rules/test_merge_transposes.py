"""merge-transposes: Transpose of Transpose."""

from __future__ import annotations

import pytest

from passes.rules import merge_transposes
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "as one": (
        model(
            "g (float[2,3,4] x) => (float[4,2,3] y) { a = Transpose<perm=[2,1,0]>(x) y = Transpose<perm=[0,2,1]>(a) }"
        ),
        ["Transpose"],
    ),
    "the first is read by others too": (
        model(
            "g (float[2,3,4] x) => (float[4,2,3] y, float[4,3,2] z) { a = Transpose<perm=[2,1,0]>(x) y = "
            "Transpose<perm=[0,2,1]>(a) z = Neg(a) }"
        ),
        ["Transpose", "Transpose", "Neg"],
    ),
    "three": (
        model(
            "g (float[2,3,4] x) => (float[2,4,3] y) { a = Transpose<perm=[2,1,0]>(x) b = "
            "Transpose<perm=[0,2,1]>(a) y = Transpose<perm=[1,0,2]>(b) }"
        ),
        ["Transpose"],
    ),
}
NO_OPS = {
    "of unknown order": model("g (float[2,3] x) => (float[2,3] y) { a = Transpose(x) y = Transpose(a) }"),
    "an operator between": model(
        "g (float[2,3] x) => (float[2,3] y) { a = Transpose<perm=[1,0]>(x) b = Neg(a) y = Transpose<perm=[1,0]>(b) }"
    ),
    "one": model("g (float[2,3] x) => (float[3,2] y) { y = Transpose<perm=[1,0]>(x) }"),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, merge_transposes.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, merge_transposes.RULES)
