"""Which operators with constants become fewer, and which stay in their row."""

from __future__ import annotations

import pytest

from passes.rules import fuse_constants
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = (
    "(float[N,2] x) => (float[N,2] y) <float two = {2}, float three = {3}, float[2] c = {2, 3}, float[2] d = {5, 7}, "
    "float[1] one = {1}, float zero = {0}, float[2,2] square = {1, 2, 3, 4}>"
)

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("two factors", X, "a = Mul(x, two) y = Mul(a, three)",
            after="<float k = {6}> y = Mul(x, k)"),
    Rewrite("factors of each column", X, "a = Mul(c, x) y = Mul(d, a)",
            after="<float[2] k = {10, 21}> y = Mul(x, k)"),
    Rewrite("one factor and some", X, "a = Mul(x, two) y = Mul(a, c)",
            after="<float[2] k = {4, 6}> y = Mul(x, k)"),
    Rewrite("quotient and factor", X, "a = Div(x, two) y = Mul(a, c)",
            after="<float[2] k = {1, 1.5}> y = Mul(x, k)"),
    Rewrite("factor and quotient", X, "a = Mul(x, c) y = Div(a, two)",
            after="<float[2] k = {1, 1.5}> y = Mul(x, k)"),
    Rewrite("factor, negative", X, "a = Mul(x, c) y = Neg(a)",
            after="<float[2] k = {-2, -3}> y = Mul(x, k)"),
    Rewrite("negative, factor", X, "a = Neg(x) y = Mul(a, c)",
            after="<float[2] k = {-2, -3}> y = Mul(x, k)"),
    Rewrite("two summands", X, "a = Add(x, two) y = Add(a, c)",
            after="<float[2] k = {4, 5}> y = Add(x, k)"),
    Rewrite("difference and summand", X, "a = Sub(x, two) y = Add(a, d)",
            after="<float[2] k = {3, 5}> y = Add(x, k)"),
    Rewrite("two differences", X, "a = Sub(x, two) y = Sub(a, three)",
            after="<float k = {-5}> y = Add(x, k)"),
    Rewrite("factor, summand, factor", X, "a = Mul(x, two) b = Add(a, c) y = Mul(b, three)",
            after="<float k = {6}, float[2] l = {6, 9}> a = Mul(x, k) y = Add(a, l)"),
    Rewrite("factor, summand, negative", X, "a = Mul(x, two) b = Add(a, c) y = Neg(b)",
            after="<float k = {-2}, float[2] l = {-2, -3}> a = Mul(x, k) y = Add(a, l)"),
    Rewrite("summand, factor, summand", X, "a = Add(x, two) b = Mul(a, c) y = Add(b, d)",
            after="<float[2] l = {9, 13}> b = Mul(x, c) y = Add(b, l)"),
    Rewrite("difference, quotient, difference", X, "a = Sub(x, two) b = Div(a, two) y = Sub(b, three)",
            after="<float k = {0.5}, float l = {-4}> b = Mul(x, k) y = Add(b, l)"),
    Rewrite("a constant that enlarges",
            "(float[2] x) => (float[2,2] y) <float[2] c = {2, 3}, float[2,2] s = {1, 2, 3, 4}>",
            "a = Mul(x, s) y = Mul(a, c)",
            after="<float[2,2] k = {2, 6, 6, 12}> y = Mul(x, k)"),
    Rewrite("a summand that enlarges goes to the end",
            "(float[2] x) => (float[2,2] y) <float[2] c = {2, 3}, float[2,2] s = {1, 2, 3, 4}, float[2] d = {5, 7}>",
            "a = Add(x, s) b = Mul(a, c) y = Add(b, d)",
            after="<float[2,2] k = {7, 13, 11, 19}> b = Mul(x, c) y = Add(b, k)"),
    Rewrite("fp16", X.replace("float", "float16"), "a = Mul(x, two) y = Mul(a, three)",
            after="<float16 k = {6}> y = Mul(x, k)"),
    Rewrite("double", X.replace("float", "double"), "a = Add(x, two) y = Add(a, three)",
            after="<double k = {5}> y = Add(x, k)"),
    Rewrite("oldest opset", X, "a = Mul(x, two) y = Mul(a, three)",
            after="<float k = {6}> y = Mul(x, k)", opset=7),
]

