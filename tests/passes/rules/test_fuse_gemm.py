"""What becomes one Gemm, and which products stay as they are."""

from __future__ import annotations

import pytest

from passes.rules import fuse_gemm
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

G = (
    "(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] y) <float[1,4] row = {1, 2, 3, 4}, float two = {2}, "
    "float[2,1] column = {1, 2}>"
)
T = "(float[2,3] x, float[4,3] w) => (float[2,4] y) <float[4] k = {1, 2, 3, 4}>"
A = "(float[3,2] x, float[3,4] w) => (float[2,4] y)"
S = "(float[2,2] x, float[2,2] w) => (float[2,2] y)"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("fuse-matmul-add: an input", G, "a = MatMul(x, w) y = Add(a, b)",
            after="y = Gemm(x, w, b)"),
    Rewrite("fuse-matmul-add: first", G, "a = MatMul(x, w) y = Add(b, a)",
            after="y = Gemm(x, w, b)"),
    Rewrite("fuse-matmul-add: a row", G, "a = MatMul(x, w) y = Add(a, row)",
            after="y = Gemm(x, w, row)"),
    Rewrite("fuse-matmul-add: a column", G, "a = MatMul(x, w) y = Add(a, column)",
            after="y = Gemm(x, w, column)"),
    Rewrite("fuse-matmul-add: a number", G, "a = MatMul(x, w) y = Add(a, two)",
            after="y = Gemm(x, w, two)"),
    Rewrite("fuse-matmul-add: a gemm", G, "a = Gemm<alpha=2., beta=3.>(x, w) y = Add(a, b)",
            after="y = Gemm<alpha=2.>(x, w, b)"),
    Rewrite("fuse-matmul-add: a gemm that transposes", "(float[3,2] x, float[4,3] w, float[2,4] b) => (float[2,4] y)",
            "a = Gemm<transA=1, transB=1>(x, w) y = Add(a, b)",
            after="y = Gemm<transA=1, transB=1>(x, w, b)"),
    Rewrite("fuse-matmul-add: any batch", "(float[N,3] x, float[3,4] w, float[N,4] b) => (float[N,4] y)",
            "a = MatMul(x, w) y = Add(a, b)",
            after="y = Gemm(x, w, b)"),
    Rewrite("fuse-matmul-add: a name left out", G, "a = Gemm(x, w, ) y = Add(a, b)",
            after="y = Gemm(x, w, b)"),
    Rewrite("fuse-matmul-add: two products", "(float[2,2] x, float[2,2] w, float[2,2] v) => (float[2,2] y)",
            "a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b)",
            after="b = MatMul(x, v) y = Gemm(x, w, b)"),
    Rewrite("fuse-matmul-add: the second of two is read elsewhere", S.replace("y)", "y, float[2,2] a)"),
            "a = MatMul(x, w) b = MatMul(w, x) y = Add(a, b)",
            after="a = MatMul(x, w) y = Gemm(w, x, a)"),
    Rewrite("fuse-matmul-add: fp16", G.replace("float", "float16"), "a = MatMul(x, w) y = Add(a, b)",
            after="y = Gemm(x, w, b)"),
    Rewrite("fuse-matmul-add: double", G.replace("float", "double"), "a = MatMul(x, w) y = Add(a, b)",
            after="y = Gemm(x, w, b)"),
    Rewrite("fuse-matmul-add: oldest opset", G, "a = MatMul(x, w) y = Add(a, b)",
            after="y = Gemm(x, w, b)", opset=7),
    Rewrite("fuse-transpose-into-gemm: first", A, "a = Transpose<perm=[1, 0]>(x) y = Gemm(a, w)",
            after="y = Gemm<transA=1>(x, w)"),
    Rewrite("fuse-transpose-into-gemm: second", T, "a = Transpose(w) y = Gemm(x, a, k)",
            after="y = Gemm<transB=1>(x, w, k)"),
    Rewrite("fuse-transpose-into-gemm: twice is not at all", A,
            "a = Transpose(x) b = Transpose(a) y = Gemm<transA=1>(b, w)",
            after="y = Gemm<transA=1>(x, w)"),
    Rewrite("fuse-transpose-into-gemm: both", "(float[3,2] x, float[4,3] w) => (float[2,4] y)",
            "a = Transpose(x) b = Transpose(w) y = MatMul(a, b)",
            after="y = Gemm<transA=1, transB=1>(x, w)"),
    Rewrite("fuse-transpose-into-gemm: matmul", T, "a = Transpose(w) y = MatMul(x, a)",
            after="y = Gemm<transB=1>(x, w)"),
    Rewrite("fuse-transpose-into-gemm: oldest opset", T, "a = Transpose(w) y = Gemm(x, a, k)",
            after="y = Gemm<transB=1>(x, w, k)", opset=7),
    Rewrite("fuse-transpose-into-gemm: matmul, oldest opset", T, "a = Transpose(w) y = MatMul(x, a)",
            after="y = Gemm<transB=1>(x, w)", opset=11),
    Rewrite("fuse-transpose-into-gemm: the first is read elsewhere",
            "(float[2,2] x, float[2,2] w) => (float[2,2] y, float[2,2] a)",
            "a = Transpose(x) b = Transpose(w) y = MatMul(a, b)",
            after="a = Transpose(x) y = Gemm<transB=1>(a, w)"),
]

