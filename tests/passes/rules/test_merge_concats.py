"""merge-concats: Concat of Concats along one axis."""

from __future__ import annotations

import pytest

from passes.rules import merge_concats
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "first": (
        model(
            "g (float[N,4] x, float[N,2] z) => (float[N,10] y) { a = Concat<axis=1>(x, z) y = Concat<axis=1>(a, x) }"
        ),
        ["Concat"],
    ),
    "last, axis from the end": (
        model(
            "g (float[N,4] x, float[N,2] z) => (float[N,10] y) { a = Concat<axis=-1>(x, z) y = Concat<axis=1>(x, a) }"
        ),
        ["Concat"],
    ),
    "three": (
        model(
            "g (float[N,4] x) => (float[N,16] y) { a = Concat<axis=1>(x, x) b = Concat<axis=1>(a, x) y = "
            "Concat<axis=1>(x, b) }"
        ),
        ["Concat"],
    ),
}
NO_OPS = {
    "another axis": model(
        "g (float[2,4] x) => (float[4,8] y) { a = Concat<axis=1>(x, x) b = Neg(a) y = Concat<axis=0>(a, b) }"
    ),
    "along another axis, read once": model(
        "g (float[2,4] x, float[2,8] z) => (float[4,8] y) { a = Concat<axis=1>(x, x) y = Concat<axis=0>(a, z) }"
    ),
    "read by two": model(
        "g (float[N,4] x) => (float[N,12] y, float[N,8] z) { a = Concat<axis=1>(x, x) y = "
        "Concat<axis=1>(a, x) z = Neg(a) }"
    ),
    "read twice": model("g (float[N,4] x) => (float[N,16] y) { a = Concat<axis=1>(x, x) y = Concat<axis=1>(a, a) }"),
    "an output": model(
        "g (float[N,4] x) => (float[N,12] y, float[N,8] a) { a = Concat<axis=1>(x, x) y = Concat<axis=1>(a, x) }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, merge_concats.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, merge_concats.RULES)
