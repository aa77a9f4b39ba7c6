"""merge-slices: Slice of a Slice of other axes."""

from __future__ import annotations

import pytest

from passes.rules import merge_slices
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "two axes": (
        model(
            "g (float[6,8] x) => (float[2,7] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, "
            "int64[1] o = {1}, int64[1] f = {9}> { the_first_slice_of_x = Slice(x, s, e, z) y = "
            "Slice(the_first_slice_of_x, s, f, o) }"
        ),
        ["Slice"],
    ),
    "steps": (
        model(
            "g (float[6,8] x) => (float[2,4] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, "
            "int64[1] o = {1}, int64[1] f = {9}, int64[1] t = {2}> { the_first_slice_of_the_input_x = "
            "Slice(x, s, e, z) y = Slice(the_first_slice_of_the_input_x, z, f, o, t) }"
        ),
        ["Slice"],
    ),
}
NO_OPS = {
    "the same axis": model(
        "g (float[6,8] x) => (float[1,8] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, "
        "int64[1] o = {1}, int64[1] f = {9}> { a = Slice(x, s, e, z) y = Slice(a, s, e, z) }"
    ),
    "the same axis from the end": model(
        "g (float[6,8] x) => (float[1,8] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, "
        "int64[1] o = {1}, int64[1] f = {9}, int64[1] m = {-2}> { a = Slice(x, s, e, z) y = Slice(a, s, "
        "e, m) }"
    ),
    "read by two": model(
        "g (float[6,8] x) => (float[2,7] y, float[2,8] w) <int64[1] s = {1}, int64[1] e = {3}, int64[1] "
        "z = {0}, int64[1] o = {1}, int64[1] f = {9}> { a = Slice(x, s, e, z) y = Slice(a, s, f, o) w = "
        "Neg(a) }"
    ),
    "the first is an output": model(
        "g (float[6,8] x) => (float[2,7] y, float[2,8] a) <int64[1] s = {1}, int64[1] e = {3}, int64[1] "
        "z = {0}, int64[1] o = {1}, int64[1] f = {9}> { a = Slice(x, s, e, z) y = Slice(a, s, f, o) }"
    ),
    "the end is an input of the model": model(
        "g (float[6,8] x, int64[1] e) => (float[A,7] y) <int64[1] s = {1}, int64[1] z = {0}, int64[1] o "
        "= {1}, int64[1] f = {9}> { a = Slice(x, s, e, z) y = Slice(a, s, f, o) }"
    ),
    "an operator between": model(
        "g (float[6,8] x) => (float[2,7] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] z = {0}, "
        "int64[1] o = {1}, int64[1] f = {9}> { a = Slice(x, s, e, z) b = Neg(a) y = Slice(b, s, f, o) }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, merge_slices.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, merge_slices.RULES)