NO_OPS = [
    NoOp("fuse-matmul-add: no product", G.replace("w, float[4] b", "w, float[2,4] b"), "a = Neg(b) y = Add(a, two)"),
    NoOp("fuse-matmul-add: of inputs", S, "y = Add(x, w)"),
    NoOp("fuse-matmul-add: read twice", G, "a = MatMul(x, w) y = Add(a, a)"),
    NoOp("fuse-matmul-add: read elsewhere", G, "a = MatMul(x, w) c = Add(a, b) y = Mul(a, c)"),
    NoOp("fuse-matmul-add: an output", G.replace("y)", "y, float[2,4] a)"), "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: old opset", G, "a = MatMul(x, w) y = Add<broadcast=1>(a, b)", opset=6),
    NoOp("fuse-matmul-add: a bias is there", G, "a = Gemm(x, w, b) y = Add(a, row)"),
    NoOp("fuse-matmul-add: rank 3", "(float[1,2,3] x, float[3,4] w, float[4] b) => (float[1,2,4] y)",
         "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: weight of rank 3", "(float[2,3] x, float[1,3,4] w, float[4] b) => (float[1,2,4] y)",
         "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: a vector", "(float[3] x, float[3,4] w, float[4] b) => (float[4] y)",
         "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: rank unknown", "(float[6] v, int64[M] t, float[3,4] w, float[4] b) => (float[2,4] y)",
         "x = Reshape(v, t) a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: summand of unknown rank",
         "(float[2,3] x, int64[M] t, float[3,4] w, float[4] v) => (float[2,4] y)",
         "b = Reshape(v, t) a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: summand enlarges the rank",
         "(float[2,3] x, float[3,4] w, float[1,2,4] b) => (float[1,2,4] y)", "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: summand enlarges rows", "(float[1,3] x, float[3,4] w, float[2,4] b) => (float[2,4] y)",
         "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: summand may enlarge rows", "(float[N,3] x, float[3,4] w, float[M,4] b) => (float[M,4] y)",
         "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: dimensions of no name", "(float[?,3] x, float[3,4] w, float[?,4] b) => (float[?,4] y)",
         "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: gemm, summand enlarges what is transposed",
         "(float[3,2] x, float[2,3] w, float[3,3] b) => (float[3,3] y)", "a = MatMul(x, w) y = Sub(a, b)"),
    NoOp("fuse-matmul-add: integers", G.replace("float", "int32"), "a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: weight was integers", G.replace("float[3,4] w", "uint8[3,4] q").replace("{2}", "{2}"),
         "w = DequantizeLinear(q, two) a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: input was integers", G.replace("float[2,3] x", "uint8[2,3] q"),
         "x = DequantizeLinear(q, two) a = MatMul(x, w) y = Add(a, b)"),
    NoOp("fuse-matmul-add: the product is outside the branch", S.replace("w)", "w, bool c)"),
         "a = MatMul(x, w) " + branches("float[2,2]", "s = Add(a, x)", "r = Neg(x)")),
    NoOp("fuse-matmul-add: attribute by reference", S, "y = f.F<k=2.>(x, w)",
         functions=function("F <k>(x, w) => (y) { a = Gemm<alpha:float=@k>(x, w) y = Add(a, x) }")),
    NoOp("fuse-transpose-into-gemm: of inputs", S, "y = Gemm(x, w)"),
    NoOp("fuse-transpose-into-gemm: read elsewhere", T.replace("y)", "y, float[3,4] z)"),
         "a = Transpose(w) y = MatMul(x, a) z = Neg(a)"),
    NoOp("fuse-transpose-into-gemm: read twice", S, "a = Transpose(w) y = MatMul(a, a)"),
    NoOp("fuse-transpose-into-gemm: an output", T.replace("y)", "y, float[3,4] a)"),
         "a = Transpose(w) y = MatMul(x, a)"),
    NoOp("fuse-transpose-into-gemm: no transpose", S, "a = Neg(w) y = MatMul(x, a)"),
    NoOp("fuse-transpose-into-gemm: moves nothing", S, "a = Transpose<perm=[0, 1]>(w) y = MatMul(x, a)"),
    NoOp("fuse-transpose-into-gemm: rank 3", "(float[1,2,3] x, float[4,3] w) => (float[1,2,4] y)",
         "a = Transpose(w) y = MatMul(x, a)"),
    NoOp("fuse-transpose-into-gemm: matmul, old opset", T, "a = Transpose(w) y = MatMul(x, a)", opset=10),
    NoOp("fuse-transpose-into-gemm: gemm, old opset", T, "a = Transpose(w) y = Gemm<broadcast=1>(x, a, k)", opset=6),
    NoOp("fuse-transpose-into-gemm: integers", T.replace("float", "int32"), "a = Transpose(w) y = MatMul(x, a)"),
    NoOp("fuse-transpose-into-gemm: input was integers", T.replace("float[2,3] x", "uint8[2,3] q"),
         "<float two = {2}> x = DequantizeLinear(q, two) a = Transpose(w) y = MatMul(x, a)"),
    NoOp("fuse-transpose-into-gemm: attribute by reference", S, "y = f.F<k=2.>(x, w)",
         functions=function("F <k>(x, w) => (y) { a = Transpose(w) y = Gemm<alpha:float=@k>(x, a) }")),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_gemm.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_gemm.RULES)
