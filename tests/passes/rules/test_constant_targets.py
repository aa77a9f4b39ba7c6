"""constant-targets: Reshape and Expand by a constant for what they find out themselves."""

from __future__ import annotations

import pytest

from passes.rules import constant_targets
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("Reshape keeps the batch", "(float[N,4,3] x) => (float[N,12] y) <int64[1] m = {12}>",
            "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t)",
            after="<int64[2] s_1 = {0, 12}> y = Reshape(x, s_1)"),
    Rewrite("by Gather", "(float[N,4,3] x) => (float[N,12] y) <int64[1] m = {12}, int64 z = {0}, int64[1] z1 = {0}>",
            "s = Shape(x) i = Gather(s, z) j = Unsqueeze(i, z1) t = Concat<axis=0>(j, m) y = Reshape(x, t)",
            after="<int64[2] s_1 = {0, 12}> y = Reshape(x, s_1)"),
    Rewrite("Expand keeps a dimension by 1", "(float[N,1] x) => (float[N,3] y) <int64[1] m = {3}>",
            "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Expand(x, t)",
            after="<int64[2] s_1 = {1, 3}> y = Expand(x, s_1)"),
    Rewrite("two that read one target",
            "(float[N,4,3] x, float[N,12] z) => (float[N,12] y, float[N,12] u) <int64[1] m = {12}>",
            "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t) u = Reshape(z, t)",
            after="<int64[2] s_1 = {0, 12}> y = Reshape(x, s_1) u = Reshape(z, s_1)"),
]

NO_OPS = [
    NoOp("two open dimensions", "(float[N,M] x, float[K,L] r) => (float[A,B,C] y) <int64[1] m = {1}>",
         "s = Shape(r) t = Concat<axis=0>(s, m) y = Reshape(x, t)"),
    NoOp("a constant already", "(float[N,4,3] x) => (float[N,12] y) <int64[2] t = {0, 12}>", "y = Reshape(x, t)"),
    NoOp("an input of the model", "(float[N,4,3] x, int64[2] t) => (float[A,B] y)", "y = Reshape(x, t)"),
    NoOp("the target is an output", "(float[N,4,3] x) => (float[N,12] y, int64[2] t) <int64[1] m = {12}>",
         "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t)"),
    NoOp("Expand to a dimension of another value", "(float[1,1] x, float[N,M] z) => (float[N,3] y) <int64[1] m = {3}>",
         "s = Shape<start=0, end=1>(z) t = Concat<axis=0>(s, m) y = Expand(x, t)"),
    NoOp("a user that wants another constant",
         "(float[N,4] x, float[1,1] z) => (float[N,4] y, float[N,4] u) <int64[1] m = {4}>",
         "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t) u = Expand(z, t)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, constant_targets.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, constant_targets.RULES)
