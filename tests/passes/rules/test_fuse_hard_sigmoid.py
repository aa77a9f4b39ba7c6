"""What is recognized as HardSigmoid and HardSwish, and what only looks like them."""

from __future__ import annotations

import pytest

from passes.rules import fuse_hard_sigmoid
from rule_tables import NoOp, Rewrite, branches, check_no_op, check_rewrite, function

X = (
    "(float[N,2] x) => (float[N,2] y) <float three = {3}, float[1] ones = {3}, float zero = {0}, float six = {6}, "
    "float sixth = {0.16666667}, float two = {2}, float[2] c = {2, 4}, float low = {-1}, float[1,1,1] deep = {3}>"
)
RAMP = "a = Add(x, three) b = Clip(a, zero, six)"
OLD = "a = Add(x, three) b = Clip<min=0., max=6.>(a)"
GATE = "HardSigmoid<alpha=0.16666667, beta=0.5>"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("fuse-hard-sigmoid: quotient", X, f"{RAMP} y = Div(b, six)",
            after=f"y = {GATE}(x)"),
    Rewrite("fuse-hard-sigmoid: factor", X, f"{RAMP} y = Mul(sixth, b)",
            after=f"y = {GATE}(x)"),
    Rewrite("fuse-hard-sigmoid: summand first", X, "a = Add(three, x) b = Clip(a, zero, six) y = Div(b, six)",
            after=f"y = {GATE}(x)"),
    Rewrite("fuse-hard-sigmoid: summand of rank 1", X, "a = Add(x, ones) b = Clip(a, zero, six) y = Div(b, six)",
            after=f"y = {GATE}(x)"),
    Rewrite("fuse-hard-sigmoid: difference", X, "a = Sub(x, low) b = Clip(a, zero, two) y = Div(b, two)",
            after="y = HardSigmoid<alpha=0.5, beta=0.5>(x)"),
    Rewrite("fuse-hard-sigmoid: another factor", X, f"{RAMP} y = Div(b, three)",
            after=f"<float k = {{2}}> b = {GATE}(x) y = Mul(b, k)"),
    Rewrite("fuse-hard-sigmoid: a factor for each column", X, f"{RAMP} y = Mul(b, c)",
            after=f"<float[2] k = {{12, 24}}> b = {GATE}(x) y = Mul(b, k)"),
    Rewrite("fuse-hard-sigmoid: a factor of 1 that enlarges", X.replace("(float[N,2] y)", "(float[1,N,2] y)"),
            f"<float[1,1,1] k = {{6}}> {RAMP} y = Div(b, k)",
            after=f"<float[1,1,1] k = {{1}}> b = {GATE}(x) y = Mul(b, k)"),
    Rewrite("fuse-hard-sigmoid: product between", X, f"{RAMP} d = Mul(x, b) y = Div(d, six)",
            after=f"b = {GATE}(x) y = Mul(x, b)"),
    Rewrite("fuse-hard-sigmoid: limits that are attributes", X, f"{OLD} y = Div(b, six)",
            after=f"y = {GATE}(x)", opset=10),
    Rewrite("fuse-hard-sigmoid: oldest opset", X, f"{OLD} y = Div(b, six)",
            after=f"y = {GATE}(x)", opset=7),
    Rewrite("fuse-hard-swish: second", X, f"b = {GATE}(x) y = Mul(x, b)",
            after="y = HardSwish(x)"),
    Rewrite("fuse-hard-swish: first", X, f"b = {GATE}(x) y = Mul(b, x)",
            after="y = HardSwish(x)"),
    Rewrite("fuse-hard-swish: default offset", X, "b = HardSigmoid<alpha=0.16666667>(x) y = Mul(x, b)",
            after="y = HardSwish(x)"),
    Rewrite("fuse-hard-swish: of a computed value", X, f"a = Neg(x) b = {GATE}(a) y = Mul(a, b)",
            after="a = Neg(x) y = HardSwish(a)"),
    Rewrite("fuse-hard-swish: oldest opset", X, f"b = {GATE}(x) y = Mul(x, b)",
            after="y = HardSwish(x)", opset=14),
]