NO_OPS = [
    NoOp("one alone", X, "a = Mul(x, two) y = Exp(a)"),
    NoOp("of an input", X, "y = Mul(x, two)"),
    NoOp("not by a constant", X.replace("x)", "x, float[N,2] u)"), "a = Mul(x, two) y = Mul(a, u)"),
    NoOp("constant may be overridden", X.replace("x)", "x, float u = {2})"), "a = Mul(x, two) y = Mul(a, u)"),
    NoOp("first not by a constant", X.replace("x)", "x, float[N,2] u)"), "a = Mul(x, u) y = Mul(a, two)"),
    NoOp("something between", X, "a = Mul(x, two) b = Exp(a) y = Mul(b, three)"),
    NoOp("factor and summand", X, "a = Mul(x, two) y = Add(a, c)"),
    NoOp("summand and factor", X, "a = Add(x, two) y = Mul(a, c)"),
    NoOp("factor and summand of two users", X, "a = Mul(x, two) b = Add(a, c) d1 = Mul(b, three) y = Sub(d1, a)"),
    NoOp("something, factor and summand", X, "a = Exp(x) b = Mul(a, two) y = Add(b, c)"),
    NoOp("summand, then of something, factor", X, "a = Exp(x) b = Add(a, c) y = Mul(b, two)"),
    NoOp("between has two users", X, "a = Mul(x, two) b = Mul(a, three) y = Add(a, b)"),
    NoOp("between is an output", X.replace("y)", "y, float[N,2] a)"), "a = Mul(x, two) y = Mul(a, three)"),
    NoOp("old opset", X, "a = Neg(x) y = Neg(a)", opset=6),
    NoOp("nearly cancels", X, "<float e = {2.1}> a = Add(x, two) y = Sub(a, e)"),
    NoOp("cancels", X, "a = Add(x, two) y = Sub(a, two)"),
    NoOp("nearly cancels in one column", X, "<float[2] e = {5, -2.1}> a = Add(x, two) y = Add(a, e)"),
    NoOp("nearly cancels after a factor", X, "<float e = {-6.1}> a = Add(x, two) b = Mul(a, three) y = Add(b, e)"),
    NoOp("factor overflows", X, "<float big = {3e38}> a = Mul(x, two) y = Mul(a, big)"),
    NoOp("factor sinks among the denormal numbers", X,
         "<float low = {1e-38}, float less = {0.01}> a = Mul(x, low) y = Mul(a, less)"),
    NoOp("one factor of two sinks", X,
         "<float[2] low = {1e-38, 1}, float less = {0.01}> a = Mul(x, low) y = Mul(a, less)"),
    NoOp("summand overflows", X, "<float big = {3e38}> a = Add(x, big) y = Add(a, big)"),
    NoOp("fp16 overflows", X.replace("float", "float16"), "<float16 big = {60000}> a = Mul(x, two) y = Mul(a, big)"),
    NoOp("of three, the summand overflows", X,
         "<float big = {3e38}> a = Mul(x, two) b = Add(a, big) y = Mul(b, three)"),
    NoOp("divided by zero", X, "a = Mul(x, two) y = Div(a, zero)"),
    NoOp("constant divided", X, "a = Mul(x, two) y = Div(three, a)"),
    NoOp("from a constant", X, "a = Add(x, two) y = Sub(three, a)"),
    NoOp("integers", X.replace("float", "int32"), "a = Mul(x, two) y = Mul(a, three)"),
    NoOp("integers, negative", "(int32[2] x) => (int32[2] y)", "a = Neg(x) y = Neg(a)"),
    NoOp("file would grow",
         "(float[9,1] x) => (float[9,9] y, float[9,1] z, float[1,9] v) <float[9,1] a1 = {1,2,3,4,5,6,7,8,9}, "
         "float[1,9] b1 = {1,2,3,4,5,6,7,8,9}>", "a = Mul(x, a1) y = Mul(a, b1) z = Neg(a1) v = Neg(b1)"),
    NoOp("in a function, where no type is known", "(float[2] x) => (float[2] y)", "y = f.F(x)",
         functions=function("F (x) => (y) { a = Neg(x) y = Neg(a) }")),
    NoOp("the other is outside the branch", X.replace("x)", "x, bool c)").replace("float[2] c = {2, 3}, ", ""),
         "a = Mul(x, two) " + branches("float[N,2]", "s = Mul(a, three)", "r = Neg(x)")),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_constants.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_constants.RULES)
