"""fuse-clip, drop-clip: limits in a row, and limits that nothing comes up to; by attributes and by inputs."""

from __future__ import annotations

import pytest

from passes.rules import fuse_clip
from rule_tables import NoOp, Rewrite, check_no_op, check_rewrite

X = "(float[N,4] x) => (float[N,4] y)"
C = X + " <float l = {-1}, float z = {0}, float h = {0.5}, float[1] one = {1}, float s = {6}, float[4] v = {0,1,0,1}>"

# a row is seen at once: its name, its graph, what becomes of it
# fmt: off
REWRITES = [
    Rewrite("drop-clip: Relu of Relu, opset 7", X, "a = Relu(x) y = Relu(a)",
            after="y = Relu(x)", opset=7),
    Rewrite("drop-clip: Relu of Sigmoid, opset 7", X, "a = Sigmoid(x) y = Relu(a)",
            after="y = Sigmoid(x)", opset=7),
    Rewrite("drop-clip: Relu of Softmax, opset 7", X, "a = Softmax<axis=1>(x) y = Relu(a)",
            after="y = Softmax<axis=1>(x)", opset=7),
    Rewrite("drop-clip: what is never negative has other users, opset 7", X, "a = Abs(x) b = Relu(a) y = Add(a, b)",
            after="a = Abs(x) y = Add(a, a)", opset=7),
    Rewrite("drop-clip: Clip of Clip, opset 7", X, "a = Clip<min=-1., max=1.>(x) y = Clip<min=-2., max=1.>(a)",
            after="y = Clip<min=-1., max=1.>(x)", opset=7),
    Rewrite("fuse-clip: Clip of Relu, opset 7", X, "a = Relu(x) y = Clip<min=0., max=6.>(a)",
            after="y = Clip<min=0., max=6.>(x)", opset=7),
    Rewrite("fuse-clip: Relu of Clip, opset 7", X, "a = Clip<min=-1., max=2.>(x) y = Relu(a)",
            after="y = Clip<min=0., max=2.>(x)", opset=7),
    Rewrite("fuse-clip: always the same, opset 7", X, "a = Clip<max=-1.>(x) y = Clip<min=1.>(a)",
            after="y = Clip<min=1., max=1.>(x)", opset=7),
    Rewrite("drop-clip: Relu of Relu, opset 10", X, "a = Relu(x) y = Relu(a)",
            after="y = Relu(x)", opset=10),
    Rewrite("drop-clip: Relu of Sigmoid, opset 10", X, "a = Sigmoid(x) y = Relu(a)",
            after="y = Sigmoid(x)", opset=10),
    Rewrite("drop-clip: Relu of Softmax, opset 10", X, "a = Softmax<axis=1>(x) y = Relu(a)",
            after="y = Softmax<axis=1>(x)", opset=10),
    Rewrite("drop-clip: what is never negative has other users, opset 10", X, "a = Abs(x) b = Relu(a) y = Add(a, b)",
            after="a = Abs(x) y = Add(a, a)", opset=10),
    Rewrite("drop-clip: Clip of Clip, opset 10", X, "a = Clip<min=-1., max=1.>(x) y = Clip<min=-2., max=1.>(a)",
            after="y = Clip<min=-1., max=1.>(x)", opset=10),
    Rewrite("fuse-clip: Clip of Relu, opset 10", X, "a = Relu(x) y = Clip<min=0., max=6.>(a)",
            after="y = Clip<min=0., max=6.>(x)", opset=10),
    Rewrite("fuse-clip: Relu of Clip, opset 10", X, "a = Clip<min=-1., max=2.>(x) y = Relu(a)",
            after="y = Clip<min=0., max=2.>(x)", opset=10),
    Rewrite("fuse-clip: always the same, opset 10", X, "a = Clip<max=-1.>(x) y = Clip<min=1.>(a)",
            after="y = Clip<min=1., max=1.>(x)", opset=10),
    Rewrite("drop-clip: Relu of Clip, opset 12", C, "a = Clip(x, z, s) y = Relu(a)",
            after="y = Clip(x, z, s)", opset=12),
    Rewrite("fuse-clip: Clip that does less, opset 12", C, "a = Clip(x, l) y = Relu(a)",
            after="y = Relu(x)", opset=12),
    Rewrite("fuse-clip: Max and Min, opset 12", C, "a = Max(x, z) y = Min(a, s)",
            after="y = Clip(x, z, s)", opset=12),
    Rewrite("fuse-clip: constants first, opset 12", C, "a = Max(z, x) y = Min(s, a)",
            after="y = Clip(x, z, s)", opset=12),
    Rewrite("drop-clip: a Max below, opset 12", C, "a = Relu(x) y = Max(a, l)",
            after="y = Relu(x)", opset=12),
    Rewrite("fuse-clip: a Max above, opset 12", C, "a = Relu(x) y = Max(a, h)",
            after="y = Clip(x, h)", opset=12),
    Rewrite("fuse-clip: no lower limit, opset 12", C, "a = Clip(x, , s) y = Clip(a, z)",
            after="y = Clip(x, z, s)", opset=12),
    Rewrite("drop-clip: Relu of Clip, opset 20", C, "a = Clip(x, z, s) y = Relu(a)",
            after="y = Clip(x, z, s)", opset=20),
    Rewrite("fuse-clip: Clip that does less, opset 20", C, "a = Clip(x, l) y = Relu(a)",
            after="y = Relu(x)", opset=20),
    Rewrite("fuse-clip: Max and Min, opset 20", C, "a = Max(x, z) y = Min(a, s)",
            after="y = Clip(x, z, s)", opset=20),
    Rewrite("fuse-clip: constants first, opset 20", C, "a = Max(z, x) y = Min(s, a)",
            after="y = Clip(x, z, s)", opset=20),
    Rewrite("drop-clip: a Max below, opset 20", C, "a = Relu(x) y = Max(a, l)",
            after="y = Relu(x)", opset=20),
    Rewrite("fuse-clip: a Max above, opset 20", C, "a = Relu(x) y = Max(a, h)",
            after="y = Clip(x, h)", opset=20),
    Rewrite("fuse-clip: no lower limit, opset 20", C, "a = Clip(x, , s) y = Clip(a, z)",
            after="y = Clip(x, z, s)", opset=20),
]

