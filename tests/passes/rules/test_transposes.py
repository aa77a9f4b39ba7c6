"""Where Transposes move to, and where they stay."""

from __future__ import annotations

import pytest

from passes.rules import transposes
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = "(float[2,3,4,5] x) => (float[2,3,4,5] y) <float[3] c = {1, 2, 3}, int64[1] one = {1}, int64[1] last = {3}>"
AWAY, BACK = "Transpose<perm=[0, 2, 3, 1]>", "Transpose<perm=[0, 3, 1, 2]>"
TWO = X.replace("x)", "x, float[2,3,4,5] u)")
OUTER = X.replace("x)", "x, bool c)").replace("float[3] c = {1, 2, 3}, ", "")
KEPT = X.replace("(float[2,3,4,5] y)", "(float[2,3,4,5] y, float[2,4,5,3] z)")

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("through an operator on each element", X, f"a = {AWAY}(x) b = Relu(a) y = {BACK}(b)",
            after="y = Relu(x)"),
    Rewrite("through several", X, f"a = {AWAY}(x) b = Sigmoid(a) d = Mul(a, b) y = {BACK}(d)",
            after="b = Sigmoid(x) y = Mul(x, b)"),
    Rewrite("two operands", TWO, f"a = {AWAY}(x) b = {AWAY}(u) d = Add(a, b) y = {BACK}(d)",
            after="y = Add(x, u)"),
    Rewrite("a constant of each channel", X, f"a = {AWAY}(x) b = Mul(a, c) y = {BACK}(b)",
            after="<float[1,3,1,1] c = {1, 2, 3}> y = Mul(x, c)"),
    Rewrite("one number", X, f"<float n = {{2}}> a = {AWAY}(x) b = Mul(a, n) y = {BACK}(b)",
            after="<float n = {2}> y = Mul(x, n)"),
    Rewrite("an axis", X, f"a = {AWAY}(x) b = Softmax<axis=3>(a) y = {BACK}(b)",
            after="y = Softmax<axis=1>(x)"),
    Rewrite("concat", TWO.replace("(float[2,3,4,5] y)", "(float[2,6,4,5] y)"),
            f"a = {AWAY}(x) b = {AWAY}(u) d = Concat<axis=-1>(a, b) y = {BACK}(d)",
            after="y = Concat<axis=1>(x, u)"),
    Rewrite("a reduction that drops", X.replace("(float[2,3,4,5] y)", "(float[2,4,5] y)"),
            f"a = {AWAY}(x) y = ReduceSum<keepdims=0>(a, last)",
            after="y = ReduceSum<keepdims=0>(x, one)"),
    Rewrite("any batch", X.replace("[2,3,4,5]", "[N,3,H,W]"), f"a = {AWAY}(x) b = Relu(a) y = {BACK}(b)",
            after="y = Relu(x)"),
    Rewrite("permutation not said", "(float[2,3] x) => (float[2,3] y)", "a = Transpose(x) b = Relu(a) y = Transpose(b)",
            after="y = Relu(x)"),
    Rewrite("one of two operands, once", TWO.replace("(float[2,3,4,5] y)", "(float[2,4,5,3] y)"),
            f"a = {AWAY}(x) b = {AWAY}(u) y = Add(a, b)",
            after=f"d = Add(x, u) y = {AWAY}(d)"),
    Rewrite("an input that two read", KEPT, f"a = {AWAY}(x) b = Relu(a) y = {BACK}(b) z = Neg(a)",
            after=f"a = {AWAY}(x) y = Relu(x) z = Neg(a)"),
    Rewrite("two that are one", X.replace("(float[2,3,4,5] y)", "(float[2,5,3,4] y)"),
            f"a = {AWAY}(x) b = Relu(a) y = {AWAY}(b)",
            after=f"b = Relu(x) y = {BACK}(b)"),
    Rewrite("another permutation after", X.replace("(float[2,3,4,5] y)", "(float[5,4,3,2] y, float[2,3,4,5] z)"),
            f"a = {AWAY}(x) b = Relu(a) z = {BACK}(b) y = Transpose<perm=[2, 1, 3, 0]>(b)",
            after="z = Relu(x) y = Transpose<perm=[3, 2, 1, 0]>(z)"),
    Rewrite("in a branch", OUTER, branches("float[2,3,4,5]", f"a = {AWAY}(x) b = Relu(a) s = {BACK}(b)", "r = Neg(x)"),
            after=branches("float[2,3,4,5]", "s = Relu(x)", "r = Neg(x)")),
    Rewrite("integers", X.replace("float[2", "int32[2"), f"a = {AWAY}(x) b = Abs(a) y = {BACK}(b)",
            after="y = Abs(x)"),
    Rewrite("oldest opset", X, f"a = {AWAY}(x) b = Relu(a) y = {BACK}(b)",
            after="y = Relu(x)", opset=8),
    Rewrite("what is between is an output", KEPT, f"a = {AWAY}(x) z = Relu(a) y = {BACK}(z)",
            after=f"y = Relu(x) z = {AWAY}(y)"),
    Rewrite("a constant of all axes", "(float[2,3,1] x) => (float[2,3,1] y) <float[3,2,1] c = {1, 2, 3, 4, 5, 6}>",
            "a = Transpose<perm=[1, 0, 2]>(x) b = Mul(a, c) y = Transpose<perm=[1, 0, 2]>(b)",
            after="<float[2,3,1] c = {1, 3, 5, 2, 4, 6}> y = Mul(x, c)"),
    Rewrite("a mean over the pixels", X.replace("(float[2,3,4,5] y)", "(float[2,3] y)"),
            f"a = {AWAY}(x) y = ReduceMean<axes=[1, 2], keepdims=0>(a)",
            after="y = ReduceMean<axes=[2, 3], keepdims=0>(x)"),
]

