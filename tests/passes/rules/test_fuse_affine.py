"""Which scalings and shifts the kernel before them takes in, and which stay behind it."""

from __future__ import annotations

import numpy as np
import pytest

from passes.rules import fuse_affine
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

CONV = (
    "(float[1,1,3] x) => (float[1,2,3] y) <float[2,1,1] w = {1, 2}, float[2] b = {3, 4}, float two = {2}, "
    "float[2,1] each = {2, 3}, float[1,2,1] full = {2, 3}, float[2] one = {1, 1}, float[2] zero = {0, 0}, "
    "float[2] g = {2, 3}, float[2] m = {1, 2}, float[2] v = {1, 4}>"
)
DECONV = CONV.replace("float[2,1,1] w", "float[1,2,1] w")
GROUPED = "(float[1,2,1] x) => (float[1,4,1] y) <float[2,2,1] w = {1, 2, 3, 4}, float[4,1] each = {1, 2, 3, 4}>"
GEMM = (
    "(float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] b = {3, 4}, float two = {2}, "
    "float[2] each = {2, 3}, float[2,1] rows = {2, 3}, float[2] one = {1, 1}, float[2] zero = {0, 0}>"
)
MATMUL3 = "(float[1,2,2] x) => (float[1,2,2] y) <float[2,2] w = {1, 2, 3, 4}, float two = {2}, float[2] each = {2, 3}>"
NORM = "<epsilon=0.>"
OUTER = CONV.replace("x)", "x, bool c)")
ELSE = "q = Neg(x) r = Concat<axis=1>(q, q)"


# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("fuse-batch-norm: conv", CONV, f"a = Conv(x, w) y = BatchNormalization{NORM}(a, g, b, m, v)",
            after="<float[2,1,1] w = {2, 3}, float[2] b = {1, 1}> y = Conv(x, w, b)"),
    Rewrite("fuse-batch-norm: conv with a bias", CONV,
            f"a = Conv(x, w, b) y = BatchNormalization{NORM}(a, g, zero, m, v)",
            after="<float[2,1,1] w = {2, 3}, float[2] b = {4, 3}> y = Conv(x, w, b)"),
    Rewrite("fuse-batch-norm: transposed", DECONV,
            f"a = ConvTranspose(x, w) y = BatchNormalization{NORM}(a, g, b, m, v)",
            after="<float[1,2,1] w = {2, 3}, float[2] b = {1, 1}> y = ConvTranspose(x, w, b)"),
    Rewrite("fuse-batch-norm: gemm", GEMM,
            f"a = Gemm(x, w) y = BatchNormalization{NORM}(a, each, b, zero, one)",
            after="<float[2,2] w = {2, 6, 6, 12}, float[2] b = {3, 4}> y = Gemm(x, w, b)"),
    Rewrite("fuse-batch-norm: matmul", GEMM,
            f"a = MatMul(x, w) y = BatchNormalization{NORM}(a, each, b, zero, one)",
            after="<float[2,2] w = {2, 6, 6, 12}, float[2] b = {3, 4}> y = Gemm(x, w, b)"),
    Rewrite("fuse-batch-norm: oldest opset", CONV, f"a = Conv(x, w) y = BatchNormalization{NORM}(a, g, b, m, v)",
            after="<float[2,1,1] w = {2, 3}, float[2] b = {1, 1}> y = Conv(x, w, b)", opset=7),
    Rewrite("fuse-scale: conv, one factor", CONV, "a = Conv(x, w) y = Mul(a, two)",
            after="<float[2,1,1] w = {2, 4}> y = Conv(x, w)"),
    Rewrite("fuse-scale: conv, factor first", CONV, "a = Conv(x, w) y = Mul(each, a)",
            after="<float[2,1,1] w = {2, 6}> y = Conv(x, w)"),
    Rewrite("fuse-scale: conv with a bias, factor of each channel", CONV, "a = Conv(x, w, b) y = Mul(a, full)",
            after="<float[2,1,1] w = {2, 6}, float[2] b = {6, 12}> y = Conv(x, w, b)"),
    Rewrite("fuse-scale: conv, quotient", CONV, "a = Conv(x, w) y = Div(a, two)",
            after="<float[2,1,1] w = {0.5, 1}> y = Conv(x, w)"),
    Rewrite("fuse-scale: conv, negative", CONV, "a = Conv(x, w, b) y = Neg(a)",
            after="<float[2,1,1] w = {-1, -2}, float[2] b = {-3, -4}> y = Conv(x, w, b)"),
    Rewrite("fuse-scale: any batch", CONV.replace("[1,1,3]", "[N,1,3]").replace("[1,2,3]", "[N,2,3]"),
            "a = Conv(x, w) y = Mul(a, each)",
            after="<float[2,1,1] w = {2, 6}> y = Conv(x, w)"),
    Rewrite("fuse-scale: grouped, transposed", GROUPED, "a = ConvTranspose<group=2>(x, w) y = Mul(a, each)",
            after="<float[2,2,1] w = {1, 4, 9, 16}> y = ConvTranspose<group=2>(x, w)"),
    Rewrite("fuse-scale: gemm, transB and beta", GEMM, "a = Gemm<transB=1, beta=2.>(x, w, b) y = Mul(a, each)",
            after="<float[2,2] w = {2, 4, 9, 12}, float[2] b = {12, 24}> y = Gemm<transB=1>(x, w, b)"),
    Rewrite("fuse-scale: matmul", GEMM, "a = MatMul(x, w) y = Mul(a, each)",
            after="<float[2,2] w = {2, 6, 6, 12}> y = MatMul(x, w)"),
    Rewrite("fuse-scale: matmul of rank 3", MATMUL3, "a = MatMul(x, w) y = Mul(a, each)",
            after="<float[2,2] w = {2, 6, 6, 12}> y = MatMul(x, w)"),
    Rewrite("fuse-scale: fp16", GEMM.replace("float", "float16"), "a = MatMul(x, w) y = Mul(a, each)",
            after="<float16[2,2] w = {2, 6, 6, 12}> y = MatMul(x, w)"),
    Rewrite("fuse-scale: double", GEMM.replace("float", "double"), "a = MatMul(x, w) y = Mul(a, each)",
            after="<double[2,2] w = {2, 6, 6, 12}> y = MatMul(x, w)"),
    Rewrite("fuse-scale: weight shared, scaled alike", CONV.replace("x)", "x, float[1,1,3] u)"),
            "a = Conv(x, w) c = Mul(a, two) d = Conv(u, w) e = Mul(d, two) y = Sub(c, e)",
            after="<float[2,1,1] w = {2, 4}> c = Conv(x, w) e = Conv(u, w) y = Sub(c, e)"),
    Rewrite("fuse-scale: weight and bias shared, scaled alike", CONV.replace("x)", "x, float[1,1,3] u)"),
            "a = Conv(x, w, b) c = Mul(a, two) d = Conv(u, w, b) e = Mul(d, two) y = Sub(c, e)",
            after="<float[2,1,1] w = {2, 4}, float[2] b = {6, 8}> c = Conv(x, w, b) e = Conv(u, w, b) y = Sub(c, e)"),
    Rewrite("fuse-scale: bias shared with others", CONV.replace("y)", "y, float[2] z)"),
            "a = Conv(x, w, b) y = Mul(a, each) z = Neg(b)",
            after="<float[2,1,1] w = {2, 6}, float[2] c = {6, 12}> y = Conv(x, w, c) z = Neg(b)"),
    Rewrite("fuse-scale: in a branch", OUTER,
            branches("float[1,2,3]", "a = Conv(x, w) s = Mul(a, two)", ELSE),
            after="<float[2,1,1] w = {2, 4}> " + branches("float[1,2,3]", "s = Conv(x, w)", ELSE)),
    Rewrite("fuse-shift: conv, one summand", CONV, "a = Conv(x, w) y = Add(a, two)",
            after="<float[2] b = {2, 2}> y = Conv(x, w, b)"),
    Rewrite("fuse-shift: conv, summand of each channel", CONV, "a = Conv(x, w, b) y = Add(each, a)",
            after="<float[2] b = {5, 7}> y = Conv(x, w, b)"),
    Rewrite("fuse-shift: conv, difference", CONV, "a = Conv(x, w, b) y = Sub(a, each)",
            after="<float[2] b = {1, 1}> y = Conv(x, w, b)"),
    Rewrite("fuse-shift: conv, difference from a constant", CONV, "a = Conv(x, w, b) y = Sub(each, a)",
            after="<float[2,1,1] w = {-1, -2}, float[2] b = {-1, -1}> y = Conv(x, w, b)"),
    Rewrite("fuse-shift: conv whose weight is an input", CONV.replace("x)", "x, float[2,1,1] u)"),
            "a = Conv(x, u, b) y = Add(a, each)",
            after="<float[2] b = {5, 7}> y = Conv(x, u, b)"),
    Rewrite("fuse-shift: conv whose weight is read elsewhere", CONV.replace("y)", "y, float[2,1,1] z)"),
            "a = Conv(x, w, b) y = Add(a, each) z = Neg(w)",
            after="<float[2] b = {5, 7}> y = Conv(x, w, b) z = Neg(w)"),
    Rewrite("fuse-shift: gemm", GEMM, "a = Gemm(x, w) y = Add(a, each)",
            after="y = Gemm(x, w, each)"),
    Rewrite("fuse-shift: gemm, one summand", GEMM, "a = Gemm(x, w) y = Add(a, two)",
            after="<float[1] c = {2}> y = Gemm(x, w, c)"),
    Rewrite("fuse-shift: gemm, beta", GEMM, "a = Gemm<beta=2.>(x, w, b) y = Add(a, each)",
            after="<float[2] c = {8, 11}> y = Gemm(x, w, c)"),
]