NO_OPS = [
    NoOp("Relu twice of one value", "(float[N,4] x) => (float[N,4] y, float[N,4] a)", "a = Relu(x) y = Relu(x)",
         opset=10),
    NoOp("both are read", X, "a = Relu(x) b = Clip<max=6.>(a) y = Add(a, b)", opset=10),
    NoOp("what may be negative", X, "a = Neg(x) y = Relu(a)", opset=10),
    NoOp("a limit that Sigmoid reaches", X, "a = Sigmoid(x) y = Clip<min=0.25, max=1.>(a)", opset=10),
    NoOp("a limit that Exp reaches", X, "a = Exp(x) y = Clip<max=2.>(a)", opset=10),
    NoOp("input and output would be one", X, "y = Clip(x)", opset=10),
    NoOp("a limit for each column", C, "y = Max(x, v)"),
    NoOp("a limit for each column, then one", C, "a = Max(x, v) y = Relu(a)"),
    NoOp("an operator between", C, "a = Clip(x, h) b = Neg(a) y = Relu(b)"),
    NoOp("Sigmoid of Clip", C, "a = Clip(x, h) y = Sigmoid(a)"),
    NoOp("a limit that an input decides", "(float[N,4] x, float[1] l) => (float[N,4] y)", "a = Max(x, l) y = Relu(a)"),
    NoOp("integers", "(int32[4] x) => (int32[4] y) <int32 z = {0}>", "a = Clip(x, z) y = Clip(a, z)"),
    NoOp("what is between is an output", "(float[N,4] x) => (float[N,4] y, float[N,4] a)",
         "a = Relu(x) y = Clip<max=6.>(a)", opset=10),
]
# fmt: on


@pytest.mark.parametrize("row", REWRITES, ids=lambda row: row.name)
def test_rewrites(row):
    check_rewrite(row, fuse_clip.RULES)


@pytest.mark.parametrize("row", NO_OPS, ids=lambda row: row.name)
def test_no_ops(row):
    check_no_op(row, fuse_clip.RULES)
