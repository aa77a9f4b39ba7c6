"""Which Squeeze and Unsqueeze a reduction does by itself."""

from __future__ import annotations

import pytest

from passes.rules import fuse_reduce
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = (
    "(float[2,3,4] x) => (float[2,3] y) <int64[1] last = {-1}, int64[1] two = {2}, int64[1] one = {1}, "
    "int64[2] both = {1, 2}, int64[2] turned = {-1, 1}, int64[0] none = {}>"
)
OUTER = X.replace("x)", "x, bool c)")
ELSE = "r = ReduceMax<axes=[2], keepdims=0>(x)"
KEPT = X.replace("(float[2,3] y)", "(float[2,3,1] y)")
V11 = "(float[2,3,4] x) => (float[2,3] y)"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("squeeze of a mean", X, "a = ReduceMean<axes=[2]>(x) y = Squeeze(a, two)",
            after="y = ReduceMean<axes=[2], keepdims=0>(x)"),
    Rewrite("squeeze of a mean, dimensions said to be kept", X,
            "a = ReduceMean<axes=[2], keepdims=1>(x) y = Squeeze(a, two)",
            after="y = ReduceMean<axes=[2], keepdims=0>(x)"),
    Rewrite("an axis from the end", X, "a = ReduceMean<axes=[2]>(x) y = Squeeze(a, last)",
            after="y = ReduceMean<axes=[2], keepdims=0>(x)"),
    Rewrite("axes that are an input", X, "a = ReduceSum(x, two) y = Squeeze(a, last)",
            after="y = ReduceSum<keepdims=0>(x, two)"),
    Rewrite("two axes in another order", X.replace("[2,3] y", "[2] y"),
            "a = ReduceMax<axes=[1, 2]>(x) y = Squeeze(a, turned)",
            after="y = ReduceMax<axes=[1, 2], keepdims=0>(x)"),
    Rewrite("unsqueeze", KEPT, "a = ReduceL2<axes=[2], keepdims=0>(x) y = Unsqueeze(a, last)",
            after="y = ReduceL2<axes=[2], keepdims=1>(x)"),
    Rewrite("unsqueeze, axes that are attributes", V11.replace("[2,3] y", "[2,3,1] y"),
            "a = ReduceMin<axes=[-1], keepdims=0>(x) y = Unsqueeze<axes=[2]>(a)",
            after="y = ReduceMin<axes=[-1], keepdims=1>(x)", opset=11),
    Rewrite("squeeze, axes that are attributes", V11, "a = ReduceSum<axes=[2]>(x) y = Squeeze<axes=[2]>(a)",
            after="y = ReduceSum<axes=[2], keepdims=0>(x)", opset=7),
    Rewrite("arg max", X.replace("(float[2,3] y)", "(int64[2,3] y)"), "a = ArgMax<axis=-1>(x) y = Squeeze(a, two)",
            after="y = ArgMax<axis=-1, keepdims=0>(x)"),
    Rewrite("arg min, default axis", X.replace("(float[2,3] y)", "(int64[3,4] y)"),
            "<int64[1] zero = {0}> a = ArgMin(x) y = Squeeze(a, zero)",
            after="y = ArgMin<keepdims=0>(x)"),
    Rewrite("any batch", X.replace("[2,3,4]", "[N,3,4]").replace("[2,3]", "[N,3]"),
            "a = ReduceMean<axes=[2]>(x) y = Squeeze(a, two)",
            after="y = ReduceMean<axes=[2], keepdims=0>(x)"),
    Rewrite("integers", X.replace("float", "int32"), "a = ReduceSum(x, two) y = Squeeze(a, two)",
            after="y = ReduceSum<keepdims=0>(x, two)"),
    Rewrite("in a branch", OUTER, branches("float[2,3]", "a = ReduceSum(x, two) s = Squeeze(a, two)", ELSE),
            after=branches("float[2,3]", "s = ReduceSum<keepdims=0>(x, two)", ELSE)),
]

NO_OPS = [
    NoOp("of an input", X.replace("[2,3,4]", "[2,3,1]"), "y = Squeeze(x, two)"),
    NoOp("no reduction", X.replace("[2,3,4]", "[2,3,1]"), "a = Neg(x) y = Squeeze(a, two)"),
    NoOp("other axes", KEPT.replace("[2,3,1] y", "[1,2,4] y"),
         "<int64[1] zero = {0}> a = ReduceMean<axes=[1], keepdims=0>(x) y = Unsqueeze(a, zero)"),
    NoOp("more axes", X.replace("[2,3,4] x", "[2,1,4] x").replace("[2,3] y", "[2] y"),
         "a = ReduceMean<axes=[2]>(x) y = Squeeze(a, both)"),
    NoOp("fewer axes", X.replace("[2,3] y", "[2,1] y"), "a = ReduceMean<axes=[1, 2]>(x) y = Squeeze(a, two)"),
    NoOp("kept, and one more", KEPT.replace("[2,3,1] y", "[2,3,1,1] y"),
         "a = ReduceMean<axes=[2]>(x) y = Unsqueeze(a, two)"),
    NoOp("dropped, and one more", X.replace("[2,3,4]", "[2,3,1]").replace("[2,3] y", "[2] y"),
         "a = ReduceMean<axes=[1], keepdims=0>(x) y = Squeeze(a, one)"),
    NoOp("all axes", X.replace("[2,3] y", " y"), "a = ReduceMean(x) y = Squeeze(a)"),
    NoOp("all axes, of which one is dropped", X.replace("[2,3] y", "[1,1] y"), "a = ReduceMean(x) y = Squeeze(a, two)"),
    NoOp("axes not said", X.replace("[2,3,4]", "[2,3,4]"), "a = ReduceMean<axes=[2]>(x) y = Squeeze(a)"),
    NoOp("no axes", X.replace("[2,3] y", "[2,3,4] y"),
         "a = ReduceSum<noop_with_empty_axes=1>(x, none) y = Unsqueeze(a, none)"),
    NoOp("axes of the reduction are an input", X.replace("x)", "x, int64[1] u)"),
         "a = ReduceSum(x, u) y = Squeeze(a, two)"),
    NoOp("axes of the squeeze are an input", X.replace("x)", "x, int64[1] u)"),
         "a = ReduceSum(x, two) y = Squeeze(a, u)"),
    NoOp("axes may be overridden", X.replace("x)", "x, int64[1] u = {2})"), "a = ReduceSum(x, u) y = Squeeze(a, two)"),
    NoOp("rank unknown", "(float[24] v, int64[M] t) => (float[2,3] y) <int64[1] two = {2}>",
         "x = Reshape(v, t) a = ReduceSum(x, two) y = Squeeze(a, two)"),
    NoOp("two users", X.replace("y)", "y, float[2,3,1] z)"), "a = ReduceSum(x, two) y = Squeeze(a, two) z = Neg(a)"),
    NoOp("an output", X.replace("y)", "y, float[2,3,1] a)"), "a = ReduceSum(x, two) y = Squeeze(a, two)"),
    NoOp("outside the branch", OUTER, "a = ReduceSum(x, two) " + branches("float[2,3]", "s = Squeeze(a, two)", ELSE)),
    NoOp("attribute by reference", "(float[2,3,4] x) => (float[2,3] y)", "y = f.F<k=1>(x)", opset=11,
         functions=function("F <k>(x) => (y) { a = ReduceSum<axes=[2], keepdims:int=@k>(x) "
                            "y = Squeeze<axes=[2]>(a) }", opset=11)),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_reduce.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_reduce.RULES)
