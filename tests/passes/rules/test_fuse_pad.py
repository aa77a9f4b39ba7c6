"""Which Pads the operator after them takes in, and which it cannot."""

from __future__ import annotations

import pytest

from passes.rules import fuse_pad
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite, function

CONV = (
    "(float[1,1,5] x) => (float[1,1,5] y) <float[1,1,3] w = {1, 2, 3}, int64[6] p = {0, 0, 1, 0, 0, 1}, "
    "int64[6] begin = {0, 0, 2, 0, 0, 0}, float zero = {0}, float one = {1}>"
)
POOL = (
    "(float[1,1,6] x) => (float[1,1,3] y) <int64[6] p = {0, 0, 1, 0, 0, 1}, int64[6] wide = {0, 0, 3, 0, 0, 3}, "
    "int64[6] odd = {0, 0, 1, 0, 0, 2}, float zero = {0}, float low = {-3.4028235e38}, float some = {-5}>"
)
AVERAGE = "AveragePool<kernel_shape=[3], strides=[2]"
MAX = "MaxPool<kernel_shape=[3], strides=[2]"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("conv", CONV, "a = Pad(x, p) y = Conv(a, w)",
            after="y = Conv<pads=[1, 1]>(x, w)"),
    Rewrite("conv, one side", CONV, "a = Pad(x, begin) y = Conv(a, w)",
            after="y = Conv<pads=[2, 0]>(x, w)"),
    Rewrite("conv, zero said", CONV, "a = Pad(x, p, zero) y = Conv(a, w)",
            after="y = Conv<pads=[1, 1]>(x, w)"),
    Rewrite("conv that pads",
            "(float[1,1,5] x) => (float[1,1,8] y) <float[1,1,3] w = {1, 2, 3}, int64[6] p = {0, 0, 1, 0, 0, 2}>",
            "a = Pad(x, p) y = Conv<pads=[2, 0]>(a, w)",
            after="y = Conv<pads=[3, 2]>(x, w)"),
    Rewrite("conv, auto_pad VALID", CONV, 'a = Pad(x, p) y = Conv<auto_pad="VALID">(a, w)',
            after="y = Conv<pads=[1, 1]>(x, w)"),
    Rewrite("conv, any batch", CONV.replace("float[1,1,5]", "float[N,1,5]"), "a = Pad(x, p) y = Conv(a, w)",
            after="y = Conv<pads=[1, 1]>(x, w)"),
    Rewrite("pads that are attributes", CONV, "a = Pad<pads=[0, 0, 1, 0, 0, 1]>(x) y = Conv(a, w)",
            after="y = Conv<pads=[1, 1]>(x, w)", opset=10),
    Rewrite("oldest opset", CONV, "a = Pad<pads=[0, 0, 1, 0, 0, 1], value=0.>(x) y = Conv(a, w)",
            after="y = Conv<pads=[1, 1]>(x, w)", opset=7),
    Rewrite("conv in a branch",
            "(float[1,1,5] x, bool c) => (float[1,1,5] y) <float[1,1,3] w = {1, 2, 3}, int64[6] p = {0, 0, 1, 0, "
            "0, 1}>",
            "y = If(c) <then_branch = t () => (float[1,1,5] s) { a = Pad(x, p) s = Conv(a, w) }, else_branch = e "
            "() => (float[1,1,5] r) { r = Neg(x) }>",
            after="y = If(c) <then_branch = t () => (float[1,1,5] s) { s = Conv<pads=[1, 1]>(x, w) }, else_branch "
                  "= e () => (float[1,1,5] r) { r = Neg(x) }>"),
    Rewrite("average", POOL, f"padded_with_zeros = Pad(x, p) y = {AVERAGE}>(padded_with_zeros)",
            after=f"y = {AVERAGE}, count_include_pad=1, pads=[1, 1]>(x)"),
    Rewrite("average that counts its own", "(float[1,1,6] x) => (float[1,1,4] y) <int64[6] p = {0, 0, 1, 0, 0, 1}>",
            f"a = Pad(x, p) y = {AVERAGE}, count_include_pad=1, pads=[1, 1]>(a)".replace("[3]", "[4]"),
            after=f"y = {AVERAGE}, count_include_pad=1, pads=[2, 2]>(x)".replace("[3]", "[4]")),
    Rewrite("maximum, edge", POOL, f'a = Pad<mode="edge">(x, p) y = {MAX}>(a)',
            after=f"y = {MAX}, pads=[1, 1]>(x)"),
    Rewrite("maximum, lowest", POOL, f"a = Pad(x, p, low) y = {MAX}>(a)",
            after=f"y = {MAX}, pads=[1, 1]>(x)"),
    Rewrite("maximum, never negative", POOL, f"b = Relu(x) a = Pad(b, p) y = {MAX}>(a)",
            after=f"b = Relu(x) y = {MAX}, pads=[1, 1]>(b)"),
]

