"""fold-constants, fold-shapes: what is known before any run."""

from __future__ import annotations

import pytest

from passes.rules import fold_constants
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("fold-shapes: arithmetic of constants", "(float[4] x) => (float[4] y) <int64[1] a = {2}, int64[1] b = {2}>",
            "s = Mul(a, b) y = Reshape(x, s)",
            after="<int64[1] s = {4}> y = Reshape(x, s)"),
    Rewrite("fold-shapes: a static shape", "(float[2,3] x) => (float[3,2] y) <int64[2] i = {1, 0}>",
            "s = Shape(x) r = Gather(s, i) y = Reshape(x, r)",
            after="<int64[2] r = {3, 2}> y = Reshape(x, r)"),
    Rewrite("a static dimension of a dynamic shape", "(float[N,3] x) => (float[N,3] y) <int64 i = {1}>",
            "s = Shape(x) r = Gather(s, i) c = Cast<to=1>(r) y = Add(x, c)",
            after="<float c = {3}> y = Add(x, c)"),
    Rewrite("fold-constants: in Constant nodes", "(float[2] x) => (float[2] y)",
            "a = Constant<value_float=2.0>() b = Neg(a) y = Add(x, b)",
            after="<float b = {-2}> y = Add(x, b)"),
]

NO_OPS = [
    NoOp("a dynamic shape", "(float[N,3] x) => (int64[2] y)", "y = Shape(x)"),
    NoOp("arithmetic of a dynamic shape", "(float[N,3] x) => (float[N,3] y)",
         "s = Shape(x) r = Cast<to=1>(s) t = ReduceSum(r) y = Add(x, t)"),
    NoOp("the file would grow", "(float[1] x) => (float[999] y) <float[1] a = {2}, int64[1] n = {999}>",
         "e = Expand(a, n) y = Add(x, e)"),
    NoOp("random", "() => (float[2] y)", "y = RandomNormal<shape=[2], seed=1.0>()"),
    NoOp("an initializer that may be overridden", "(float[1] x, float[1] a = {2}) => (float[1] y)",
         "b = Mul(a, a) y = Add(x, b)"),
    NoOp("an output", "(float[1] x) => (float[1] y, float[1] b) <float[1] a = {2}>", "b = Mul(a, a) y = Neg(x)"),
    NoOp("an input of the model", "(float[1] x, float[1] a) => (float[1] y)", "b = Mul(a, a) y = Add(x, b)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fold_constants.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fold_constants.RULES)
