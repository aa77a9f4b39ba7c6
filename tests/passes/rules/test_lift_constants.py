"""lift-constants: Constant nodes become initializers where there may be some."""

from __future__ import annotations

import pytest

from passes.rules import lift_constants
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = "(float[2] x) => (float[2] y)"
CONSTANT = "c = Constant<value=float[2] {1, 2}>()"
LIFTED = "<float[2] c = {1, 2}>"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("a tensor", X, f"{CONSTANT} y = Add(x, c)",
            after=f"{LIFTED} y = Add(x, c)"),
    Rewrite("a number", X, "c = Constant<value_float=2.0>() y = Add(x, c)",
            after="<float c = {2}> y = Add(x, c)"),
    Rewrite("integers", X, "c = Constant<value_ints=[2]>() y = Reshape(x, c)",
            after="<int64[1] c = {2}> y = Reshape(x, c)"),
    Rewrite("what is there already is not stored twice", X + " <float[2] d = {1, 2}>",
            f"{CONSTANT} a = Add(x, c) y = Mul(a, d)",
            after="a = Add(x, d) y = Mul(a, d)"),
    Rewrite("in a branch", X.replace("x)", "x, bool c)"),
            branches("float[2]", "k = Constant<value=float[2] {1, 2}>() s = Add(x, k)", "r = Neg(x)"),
            after="<float[2] k = {1, 2}> " + branches("float[2]", "s = Add(x, k)", "r = Neg(x)")),
]

NO_OPS = [
    NoOp("an output", X.replace("y)", "y, float[2] c)"), f"{CONSTANT} y = Add(x, c)"),
    NoOp("no Constant", X, "y = Neg(x)"),
    NoOp("before IR version 4", X, f"{CONSTANT} y = Add(x, c)", opset=8, ir_version=3),
    NoOp("in a function", X, "y = f.F(x)",
         functions=function("F (x) => (y) { c = Constant<value=float {2}>() y = Add(x, c) }")),
    NoOp("value by reference", X, "y = f.F<k=2.>(x)",
         functions=function("F <k>(x) => (y) { c = Constant<value_float:float=@k>() y = Add(x, c) }")),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, lift_constants.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, lift_constants.RULES)