NO_OPS = [
    NoOp("conv, no pad before it", CONV, "a = Neg(x) y = Conv<pads=[1, 1]>(a, w)"),
    NoOp("conv, an input", CONV, "y = Conv<pads=[1, 1]>(x, w)"),
    NoOp("pad has two users", CONV, "a = Pad(x, p) b = Conv(a, w) c = Conv(a, w) y = Add(b, c)"),
    NoOp("pad is an output", CONV.replace("y)", "y, float[1,1,7] a)"), "a = Pad(x, p) y = Conv(a, w)"),
    NoOp("pads are an input", CONV.replace("x)", "x, int64[6] q)"), "a = Pad(x, q) y = Conv(a, w)"),
    NoOp("pads may be overridden", CONV.replace("x)", "x, int64[6] q = {0, 0, 1, 0, 0, 1})"),
         "a = Pad(x, q) y = Conv(a, w)"),
    NoOp("pads with one", CONV, "a = Pad(x, p, one) y = Conv(a, w)"),
    NoOp("pads with an input", CONV.replace("x)", "x, float v)"), "a = Pad(x, p, v) y = Conv(a, w)"),
    NoOp("conv, reflected", CONV, 'a = Pad<mode="reflect">(x, p) y = Conv(a, w)'),
    NoOp("pads by axes", CONV, "<int64[2] q = {1, 1}, int64[1] axes = {2}> a = Pad(x, q, , axes) y = Conv(a, w)",
         opset=18),
    NoOp("cuts off", CONV, "<int64[6] q = {0, 0, -1, 0, 0, 3}> a = Pad(x, q) y = Conv(a, w)"),
    NoOp("pads channels", CONV,
         "<int64[6] q = {0, 0, 1, 0, 1, 1}, float[1,2,3] v = {1, 2, 3, 4, 5, 6}> a = Pad(x, q) y = Conv(a, v)"),
    NoOp("pads the batch",
         "(float[1,1,5] x) => (float[2,1,5] y) <float[1,1,3] w = {1, 2, 3}, int64[6] q = {1, 0, 1, 0, 0, 1}>",
         "a = Pad(x, q) y = Conv(a, w)"),
    NoOp("auto_pad SAME", CONV,
         "<int64[6] q = {0, 0, 0, 0, 0, 0}> a = Pad(x, q) y = Conv<auto_pad=\"SAME_UPPER\">(a, w)"),
    NoOp("old opset", CONV, "a = Pad<pads=[0, 0, 1, 0, 0, 1]>(x) y = Conv(a, w)", opset=6),
    NoOp("old opset, pads with one", CONV, "a = Pad<pads=[0, 0, 1, 0, 0, 1], value=1.>(x) y = Conv(a, w)", opset=10),
    NoOp("another graph's pad",
         "(float[1,1,5] x, bool c) => (float[1,1,5] y) <float[1,1,3] w = {1, 2, 3}, int64[6] p = {0, 0, 1, 0, 0, 1}>",
         "a = Pad(x, p) y = If(c) <then_branch = t () => (float[1,1,5] s) { s = Conv(a, w) }, else_branch = e () "
         "=> (float[1,1,5] r) { r = Neg(x) }>"),
    NoOp("mode by reference",
         "(float[1,1,5] x) => (float[1,1,5] y) <float[1,1,3] w = {1, 2, 3}, int64[6] p = {0, 0, 1, 0, 0, 1}>",
         'y = f.F<m="constant">(x, w, p)',
         functions=function("F <m>(x, w, p) => (y) { q = Constant<value=int64[6] {0, 0, 1, 0, 0, 1}>() "
                            "a = Pad<mode:string=@m>(x, q) y = Conv(a, w) }")),
    NoOp("a window wholly in the padding", POOL.replace("[1,1,3]", "[1,1,5]"), f"a = Pad(x, wide) y = {AVERAGE}>(a)"),
    NoOp("as wide as the window with what it pads itself", POOL.replace("[1,1,3]", "[1,1,5]"),
         f"a = Pad(x, odd) y = {AVERAGE}, count_include_pad=1, pads=[1, 1]>(a)"),
    NoOp("average, two attributes that take more than the Pad", POOL, f"a = Pad(x, p) y = {AVERAGE}>(a)"),
    NoOp("ceil_mode", POOL.replace("[1,1,3]", "[1,1,4]"), f"a = Pad(x, p) y = {AVERAGE}, ceil_mode=1>(a)"),
    NoOp("average, edge", POOL, f'a = Pad<mode="edge">(x, p) y = {AVERAGE}>(a)'),
    NoOp("average, lowest", POOL, f"a = Pad(x, p, low) y = {AVERAGE}>(a)"),
    NoOp("average that does not count its own", POOL.replace("[1,1,3]", "[1,1,4]"),
         "a = Pad(x, p) y = AveragePool<kernel_shape=[4], strides=[2], pads=[1, 1]>(a)"),
    NoOp("maximum, zero", POOL, f"a = Pad(x, p, zero) y = {MAX}>(a)"),
    NoOp("maximum, zero, after Neg", POOL, f"b = Neg(x) a = Pad(b, p) y = {MAX}>(a)"),
    NoOp("maximum, something low", POOL, f"b = Relu(x) a = Pad(b, p, some) y = {MAX}>(a)"),
    NoOp("maximum, reflected", POOL, f'a = Pad<mode="reflect">(x, p, low) y = {MAX}>(a)'),
    NoOp("maximum that pads", POOL.replace("[1,1,3]", "[1,1,4]"),
         f"a = Pad(x, p, low) y = {MAX}, pads=[1, 1]>(a)".replace("[3]", "[4]")),
    NoOp("maximum, dilated", POOL.replace("[1,1,3]", "[1,1,2]"), f"a = Pad(x, p, low) y = {MAX}, dilations=[2]>(a)"),
    NoOp("maximum with places", POOL.replace("y)", "y, int64[1,1,3] i)"), f"a = Pad(x, p, low) y, i = {MAX}>(a)"),
    NoOp("maximum of integers",
         "(int8[1,1,6] x) => (int8[1,1,3] y) <int64[6] p = {0, 0, 1, 0, 0, 1}, int8 low = {-128}>",
         f"a = Pad(x, p, low) y = {MAX}>(a)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_pad.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_pad.RULES)
