"""fuse-clip, drop-clip: limits in a row, and limits that nothing comes up to; by attributes and by inputs."""

from __future__ import annotations

import pytest

from passes.rules import fuse_clip
from rewriting import assert_untouched, model, ops, rewritten

REWRITES = {
    "Relu of Relu, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Relu(a) }", 7),
        ["Relu"],
    ),
    "Relu of Sigmoid, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Sigmoid(x) y = Relu(a) }", 7),
        ["Sigmoid"],
    ),
    "Relu of Softmax, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Softmax<axis=1>(x) y = Relu(a) }", 7),
        ["Softmax"],
    ),
    "what is never negative has other users, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Abs(x) b = Relu(a) y = Add(a, b) }", 7),
        ["Abs", "Add"],
    ),
    "Clip of Clip, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Clip<min=-1., max=1.>(x) y = Clip<min=-2., max=1.>(a) }", 7),
        ["Clip"],
    ),
    "Clip of Relu, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Clip<min=0., max=6.>(a) }", 7),
        ["Clip"],
    ),
    "Relu of Clip, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Clip<min=-1., max=2.>(x) y = Relu(a) }", 7),
        ["Clip"],
    ),
    "always the same, opset 7": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Clip<max=-1.>(x) y = Clip<min=1.>(a) }", 7),
        ["Clip"],
    ),
    "Relu of Relu, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Relu(a) }", 10),
        ["Relu"],
    ),
    "Relu of Sigmoid, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Sigmoid(x) y = Relu(a) }", 10),
        ["Sigmoid"],
    ),
    "Relu of Softmax, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Softmax<axis=1>(x) y = Relu(a) }", 10),
        ["Softmax"],
    ),
    "what is never negative has other users, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Abs(x) b = Relu(a) y = Add(a, b) }", 10),
        ["Abs", "Add"],
    ),
    "Clip of Clip, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Clip<min=-1., max=1.>(x) y = Clip<min=-2., max=1.>(a) }", 10),
        ["Clip"],
    ),
    "Clip of Relu, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Clip<min=0., max=6.>(a) }", 10),
        ["Clip"],
    ),
    "Relu of Clip, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Clip<min=-1., max=2.>(x) y = Relu(a) }", 10),
        ["Clip"],
    ),
    "always the same, opset 10": (
        model("g (float[N,4] x) => (float[N,4] y) { a = Clip<max=-1.>(x) y = Clip<min=1.>(a) }", 10),
        ["Clip"],
    ),
    "Relu of Clip, opset 12": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, z, s) y = Relu(a) }",
            12,
        ),
        ["Clip"],
    ),
    "Clip that does less, opset 12": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, l) y = Relu(a) }",
            12,
        ),
        ["Relu"],
    ),
    "Max and Min, opset 12": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Max(x, z) y = Min(a, s) }",
            12,
        ),
        ["Clip"],
    ),
    "constants first, opset 12": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Max(z, x) y = Min(s, a) }",
            12,
        ),
        ["Clip"],
    ),
    "a Max below, opset 12": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Relu(x) y = Max(a, l) }",
            12,
        ),
        ["Relu"],
    ),
    "a Max above, opset 12": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Relu(x) y = Max(a, h) }",
            12,
        ),
        ["Clip"],
    ),
    "no lower limit, opset 12": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, , s) y = Clip(a, z) }",
            12,
        ),
        ["Clip"],
    ),
    "Relu of Clip, opset 20": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, z, s) y = Relu(a) }",
            20,
        ),
        ["Clip"],
    ),
    "Clip that does less, opset 20": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, l) y = Relu(a) }",
            20,
        ),
        ["Relu"],
    ),
    "Max and Min, opset 20": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Max(x, z) y = Min(a, s) }",
            20,
        ),
        ["Clip"],
    ),
    "constants first, opset 20": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Max(z, x) y = Min(s, a) }",
            20,
        ),
        ["Clip"],
    ),
    "a Max below, opset 20": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Relu(x) y = Max(a, l) }",
            20,
        ),
        ["Relu"],
    ),
    "a Max above, opset 20": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Relu(x) y = Max(a, h) }",
            20,
        ),
        ["Clip"],
    ),
    "no lower limit, opset 20": (
        model(
            "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
            "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, , s) y = Clip(a, z) }",
            20,
        ),
        ["Clip"],
    ),
}
NO_OPS = {
    "Relu twice of one value": model(
        "g (float[N,4] x) => (float[N,4] y, float[N,4] a) { a = Relu(x) y = Relu(x) }", 10
    ),
    "both are read": model("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Clip<max=6.>(a) y = Add(a, b) }", 10),
    "what may be negative": model("g (float[N,4] x) => (float[N,4] y) { a = Neg(x) y = Relu(a) }", 10),
    "a limit that Sigmoid reaches": model(
        "g (float[N,4] x) => (float[N,4] y) { a = Sigmoid(x) y = Clip<min=0.25, max=1.>(a) }", 10
    ),
    "a limit that Exp reaches": model("g (float[N,4] x) => (float[N,4] y) { a = Exp(x) y = Clip<max=2.>(a) }", 10),
    "input and output would be one": model("g (float[N,4] x) => (float[N,4] y) { y = Clip(x) }", 10),
    "a limit for each column": model(
        "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
        "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { y = Max(x, v) }"
    ),
    "a limit for each column, then one": model(
        "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
        "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Max(x, v) y = Relu(a) }"
    ),
    "an operator between": model(
        "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
        "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, h) b = Neg(a) y = Relu(b) }"
    ),
    "Sigmoid of Clip": model(
        "g (float[N,4] x) => (float[N,4] y) <float l = {-1}, float z = {0}, float h = {0.5}, float[1] "
        "one = {1}, float s = {6}, float[4] v = {0,1,0,1}> { a = Clip(x, h) y = Sigmoid(a) }"
    ),
    "a limit that an input decides": model(
        "g (float[N,4] x, float[1] l) => (float[N,4] y) { a = Max(x, l) y = Relu(a) }"
    ),
    "integers": model("g (int32[4] x) => (int32[4] y) <int32 z = {0}> { a = Clip(x, z) y = Clip(a, z) }"),
    "what is between is an output": model(
        "g (float[N,4] x) => (float[N,4] y, float[N,4] a) { a = Relu(x) y = Clip<max=6.>(a) }", 10
    ),
}


@pytest.mark.parametrize(("text", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrites(text, left):
    assert ops(rewritten(text, fuse_clip.RULES)) == left


@pytest.mark.parametrize("text", NO_OPS.values(), ids=NO_OPS)
def test_no_ops(text):
    assert_untouched(text, fuse_clip.RULES)
