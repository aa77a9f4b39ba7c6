"""drop-identities, drop-neutral, drop-inverse: operators without effect, and those that have one."""

from __future__ import annotations

import pytest

from passes.rules import drop_identities
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("drop-identities: Identity", "(float[N,4] x) => (float[N,4] y)", "a = Identity(x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: behind", "(float[N,4] x) => (float[N,4] y)", "a = Relu(x) y = Identity(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Dropout", "(float[N,4] x) => (float[N,4] y)", "a = Dropout(x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Cast", "(float[N,4] x) => (float[N,4] y)", "a = Cast<to=1>(x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Transpose", "(float[N,4] x) => (float[N,4] y)",
            "a = Transpose<perm=[0,1]>(x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Concat", "(float[N,4] x) => (float[N,4] y)", "a = Concat<axis=1>(x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Sum", "(float[N,4] x) => (float[N,4] y)", "a = Sum(x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Flatten", "(float[N,4] x) => (float[N,4] y)", "a = Flatten(x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-inverse: Neg of Neg", "(float[N,4] x) => (float[N,4] y)", "a = Neg(x) b = Neg(a) y = Relu(b)",
            after="y = Relu(x)"),
    Rewrite("drop-neutral: Add", "(float[N,4] x) => (float[N,4] y) <float c = {0}>", "a = Add(x, c) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-neutral: 0 + x", "(float[N,4] x) => (float[N,4] y) <float c = {0}>", "a = Add(c, x) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-neutral: Sub", "(float[N,4] x) => (float[N,4] y) <float c = {0}>", "a = Sub(x, c) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-neutral: Mul", "(float[N,4] x) => (float[N,4] y) <float[1] c = {1}>", "a = Mul(x, c) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-neutral: Div by a row of ones", "(float[N,4] x) => (float[N,4] y) <float[4] c = {1, 1, 1, 1}>",
            "a = Div(x, c) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-neutral: Pow", "(float[N,4] x) => (float[N,4] y) <float c = {1}>", "a = Pow(x, c) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Tile", "(float[N,4] x) => (float[N,4] y) <int64[2] c = {1, 1}>",
            "a = Tile(x, c) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Pad", "(float[N,4] x) => (float[N,4] y) <int64[4] c = {0, 0, 0, 0}>",
            "a = Pad(x, c) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Slice to the end",
            "(float[N,4] x) => (float[N,4] y) <int64[1] s = {0}, int64[1] e = {9223372036854775807}>",
            "a = Slice(x, s, e) y = Relu(a)",
            after="y = Relu(x)"),
    Rewrite("drop-identities: Reshape to the shape that it has",
            "(float[3,4] x) => (float[3,4] y) <int64[2] c = {-1, 4}>", "a = Reshape(x, c) y = Relu(a)",
            after="y = Relu(x)"),
]

NO_OPS = [
    NoOp("input and output would be one", "(float[N,4] x) => (float[N,4] y)", "y = Identity(x)"),
    NoOp("0 - x", "(float[N,4] x) => (float[N,4] y) <float c = {0}>", "y = Sub(c, x)"),
    NoOp("1 / x", "(float[N,4] x) => (float[N,4] y) <float c = {1}>", "y = Div(c, x)"),
    NoOp("x + 1", "(float[N,4] x) => (float[N,4] y) <float c = {1}>", "a = Add(x, c) y = Neg(a)"),
    NoOp("x * 0", "(float[N,4] x) => (float[N,4] y) <float c = {0}>", "a = Mul(x, c) y = Neg(a)"),
    NoOp("one of a row is not neutral", "(float[N,4] x) => (float[N,4] y) <float[4] c = {1, 1, 2, 1}>",
         "a = Mul(x, c) y = Neg(a)"),
    NoOp("a constant of a higher rank", "(float[N,4] x) => (float[1,N,4] y) <float[1,1,1] c = {0}>",
         "a = Add(x, c) y = Neg(a)"),
    NoOp("a constant that enlarges", "(float[1,4] x) => (float[3,4] y) <float[3,4] c = {1,1,1,1,1,1,1,1,1,1,1,1}>",
         "a = Mul(x, c) y = Neg(a)"),
    NoOp("the constant is an input of the model", "(float[N,4] x, float c) => (float[N,4] y)",
         "a = Add(x, c) y = Neg(a)"),
    NoOp("a Cast that truncates", "(float[N,4] x) => (float[N,4] y)", "a = Cast<to=6>(x) y = Cast<to=1>(a)"),
    NoOp("a Transpose", "(float[M,4] x) => (float[4,M] y)", "a = Transpose<perm=[1,0]>(x) y = Softmax<axis=0>(a)"),
    NoOp("a Transpose of unknown order", "(float[4,4] x) => (float[4,4] y)", "a = Transpose(x) y = Neg(a)"),
    NoOp("a Dropout that may train", "(float[N,4] x, bool t) => (float[N,4] y) <float r = {0.5}>",
         "a = Dropout(x, r, t) y = Neg(a)"),
    NoOp("a Dropout whose mask is read", "(float[N,4] x) => (float[N,4] y, bool[N,4] m)",
         "a, m = Dropout(x) y = Neg(a)"),
    NoOp("a Slice", "(float[6,4] x) => (float[1,4] y) <int64[1] s = {0}, int64[1] e = {1}>",
         "a = Slice(x, s, e) y = Neg(a)"),
    NoOp("a Slice backwards",
         "(float[4] x) => (float[4] y) <int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] z = {0}, "
         "int64[1] m = {-1}>", "a = Slice(x, s, e, z, m) y = Neg(a)"),
    NoOp("a Pad", "(float[N,4] x) => (float[N,5] y) <int64[4] c = {0, 0, 0, 1}>", "a = Pad(x, c) y = Neg(a)"),
    NoOp("a Tile", "(float[N,4] x) => (float[N,8] y) <int64[2] c = {1, 2}>", "a = Tile(x, c) y = Neg(a)"),
    NoOp("a Reshape of the same elements", "(float[2,4] x) => (float[4,2] y) <int64[2] c = {4, 2}>",
         "a = Reshape(x, c) y = Neg(a)"),
    NoOp("a Flatten of more than a matrix", "(float[2,3,4] x) => (float[2,12] y)", "a = Flatten(x) y = Neg(a)"),
    NoOp("a Concat of two", "(float[N,4] x) => (float[N,8] y)", "a = Concat<axis=1>(x, x) y = Neg(a)"),
    NoOp("Neg of Abs", "(float[N,4] x) => (float[N,4] y)", "a = Abs(x) y = Neg(a)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, drop_identities.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, drop_identities.RULES)
