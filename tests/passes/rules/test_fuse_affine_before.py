"""Which scalings and shifts the kernel after them takes in, and which stay before it."""

from __future__ import annotations

import numpy as np
import pytest

from passes.rules import fuse_affine_before
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

CONV = (
    "(float[1,2,3] x) => (float[1,1,3] y) <float[1,2,1] w = {1, 2}, float[1] b = {3}, float two = {2}, "
    "float[2,1] each = {2, 3}, float[2] g = {2, 3}, float[2] o = {1, 2}, float[2] m = {1, 2}, float[2] v = {1, 4}>"
)
GEMM = (
    "(float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] b = {3, 4}, float two = {2}, "
    "float[2] each = {2, 3}, float[2,1] rows = {2, 3}>"
)
WIDE = "(float[1,1,3] x) => (float[1,1,5] y) <float[1,1,3] w = {1, 2, 3}, float two = {2}>"
NORM = (
    "(float[2,2] x, float[2,1] d) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}, float two = {2}, "
    "float[2] each = {2, 3}, float one = {1}>"
)
DECONV = "(float[1,2,1] x) => (float[1,4,1] y) <float[2,2,1] w = {1, 2, 3, 4}, float[2,1] each = {1, 2}>"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("conv, one factor", CONV, "a = Mul(x, two) y = Conv(a, w)",
            after="<float[1,2,1] w = {2, 4}> y = Conv(x, w)"),
    Rewrite("conv, factor of each channel", CONV, "a = Mul(each, x) y = Conv(a, w, b)",
            after="<float[1,2,1] w = {2, 6}> y = Conv(x, w, b)"),
    Rewrite("conv that pads, scaled", WIDE, "a = Mul(x, two) y = Conv<pads=[2, 2]>(a, w)",
            after="<float[1,1,3] w = {2, 4, 6}> y = Conv<pads=[2, 2]>(x, w)"),
    Rewrite("conv, negative", CONV, "a = Neg(x) y = Conv(a, w)",
            after="<float[1,2,1] w = {-1, -2}> y = Conv(x, w)"),
    Rewrite("conv, quotient", CONV, "a = Div(x, two) y = Conv(a, w)",
            after="<float[1,2,1] w = {0.5, 1}> y = Conv(x, w)"),
    Rewrite("conv, one summand", CONV, "a = Add(x, two) y = Conv(a, w, b)",
            after="<float[1] b = {9}> y = Conv(x, w, b)"),
    Rewrite("conv, summand of each channel, no bias", CONV, "a = Add(x, each) y = Conv(a, w)",
            after="<float[1] b = {8}> y = Conv(x, w, b)"),
    Rewrite("conv, auto_pad VALID", CONV, 'a = Add(x, two) y = Conv<auto_pad="VALID">(a, w, b)',
            after='<float[1] b = {9}> y = Conv<auto_pad="VALID">(x, w, b)'),
    Rewrite("conv, batch norm", CONV, "a = BatchNormalization<epsilon=0.>(x, g, o, m, v) y = Conv(a, w, b)",
            after="<float[1,2,1] w = {2, 3}, float[1] b = {0}> y = Conv(x, w, b)"),
    Rewrite("conv, groups", "(float[1,2,1] x) => (float[1,2,1] y) <float[2,1,1] w = {1, 2}, float[2,1] each = {2, 3}>",
            "a = Mul(x, each) y = Conv<group=2>(a, w)",
            after="<float[2,1,1] w = {2, 6}> y = Conv<group=2>(x, w)"),
    Rewrite("any batch", CONV.replace("[1,2,3] x", "[N,2,3] x").replace("[1,1,3] y", "[N,1,3] y"),
            "a = Mul(x, each) y = Conv(a, w)",
            after="<float[1,2,1] w = {2, 6}> y = Conv(x, w)"),
    Rewrite("transposed, scaled", DECONV, "a = Mul(x, each) y = ConvTranspose<group=2>(a, w)",
            after="<float[2,2,1] w = {1, 2, 6, 8}> y = ConvTranspose<group=2>(x, w)"),
    Rewrite("gemm, transB", GEMM, "a = Mul(x, each) y = Gemm<transB=1>(a, w, b)",
            after="<float[2,2] w = {2, 6, 6, 12}> y = Gemm<transB=1>(x, w, b)"),
    Rewrite("gemm, summand, alpha and beta", GEMM, "a = Add(x, two) y = Gemm<alpha=2., beta=3.>(a, w, b)",
            after="<float[2] b = {25, 36}> y = Gemm<alpha=2.>(x, w, b)"),
    Rewrite("gemm, summand, no bias", GEMM, "a = Add(x, each) y = Gemm(a, w)",
            after="<float[2] b = {11, 16}> y = Gemm(x, w, b)"),
    Rewrite("gemm, summand, a bias before opset 11", GEMM, "a = Add(x, each) y = Gemm(a, w, b)",
            after="<float[2] b = {14, 20}> y = Gemm(x, w, b)", opset=10),
    Rewrite("bias shared with others", GEMM.replace("y)", "y, float[2] z)"),
            "a = Add(x, each) y = Gemm(a, w, b) z = Neg(b)",
            after="<float[2] c = {14, 20}> y = Gemm(x, w, c) z = Neg(b)"),
    Rewrite("weight shared, shifted", GEMM.replace("y)", "y, float[2,2] z)"),
            "a = Add(x, each) y = Gemm(a, w, b) z = Neg(w)",
            after="<float[2] b = {14, 20}> y = Gemm(x, w, b) z = Neg(w)"),
    Rewrite("matmul", GEMM, "a = Mul(x, each) y = MatMul(a, w)",
            after="<float[2,2] w = {2, 4, 9, 12}> y = MatMul(x, w)"),
    Rewrite("fp16", GEMM.replace("float", "float16"), "a = Mul(x, each) y = MatMul(a, w)",
            after="<float16[2,2] w = {2, 4, 9, 12}> y = MatMul(x, w)"),
    Rewrite("double", GEMM.replace("float", "double"), "a = Mul(x, each) y = MatMul(a, w)",
            after="<double[2,2] w = {2, 4, 9, 12}> y = MatMul(x, w)"),
    Rewrite("after a root, but no quotient", NORM, "a = Sqrt(x) c = Mul(a, each) y = MatMul(c, w)",
            after="<float[2,2] w = {2, 4, 9, 12}> a = Sqrt(x) y = MatMul(a, w)"),
    Rewrite("after a quotient by no root", NORM, "a = Div(x, d) c = Mul(a, each) y = MatMul(c, w)",
            after="<float[2,2] w = {2, 4, 9, 12}> a = Div(x, d) y = MatMul(a, w)"),
    Rewrite("a product with what comes of a root later", NORM,
            "r = Sqrt(d) e = Exp(r) a = Mul(x, e) c = Mul(a, each) y = MatMul(c, w)",
            after="<float[2,2] w = {2, 4, 9, 12}> r = Sqrt(d) e = Exp(r) a = Mul(x, e) y = MatMul(a, w)"),
    Rewrite("oldest opset", CONV, "a = Mul(x, two) y = Conv(a, w)",
            after="<float[1,2,1] w = {2, 4}> y = Conv(x, w)", opset=7),
]

