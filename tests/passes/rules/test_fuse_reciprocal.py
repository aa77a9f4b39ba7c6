"""fuse-reciprocal: a product with a reciprocal is a quotient, unless it is quantized as the model runs."""

from __future__ import annotations

import pytest

from passes.rules import fuse_reciprocal
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("Reciprocal",
            "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] "
            "wide = {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Reciprocal(d) y = Mul(x, a)",
            after="y = Div(x, d)"),
    Rewrite("the reciprocal first",
            "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] "
            "wide = {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Reciprocal(d) y = Mul(a, x)",
            after="y = Div(x, d)"),
    Rewrite("one over",
            "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] "
            "wide = {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Div(one, d) y = Mul(x, a)",
            after="y = Div(x, d)"),
    Rewrite("one over, in a vector",
            "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] "
            "wide = {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Div(ones, d) b = Mul(x, a) y = Mul(b, w)",
            after="b = Div(x, d) y = Mul(b, w)"),
]

NO_OPS = [
    NoOp("two over",
         "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] wide "
         "= {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Div(two, d) y = Mul(x, a)"),
    NoOp("a one of a higher rank",
         "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] wide "
         "= {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Div(wide, d) b = Mul(x, a) y = Squeeze(b)"),
    NoOp("it has other users",
         "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] wide "
         "= {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Div(one, d) b = Mul(x, a) y = Add(b, a)"),
    NoOp("over one",
         "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] wide "
         "= {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Div(d, one) y = Mul(x, a)"),
    NoOp("an output",
         "(float[3,4] x, float[3,1] d) => (float[3,4] y, float[3,1] a) <float one = {1}, float[1] ones = {1}, "
         "float[1,1,1] wide = {1}, float two = {2}, float[4] w = {1,2,3,4}>", "a = Reciprocal(d) y = Mul(x, a)"),
    NoOp("what is quantized keeps its rounding",
         "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] wide "
         "= {1}, float two = {2}, float[4] w = {1,2,3,4}>",
         "a = Reciprocal(d) b = Mul(x, a) q, s, z = DynamicQuantizeLinear(b) y = DequantizeLinear(q, s, z)"),
    NoOp("at a distance too",
         "(float[3,4] x, float[3,1] d) => (float[3,4] y) <float one = {1}, float[1] ones = {1}, float[1,1,1] wide "
         "= {1}, float two = {2}, float[4] w = {1,2,3,4}>",
         "a = Reciprocal(d) b = Mul(x, a) c = Mul(b, w) e = Add(c, w) q, s, z = DynamicQuantizeLinear(e) y = "
         "DequantizeLinear(q, s, z)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_reciprocal.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_reciprocal.RULES)
