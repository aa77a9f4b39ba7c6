"""constant-targets: Reshape and Expand by a constant for what they find out themselves."""

from __future__ import annotations

import pytest

from passes.rules import constant_targets
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "Reshape keeps the batch": (
        model(
            "g (float[N,4,3] x) => (float[N,12] y) <int64[1] m = {12}> { s = Shape<start=0, end=1>(x) t = "
            "Concat<axis=0>(s, m) y = Reshape(x, t) }"
        ),
        ["Reshape"],
    ),
    "by Gather": (
        model(
            "g (float[N,4,3] x) => (float[N,12] y) <int64[1] m = {12}, int64 z = {0}, int64[1] z1 = {0}> { s "
            "= Shape(x) i = Gather(s, z) j = Unsqueeze(i, z1) t = Concat<axis=0>(j, m) y = Reshape(x, t) }"
        ),
        ["Reshape"],
    ),
    "Expand keeps a dimension by 1": (
        model(
            "g (float[N,1] x) => (float[N,3] y) <int64[1] m = {3}> { s = Shape<start=0, end=1>(x) t = "
            "Concat<axis=0>(s, m) y = Expand(x, t) }"
        ),
        ["Expand"],
    ),
    "two that read one target": (
        model(
            "g (float[N,4,3] x, float[N,12] z) => (float[N,12] y, float[N,12] u) <int64[1] m = {12}> { s = "
            "Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t) u = Reshape(z, t) }"
        ),
        ["Reshape", "Reshape"],
    ),
}
NO_OPS = {
    "two open dimensions": model(
        "g (float[N,M] x, float[K,L] r) => (float[A,B,C] y) <int64[1] m = {1}> { s = Shape(r) t = "
        "Concat<axis=0>(s, m) y = Reshape(x, t) }"
    ),
    "a constant already": model("g (float[N,4,3] x) => (float[N,12] y) <int64[2] t = {0, 12}> { y = Reshape(x, t) }"),
    "an input of the model": model("g (float[N,4,3] x, int64[2] t) => (float[A,B] y) { y = Reshape(x, t) }"),
    "the target is an output": model(
        "g (float[N,4,3] x) => (float[N,12] y, int64[2] t) <int64[1] m = {12}> { s = Shape<start=0, "
        "end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t) }"
    ),
    "Expand to a dimension of another value": model(
        "g (float[1,1] x, float[N,M] z) => (float[N,3] y) <int64[1] m = {3}> { s = Shape<start=0, "
        "end=1>(z) t = Concat<axis=0>(s, m) y = Expand(x, t) }"
    ),
    "a user that wants another constant": model(
        "g (float[N,4] x, float[1,1] z) => (float[N,4] y, float[N,4] u) <int64[1] m = {4}> { s = "
        "Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t) u = Expand(z, t) }"
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, constant_targets.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, constant_targets.RULES)
