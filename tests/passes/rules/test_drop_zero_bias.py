"""Which biases go, and which stay."""

from __future__ import annotations

import numpy as np
import pytest

from passes.rules import drop_zero_bias
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite, function

CONV = "(float[1,1,3] x) => (float[1,2,3] y) <float[2,1,1] w = {1, 2}, float[2] zeros = {0, 0}, float[2] b = {0, 1}>"
GEMM = (
    "(float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] zeros = {0, 0}, float zero = {0}, "
    "float[2,2] full = {0, 0, 0, 0}, float[2] b = {0, 1}>"
)
HALF = "(float16[2,2] x, float16[2,2] w) => (float16[2,2] y) <float16[2] zeros = {0, 0}>"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("conv", CONV, "y = Conv(x, w, zeros)",
            after="y = Conv(x, w)"),
    Rewrite("conv, minus zero", CONV, "<float[2] m = {-0.0, 0}> y = Conv(x, w, m)",
            after="y = Conv(x, w)"),
    Rewrite("conv, weight not constant", CONV.replace("x)", "x, float[2,1,1] v)"), "y = Conv(x, v, zeros)",
            after="y = Conv(x, v)"),
    Rewrite("transposed", CONV.replace("float[2,1,1]", "float[1,2,1]"), "y = ConvTranspose(x, w, zeros)",
            after="y = ConvTranspose(x, w)"),
    Rewrite("gemm", GEMM, "y = Gemm(x, w, zeros)",
            after="y = Gemm(x, w)"),
    Rewrite("gemm, one number", GEMM, "y = Gemm(x, w, zero)",
            after="y = Gemm(x, w)"),
    Rewrite("gemm, a matrix", GEMM, "y = Gemm(x, w, full)",
            after="y = Gemm(x, w)"),
    Rewrite("gemm, beta", GEMM, "y = Gemm<alpha=2., beta=3.>(x, w, zeros)",
            after="y = Gemm<alpha=2.>(x, w)"),
    Rewrite("gemm, oldest opset", GEMM, "y = Gemm(x, w, zeros)",
            after="y = Gemm(x, w)", opset=11),
    Rewrite("conv, oldest opset", CONV, "y = Conv(x, w, zeros)",
            after="y = Conv(x, w)", opset=1),
    Rewrite("fp16", HALF, "y = Gemm(x, w, zeros)",
            after="y = Gemm(x, w)"),
    Rewrite("bias shared", CONV.replace("y)", "y, float[2] s)"), "y = Conv(x, w, zeros) s = Neg(zeros)",
            after="y = Conv(x, w) s = Neg(zeros)"),
    Rewrite("in a function", "(float[1,1,1] x) => (float[1,1,1] y)", "y = f.F(x, x)",
            functions=function("F (x, v) => (y) { b = Constant<value=float[1] {0}>() y = Conv(x, v, b) }"),
            after="y = f.F(x, x)", functions_after=function("F (x, v) => (y) { y = Conv(x, v) }")),
]

NO_OPS = [
    NoOp("no bias", CONV, "y = Conv(x, w)"),
    NoOp("gemm without a bias", GEMM, "y = Gemm(x, w)"),
    NoOp("bias left out", GEMM, "y = Gemm(x, w, )"),
    NoOp("one element is not zero", CONV, "y = Conv(x, w, b)"),
    NoOp("gemm, one element is not zero", GEMM, "y = Gemm(x, w, b)"),
    NoOp("very small", CONV, "<float[2] e = {0, 1e-38}> y = Conv(x, w, e)"),
    NoOp("beta is zero", GEMM, "y = Gemm<beta=0.>(x, w, b)"),
    NoOp("bias is an input", CONV.replace("x)", "x, float[2] c)"), "y = Conv(x, w, c)"),
    NoOp("bias may be overridden", CONV.replace("x)", "x, float[2] c = {0, 0})"), "y = Conv(x, w, c)"),
    NoOp("bias is computed", CONV, "c = Neg(zeros) y = Conv(x, w, c)"),
    NoOp("gemm, old opset", GEMM, "y = Gemm(x, w, zeros)", opset=10),
    NoOp("gemm of integers", GEMM.replace("float", "int32"), "y = Gemm(x, w, zeros)"),
    NoOp("larger than is looked at", "(float[1,1] x, float[1,1048577] w, float[1048577] b) => (float[1,1048577] y)",
         "y = Gemm(x, w, b)", arrays={"b": np.zeros((1 << 20) + 1, np.float32)}),
    NoOp("attribute by reference", "(float[2,2] x) => (float[2,2] y)", "y = f.F<k=2.>(x)",
         functions=function("F <k>(x) => (y) { b = Constant<value=float[2] {0, 0}>() "
                            "y = Gemm<alpha:float=@k>(x, x, b) }")),
    NoOp("bias of the function's caller", GEMM, "y = f.F(x, w, zeros)",
         functions=function("F (x, w, b) => (y) { y = Gemm(x, w, b) }")),
    NoOp("other operators of the name", GEMM, "y = f.Gemm(x, w, zeros)",
         functions=function("Gemm (x, w, b) => (y) { c = Add(x, w) y = Add(c, b) }")),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, drop_zero_bias.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, drop_zero_bias.RULES)
