"""Which shapes are not computed again, and which differ or cannot be read."""

from __future__ import annotations

import pytest

from passes.rules import reuse_shapes
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = "(float[N,4] x) => (int64[4] y) <int64[1] zero = {0}, int64[1] one = {1}, int64 first = {0}>"
TWO = X.replace("(int64[4] y)", "(int64[2] y, int64[2] z)")

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("shape of the same value", X, "s = Shape(x) t = Shape(x) y = Concat<axis=0>(s, t)",
            after="s = Shape(x) y = Concat<axis=0>(s, s)"),
    Rewrite("shape of what has the same", X, "a = Relu(x) s = Shape(x) t = Shape(a) y = Concat<axis=0>(s, t)",
            after="s = Shape(x) y = Concat<axis=0>(s, s)"),
    Rewrite("computed otherwise", X,
            "s = Shape(x) n = Gather(s, zero) m = Gather(s, one) t = Concat<axis=0>(n, m) y = Concat<axis=0>(s, t)",
            after="s = Shape(x) y = Concat<axis=0>(s, s)"),
    Rewrite("a number", X.replace("int64[4] y", "int64 y"),
            "s = Shape(x) n = Gather(s, first) t = Shape(x) m = Gather(t, first) y = Mul(n, m)",
            after="s = Shape(x) n = Gather(s, first) y = Mul(n, n)"),
    Rewrite("an output", TWO, "s = Shape(x) y = Neg(s) z = Shape(x)",
            after="z = Shape(x) y = Neg(z)"),
    Rewrite("in a branch", "(float[N,4] x, bool c) => (int64[4] y)",
            "k = Shape(x) " + branches("int64[4]", "t = Shape(x) s = Concat<axis=0>(k, t)", "r = Concat<axis=0>(k, k)"),
            after="k = Shape(x) " + branches("int64[4]", "s = Concat<axis=0>(k, k)", "r = Concat<axis=0>(k, k)")),
    Rewrite("old opset", X, "a = Neg(x) s = Shape(x) t = Shape(a) y = Concat<axis=0>(s, t)",
            after="s = Shape(x) y = Concat<axis=0>(s, s)", opset=7),
    Rewrite("joined with a constant", X.replace("(int64[4] y)", "(float[A,B] y, float[D,E] z)"),
            "s = Shape(x) a = Gather(s, zero) c = Concat<axis=0>(a, one) t = Shape(x) b = Gather(t, zero) d = "
            "Concat<axis=0>(b, one) y = ConstantOfShape(c) z = ConstantOfShape(d)",
            after="s = Shape(x) a = Gather(s, zero) c = Concat<axis=0>(a, one) y = ConstantOfShape(c) z = "
                  "ConstantOfShape(c)"),
]

NO_OPS = [
    NoOp("one alone", X.replace("int64[4]", "int64[2]"), "y = Shape(x)"),
    NoOp("another dimension", X.replace("x)", "x, float[M,4] u)"),
         "s = Shape(x) t = Shape(u) y = Concat<axis=0>(s, t)"),
    NoOp("a dimension of no name", X.replace("x)", "x, float[?,4] u)"),
         "s = Shape(x) t = Shape(u) y = Concat<axis=0>(s, t)"),
    NoOp("another order", X, "<int64[2] turned = {1, 0}> s = Shape(x) t = Gather(s, turned) y = Concat<axis=0>(s, t)"),
    NoOp("another type", X.replace("(int64[4] y)", "(float[N,4] y, int32[2] z)"),
         "s = Shape(x) z = Cast<to=6>(s) y = Reshape(x, s)"),
    NoOp("another rank", X.replace("int64[4]", "int64[1]"),
         "s = Shape(x) n = Gather(s, first) m = Gather(s, zero) y = Mul(n, m)"),
    NoOp("other numbers", X.replace("int64[4]", "int64[2]"), "s = Shape(x) t = Neg(s) y = Mul(s, t)"),
    NoOp("both are outputs", TWO, "y = Shape(x) z = Shape(x)"),
    NoOp("numbers of elements unknown", "(float[N] x) => (int64[K] y, int64[K] z)",
         "<int64 zero = {0}, int64 one = {1}> n = Size(x) s = Range(zero, n, one) y = Neg(s) t = Range(zero, n, "
         "one) z = Neg(t)"),
    NoOp("the earlier is in another branch", "(float[N,4] x, bool c) => (int64[2] y)",
         branches("int64[2]", "a = Shape(x) s = Neg(a)", "b = Shape(x) r = Abs(b)")),
    NoOp("the earlier is in a branch", "(float[N,4] x, bool c) => (int64[2] y, int64[2] z) <int64[2] k = {1, 2}>",
         branches("int64[2]", "a = Shape(x) s = Neg(a)", "r = Neg(k)") + " b = Shape(x) z = Neg(b)"),
    NoOp("two outputs", "(float[N,4] x) => (int64[1] y, int64[1] z, int64[1] v)",
         "<int64[2] parts = {1, 1}> s = Shape<end=1>(x) v = Neg(s) t = Shape(x) a, b = Split(t, parts) y = Neg(a) "
         "z = Neg(b)"),
    NoOp("in a function, where no shape is known", "(float[N,4] x) => (int64[4] y)", "y = f.F(x)",
         functions=function("F (x) => (y) { a = Neg(x) s = Shape(x) t = Shape(a) y = Concat<axis=0>(s, t) }")),
    NoOp("floats are no shapes", "(float[N,4] x) => (float[N,4] y)", "a = Neg(x) b = Neg(x) y = Mul(a, b)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, reuse_shapes.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, reuse_shapes.RULES)