NO_OPS = [
    NoOp("fuse-hard-sigmoid: nothing follows", X, f"{RAMP} y = Exp(b)"),
    NoOp("fuse-hard-sigmoid: an output", X, "a = Add(x, three) y = Clip(a, zero, six)"),
    NoOp("fuse-hard-sigmoid: of an input", X, "b = Clip(x, zero, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: no shift before", X, "a = Neg(x) b = Clip(a, zero, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: a factor before", X, "a = Mul(x, three) b = Clip(a, zero, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: a summand for each column", X, "a = Add(x, c) b = Clip(a, zero, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: a summand that enlarges", X.replace("(float[N,2] y)", "(float[1,N,2] y)"),
         "a = Add(x, deep) b = Clip(a, zero, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: summand is an input", X.replace("x)", "x, float u)"),
         "a = Add(x, u) b = Clip(a, zero, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: from something else", X, "a = Add(x, three) b = Clip(a, low, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: no lower limit", X, "a = Add(x, three) b = Clip(a, , six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: no upper limit", X, "a = Add(x, three) b = Clip(a, zero) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: up to nothing", X,
         "<float nil = {0}> a = Add(x, three) b = Clip(a, zero, nil) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: limits the wrong way round", X,
         "a = Add(x, three) b = Clip(a, zero, low) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: limit is an input", X.replace("x)", "x, float u)"),
         "a = Add(x, three) b = Clip(a, zero, u) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: limit may be overridden", X.replace("x)", "x, float u = {6})"),
         "a = Add(x, three) b = Clip(a, zero, u) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: shift has two users", X, f"{RAMP} d = Div(b, six) y = Mul(a, d)"),
    NoOp("fuse-hard-sigmoid: shift is an output", X.replace("y)", "y, float[N,2] a)"), f"{RAMP} y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: clip has two users", X, f"{RAMP} d = Div(b, six) y = Mul(b, d)"),
    NoOp("fuse-hard-sigmoid: clip is an output", X.replace("y)", "y, float[N,2] b)"), f"{RAMP} y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: product between has two users", X, f"{RAMP} d = Mul(x, b) e = Div(d, six) y = Add(d, e)"),
    NoOp("fuse-hard-sigmoid: quotient between", X, f"{RAMP} d = Div(b, x) y = Div(d, six)"),
    NoOp("fuse-hard-sigmoid: divides", X, f"{RAMP} y = Div(six, b)"),
    NoOp("fuse-hard-sigmoid: a shift after", X, f"{RAMP} y = Add(b, six)"),
    NoOp("fuse-hard-sigmoid: two products between", X, f"{RAMP} d = Mul(x, b) e = Mul(x, d) y = Div(e, six)"),
    NoOp("fuse-hard-sigmoid: factor overflows", X, f"<float big = {{3e38}}> {RAMP} y = Mul(b, big)"),
    NoOp("fuse-hard-sigmoid: fp16", X.replace("float", "float16"),
         "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: double", X.replace("float", "double"), f"{RAMP} y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: integers", X.replace("float", "int32").replace("0.16666667", "6"),
         f"{RAMP} y = Div(b, six)"),
    NoOp("fuse-hard-sigmoid: shift outside the branch",
         X.replace("x)", "x, bool c)").replace("float[2] c = {2, 4}, ", ""),
         "a = Add(x, three) " + branches("float[N,2]", "b = Clip(a, zero, six) s = Div(b, six)", "r = Neg(x)")),
    NoOp("fuse-hard-sigmoid: scaling inside a branch",
         X.replace("x)", "x, bool c)").replace("float[2] c = {2, 4}, ", ""),
         f"{RAMP} " + branches("float[N,2]", "s = Div(b, six)", "r = Neg(x)")),
    NoOp("fuse-hard-sigmoid: attribute by reference", "(float[2] x) => (float[2] y)", "y = f.F<k=6.>(x)", opset=10,
         functions=function("F <k>(x) => (y) { t = Constant<value=float {3}>() a = Add(x, t) "
                            "b = Clip<min:float=@k, max=6.>(a) y = Mul(b, t) }", opset=10)),
    NoOp("fuse-hard-swish: of two inputs", X.replace("x)", "x, float[N,2] u)"), "y = Mul(x, u)"),
    NoOp("fuse-hard-swish: old opset", X, f"b = {GATE}(x) y = Mul(x, b)", opset=13),
    NoOp("fuse-hard-swish: gate of another value", X, f"a = Neg(x) b = {GATE}(a) y = Mul(x, b)"),
    NoOp("fuse-hard-swish: gate has two users", X, f"b = {GATE}(x) a = Mul(x, b) y = Add(a, b)"),
    NoOp("fuse-hard-swish: gate squared", X, f"b = {GATE}(x) y = Mul(b, b)"),
    NoOp("fuse-hard-swish: gate is an output", X.replace("y)", "y, float[N,2] b)"), f"b = {GATE}(x) y = Mul(x, b)"),
    NoOp("fuse-hard-swish: another gate", X, "b = Sigmoid(x) y = Mul(x, b)"),
    NoOp("fuse-hard-swish: default slope", X, "b = HardSigmoid(x) y = Mul(x, b)"),
    NoOp("fuse-hard-swish: another offset", X, "b = HardSigmoid<alpha=0.16666667, beta=0.4>(x) y = Mul(x, b)"),
    NoOp("fuse-hard-swish: gate outside the branch", X.replace("x)", "x, bool c)").replace("float[2] c = {2, 4}, ", ""),
         f"b = {GATE}(x) " + branches("float[N,2]", "s = Mul(x, b)", "r = Neg(x)")),
    NoOp("fuse-hard-swish: attribute by reference", "(float[2] x) => (float[2] y)", "y = f.F<k=0.5>(x)",
         functions=function("F <k>(x) => (y) { b = HardSigmoid<alpha=0.16666667, beta:float=@k>(x) y = Mul(x, b) }")),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_hard_sigmoid.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_hard_sigmoid.RULES)