NO_OPS = [
    NoOp("one alone", X.replace("(float[2,3,4,5] y)", "(float[2,4,5,3] y)"), f"y = {AWAY}(x)"),
    NoOp("before an operator on each element", X.replace("(float[2,3,4,5] y)", "(float[2,4,5,3] y)"),
         f"a = {AWAY}(x) y = Relu(a)"),
    NoOp("after it", X.replace("(float[2,3,4,5] y)", "(float[2,4,5,3] y)"), f"a = Relu(x) y = {AWAY}(a)"),
    NoOp("moves nothing", X, "a = Transpose<perm=[0, 1, 2, 3]>(x) b = Relu(a) y = Transpose<perm=[0, 1, 2, 3]>(b)"),
    NoOp("rank unknown", "(float[V] v, int64[R] r) => (float[2,3] y)",
         "x = Reshape(v, r) a = Transpose(x) b = Relu(a) y = Transpose(b)"),
    NoOp("an operator of which nothing is known", X, f"<int64 n = {{1}}> a = {AWAY}(x) b = CumSum(a, n) y = {BACK}(b)"),
    NoOp("old opset", X, f"a = {AWAY}(x) b = Relu(a) y = {BACK}(b)", opset=7),
    NoOp("one axis in two roles, old opset", X, f"a = {AWAY}(x) b = Softmax<axis=3>(a) y = {BACK}(b)", opset=12),
    NoOp("an operand of another layout",
         TWO.replace("float[2,3,4,5] u", "float[2,4,5,3] u").replace("(float[2,3,4,5] y)", "(float[2,4,5,3] y)"),
         f"a = {AWAY}(x) y = Add(a, u)"),
    NoOp("an input of fewer axes", X.replace("x)", "x, float[3] u)"), f"a = {AWAY}(x) b = Mul(a, u) y = {BACK}(b)"),
    NoOp("axes are an input", X.replace("x)", "x, int64[1] u)").replace("(float[2,3,4,5] y)", "(float[A,B,C,D] y)"),
         f"a = {AWAY}(x) b = ReduceSum(a, u) y = {BACK}(b)"),
    NoOp("more elements would be moved", "(float[2,3,1,1] x, float[2,4,5,3] u, float[2,4,5,3] v) => (float[2,4,5,3] y)",
         f"a = {AWAY}(x) y = Add(a, u)"),
    NoOp("outside the branch", OUTER,
         f"a = {AWAY}(x) " + branches("float[2,3,4,5]", f"b = Relu(a) s = {BACK}(b)", "r = Neg(x)")),
    NoOp("attribute by reference", "(float[2,3] x) => (float[2,3] y)", "y = f.F<k=[1, 0]>(x)",
         functions=function("F <k>(x) => (y) { a = Transpose<perm:ints=@k>(x) b = Relu(a) "
                            "y = Transpose<perm=[1, 0]>(b) }")),
    NoOp("in a function, where no rank is known", "(float[2,3] x) => (float[2,3] y)", "y = f.F(x)",
         functions=function("F (x) => (y) { a = Transpose(x) b = Relu(a) y = Transpose(b) }")),
    NoOp("an operator that looks at the axes", "(float[2,3] x) => (float[2,3] y)",
         "a = Transpose(x) b = Flatten(a) d = Shape(a) e = Reshape(b, d) y = Transpose(e)"),
    NoOp("before a product", "(float[2,3] x, float[2,4] w) => (float[3,4] y)", "a = Transpose(x) y = MatMul(a, w)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, transposes.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, transposes.RULES)
