"""Which parts of a shape are taken at once, and which are not there in one piece."""

from __future__ import annotations

import pytest

from passes.rules import slice_shapes
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite, function

X = (
    "(float[N,M,4] x) => (int64[2] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
    "int64[2] ahead = {0, 1}, int64[2] behind = {1, 2}, int64[2] turned = {1, 0}, int64 scalar = {1}>"
)
ALONE = X.replace("int64[2] y", "int64[1] y")

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("gather, from the front", X, "s = Shape(x) y = Gather(s, ahead)",
            after="y = Shape<end=2>(x)"),
    Rewrite("gather, to the end", X, "s = Shape(x) y = Gather(s, behind)",
            after="y = Shape<start=1>(x)"),
    Rewrite("gather, the middle", ALONE, "s = Shape(x) y = Gather(s, one)",
            after="y = Shape<end=2, start=1>(x)"),
    Rewrite("slice", ALONE, "s = Shape(x) y = Slice(s, one, two)",
            after="y = Shape<end=2, start=1>(x)"),
    Rewrite("unsqueeze of a gather", ALONE, "s = Shape(x) a = Gather(s, scalar) y = Unsqueeze(a, zero)",
            after="y = Shape<end=2, start=1>(x)"),
    Rewrite("reshape of a gather", ALONE, "s = Shape(x) a = Gather(s, scalar) y = Reshape(a, one)",
            after="y = Shape<end=2, start=1>(x)"),
    Rewrite("concat", X, "s = Shape(x) a = Gather(s, zero) b = Gather(s, one) y = Concat<axis=0>(a, b)",
            after="y = Shape<end=2>(x)"),
    Rewrite("concat of shapes", X, "a = Shape<end=1>(x) b = Shape<start=1, end=2>(x) y = Concat<axis=0>(a, b)",
            after="y = Shape<end=2>(x)"),
    Rewrite("all of it", X.replace("int64[2] y", "int64[3] y"),
            "s = Shape(x) a = Gather(s, ahead) b = Gather(s, two) y = Concat<axis=0>(a, b)",
            after="y = Shape(x)"),
    Rewrite("of two that are looked at, the second", X.replace("x)", "x, float[A,B] u)"),
            "<int64[1] four = {4}> s = Shape(u) t = Shape(x) a = Concat<axis=0>(s, t) c = Slice(a, two, four) y = "
            "Neg(c)",
            after="c = Shape<end=2>(x) y = Neg(c)"),
    Rewrite("oldest opset", X, "s = Shape(x) y = Gather(s, ahead)",
            after="y = Shape<end=2>(x)", opset=15),
]

NO_OPS = [
    NoOp("old opset", X, "s = Shape(x) y = Gather(s, ahead)", opset=14),
    NoOp("another order", X, "s = Shape(x) y = Gather(s, turned)"),
    NoOp("one number", ALONE.replace("int64[1] y", "int64 y"), "s = Shape(x) y = Gather(s, scalar)"),
    NoOp("nothing", ALONE.replace("int64[1] y", "int64[0] y"), "s = Shape(x) y = Slice(s, one, zero)"),
    NoOp("32 bits", X.replace("int64[2] y", "int32[2] y"), "s = Shape(x) a = Cast<to=6>(s) y = Gather(a, ahead)"),
    NoOp("two values", X.replace("x)", "x, float[K] u)"), "a = Shape<end=1>(x) b = Shape(u) y = Concat<axis=0>(a, b)"),
    NoOp("dimensions with a gap", X, "<int64[2] gap = {0, 2}> s = Shape(x) y = Gather(s, gap)"),
    NoOp("something computed between", X, "s = Shape(x) n = Neg(s) y = Gather(n, ahead)"),
    NoOp("something that is undone between", X, "s = Shape(x) n = Neg(s) m = Neg(n) y = Gather(m, ahead)"),
    NoOp("not of a shape", X.replace("x)", "x, int64[3] u)"), "y = Gather(u, ahead)"),
    NoOp("indices are an input", X.replace("x)", "x, int64[2] u)"), "s = Shape(x) y = Gather(s, u)"),
    NoOp("indices may be overridden", X.replace("x)", "x, int64[2] u = {0, 1})"), "s = Shape(x) y = Gather(s, u)"),
    NoOp("shape is read elsewhere", X.replace("y)", "y, int64[3] z)"), "s = Shape(x) y = Gather(s, ahead) z = Neg(s)"),
    NoOp("shape is an output", X.replace("y)", "y, int64[3] s)"), "s = Shape(x) y = Gather(s, ahead)"),
    NoOp("rank unknown", "(float[V] v, int64[R] r) => (int64[2] y) <int64[2] ahead = {0, 1}>",
         "x = Reshape(v, r) s = Shape(x) y = Gather(s, ahead)"),
    NoOp("in a function, where no shape is known", "(float[N,4] x) => (int64[1] y)", "y = f.F(x)",
         functions=function("F (x) => (y) { i = Constant<value=int64[1] {1}>() s = Shape(x) y = Gather(s, i) }")),
    NoOp("file would grow",
         "(float[N,M,4] an_input_with_a_name_of_many_letters_that_is_kept) => (int64[1] y, int64[3] s)",
         "<int64[1] zero = {0}, int64 scalar = {1}> s = Shape(an_input_with_a_name_of_many_letters_that_is_kept) a "
         "= Gather(s, scalar) y = Unsqueeze(a, zero)"),
    NoOp("with a constant", X,
         "<int64[1] four = {4}> s = Shape(x) a = ReduceMax<keepdims=1>(s) y = Concat<axis=0>(a, four)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, slice_shapes.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, slice_shapes.RULES)
