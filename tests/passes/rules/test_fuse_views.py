"""Which axes are not made in the first place, and which are there for something."""

from __future__ import annotations

import pytest

from passes.rules import fuse_views
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = (
    "(float[2,3] x) => (float[3,2] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
    "int64[1] last = {-1}, int64[2] ends = {0, 2}, int64[2] outer = {0, 3}, int64[2] turned = {-1, 0}>"
)
R = (
    "(float[6] x) => (float[3,2] y) <int64[3] s = {2, 1, 3}, int64[3] m = {-1, 1, 3}, int64[1] one = {1}, "
    "int64[1] two = {2}>"
)
MADE = "a = Unsqueeze(x, one) b = Transpose<perm=[2, 1, 0]>(a)"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("unsqueeze", X, f"{MADE} y = Squeeze(b, one)",
            after="y = Transpose<perm=[1, 0]>(x)"),
    Rewrite("unsqueeze, moved", X, "a = Unsqueeze(x, zero) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, two)",
            after="y = Transpose<perm=[1, 0]>(x)"),
    Rewrite("unsqueeze, axes from the end", X,
            "a = Unsqueeze(x, last) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, zero)",
            after="y = Transpose<perm=[1, 0]>(x)"),
    Rewrite("unsqueeze of two axes", X,
            "a = Unsqueeze(x, outer) b = Transpose<perm=[0, 2, 1, 3]>(a) y = Squeeze(b, turned)",
            after="y = Transpose<perm=[1, 0]>(x)"),
    Rewrite("no perm said", X, "a = Unsqueeze(x, one) b = Transpose(a) y = Squeeze(b, one)",
            after="y = Transpose<perm=[1, 0]>(x)"),
    Rewrite("axes that are attributes", X,
            "a = Unsqueeze<axes=[1]>(x) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze<axes=[1]>(b)",
            after="y = Transpose<perm=[1, 0]>(x)", opset=11),
    Rewrite("any batch", X.replace("[2,3]", "[N,3]").replace("[3,2]", "[3,N]"), f"{MADE} y = Squeeze(b, one)",
            after="y = Transpose<perm=[1, 0]>(x)"),
    Rewrite("reshape", R, "a = Reshape(x, s) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one)",
            after="<int64[2] t = {2, 3}> a = Reshape(x, t) y = Transpose<perm=[1, 0]>(a)"),
    Rewrite("reshape, a dimension inferred", R,
            "a = Reshape(x, m) b = Transpose<perm=[2, 0, 1]>(a) y = Squeeze(b, two)",
            after="<int64[2] t = {-1, 3}> a = Reshape(x, t) y = Transpose<perm=[1, 0]>(a)"),
    Rewrite("reshape whose target others read", R.replace("y)", "y, int64[3] z)"),
            "a = Reshape(x, s) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one) z = Neg(s)",
            after="<int64[2] t = {2, 3}> a = Reshape(x, t) y = Transpose<perm=[1, 0]>(a) z = Neg(s)"),
    Rewrite("in a function", "(float[2,3] x) => (float[3,2] y)", "y = f.F(x)", opset=11,
            functions=function("F (x) => (y) { a = Unsqueeze<axes=[1]>(x) b = Transpose<perm=[2, 1, 0]>(a) "
                               "y = Squeeze<axes=[1]>(b) }", opset=11),
            after="y = f.F(x)", functions_after=function("F (x) => (y) { y = Transpose<perm=[1, 0]>(x) }", opset=11)),
]

NO_OPS = [
    NoOp("no transpose", "(float[2,3] x) => (float[2,3] y) <int64[1] one = {1}>",
         "a = Unsqueeze(x, one) y = Squeeze(a, one)"),
    NoOp("of an input", "(float[2,1] x) => (float[2] y) <int64[1] one = {1}>", "y = Squeeze(x, one)"),
    NoOp("transpose of an input", X.replace("[2,3]", "[2,1,3]"),
         "b = Transpose<perm=[2, 1, 0]>(x) y = Squeeze(b, one)"),
    NoOp("transpose of something", X.replace("[2,3]", "[2,1,3]"),
         "a = Neg(x) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one)"),
    NoOp("another axis dropped", "(float[1,3] x) => (float[3,1] y) <int64[1] one = {1}, int64[1] two = {2}>",
         f"{MADE} y = Squeeze(b, two)"),
    NoOp("one of two dropped", X.replace("[3,2] y", "[3,2,1] y"),
         "a = Unsqueeze(x, outer) b = Transpose<perm=[0, 2, 1, 3]>(a) y = Squeeze(b, zero)"),
    NoOp("all axes of one", X, f"{MADE} y = Squeeze(b)"),
    NoOp("axes of the squeeze are an input", X.replace("x)", "x, int64[1] u)"), f"{MADE} y = Squeeze(b, u)"),
    NoOp("axes of the unsqueeze are an input", X.replace("x)", "x, int64[1] u)"),
         "a = Unsqueeze(x, u) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one)"),
    NoOp("axes may be overridden", X.replace("x)", "x, int64[1] u = {1})"),
         "a = Unsqueeze(x, u) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one)"),
    NoOp("unsqueeze has two users", X.replace("y)", "y, float[2,1,3] z)"), f"{MADE} y = Squeeze(b, one) z = Neg(a)"),
    NoOp("transpose has two users", X.replace("y)", "y, float[3,1,2] z)"), f"{MADE} y = Squeeze(b, one) z = Neg(b)"),
    NoOp("transpose is an output", X.replace("y)", "y, float[3,1,2] b)"), f"{MADE} y = Squeeze(b, one)"),
    NoOp("perm and rank unknown", "(float[6] v, int64[M] t, int64[L] u) => (float[3,2] y) <int64[1] one = {1}>",
         "x = Reshape(v, t) a = Reshape(x, u) b = Transpose(a) y = Squeeze(b, one)"),
    NoOp("reshape by an input", R.replace("x)", "x, int64[3] u)"),
         "a = Reshape(x, u) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one)"),
    NoOp("reshape that copies a dimension",
         "(float[2,3] x) => (float[3,2] y) <int64[3] k = {0, 1, 3}, int64[1] one = {1}>",
         "a = Reshape(x, k) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one)"),
    NoOp("reshape that infers what is dropped", R.replace("y)", "y)"),
         "<int64[3] k = {2, -1, 3}> a = Reshape(x, k) b = Transpose<perm=[2, 1, 0]>(a) y = Squeeze(b, one)"),
    NoOp("outside the branch", X.replace("x)", "x, bool c)"),
         f"{MADE} " + branches("float[3,2]", "s = Squeeze(b, one)", "r = Transpose(x)")),
    NoOp("attribute by reference", "(float[2,3] x) => (float[3,2] y)", "y = f.F<k=[2, 1, 0]>(x)", opset=11,
         functions=function("F <k>(x) => (y) { a = Unsqueeze<axes=[1]>(x) b = Transpose<perm:ints=@k>(a) "
                            "y = Squeeze<axes=[1]>(b) }", opset=11)),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_views.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_views.RULES)
