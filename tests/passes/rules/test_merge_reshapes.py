"""merge-reshapes: what only changes the shape, in a row."""

from __future__ import annotations

import pytest

from passes.rules import merge_reshapes
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("two Reshapes", "(float[2,3,4] x) => (float[4,6] y) <int64[2] s = {6,4}, int64[2] t = {4,6}>",
            "a = Reshape(x, s) y = Reshape(a, t)",
            after="y = Reshape(x, t)"),
    Rewrite("Flatten and Reshape", "(float[2,3,4] x) => (float[4,6] y) <int64[2] t = {4,6}>",
            "a = Flatten(x) y = Reshape(a, t)",
            after="y = Reshape(x, t)"),
    Rewrite("Unsqueeze and Squeeze", "(float[2,1,4] x) => (float[1,2,4] y) <int64[1] s = {0}, int64[1] t = {2}>",
            "a = Unsqueeze(x, s) y = Squeeze(a, t)",
            after="<int64[3] s_1 = {1, 2, 4}> y = Reshape(x, s_1)"),
    Rewrite("a -1 that stays true", "(float[N,3,4] x) => (float[N,12] y) <int64[3] s = {-1,4,3}, int64[2] t = {-1,12}>",
            "a = Reshape(x, s) y = Reshape(a, t)",
            after="y = Reshape(x, t)"),
    Rewrite("the first is read by others too",
            "(float[2,3,4] x) => (float[4,6] y, float[6,4] z) <int64[2] s = {6,4}, int64[2] t = {4,6}>",
            "a = Reshape(x, s) y = Reshape(a, t) z = Neg(a)",
            after="a = Reshape(x, s) y = Reshape(x, t) z = Neg(a)"),
]

NO_OPS = [
    NoOp("a Transpose between", "(float[2,3,4] x) => (float[4,6] y) <int64[2] s = {6,4}, int64[2] t = {4,6}>",
         "a = Reshape(x, s) b = Transpose<perm=[1,0]>(a) y = Reshape(b, t)"),
    NoOp("an operator between", "(float[2,3,4] x) => (float[6,2,2] y) <int64[2] s = {6,4}, int64[3] t = {0,2,2}>",
         "a = Reshape(x, s) b = Neg(a) y = Reshape(b, t)"),
    NoOp("before opset 5", "(float[2,3,4] x) => (float[4,6] y)",
         "a = Reshape<shape=[6,4]>(x) y = Reshape<shape=[4,6]>(a)", opset=4),
    NoOp("nothing before", "(float[2,3,4] x) => (float[4,6] y) <int64[2] t = {4,6}>", "y = Reshape(x, t)"),
    NoOp("a 0 that keeps what the first made",
         "(float[2,12] x, int64[2] s) => (float[A,2,B] y) <int64[3] t = {0,2,-1}>",
         "a = Reshape(x, s) y = Reshape(a, t)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, merge_reshapes.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, merge_reshapes.RULES)