NO_OPS = [
    NoOp("of an input", CONV, "y = Conv(x, w, b)"),
    NoOp("of a constant", CONV.replace("(float[1,2,3] x)", "()"),
         "<float[1,2,3] k = {1, 2, 3, 4, 5, 6}> y = Conv(k, w, b)"),
    NoOp("after something else", CONV, "a = Exp(x) y = Conv(a, w)"),
    NoOp("weight is an input", CONV.replace("x)", "x, float[1,2,1] u)"), "a = Mul(x, two) y = Conv(a, u)"),
    NoOp("weight may be overridden", CONV.replace("x)", "x, float[1,2,1] u = {1, 2})"),
         "a = Mul(x, two) y = Conv(a, u)"),
    NoOp("shifted, weight is an input", CONV.replace("x)", "x, float[1,2,1] u)"), "a = Add(x, two) y = Conv(a, u)"),
    NoOp("old opset", CONV, "a = Neg(x) y = Conv(a, w)", opset=6),
    NoOp("scaled twice as read", GEMM, "a = Mul(x, two) c = Gemm(a, w) y = Add(a, c)"),
    NoOp("scaled for an output", CONV.replace("y)", "y, float[1,2,3] a)"), "a = Mul(x, two) y = Conv(a, w)"),
    NoOp("factor is an input", CONV.replace("x)", "x, float u)"), "a = Mul(x, u) y = Conv(a, w)"),
    NoOp("factor of each place", CONV, "<float[3] last = {1, 2, 3}> a = Mul(x, last) y = Conv(a, w)"),
    NoOp("factor of each row", GEMM, "a = Mul(x, rows) y = Gemm(a, w)"),
    NoOp("divided by zero", CONV, "<float nil = {0}> a = Div(x, nil) y = Conv(a, w)"),
    NoOp("constant divided", CONV, "a = Div(two, x) y = Conv(a, w)"),
    NoOp("weight shared, scaled", CONV.replace("y)", "y, float[1,2,1] z)"),
         "a = Mul(x, two) y = Conv(a, w) z = Neg(w)"),
    NoOp("weight is an output", CONV.replace("y)", "y, float[1,2,1] w)"), "a = Mul(x, two) y = Conv(a, w)"),
    NoOp("weight overflows", CONV, "<float big = {3e38}> a = Mul(x, big) y = Conv(a, w)"),
    NoOp("fp16 weight overflows", GEMM.replace("float", "float16"),
         "<float16 big = {60000}> a = Mul(x, big) y = MatMul(a, w)"),
    NoOp("bias overflows", CONV, "<float big = {3e38}> a = Add(x, big) y = Conv(a, w)"),
    NoOp("shifted, bias is an input", CONV.replace("x)", "x, float[1] u)"), "a = Add(x, two) y = Conv(a, w, u)"),
    NoOp("shifted, bias may be overridden", CONV.replace("x)", "x, float[1] u = {1})"),
         "a = Add(x, two) y = Conv(a, w, u)"),
    NoOp("shifted, a matrix bias", GEMM, "<float[2,2] k = {1, 2, 3, 4}> a = Add(x, two) y = Gemm(a, w, k)"),
    NoOp("shifted, pads", WIDE, "a = Add(x, two) y = Conv<pads=[2, 2]>(a, w)"),
    NoOp("shifted, pads by itself", WIDE.replace("[1,1,5]", "[1,1,3]"),
         'a = Add(x, two) y = Conv<auto_pad="SAME_LOWER">(a, w)'),
    NoOp("batch norm, pads", WIDE,
         "<float[1] g = {2}, float[1] o = {1}> a = BatchNormalization(x, g, o, o, g) y = Conv<pads=[2, 2]>(a, w)"),
    NoOp("batch norm, weight shared", CONV.replace("y)", "y, float[1,2,1] z)"),
         "a = BatchNormalization(x, g, o, m, v) y = Conv(a, w, b) z = Neg(w)"),
    NoOp("transposed, shifted", DECONV, "a = Add(x, each) y = ConvTranspose<group=2>(a, w)"),
    NoOp("matmul, shifted", GEMM, "a = Add(x, each) y = MatMul(a, w)"),
    NoOp("gemm, transA", GEMM, "a = Mul(x, each) y = Gemm<transA=1>(a, w)"),
    NoOp("file would grow", "(float[1,1,1] x, float[99,1,1] w) => (float[1,99,1] y) <float two = {2}>",
         "a = Add(x, two) y = Conv(a, w)", arrays={"w": np.ones((99, 1, 1))}),
    NoOp("the factor is outside the branch", GEMM.replace("x)", "x, bool c)"),
         "a = Mul(x, two) " + branches("float[2,2]", "s = MatMul(a, w)", "r = Neg(x)")),
    NoOp("ends a normalization, quotient by a root", NORM,
         "r = Sqrt(d) a = Div(x, r) c = Mul(a, each) y = MatMul(c, w)"),
    NoOp("ends a normalization, product with one by a root", NORM,
         "r = Sqrt(d) q = Reciprocal(r) a = Mul(x, q) c = Mul(a, each) y = MatMul(c, w)"),
    NoOp("ends a normalization, product with a quotient by a root", NORM,
         "r = Sqrt(d) q = Div(one, r) a = Mul(x, q) c = Mul(a, each) y = MatMul(c, w)"),
    NoOp("ends a normalization, scaled and shifted", NORM,
         "r = Sqrt(d) a = Div(x, r) c = Mul(a, each) e = Add(c, each) y = Gemm(e, w)"),
    NoOp("attribute by reference", "(float[1,1,3] x) => (float[1,1,3] y)", "y = f.F<k=1>(x)",
         functions=function("F <k>(x) => (y) { w = Constant<value=float[1,1,1] {2}>() t = Constant<value=float {2}>() "
                            "a = Mul(x, t) y = Conv<group:int=@k>(a, w) }")),
    NoOp("integers", GEMM.replace("float", "int32"), "a = Mul(x, two) y = MatMul(a, w)"),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_affine_before.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_affine_before.RULES)
