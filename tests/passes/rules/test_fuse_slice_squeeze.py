"""Which slices of one element become a Gather, and which stay."""

from __future__ import annotations

import pytest

from passes.rules import fuse_slice_squeeze
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = (
    "(float[2,3,4] x) => (float[2,4] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
    "int64[1] three = {3}, int64[1] minus = {-1}, int64[1] behind = {-2}, int64[1] end = {9223372036854775807}>"
)
OUTER = X.replace("x)", "x, bool c)")
ELSE = "r = ReduceMax<axes=[1], keepdims=0>(x)"
PICK = "a = Slice(x, one, two, one)"
V10 = (
    "(float[2,3,4] x) => (float[2,4] y) <int64[1] one = {1}, int64[1] two = {2}, int64[1] m = {-1}, int64[1] l = {-2}>"
)

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("one of the middle", X, f"{PICK} y = Squeeze(a, one)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)"),
    Rewrite("axis from the end", X, "a = Slice(x, one, two, behind) y = Squeeze(a, one)",
            after="<int64 i = {1}> y = Gather<axis=-2>(x, i)"),
    Rewrite("first axis", X.replace("[2,4] y", "[3,4] y"), "a = Slice(x, one, two, zero) y = Squeeze(a, zero)",
            after="<int64 i = {1}> y = Gather(x, i)"),
    Rewrite("step said", X, "a = Slice(x, one, two, one, one) y = Squeeze(a, one)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)"),
    Rewrite("step left out", X, "a = Slice(x, one, two, one, ) y = Squeeze(a, one)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)"),
    Rewrite("the last to the end", X, "a = Slice(x, minus, end, one) y = Squeeze(a, one)",
            after="<int64 i = {-1}> y = Gather<axis=1>(x, i)"),
    Rewrite("the last but one", X, "a = Slice(x, behind, minus, one) y = Squeeze(a, one)",
            after="<int64 i = {-2}> y = Gather<axis=1>(x, i)"),
    Rewrite("fp16", X.replace("float", "float16"), f"{PICK} y = Squeeze(a, one)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)"),
    Rewrite("double", X.replace("float", "double"), f"{PICK} y = Squeeze(a, one)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)"),
    Rewrite("any batch", X.replace("[2,", "[N,"), f"{PICK} y = Squeeze(a, one)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)"),
    Rewrite("axes that are attributes", X, f"{PICK} y = Squeeze<axes=[1]>(a)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)", opset=11),
    Rewrite("limits that are attributes", X, "a = Slice<starts=[1], ends=[2], axes=[1]>(x) y = Squeeze<axes=[1]>(a)",
            after="<int64 i = {1}> y = Gather<axis=1>(x, i)", opset=9),
    Rewrite("in a branch", OUTER, branches("float[2,4]", f"{PICK} s = Squeeze(a, one)", ELSE),
            after="<int64 i = {1}> " + branches("float[2,4]", "s = Gather<axis=1>(x, i)", ELSE)),
]

NO_OPS = [
    NoOp("of an input", X.replace("[2,3,4]", "[2,1,4]"), "y = Squeeze(x, one)"),
    NoOp("no slice", X.replace("[2,3,4]", "[2,1,4]"), "a = Neg(x) y = Squeeze(a, one)"),
    NoOp("two users", X.replace("y)", "y, float[2,1,4] z)"), f"{PICK} y = Squeeze(a, one) z = Neg(a)"),
    NoOp("an output", X.replace("y)", "y, float[2,1,4] a)"), f"{PICK} y = Squeeze(a, one)"),
    NoOp("integers", X.replace("float", "int64"), f"{PICK} y = Squeeze(a, one)"),
    NoOp("all axes of one", X, f"{PICK} y = Squeeze(a)"),
    NoOp("axes of the squeeze are an input", X.replace("x)", "x, int64[1] u)"), f"{PICK} y = Squeeze(a, u)"),
    NoOp("two axes dropped", X.replace("[2,3,4] x", "[2,3,1] x").replace("[2,4] y", "[2] y"),
         f"<int64[2] both = {{1, 2}}> {PICK} y = Squeeze(a, both)"),
    NoOp("another axis dropped", X.replace("[2,3,4] x", "[2,3,1] x").replace("[2,4] y", "[2,1] y"),
         f"{PICK} y = Squeeze(a, two)"),
    NoOp("two elements, another axis dropped", X.replace("[2,3,4] x", "[2,3,1] x").replace("[2,4] y", "[2,2] y"),
         "a = Slice(x, zero, two, one) y = Squeeze(a, two)"),
    NoOp("two elements of which one is there", X.replace("[2,3,4] x", "[2,1,4] x"),
         "a = Slice(x, zero, two, one) y = Squeeze(a, one)"),
    NoOp("the last but one to the end", X.replace("[2,3,4] x", "[2,1,4] x"),
         "a = Slice(x, behind, end, one) y = Squeeze(a, one)"),
    NoOp("the last to nothing", X, "<int64[1] far = {100}> a = Slice(x, minus, far, one) y = Squeeze(a, one)"),
    NoOp("backwards", X, "<int64[1] nil = {-9}> a = Slice(x, zero, nil, one, minus) y = Squeeze(a, one)"),
    NoOp("every second", X, "a = Slice(x, one, two, one, two) y = Squeeze(a, one)"),
    NoOp("step is an input", X.replace("x)", "x, int64[1] u)"), "a = Slice(x, one, two, one, u) y = Squeeze(a, one)"),
    NoOp("start is an input", X.replace("x)", "x, int64[1] u)"), "a = Slice(x, u, two, one) y = Squeeze(a, one)"),
    NoOp("start may be overridden", X.replace("x)", "x, int64[1] u = {1})"),
         "a = Slice(x, u, two, one) y = Squeeze(a, one)"),
    NoOp("no axes", X.replace("[2,4] y", "[3,4] y"), "a = Slice(x, one, two) y = Squeeze(a, zero)"),
    NoOp("two axes sliced", X,
         "<int64[2] s = {1, 0}, int64[2] e = {2, 4}, int64[2] both = {1, 2}> a = Slice(x, s, e, both) y = "
         "Squeeze(a, one)"),
    NoOp("rank unknown, axes differ",
         "(float[24] v, int64[M] t) => (float[2,4] y) <int64[1] one = {1}, int64[1] two = {2}, int64[1] b = {-2}>",
         f"x = Reshape(v, t) {PICK} y = Squeeze(a, b)"),
    NoOp("index from the end, old opset", V10, "a = Slice(x, l, m, one) y = Squeeze<axes=[1]>(a)", opset=10),
    NoOp("no place for an index", "(float[2,3,4] x) => (float[2,4] y)",
         "a = Slice<starts=[1], ends=[2], axes=[1]>(x) y = Squeeze<axes=[1]>(a)", opset=8, ir_version=3),
    NoOp("outside the branch", OUTER, f"{PICK} " + branches("float[2,4]", "s = Squeeze(a, one)", ELSE)),
    NoOp("attribute by reference", "(float[2,3,4] x) => (float[2,4] y)", "y = f.F<k=[1]>(x)", opset=9,
         functions=function("F <k>(x) => (y) { a = Slice<starts:ints=@k, ends=[2], axes=[1]>(x) "
                            "y = Squeeze<axes=[1]>(a) }",
                            opset=9)),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_slice_squeeze.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_slice_squeeze.RULES)