NO_OPS = [
    NoOp("fuse-batch-norm: of an input", CONV.replace("[1,1,3]", "[1,2,3]"),
         "y = BatchNormalization(x, g, b, m, v)"),
    NoOp("fuse-batch-norm: old opset", CONV,
         "a = Conv(x, w) y = BatchNormalization<is_test=1>(a, g, b, m, v)", opset=6),
    NoOp("fuse-batch-norm: trains", CONV,
         "a = Conv(x, w) y, n, k = BatchNormalization<training_mode=1>(a, g, b, m, v)"),
    NoOp("fuse-batch-norm: statistics are inputs", CONV.replace("x)", "x, float[2] n)"),
         "a = Conv(x, w) y = BatchNormalization(a, g, b, n, v)"),
    NoOp("fuse-batch-norm: kernel's result is an output", CONV.replace("y)", "y, float[1,2,3] a)"),
         "a = Conv(x, w) y = BatchNormalization(a, g, b, m, v)"),
    NoOp("fuse-batch-norm: matmul of rank 3, the second axis", MATMUL3,
         "<float[2] z = {0, 0}, float[2] o = {1, 1}> a = MatMul(x, w) y = BatchNormalization(a, each, z, z, o)"),
    NoOp("fuse-batch-norm: variance so small that the factor overflows", CONV,
         "<float[2] v = {1e-38, 1}, float[2] g = {3e38, 1}> a = Conv(x, w) y = BatchNormalization<epsilon=0.>(a, "
         "g, b, m, v)"),
    NoOp("fuse-scale: not a kernel", CONV.replace("[1,1,3]", "[1,2,3]"), "a = Abs(x) y = Mul(a, two)"),
    NoOp("fuse-scale: of two inputs", CONV.replace("float[1,1,3] x)", "float[1,2,3] x, float[1,2,3] u)"),
         "y = Mul(x, u)"),
    NoOp("fuse-scale: old opset", CONV, "a = Conv(x, w) y = Neg(a)", opset=6),
    NoOp("fuse-scale: factor is an input", CONV.replace("x)", "x, float u)"), "a = Conv(x, w) y = Mul(a, u)"),
    NoOp("fuse-scale: factor may be overridden", CONV.replace("x)", "x, float u = {2})"),
         "a = Conv(x, w) y = Mul(a, u)"),
    NoOp("fuse-scale: weight is an input", CONV.replace("x)", "x, float[2,1,1] u)"), "a = Conv(x, u) y = Mul(a, two)"),
    NoOp("fuse-scale: weight may be overridden", CONV.replace("x)", "x, float[2,1,1] u = {1, 2})"),
         "a = Conv(x, u) y = Mul(a, two)"),
    NoOp("fuse-scale: bias is an input", CONV.replace("x)", "x, float[2] u)"), "a = Conv(x, w, u) y = Mul(a, two)"),
    NoOp("fuse-scale: matrix bias", GEMM, "<float[2,2] c = {1, 2, 3, 4}> a = Gemm(x, w, c) y = Mul(a, two)"),
    NoOp("fuse-scale: kernel's result has two users", CONV, "a = Conv(x, w) c = Mul(a, two) y = Add(a, c)"),
    NoOp("fuse-scale: kernel's result is squared", CONV, "a = Conv(x, w) y = Mul(a, a)"),
    NoOp("fuse-scale: kernel's result is an output", CONV.replace("y)", "y, float[1,2,3] a)"),
         "a = Conv(x, w) y = Mul(a, two)"),
    NoOp("fuse-scale: factor of another axis", CONV, "<float[3] last = {1, 2, 3}> a = Conv(x, w) y = Mul(a, last)"),
    NoOp("fuse-scale: gemm, factor of each row", GEMM, "a = Gemm(x, w) y = Mul(a, rows)"),
    NoOp("fuse-scale: factor enlarges", CONV.replace("=> (float[1,2,3]", "=> (float[2,2,3]"),
         "<float[2,1,1] more = {2, 3}> a = Conv(x, w) y = Mul(a, more)"),
    NoOp("fuse-scale: divided by zero", CONV, "<float nil = {0}> a = Conv(x, w) y = Div(a, nil)"),
    NoOp("fuse-scale: constant divided", CONV, "a = Conv(x, w) y = Div(two, a)"),
    NoOp("fuse-scale: weight overflows", CONV, "<float big = {3e38}> a = Conv(x, w) y = Mul(a, big)"),
    NoOp("fuse-scale: fp16 weight overflows", GEMM.replace("float", "float16"),
         "<float16 big = {60000}> a = MatMul(x, w) y = Mul(a, big)"),
    NoOp("fuse-scale: weight sinks among the denormal numbers", CONV,
         "<float low = {1e-38}, float[2,1,1] w = {0.01, 0.02}> a = Conv(x, w) y = Mul(a, low)"),
    NoOp("fuse-scale: bias overflows", CONV,
         "<float[2] b = {1e38, 1e38}, float ten = {10}> a = Conv(x, w, b) y = Mul(a, ten)"),
    NoOp("fuse-scale: integers", GEMM.replace("float", "int32"), "a = MatMul(x, w) y = Mul(a, two)"),
    NoOp("fuse-scale: weight is an output", CONV.replace("y)", "y, float[2,1,1] w)"), "a = Conv(x, w) y = Mul(a, two)"),
    NoOp("fuse-scale: weight is read elsewhere", CONV.replace("y)", "y, float[2,1,1] z)"),
         "a = Conv(x, w) y = Mul(a, two) z = Neg(w)"),
    NoOp("fuse-scale: weight is also what is multiplied", GEMM.replace("(float[2,2] x)", "()"),
         "a = MatMul(w, w) y = Mul(a, two)"),
    NoOp("fuse-scale: weight is also the input of another kernel", GEMM.replace("y)", "y, float[2,2] z)"),
         "a = MatMul(x, w) y = Mul(a, two) b1 = MatMul(w, x) z = Mul(b1, two)"),
    NoOp("fuse-scale: weight shared, the other not scaled", CONV.replace("y)", "y, float[1,2,3] z)"),
         "a = Conv(x, w) y = Mul(a, two) z = Conv<dilations=[1]>(x, w)"),
    NoOp("fuse-scale: weight shared, the other read twice", CONV.replace("y)", "y, float[1,2,3] z)"),
         "a = Conv(x, w) y = Mul(a, two) d = Conv(x, w) e = Mul(d, two) z = Sub(e, d)"),
    NoOp("fuse-scale: weight shared, the other goes elsewhere", CONV.replace("y)", "y, float[1,2,3] z)"),
         "a = Conv(x, w) y = Mul(a, two) d = Conv(x, w) z = Abs(d)"),
    NoOp("fuse-scale: weight shared, the other scaled by an input",
         CONV.replace("x)", "x, float u)").replace("y)", "y, float[1,2,3] z)"),
         "a = Conv(x, w) y = Mul(a, two) d = Conv(x, w) z = Mul(d, u)"),
    NoOp("fuse-scale: weight shared, the other scaled otherwise", CONV.replace("y)", "y, float[1,2,3] z)"),
         "a = Conv(x, w) y = Mul(a, two) d = Conv(x, w) z = Mul(d, each)"),
    NoOp("fuse-scale: weight shared, the other only shifted", CONV.replace("y)", "y, float[1,2,3] z)"),
         "a = Conv(x, w) y = Mul(a, two) d = Conv(x, w) z = Add(d, two)"),
    NoOp("fuse-scale: weight shared, the other's bias is an input",
         CONV.replace("x)", "x, float[2] u)").replace("y)", "y, float[1,2,3] z)"),
         "a = Conv(x, w) y = Mul(a, two) d = Conv(x, w, u) z = Mul(d, two)"),
    NoOp("fuse-scale: weight shared, the other transposed", GEMM.replace("y)", "y, float[2,2] z)"),
         "a = Gemm(x, w) y = Mul(a, each) d = Gemm<transB=1>(x, w) z = Mul(d, each)"),
    NoOp("fuse-scale: weight shared by another operator", GEMM.replace("y)", "y, float[2,2] z)"),
         "a = Gemm(x, w) y = Mul(a, two) d = MatMul(x, w) z = Mul(d, two)"),
    NoOp("fuse-scale: weight shared, other groups",
         "(float[1,4,1] x, float[1,2,1] u) => (float[1,2,1] y, float[1,2,1] z) <float[2,2,1] w = {1, 2, 3, 4}, "
         "float two = {2}>", "a = Conv<group=2>(x, w) y = Mul(a, two) d = Conv(u, w) z = Mul(d, two)"),
    NoOp("fuse-scale: the kernel is outside the branch", OUTER,
         "a = Conv(x, w) " + branches("float[1,2,3]", "s = Mul(a, two)", ELSE)),
    NoOp("fuse-scale: attribute by reference", "(float[1,1,3] x) => (float[1,1,3] y)", "y = f.F<k=1>(x)",
         functions=function("F <k>(x) => (y) { w = Constant<value=float[1,1,1] {2}>() t = Constant<value=float {2}>() "
                            "a = Conv<group:int=@k>(x, w) y = Mul(a, t) }")),
    NoOp("fuse-shift: matmul", GEMM, "a = MatMul(x, w) y = Add(a, each)"),
    NoOp("fuse-shift: matmul of rank 3, difference from a constant", MATMUL3, "a = MatMul(x, w) y = Sub(each, a)"),
    NoOp("fuse-shift: gemm whose weight is an input", GEMM.replace("x)", "x, float[2,2] u)"),
         "a = Gemm(x, u) y = Add(a, each)"),
    NoOp("fuse-shift: bias is an input", CONV.replace("x)", "x, float[2] u)"), "a = Conv(x, w, u) y = Add(a, two)"),
    NoOp("fuse-shift: bias may be overridden", CONV.replace("x)", "x, float[2] u = {1, 2})"),
         "a = Conv(x, w, u) y = Add(a, two)"),
    NoOp("fuse-shift: summand is an input", CONV.replace("x)", "x, float u)"), "a = Conv(x, w) y = Add(a, u)"),
    NoOp("fuse-shift: summand of each place", CONV, "<float[3] last = {1, 2, 3}> a = Conv(x, w) y = Add(a, last)"),
    NoOp("fuse-shift: old opset", CONV, "a = Conv(x, w) y = Add<broadcast=1>(a, two)", opset=6),
    NoOp("fuse-shift: kernel's result has two users", CONV, "a = Conv(x, w) c = Add(a, two) y = Mul(a, c)"),
    NoOp("fuse-shift: bias overflows", CONV,
         "<float[2] b = {3e38, 0}, float big = {3e38}> a = Conv(x, w, b) y = Add(a, big)"),
    NoOp("fuse-shift: file would grow", "(float[1,1,1] x, float[99,1,1] w) => (float[1,99,1] y) <float two = {2}>",
         "a = Conv(x, w) y = Add(a, two)", arrays={"w": np.ones((99, 1, 1))}),
    NoOp("fuse-shift: the kernel is outside the branch", OUTER,
         "a = Conv(x, w) " + branches("float[1,2,3]", "s = Add(a, two)", ELSE)),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_affine.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_affine.RULES)
