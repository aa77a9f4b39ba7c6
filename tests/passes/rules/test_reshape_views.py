"""Which Reshapes by a computed target become Unsqueeze or Squeeze."""

from __future__ import annotations

import pytest

from passes.rules import reshape_views
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite

X = "(float[N,M] x) => (float[N,1,M] y) <int64[1] one = {1}, int64[1] zero = {0}, int64[2] two = {1, 1}>"
ONE = "(float[N,1,M] x) => (float[N,M] y) <int64[1] one = {1}>"
V13 = "n = Shape<end=1>(x) m = Shape<start=-1>(x) t = Concat<axis=0>"
V12 = "s = Shape(x) n = Gather(s, zero) m = Gather(s, one) t = Concat<axis=0>"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("adds an axis", X, f"{V13}(n, one, m) y = Reshape(x, t)",
            after="y = Unsqueeze(x, one)"),
    Rewrite("adds the last axis", X.replace("[N,1,M]", "[N,M,1]"), f"{V13}(n, m, one) y = Reshape(x, t)",
            after="<int64[1] k = {2}> y = Unsqueeze(x, k)"),
    Rewrite("adds two axes", X.replace("[N,1,M]", "[1,N,M,1]"), f"{V13}(one, n, m, one) y = Reshape(x, t)",
            after="<int64[2] k = {0, 3}> y = Unsqueeze(x, k)"),
    Rewrite("drops an axis", ONE, f"{V13}(n, m) y = Reshape(x, t)",
            after="y = Squeeze(x, one)"),
    Rewrite("axes that are attributes", X, f"{V12}(n, one, m) y = Reshape(x, t)",
            after="y = Unsqueeze<axes=[1]>(x)", opset=12),
    Rewrite("integers", X.replace("float", "int64"), f"{V13}(n, one, m) y = Reshape(x, t)",
            after="y = Unsqueeze(x, one)"),
    Rewrite("in a branch", X.replace("x)", "x, bool c)"),
            branches("float[N,1,M]", f"{V13}(n, one, m) s = Reshape(x, t)", "r = Unsqueeze(x, one)"),
            after=branches("float[N,1,M]", "s = Unsqueeze(x, one)", "r = Unsqueeze(x, one)")),
]

NO_OPS = [
    NoOp("target is a constant", X.replace("[N,", "[4,").replace("M]", "3]"),
         "<int64[3] t = {4, 1, 3}> y = Reshape(x, t)"),
    NoOp("target is an input", X.replace("x)", "x, int64[3] t)"), "y = Reshape(x, t)"),
    NoOp("target may be overridden",
         X.replace("[N,", "[4,").replace("M]", "3]").replace("x)", "x, int64[3] t = {4, 1, 3})"), "y = Reshape(x, t)"),
    NoOp("target is read elsewhere", X.replace("y)", "y, int64[3] z)"),
         f"{V13}(n, one, m) y = Reshape(x, t) z = Neg(t)"),
    NoOp("target is an output", X.replace("y)", "y, int64[3] t)"), f"{V13}(n, one, m) y = Reshape(x, t)"),
    NoOp("moves dimensions", X.replace("[N,1,M]", "[M,1,N]"), f"{V13}(m, one, n) y = Reshape(x, t)"),
    NoOp("keeps all", X.replace("[N,1,M]", "[N,M]"), f"{V13}(n, m) y = Reshape(x, t)"),
    NoOp("splits a dimension", X.replace("[N,1,M]", "[N,L,K]"),
         "<int64[1] c = {2}, int64[1] d = {-1}> n = Shape<end=1>(x) t = Concat<axis=0>(n, c, d) y = Reshape(x, t)"),
    NoOp("shape of the result unknown", X.replace("x)", "x, int64[2] u)").replace("[N,1,M]", "[A,B]"),
         "t = Neg(u) y = Reshape(x, t)"),
    NoOp("rank of what is reshaped unknown",
         "(float[V] v, int64[R] r, int64[1] n, int64[1] m) => (float[A,1,B] y) <int64[1] one = {1}>",
         "x = Reshape(v, r) t = Concat<axis=0>(n, one, m) y = Reshape(x, t)"),
    NoOp("file would grow", "(float[N,1,1,1,1] x, float[N] u) => (float[N] y)", "t = Shape(u) y = Reshape(x, t)"),
    NoOp("target is an attribute", "(float[4,3] x) => (float[4,1,3] y)", "y = Reshape<shape=[4, 1, 3]>(x)", opset=4),
    NoOp("dimensions are joined", "(float[N,M,4] x) => (float[K,4] y) <int64[1] m = {-1}>",
         "f = Shape<start=2>(x) t = Concat<axis=0>(m, f) y = Reshape(x, t)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, reshape_views.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, reshape_views.RULES)
